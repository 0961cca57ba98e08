// Strokes of brush and lasso, their undo, and drafts: strokes that were not kept survive a reload.
import { $, announce, isSpared, say, shown } from "./state.js";
import { ask } from "./server.js";
import { draw, drawMarks, hints } from "./view.js";

export function change() { // what comes next can be undone
  shown.past = [...shown.past.slice(-49), [shown.mask.slice(), shown.edited, shown.clicks && { ...shown.clicks }]];
  shown.future = [];
  shown.edited = true;
}

const sparing = () => Array.from({ length: 256 }, (_, id) => isSpared(id));

export function stroke([x0, y0], [x1, y1], value) {
  const { mask } = shown, spared = sparing(), { width, height } = $("canvas"), r = $("size").value / 2;
  const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(r / 2, 1)));
  for (let s = 0; s <= steps; s++) {
    const x = x0 + (x1 - x0) * s / steps, y = y0 + (y1 - y0) * s / steps;
    for (let v = Math.max(0, Math.ceil(y - r)); v <= Math.min(height - 1, y + r); v++)
      for (let u = Math.max(0, Math.ceil(x - r)); u <= Math.min(width - 1, x + r); u++)
        if ((u - x) ** 2 + (v - y) ** 2 <= r * r && !spared[mask[v * width + u]]) mask[v * width + u] = value;
  }
  const far = Math.ceil(r) + 2; // outlines change beside the stroke as well
  draw(Math.floor(Math.min(x0, x1)) - far, Math.floor(Math.min(y0, y1)) - far,
    Math.ceil(Math.max(x0, x1)) + far, Math.ceil(Math.max(y0, y1)) + far);
}

// Fill the inside of a polygon, by the even-odd rule, row by row.
export function fill(corners, value) {
  const { mask } = shown, spared = sparing(), { width, height } = $("canvas"), ys = corners.map(([, y]) => y);
  for (let v = Math.max(0, Math.floor(Math.min(...ys))); v <= Math.min(height - 1, Math.ceil(Math.max(...ys))); v++) {
    const middle = v + 0.5, crossed = [];
    corners.forEach(([x0, y0], i) => {
      const [x1, y1] = corners[(i + 1) % corners.length];
      if (y0 <= middle !== y1 <= middle) crossed.push(x0 + (middle - y0) * (x1 - x0) / (y1 - y0));
    });
    crossed.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossed.length; i += 2)
      for (let u = Math.max(0, Math.ceil(crossed[i] - 0.5)); u + 0.5 < Math.min(width, crossed[i + 1]); u++)
        if (!spared[mask[v * width + u]]) mask[v * width + u] = value;
  }
  draw();
}

function swap(from, to) {
  if (!from.length) return false;
  to.push([shown.mask.slice(), shown.edited, shown.clicks && { ...shown.clicks }]);
  [shown.mask, shown.edited, shown.clicks] = from.pop();
  painted();
  return true;
}
export const undoStroke = () => swap(shown.past, shown.future);
export const redoStroke = () => swap(shown.future, shown.past);

// Discard the proposal of the click tool or, if there is none, all that was not kept on this frame.
export function discard() {
  const mask = (shown.clicks?.base ?? shown.base).slice();
  change();
  [shown.mask, shown.edited, shown.clicks] = [mask, mask.some((one, i) => one !== shown.base[i]), null];
  painted();
}

export function undoDraft() { // strokes from before a reload are one step
  shown.future.push([shown.mask.slice(), shown.edited, null]);
  [shown.mask, shown.edited, shown.clicks] = [shown.base.slice(), false, null];
  painted();
}

export function painted() { // after each stroke or click
  hints.path = null;
  draw();
  drawMarks();
  saveSoon();
  announce("painted");
}

let timer = 0, saving = Promise.resolve();
function saveSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => saveDraft().catch(() => { /* told when the strokes are kept */ }), 300);
}

export const unsaved = () => Boolean(timer);

// Store the strokes now, before the page shows something else.
export function saveDraft() {
  if (!timer) return saving;
  clearTimeout(timer);
  timer = 0;
  const [index, tag, mask, edited] = [shown.index, shown.tag, shown.mask.slice(), shown.edited];
  saving = saving.catch(() => {}).then(() => (edited ? ask("PUT", `drafts/${index}`, mask, { "if-match": tag })
    : ask("DELETE", `drafts/${index}`, undefined, { "if-match": tag })));
  return saving;
}

export function forgetTimer() { // the strokes were kept
  clearTimeout(timer);
  timer = 0;
}

export const blocked = () => {
  const why = shown.lost ? "emavos ui has ended; what you paint now would be lost"
    : shown.playing ? "pause the video to edit a frame"
    : shown.state?.job?.running ? (shown.state.job.kind === "track" ? "tracking is running: press Stop to edit a frame" : "wait until the file is written, then edit")
    : "";
  if (why) say(why, "error");
  return Boolean(why);
};
