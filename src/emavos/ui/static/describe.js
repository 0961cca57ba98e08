// What the page says: which buttons work, and the words and numbers around the picture.
import { $, announce, isOutdated, running, shown, touch } from "./state.js";
import { drawObjects } from "./objects.js";
import { guide } from "./clicks.js";
import { drawTimeline } from "./timeline.js";

// Make the buttons of a list anew if they changed; otherwise they keep the keyboard's focus.
const renewed = {};
export function renew(name, facts, make) {
  const now = JSON.stringify(facts);
  if (renewed[name] === now) return;
  renewed[name] = now;
  $(name).replaceChildren(...make());
}

// Time left, in words that do not change with each frame.
function left(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 5 ? ", seconds left" : seconds < 90 ? `, ${5 * Math.round(seconds / 5)} s left` : `, ${Math.round(seconds / 60)} min left`;
}

const words = { open: "reading the video: frame", track: "tracking:" };
export function describe() {
  const { state, project, index, edited, sure } = shown, job = state?.job, waiting = Boolean(job?.waiting), busy = running() || shown.sending;
  const idle = project && !busy && !shown.lost;
  $("name").textContent = project ? `${project.name} · ${project.width} × ${project.height} · ${project.count} frame${project.count === 1 ? "" : "s"}` : "no video yet";
  const share = running() && job.total && job.again === null ? `${Math.floor(100 * (job.done ?? 0) / job.total)}%` : "";
  document.title = [shown.news || share, project?.name, "emavos"].filter(Boolean).join(" · ");
  const enable = (name, when) => { $(name).disabled = !when; };
  enable("stop", (running() || waiting) && !shown.lost);
  for (const name of ["track", "add", "eraser", "mask"]) enable(name, idle);
  enable("undo", idle && (shown.past.length || edited || project.undo));
  enable("redo", idle && (shown.future.length || project.redo));
  enable("keep", idle && edited);
  enable("discard", idle && edited);
  enable("clean", idle && !state.clicks?.problem);
  enable("back", idle && index in project.given);
  enable("remove", idle && (shown.listed.size > 1 || project.ids.includes(shown.id)));
  enable("video", (!busy || job?.kind === "track" && !shown.sending) && !(state?.keeps && project) && !shown.lost);
  $("open").title = state?.keeps && project ? `this project is of ${project.name}; for another video, start emavos ui with another --project` : "";
  enable("play", project && !shown.lost);
  $("play").textContent = shown.playing ? "Pause" : "Play";
  for (const name of ["mark-in", "mark-out"]) enable(name, project && !shown.lost);
  enable("fix", idle && project.tracked);
  $("range").hidden = !shown.range;
  $("range").textContent = shown.range ? `${shown.range[0]}–${shown.range[1]} ×` : "";
  enable("downloads", idle && project.made);
  for (const button of document.querySelectorAll("[data-download]")) button.disabled = !idle || !project.made;
  $("exports-part").hidden = !project || project.tracked >= project.count;
  $("exports-part").textContent = project ? `${project.tracked} of ${project.count} frames are tracked. Only frames with an up-to-date mask are included, and videos end with the last of them.` : "";
  $("outdated").hidden = !project?.outdated.length;
  const queue = state?.queue, queued = (queue?.now ? 1 : 0) + (queue?.waiting ?? 0);
  const others = queued - (waiting || queue?.now && job?.number === queue.now.number ? 1 : 0);
  $("clips").hidden = !state?.clips;
  $("clips").textContent = `Clips (${state?.clips ?? 0})`;
  $("queue").hidden = !others;
  $("queue").textContent = others ? `${others} other clip${others === 1 ? "" : "s"} in the queue` : "";
  $("progress").hidden = !busy;
  $("doing").hidden = !busy && !waiting;
  $("doing").textContent = shown.sending ? "sending the video" : waiting ? "waits for another clip" : running() && job.again !== null ? `repeating the steps before frame ${job.again}` : `${words[job?.kind] ?? "writing: frame"} ${job?.done ?? 0}${job?.total ? ` of ${job.total}` : ""}${left(job?.seconds)}`;
  for (const name of ["writing", "stop-writing"]) $(name).hidden = !busy;
  $("writing").textContent = $("doing").textContent;
  for (const name of ["doing", "queue"]) $(name).title = $(name).textContent; // of which a narrow page may show only the beginning
  if (running() && job.total && job.again === null) [$("progress").max, $("progress").value] = [job.total, job.done ?? 0];
  else $("progress").removeAttribute("value"); // how far it is is not known
  $("frame").textContent = project && shown.mask ? `frame ${index} of ${project.count - 1}` : "–";
  $("kind").textContent = !project ? "" : edited ? (shown.clicks ? "proposal, not kept yet" : "edited, not kept yet")
    : index in project.given ? "given by you" : shown.preview ? "tracked backward, not stored yet" : index in sure ? "tracked"
    : isOutdated(project, index) ? "outdated: track again" : "no mask yet";
  const elsewhere = (project?.drafts ?? []).filter((one) => one !== index);
  $("drafts").hidden = !elsewhere.length;
  $("drafts").textContent = elsewhere.length ? `Not kept yet: frame ${elsewhere.slice(0, 5).join(", ")}${elsewhere.length > 5 ? " …" : ""}` : "";
  describeTools();
  drawObjects();
  announce("clips");
  document.body.dataset.job = running() ? job.kind : "";
  document.body.dataset.reached = project?.reached ?? "";
  drawTimeline();
}

function describeTools() {
  const { project, tool } = shown, problem = shown.state?.clicks?.problem;
  for (const name of ["click", "brush", "lasso"]) {
    $(`tool-${name}`).disabled = !project || running() || shown.lost || name === "click" && Boolean(problem);
    $(`tool-${name}`).setAttribute("aria-pressed", String(tool === name));
  }
  $("click-box").title = problem ?? "click on the object, right or Alt click on what is not part of it, or drag a box around it (C)";
  $("eraser").setAttribute("aria-pressed", String(shown.erase));
  $("eraser").textContent = tool === "click" ? "Not part" : "Eraser";
  $("guide").textContent = !project ? "" : tool === "click" ? guide()
    : (tool === "lasso" ? `Drag around an area${shown.erase ? " to erase" : ""}, or ${touch() ? "tap its corners and tap the last twice." : "click its corners and double-click the last."}`
      : `${shown.erase ? "Erase what is not part of" : "Paint"} the object.${touch() ? " Two fingers zoom and move." : " The wheel changes the size."}`)
      + (touch() || shown.erase ? "" : " Right button erases.");
  if (project && tool !== "click" && problem) $("guide").textContent += ` Clicks: ${problem}`;
  $("canvas").dataset.tool = tool;
}
