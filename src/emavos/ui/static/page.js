// The page of emavos ui. This file wires buttons, keys and pointer to the other modules:
// server.js (requests), state.js (what is shown), view.js (canvas), painting.js, clicks.js, timeline.js.
import { $, colour, events, outdatedFrames, running, say, shown } from "./state.js";
import { ask, bytes } from "./server.js";
import { at, draw, drawMarks, fit, hints, inside, panBy, resizeCanvas, zoomAt } from "./view.js";
import { blocked, change, discard, fill, forgetTimer, painted, redoStroke, saveDraft, stroke, undoDraft, undoStroke } from "./painting.js";
import { click, guide, lookSoon, settle } from "./clicks.js";
import { drawTimeline, frameAt } from "./timeline.js";

const canvas = $("canvas");
let known = 0, edits = ""; // confidence is known of the frames before `known`, after so many edits
let tagged = ""; // stamp of the frame on the canvas
let following = false, sending = false, showing = 0, toldJob = 0;

const stamp = (index) => `${edits} ${index in shown.sure}`; // differs once a frame has another mask

// Run an action of the person: old messages go, and an error is told.
const act = (action) => {
  if (!shown.lost) say("");
  return quietly(action);
};
const quietly = (action) => Promise.resolve().then(action).catch((error) => {
  if (error.lost) lose(error);
  else say(error.message, "error");
});
const press = (name, action) => { $(name).onclick = () => act(action); };

function lose(error) {
  shown.lost = true;
  const again = shown.project?.again ?? "emavos ui";
  $("lost").hidden = false;
  $("again").textContent = again;
  $("why").textContent = error.message.startsWith("open") ? "This address is of an emavos ui that has ended, or lacks its token. Open the address that was printed last, or start it again:"
    : "emavos ui has ended. Your masks are kept. Start it again in a terminal, and open the address it prints:";
  describe();
}

async function refresh() {
  const before = shown.state?.job;
  shown.state = await (await ask("GET", "state")).json();
  const { state } = shown, project = shown.project = state.project;
  shown.lost = false;
  $("lost").hidden = true;
  if (project && state.key !== shown.key) await begin();
  if (project) {
    const now = `${shown.key} ${project.edits}`;
    if (now !== edits) [edits, shown.sure, known] = [now, {}, 0];
    if (project.reached > known) {
      Object.assign(shown.sure, await (await ask("GET", `confidence?start=${known}`)).json());
      known = project.reached;
    }
    project.ids.forEach((one) => shown.listed.add(one));
  }
  const { job } = state;
  if (job?.error && job.number !== toldJob) {
    toldJob = job.number;
    say(job.error, "error");
  } else if (before?.running && job && !job.running && job.number === before.number) toldJob = job.number;
  describe();
}

async function begin() { // another project is open
  shown.key = shown.state.key;
  resizeCanvas(shown.project.width, shown.project.height);
  canvas.hidden = false;
  $("empty").hidden = true;
  Object.assign(shown, { picture: null, mask: null, id: 1, listed: new Set([1]), edited: false, clicks: null, past: [], future: [] });
  shown.tool = shown.project.first === null && !shown.state.clicks?.problem ? "click" : "brush";
  edits = "";
  await show(shown.project.drafts[0] ?? 0);
  if (shown.state.notes.length) say(shown.state.notes.join("; "));
}

// Make the buttons of a list anew if they changed; otherwise they keep the keyboard's focus.
const renewed = {};
function renew(name, facts, make) {
  const now = JSON.stringify(facts);
  if (renewed[name] === now) return;
  renewed[name] = now;
  $(name).replaceChildren(...make());
}

const words = { open: "reading the video: frame", track: "tracking: done" };
function describe() {
  const { state, project, index, edited, sure } = shown, job = state?.job, busy = running() || sending;
  const idle = project && !busy && !shown.lost;
  $("name").textContent = project ? `${project.name} · ${project.width} × ${project.height} · ${project.count} frame${project.count === 1 ? "" : "s"}` : "no video yet";
  document.title = project ? `${project.name} · emavos` : "emavos";
  const enable = (name, when) => { $(name).disabled = !when; };
  enable("stop", running());
  for (const name of ["track", "add", "eraser", "mask"]) enable(name, idle);
  enable("undo", idle && (shown.past.length || edited || project.undo));
  enable("redo", idle && (shown.future.length || project.redo));
  enable("keep", idle && edited);
  enable("discard", idle && edited);
  enable("back", idle && index in project.given);
  enable("remove", idle && (shown.listed.size > 1 || project.ids.includes(shown.id)));
  enable("video", !busy && !(state?.keeps && project) && !shown.lost);
  $("open").title = state?.keeps && project ? `this project is of ${project.name}; for another video, start emavos ui with another --project` : "";
  enable("play", project && !shown.lost);
  for (const button of document.querySelectorAll("[data-download]")) button.disabled = !idle || !project.made;
  $("outdated").hidden = !project || !outdatedFrames(project);
  $("earlier").hidden = !state?.left.length;
  renew("earlier", [state?.left, busy], () => (state?.left ?? []).map((one, number) => {
    const button = document.createElement("button");
    button.textContent = one.name;
    button.title = `go back to the work in ${one.folder}`;
    button.disabled = busy;
    button.onclick = () => act(async () => {
      await saveDraft();
      await ask("POST", `left/${number}`);
      await refresh();
    });
    return button;
  }));
  $("progress").hidden = $("doing").hidden = !busy;
  $("doing").textContent = sending ? "sending the video" : `${words[job?.kind] ?? "writing: frame"} ${job?.done ?? 0}${job?.total ? ` of ${job.total}` : ""}`;
  if (running() && job.total) [$("progress").max, $("progress").value] = [job.total, job.done ?? 0];
  else $("progress").removeAttribute("value"); // how far it is is not known
  $("frame").textContent = project && shown.mask ? `frame ${index} of ${project.count - 1}` : "–";
  $("kind").textContent = !project ? "" : edited ? (shown.clicks ? "proposal, not kept yet" : "edited, not kept yet")
    : index in project.given ? "given by you" : index in sure ? "tracked"
    : index >= project.reached && index < project.made ? "outdated: track again" : "no mask yet";
  const elsewhere = (project?.drafts ?? []).filter((one) => one !== index);
  $("drafts").hidden = !elsewhere.length;
  $("drafts").textContent = elsewhere.length ? `Not kept yet: frame ${elsewhere.slice(0, 5).join(", ")}${elsewhere.length > 5 ? " …" : ""}` : "";
  describeTools();
  renew("objects", [[...shown.listed], shown.id, sure[index]], () => [...shown.listed].sort((a, b) => a - b).map((one) => {
    const button = document.createElement("button"), of = sure[index]?.[one];
    button.textContent = `${one}${of === undefined ? "" : ` · ${Math.round(100 * of)}%`}`;
    button.title = of === undefined ? `object ${one}` : `object ${one}: how sure its mask is on this frame`;
    button.style.setProperty("--colour", `rgb(${colour(one)})`);
    button.setAttribute("aria-pressed", String(shown.id === one));
    button.onclick = () => choose(one);
    return button;
  }));
  document.body.dataset.job = running() ? job.kind : "";
  document.body.dataset.reached = project?.reached ?? "";
  drawTimeline();
}

function describeTools() {
  const { project, tool } = shown, problem = shown.state?.clicks?.problem;
  for (const name of ["click", "brush", "lasso"]) {
    $(`tool-${name}`).disabled = !project || running() || name === "click" && Boolean(problem);
    $(`tool-${name}`).setAttribute("aria-pressed", String(tool === name));
  }
  $("click-box").title = problem ?? "click on the object, right or Alt click on what is not part of it, or drag a box around it (C)";
  $("eraser").setAttribute("aria-pressed", String(shown.erase));
  $("eraser").hidden = tool === "click";
  $("guide").textContent = !project ? "" : tool === "click" ? guide()
    : tool === "lasso" ? "Drag around an area, or click its corners and double-click the last. Right button erases."
    : "Paint the object. Right button erases, the wheel changes the size.";
  if (project && tool !== "click" && problem) $("guide").textContent += ` Clicks: ${problem}`;
  canvas.dataset.tool = tool;
}
events.addEventListener("painted", describe);

function choose(one) {
  if (one !== shown.id && shown.clicks) settle();
  shown.listed.add(one);
  [shown.id, shown.erase] = [one, false];
  describe();
}

function use(tool) {
  if ($(`tool-${tool}`).disabled) return;
  if (tool !== "click" && shown.clicks) settle();
  shown.tool = tool;
  hints.path = null;
  drawMarks();
  describe();
  lookSoon();
}

async function show(next) {
  await quietly(saveDraft); // strokes that were not kept stay with their frame
  const turn = ++showing, { key, project } = shown, index = Math.min(Math.max(next, 0), project.count - 1);
  const stamped = stamp(index);
  const frame = ask("GET", `frames/${index}?project=${key}`).then((answer) => answer.blob()).then(createImageBitmap);
  const [image, answer] = await Promise.all([frame, outdated(() => ask("GET", `masks/${index}`))]);
  const ids = await bytes(answer), edited = answer.headers.get("x-draft") === "1";
  const mask = edited ? await bytes(await ask("GET", `drafts/${index}`)) : ids.slice();
  if (turn !== showing) return; // another frame was asked for meanwhile
  shown.picture?.close();
  const moved = index !== shown.index;
  Object.assign(shown, { index, picture: image, mask, base: ids, tag: answer.headers.get("etag"), past: [], future: [], clicks: null, edited });
  if (edited) new Set(mask).forEach((one) => one && shown.listed.add(one));
  tagged = stamped;
  draw();
  drawMarks();
  describe();
  if (moved || !shown.playing) lookSoon();
}

async function keep() {
  if (!shown.edited) return;
  if (blocked()) return;
  forgetTimer();
  settle();
  await outdated(() => ask("PUT", `masks/${shown.index}`, shown.mask, { "if-match": shown.tag }));
  [shown.edited, shown.past, shown.future] = [false, [], []];
  await refresh();
  await show(shown.index);
}

// What another window changed is shown as it is now, and under strokes that were not kept yet.
async function outdated(action) {
  try {
    return await action();
  } catch (error) {
    if (!error.outdated) throw error;
    const { key, index, base, mask, edited } = shown;
    shown.edited = false;
    forgetTimer();
    await refresh();
    if (shown.key === key) await show(index);
    if (shown.key === key && edited) {
      change();
      shown.mask = shown.mask.map((one, i) => (mask[i] === base[i] ? one : mask[i]));
      painted();
    }
    if (shown.edited) error.message += ", under your strokes: keep it again";
    throw error; // and is told
  }
}

async function undo() {
  if (shown.past.length) return undoStroke();
  if (shown.edited) return undoDraft();
  return travel("undo");
}

async function redo() {
  if (shown.future.length) return redoStroke();
  return travel("redo");
}

async function travel(way) { // over all that was kept, in the whole project
  if (blocked() || !shown.project?.[way]) return;
  const answer = await outdated(() => ask("POST", way, undefined, { "if-match": String(shown.project.edits) }));
  const { what, frame } = await answer.json();
  shown.listed = new Set([shown.id]);
  await refresh();
  await show(frame);
  say(`${way === "undo" ? "undone" : "done again"}: ${what}, frame ${frame}`);
}

async function track() {
  await keep();
  if (shown.project.drafts.length && shown.project.first === null) await show(shown.project.drafts[0]), await keep();
  await outdated(() => ask("POST", "track"));
  following = true;
  await follow();
}

async function follow() { // until what is being done is done
  await refresh();
  while (running()) {
    await new Promise((done) => setTimeout(done, 250));
    await refresh();
    const { project, state } = shown;
    if (state.job.kind === "track" && following && project.reached > 0 && shown.index !== project.reached - 1) await show(project.reached - 1);
  }
  following = false;
  if (shown.project && tagged !== stamp(shown.index) && !shown.edited) await show(shown.index);
}

async function download(name) {
  const also = outdatedFrames(shown.project) > 0 && $("with-outdated").checked;
  await outdated(() => ask("POST", `downloads/${name}${also ? "?outdated=1" : ""}`));
  await follow();
  const { job } = shown.state;
  if (job.kind !== name || job.error || job.stopped) return;
  const answer = await ask("GET", `downloads/${name}`), link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = /filename="(.*)"/.exec(answer.headers.get("content-disposition"))[1];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function open(file) {
  const left = shown.project;
  await saveDraft();
  sending = true;
  describe();
  try {
    await ask("PUT", `video?name=${encodeURIComponent(file.name)}`, file);
  } finally {
    sending = false;
    describe();
  }
  await follow();
  if (left && !shown.state.job.error) say(`the work on ${left.name} is in ${left.folder}`);
}

async function load(file) {
  if (blocked()) return;
  const ids = await bytes(await ask("POST", "mask-file", file));
  change();
  settle();
  shown.mask = ids;
  new Set(ids).forEach((one) => one && shown.listed.add(one));
  painted();
}

async function remove() {
  const { id, project } = shown;
  if (project.ids.includes(id)) {
    await outdated(() => ask("DELETE", `objects/${id}`, undefined, { "if-match": String(project.edits) }));
    say(`object ${id} is removed from all frames; Undo brings it back`);
  }
  shown.listed.delete(id);
  [shown.id] = shown.listed.size ? shown.listed : [1];
  shown.listed.add(shown.id);
  await refresh();
  await show(shown.index);
}

async function takeBack() {
  await outdated(() => ask("DELETE", `masks/${shown.index}`, undefined, { "if-match": shown.tag }));
  await refresh();
  await show(shown.index);
  say(`the mask of frame ${shown.index} is taken back; Undo brings it back`);
}

function go(next) { // where a person looks, the page does not look away
  following = false;
  return show(next);
}

async function play() {
  shown.playing = !shown.playing;
  $("play").textContent = shown.playing ? "Pause" : "Play";
  if (shown.playing && shown.index === shown.project.count - 1) await go(0);
  while (shown.playing && shown.index < shown.project.count - 1)
    await Promise.all([go(shown.index + 1), new Promise((done) => setTimeout(done, 1000 / (shown.project.fps || 25)))]);
  shown.playing = false;
  $("play").textContent = "Play";
}

// The pointer on the canvas: one finger or button edits, two fingers or Space zoom and pan.
const pointers = new Map();
let gesture = null, space = false, panned = false;

const spread = () => {
  const [[x0, y0], [x1, y1]] = pointers.values();
  return [(x0 + x1) / 2, (y0 + y1) / 2, Math.hypot(x1 - x0, y1 - y0)];
};
const value = (button) => (shown.erase || button === 2 ? 0 : shown.id);

canvas.onpointerdown = (event) => {
  if (!shown.mask) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (pointers.size === 2) { // what one finger began is taken back
    if (gesture?.kind === "stroke") undoStroke(), shown.future = [];
    hints.box = hints.path = null;
    gesture = { kind: "pinch", at: spread() };
    return;
  }
  const here = at(event), button = event.altKey ? 2 : event.button;
  if (space || button === 1) gesture = { kind: "pan", from: [event.clientX, event.clientY] };
  else if (gesture?.kind === "polygon") gesture.corners.push(here), hints.path = [...gesture.corners];
  else if (!blocked()) {
    say("");
    gesture = { kind: shown.tool === "brush" ? "stroke" : shown.tool, from: here, button, corners: [here] };
    if (gesture.kind === "stroke") {
      change();
      settle();
      stroke(here, here, value(button));
    }
  }
  drawMarks();
};

canvas.onpointermove = (event) => {
  const here = at(event);
  hints.pointer = event.pointerType === "touch" ? null : here;
  if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (gesture?.kind === "pinch" && pointers.size === 2) {
    const [x, y, far] = spread(), [x0, y0, far0] = gesture.at;
    panBy(x - x0, y - y0);
    zoomAt(x, y, far / Math.max(far0, 1));
    gesture.at = [x, y, far];
  } else if (gesture?.kind === "pan") {
    panned = true;
    panBy(event.clientX - gesture.from[0], event.clientY - gesture.from[1]);
    gesture.from = [event.clientX, event.clientY];
  } else if (gesture?.kind === "stroke") {
    stroke(gesture.from, here, value(gesture.button));
    gesture.from = here;
  } else if (gesture?.kind === "click") hints.box = dragged(gesture.from, here);
  else if (gesture?.kind === "lasso") {
    gesture.corners.push(here);
    hints.path = gesture.corners;
  } else if (gesture?.kind === "polygon") hints.path = [...gesture.corners, here];
  drawMarks();
};

// The box between two points, clipped to the frame; null if it is too small to be meant.
function dragged([x0, y0], [x1, y1]) {
  const clip = (one, most) => Math.min(Math.max(one, 0), most), { width, height } = canvas;
  const box = [clip(Math.min(x0, x1), width), clip(Math.min(y0, y1), height), clip(Math.max(x0, x1), width), clip(Math.max(y0, y1), height)];
  const scale = canvas.getBoundingClientRect().width / canvas.width;
  return Math.min(box[2] - box[0], box[3] - box[1]) * scale >= 8 ? box : null;
}

function endPolygon() {
  const { corners, button } = gesture;
  gesture = hints.path = null;
  if (corners.length < 3) return drawMarks();
  change();
  settle();
  fill(corners, value(button));
  painted();
}

canvas.onpointerup = (event) => {
  pointers.delete(event.pointerId);
  const done = gesture, here = at(event);
  if (!done || done.kind === "polygon") return;
  if (done.kind === "pinch") {
    if (!pointers.size) gesture = null;
    return;
  }
  gesture = null;
  if (done.kind === "stroke") painted();
  if (done.kind === "click") {
    const box = dragged(done.from, here);
    hints.box = null;
    if (box || inside(done.from)) act(() => click(done.from, done.button === 2 ? 0 : 1, box));
    drawMarks();
  }
  if (done.kind === "lasso") {
    gesture = { ...done, kind: "polygon" };
    if (dragged(done.from, here) || done.corners.length > 8) endPolygon(); // drawn freely
    else gesture.corners = [done.from]; // a click: the first corner
  }
};
canvas.ondblclick = () => gesture?.kind === "polygon" && endPolygon();
canvas.onpointerleave = () => { hints.pointer = null; drawMarks(); };
canvas.onpointercancel = (event) => { pointers.delete(event.pointerId); gesture = hints.box = hints.path = null; drawMarks(); };
canvas.oncontextmenu = () => false;
$("stage").addEventListener("wheel", (event) => {
  if (!shown.project) return;
  event.preventDefault();
  if (event.ctrlKey || event.metaKey || shown.tool !== "brush") zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 300));
  else resize(event.deltaY < 0 ? 2 : -2);
}, { passive: false });

function resize(by) {
  $("size").value = +$("size").value + by;
  drawMarks();
}

const scrub = (event) => shown.project && quietly(() => go(frameAt(event)));
$("timeline").onpointerdown = (event) => { say(""); scrub(event); };
$("timeline").onpointermove = (event) => event.buttons === 1 && scrub(event);
window.onresize = drawTimeline;
matchMedia("(prefers-color-scheme: light)").onchange = drawTimeline;

for (const [name, action] of Object.entries({ remove, undo, redo, keep, track, discard, fit, back: takeBack, play: () => shown.project && play() })) press(name, action);
press("add", () => choose(Math.min(Math.max(0, ...shown.listed) + 1, 255)));
press("eraser", () => { shown.erase = !shown.erase; describe(); });
press("stop", () => ask("POST", "stop"));
press("help", () => $("keys").showModal());
press("drafts", () => go(shown.project.drafts.find((one) => one !== shown.index) ?? shown.index));
for (const tool of ["click", "brush", "lasso"]) press(`tool-${tool}`, () => use(tool));
for (const button of document.querySelectorAll("[data-download]")) button.onclick = () => act(() => download(button.dataset.download));
for (const [name, action] of [["video", open], ["mask", load]])
  $(name).onchange = (event) => {
    const file = event.target.files[0];
    if (file) act(() => action(file).finally(() => { $(name).value = ""; }));
  };
$("opacity").oninput = () => draw();
$("size").oninput = drawMarks;
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (!file) return;
  if ($("video").disabled) say($("open").title || "wait until this is done, then drop the video again", "error");
  else act(() => open(file));
};

// A button that was clicked lets go of the keys; one that was reached by Tab keeps Space and Enter.
document.addEventListener("click", (event) => event.detail && event.target.closest("button, input, label")?.blur());
const keys = {
  ArrowLeft: () => go(shown.index - 1), ArrowRight: () => go(shown.index + 1), Home: () => go(0), End: () => go(shown.project.count - 1),
  Enter: () => (gesture?.kind === "polygon" ? endPolygon() : keep()),
  Escape: () => {
    if (gesture?.kind === "polygon") gesture = hints.path = null, drawMarks();
    else if (shown.edited && !blocked()) discard();
  },
  c: () => use("click"), b: () => use("brush"), l: () => use("lasso"), e: () => $("eraser").click(), f: fit,
  "[": () => resize(-2), "]": () => resize(2),
};
document.onkeydown = (event) => {
  if ($("keys").open || event.altKey || event.target.type === "range") return;
  if (event.key === "?") return $("keys").showModal();
  if (!shown.project || [" ", "Enter"].includes(event.key) && event.target.closest("button, input, label")) return;
  if (event.key === " ") {
    event.preventDefault();
    if (!event.repeat) [space, panned] = [true, false];
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, ctrl = event.ctrlKey || event.metaKey;
  const action = ctrl ? (key === "z" ? (event.shiftKey ? redo : undo) : key === "y" ? redo : null)
    : /^[1-9]$/.test(key) ? () => choose(+key) : keys[key];
  if (!action) return;
  event.preventDefault();
  if (ctrl && blocked()) return;
  act(action);
};
document.onkeyup = (event) => {
  if (event.key !== " " || !space) return;
  space = false;
  if (!panned) act(play);
};
window.onblur = () => { space = false; };
window.addEventListener("pagehide", () => quietly(saveDraft));

// Look now and then what the server and other windows do.
async function watch() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 1500));
    if (document.hidden || sending || running() && following || gesture) continue;
    await quietly(async () => {
      await refresh();
      if (shown.project && tagged !== stamp(shown.index) && !shown.edited && !shown.playing) await show(shown.index);
    });
  }
}
quietly(follow).then(watch);
