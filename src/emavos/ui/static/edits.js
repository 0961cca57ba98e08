// Edits of masks: keep, undo, load, take back, remove. The server stores each, and can undo each.
import { $, say, shown } from "./state.js";
import { ask, bytes } from "./server.js";
import { blocked, change, forgetTimer, painted, redoStroke, undoDraft, undoStroke } from "./painting.js";
import { settle } from "./clicks.js";
import { forgetSwitches, titleOf } from "./objects.js";
import { keeping, outdated, refresh, show, showAgain } from "./sync.js";

export async function keep() {
  if (!await give()) return;
  await refresh();
  await showAgain();
}

// Give the mask of the frame to the server; returns whether there was something to keep.
export async function give() {
  if (!shown.edited || blocked()) return false;
  forgetTimer();
  settle();
  const { key, index, past } = shown, mask = shown.mask.slice();
  const answer = await outdated(() => keeping(ask("PUT", `masks/${index}`, mask, { "if-match": shown.tag })));
  if (shown.key !== key || shown.index !== index) return true;
  Object.assign(shown, { base: mask, tag: answer.headers.get("etag") });
  if (shown.past === past) Object.assign(shown, { edited: false, past: [], future: [] }); // nothing was painted meanwhile
  return true;
}

export async function undo() {
  if (shown.past.length) return undoStroke();
  if (shown.edited) return undoDraft();
  return travel("undo");
}

export async function redo() {
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

export async function load(file) {
  if (blocked()) return;
  const ids = await bytes(await ask("POST", "mask-file", file));
  change();
  settle();
  shown.mask = ids;
  new Set(ids).forEach((one) => one && shown.listed.add(one));
  painted();
}

export async function remove() {
  const { id, project, key } = shown, title = titleOf(id);
  if (project.ids.includes(id)) {
    await outdated(() => ask("DELETE", `objects/${id}`, undefined, { "if-match": String(project.edits) }));
    say(`object ${title} is removed from all frames; Undo brings it back`);
  }
  if (shown.key !== key) return; // another project was opened meanwhile, whose objects are others
  shown.listed.delete(id);
  forgetSwitches(id);
  [shown.id] = shown.listed.size ? shown.listed : [1];
  shown.listed.add(shown.id);
  await refresh();
  await showAgain();
}

export async function takeBack() {
  await outdated(() => ask("DELETE", `masks/${shown.index}`, undefined, { "if-match": shown.tag }));
  await refresh();
  await showAgain();
  say(`the mask of frame ${shown.index} is taken back; Undo brings it back`);
}
