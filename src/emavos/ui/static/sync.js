// The page and the server: the state is asked for, frames are shown, and other windows are noticed.
import { $, running, say, shown } from "./state.js";
import { ask, bytes } from "./server.js";
import { quietly } from "./acting.js";
import { describe } from "./describe.js";
import { draw, drawMarks, resizeCanvas } from "./view.js";
import { change, forgetTimer, painted, saveDraft, unsaved } from "./painting.js";
import { lookSoon } from "./clicks.js";
import { dropPolygon, idle, stroking } from "./pointer.js";

let known = 0, count = 0, edits = ""; // confidence is known of `count` frames, of all before `known`, after so many edits
let tagged = ""; // stamp of the frame on the canvas
let coming = null; // {index} of the frame that was asked for last, until it is shown
let following = false, showing = 0, mending = 0, toldJob = 0;
const toldFailed = new Set(); // numbers of jobs that could not read a video
const places = new Map(); // the frame that was shown last of each project

const stamp = (index) => `${edits} ${index in shown.sure}`; // differs once a frame has another mask

// beyond: a job; the server answers once the job has gone on, or a quarter of a second later.
export async function refresh(beyond = null) {
  const before = shown.state?.job, queue = shown.state?.queue;
  shown.state = await (await ask("GET", `state${beyond ? `?job=${beyond.number}&done=${beyond.done ?? ""}` : ""}`)).json();
  const { state } = shown, project = shown.project = state.project;
  shown.lost = false;
  $("lost").hidden = true;
  if (project && state.key !== shown.key) await begin();
  if (project) {
    const now = `${shown.key} ${project.edits}`;
    if (now !== edits) [edits, shown.sure, known, count] = [now, {}, 0, 0];
    if (project.tracked !== count) {
      const start = project.reached > known ? known : 0; // or, if tracked backward, any frame may be new
      Object.assign(shown.sure, await (await ask("GET", `confidence?start=${start}`)).json());
      [known, count] = [project.reached, project.tracked];
    }
    project.ids.forEach((one) => shown.listed.add(one));
  }
  const { job } = state;
  if (job?.error && job.number !== toldJob) {
    toldJob = job.number;
    say(job.error, "error");
  } else if (before?.running && job && !job.running && job.number === before.number) toldJob = job.number;
  tellEnd(before, queue);
  for (const { number, video, error } of state.failed) if (!toldFailed.has(number)) {
    toldFailed.add(number);
    say(`${video} was not added: ${error}`, "error");
  }
  describe();
}

// What has ended is told: in words, and in the title of a page in the background.
let ended = 0; // number of the last job
function tellEnd(before, queue) {
  const { state: { job, queue: now }, project } = shown, over = job && !job.running && !job.waiting;
  if (over && job.number !== ended && (following || before?.number === job.number && (before.running || before.waiting))) {
    ended = job.number;
    if (job.kind === "track" && !job.error) say(endOf(job, project));
    if (document.hidden) shown.news = job.error ? "failed" : job.stopped ? "stopped" : "done";
  } else if (queue?.now && !now.now && !now.waiting && queue.now.number !== job?.number) {
    say("the other clips are done: see Clips");
    if (document.hidden) shown.news = "done";
  }
}
function endOf({ way, stopped }, { first, reached }) {
  if (way === "forward" && reached) return stopped ? `stopped: tracked to frame ${reached - 1}; Track continues` : `done: tracked to frame ${reached - 1}`;
  return stopped ? "stopped" : way === "both" ? "done: tracked both ways" : `done: tracked backward from frame ${first}`;
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  shown.news = "";
  describe();
});

async function begin() { // another project is open
  forgetTimer(); // strokes of the earlier project cannot be stored any more
  shown.key = shown.state.key;
  shown.playing = following = false;
  resizeCanvas(shown.project.width, shown.project.height);
  $("canvas").hidden = false;
  $("empty").hidden = true;
  const { ids, switches } = shown.project, has = (id) => ids.includes(id); // an object may be gone, by an undo
  Object.assign(shown, { picture: null, mask: null, id: 1, listed: new Set([1]), range: null, hiddenIds: new Set(switches.hidden.filter(has)), alone: has(switches.alone) ? switches.alone : null, locked: new Set(switches.locked.filter(has)), edited: false, clicks: null, past: [], future: [] });
  shown.tool = shown.project.first === null && !shown.state.clicks?.problem ? "click" : "brush";
  edits = "";
  const before = beforeReload();
  await show(places.get(shown.project.folder) ?? shown.project.drafts[0] ?? before.index ?? 0);
  if (shown.listed.has(before.id) || has(before.id)) shown.id = before.id;
  else if (shown.edited) chooseDraft();
  if (shown.state.notes.length) say(shown.state.notes.join("; "));
}

function chooseDraft() { // go on with the object of the strokes that were not kept, not with another
  const { mask, base } = shown, changed = mask.findIndex((one, i) => one !== base[i]);
  shown.id = mask[changed] || base[changed] || shown.id;
}

// The frame and the object of this tab before a reload.
function beforeReload() {
  try {
    const before = JSON.parse(sessionStorage.getItem("emavos-place"));
    if (before?.folder === shown.project.folder) return before;
  } catch { /* the browser stores nothing */ }
  return {};
}
window.addEventListener("pagehide", () => {
  const place = { folder: shown.project?.folder, index: shown.index, id: shown.id };
  try { sessionStorage.setItem("emavos-place", JSON.stringify(place)); } catch { /* then a reload shows the first frame */ }
});

// preview: show this mask of a pass backward, which is not stored yet.
export async function show(next, preview = null) {
  const asked = coming = { index: next };
  try {
    await bring(next, preview);
  } finally {
    if (coming === asked) coming = null;
  }
}

export const isShown = () => coming === null; // whether the frame that was asked for last is on the canvas
export const aim = () => coming?.index ?? shown.index; // that frame

async function showPreview() {
  const answer = await ask("GET", "preview");
  if (answer.status !== 204 && following) await show(+answer.headers.get("x-frame"), await bytes(answer));
}

// While a mask is sent to be kept, and a stroke is drawn, the frame on the canvas is not replaced by what was asked for before.
let sent = 0, answered = 0;
export async function keeping(answer) {
  sent++;
  try {
    return await answer;
  } finally {
    answered++;
  }
}

// Show the frame on the canvas again, unless the person has asked for another meanwhile.
export async function showAgain() {
  if (!coming || coming.index === shown.index) await show(shown.index);
}

async function bring(next, preview) {
  await quietly(saveDraft); // strokes that were not kept stay with their frame
  const turn = ++showing, before = answered, { key, project } = shown, index = Math.min(Math.max(next, 0), project.count - 1);
  const stamped = stamp(index);
  const frame = ask("GET", `frames/${index}?project=${key}`).then((answer) => answer.blob()).then(createImageBitmap);
  const [image, answer] = await Promise.all([frame, outdated(() => ask("GET", `masks/${index}`))]);
  const stored = await bytes(answer);
  const draft = answer.headers.get("x-draft") === "1" ? await ask("GET", `drafts/${index}`) : null;
  const edited = draft?.status === 200; // 204: they were kept or dropped meanwhile
  const ids = preview && !edited ? preview : stored;
  const mask = edited ? await bytes(draft) : ids.slice();
  if (turn !== showing) return; // another frame was asked for meanwhile
  if (shown.picture && key === shown.key && index === shown.index && (sent !== before || stroking())) return;
  if (unsaved()) return bring(index, preview); // strokes were made meanwhile: they are stored first
  shown.picture?.close();
  const moved = index !== shown.index;
  places.set(project.folder, index);
  Object.assign(shown, { index, picture: image, mask, base: ids, tag: answer.headers.get("etag"), past: [], future: [], clicks: null, edited, preview: ids !== stored });
  if (edited) new Set(mask).forEach((one) => one && shown.listed.add(one));
  tagged = stamped;
  draw();
  if (moved) dropPolygon();
  drawMarks();
  describe();
  if (moved || !shown.playing) lookSoon();
}

// What another window changed is shown as it is now, and under strokes that were not kept yet.
export async function outdated(action) {
  try {
    return await action();
  } catch (error) {
    if (!error.outdated) throw error;
    const { key, index, base, mask, edited } = shown;
    shown.edited = false;
    forgetTimer();
    mending++; // until the strokes are back, nothing else shows the frame again
    try {
      await refresh();
      if (shown.key === key) await show(index);
    } finally {
      mending--;
    }
    if (shown.key === key && shown.index === index && edited) {
      change();
      shown.mask = shown.mask.map((one, i) => (mask[i] === base[i] ? one : mask[i]));
      painted();
    }
    if (shown.edited) error.message += ", under your strokes: keep it again";
    throw error; // and is told
  }
}

export async function follow(along = false) { // until what is being done is done
  following = along;
  await refresh();
  for (let first = true; running(); ) { // the first tracked mask is shown at once, later ones now and then
    await new Promise((done) => setTimeout(done, first && following ? 0 : 250));
    await refresh(shown.state.job);
    const { project, state } = shown;
    const { kind, done, frame, preview } = state.job ?? {}; // while nothing is done, steps up to the first frame may be made again
    if (kind !== "track" || !following) continue;
    const newest = frame ?? (done ? project.reached - 1 : -1);
    if (preview) await showPreview();
    else if (newest >= 0 && (shown.index !== newest || shown.preview)) await show(newest);
    else continue;
    first = false;
  }
  following = false;
  if (!shown.project) return;
  if (tagged !== stamp(shown.index) && !shown.edited) await showAgain();
  else lookSoon();
}

// Masks of any frame may be others than the page knows.
export async function renewed() {
  [known, count] = [0, 0];
  await refresh();
  if (!shown.edited) await showAgain();
}

export function go(next) { // where a person looks, the page does not look away
  following = false;
  return show(next);
}

// Look now and then what the server and other windows do.
export async function watch() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 1500));
    if (document.hidden && !running() && !shown.state?.queue.now || shown.sending || running() && following || !idle()) continue;
    await quietly(async () => {
      await refresh();
      if (shown.project && tagged !== stamp(shown.index) && !shown.edited && !shown.playing && !mending && idle()) await showAgain();
    });
  }
}
