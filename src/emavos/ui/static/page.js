// The page of emavos ui: this file wires the buttons. Read on in sync.js (what the server says), edits.js,
// clips.js, tracking.js, pointer.js and keys.js; view.js and timeline.js draw, describe.js writes.
import { $, events, say, shown } from "./state.js";
import { ask } from "./server.js";
import { act, openDialog, press, quietly } from "./acting.js";
import { describe } from "./describe.js";
import { draw, drawMarks, fit } from "./view.js";
import { blocked, discard, saveDraft } from "./painting.js";
import { cleanUp } from "./clicks.js";
import { locked } from "./objects.js";
import { keep, load, redo, remove, takeBack, undo } from "./edits.js";
import { choose, use } from "./tools.js";
import { download, track } from "./tracking.js";
import { add, drawClips, showClips, trackAll } from "./clips.js";
import { drawTimeline, frameAt } from "./timeline.js";
import { follow, go, watch } from "./sync.js";
import { clearRange, mark, play } from "./playback.js";
import { nextToFix } from "./review.js";
import "./pointer.js";
import "./crosshair.js";
import "./peek.js";
import "./keys.js";

events.addEventListener("painted", describe);
events.addEventListener("clips", () => quietly(drawClips));

const scrub = (event) => shown.project && quietly(() => go(frameAt(event)));
$("timeline").onpointerdown = (event) => { say(""); scrub(event); };
$("timeline").onpointermove = (event) => event.buttons === 1 && scrub(event);
window.onresize = drawTimeline;
matchMedia("(prefers-color-scheme: light)").onchange = drawTimeline;

for (const [name, action] of Object.entries({ remove, undo, redo, keep, track, discard, fit, back: takeBack, play: () => shown.project && play() })) press(name, action);
press("add", () => choose(Math.min(Math.max(0, ...shown.listed) + 1, 255)));
press("eraser", () => { shown.erase = !shown.erase; describe(); drawMarks(); });
for (const name of ["stop", "stop-writing"]) press(name, () => ask("POST", "stop"));
press("clean", async () => {
  if (blocked() || locked()) return;
  await cleanUp();
  if (shown.clicks) use("click"); // which refines it
});
press("help", () => openDialog("keys"));
press("mark-in", () => mark(0));
press("mark-out", () => mark(1));
press("range", clearRange);
press("fix", nextToFix);
press("clips", showClips);
press("downloads", () => openDialog("exports"));
press("track-all", trackAll);
press("stop-all", () => ask("POST", "stop?all=1"));
press("drafts", () => go(shown.project.drafts.find((one) => one !== shown.index) ?? shown.index));
for (const tool of ["click", "brush", "lasso"]) press(`tool-${tool}`, () => use(tool));
for (const button of document.querySelectorAll("[data-download]"))
  button.onclick = async () => {
    await act(() => download(button.dataset.download));
    if ($("exports").contains(document.activeElement) || document.activeElement === document.body) button.focus(); // which it lost, disabled
  };
for (const [name, action] of [["video", add], ["mask", (files) => load(files[0])]])
  $(name).onchange = (event) => {
    const files = [...event.target.files];
    if (files.length) act(() => action(files).finally(() => { $(name).value = ""; }));
  };
$("opacity").oninput = () => draw();
$("size").oninput = drawMarks;
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  if ($("video").disabled) say($("open").title || "wait until this is done, then drop the video again", "error");
  else act(() => add(files));
};
window.addEventListener("pagehide", () => quietly(saveDraft));
quietly(follow).then(watch);
