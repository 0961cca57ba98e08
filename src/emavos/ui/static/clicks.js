// The click tool: clicks and boxes become the mask of one object, a proposal until Enter keeps it.
import { $, announce, isSpared, say, shown, touch } from "./state.js";
import { ask, bytes } from "./server.js";
import { change, painted } from "./painting.js";
import { drawMarks } from "./view.js";

let turn = 0, warm = [];

// Encode the frame ahead of the first click and of tracking. Who looks longer may be about to mend the frame.
export function lookSoon() {
  warm.forEach(clearTimeout);
  const { key, index } = shown;
  const look = (how) => {
    if (key === shown.key && index === shown.index && !shown.playing && !shown.state?.job?.running)
      ask("POST", `looks/${index}${how}`).catch(() => { /* told with the first click */ });
  };
  warm = [setTimeout(look, 250, ""), setTimeout(look, 1500, "?long=1")];
}

export async function click(point, label, box = null) {
  const before = shown.clicks?.id === shown.id ? shown.clicks : null;
  if (!before && !box && !label && !shown.mask.includes(shown.id)) {
    say("first click on the object, then on what is not part of it", "error");
    return;
  }
  const next = before ? { ...before, points: [...before.points], labels: [...before.labels] }
    : { id: shown.id, points: [], labels: [], box: null, base: shown.mask.slice(), score: null };
  if (box) next.box = box;
  else {
    next.points.push(point);
    next.labels.push(label);
  }
  change();
  shown.clicks = next;
  announce("painted");
  drawMarks(); // at once; the mask follows
  const mine = ++turn, { index, key } = shown;
  $("canvas").classList.add("waiting");
  try {
    const started = next.base.some((one) => one === next.id) ? next.base.map((one) => Number(one === next.id)) : undefined;
    const whole = next.points.map(([x, y]) => [Math.floor(x), Math.floor(y)]);
    const prompt = encodeURIComponent(JSON.stringify({ points: whole, labels: next.labels, box: next.box }));
    const answer = await ask("POST", `clicks/${index}?prompt=${prompt}`, started);
    const found = await bytes(answer);
    if (mine !== turn || shown.clicks !== next || shown.index !== index || shown.key !== key) return;
    next.score = Number(answer.headers.get("x-score"));
    next.nothing = !found.some(Boolean);
    shown.mask = merged(next, found);
    painted();
  } catch (error) {
    if (shown.clicks === next) [shown.mask, shown.edited, shown.clicks] = shown.past.pop();
    painted();
    throw error;
  } finally {
    if (mine === turn) $("canvas").classList.remove("waiting");
  }
}

// Fit the mask of the object, painted roughly, to the picture: a proposal from the mask and the box around it.
export async function cleanUp() {
  const { mask, id } = shown, across = $("canvas").width, box = [Infinity, Infinity, 0, 0];
  mask.forEach((one, i) => {
    if (one !== id) return;
    const x = i % across, y = Math.floor(i / across);
    box.splice(0, 4, Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1));
  });
  if (!box[2]) return say("paint the object roughly, then clean up its mask", "error");
  settle();
  await click(null, 1, box);
}

// The mask with the object as it was found. Pixels of other objects stay theirs unless they were clicked on.
function merged({ base, id, points, labels }, found) {
  const across = $("canvas").width, open = new Set([0, id]);
  points.forEach(([x, y], i) => {
    const there = base[Math.floor(y) * across + Math.floor(x)];
    if (labels[i] && !isSpared(there)) open.add(there);
  });
  return base.map((one, i) => (found[i] ? (open.has(one) ? id : one) : one === id ? 0 : one));
}

export function settle() { // the proposal becomes like strokes; the next click begins another
  turn++;
  shown.clicks = null;
  drawMarks();
}

export const guide = () => {
  const { clicks } = shown;
  if (!clicks) return `${touch() ? "Tap" : "Click"} on the object, or drag a box around it.`;
  const score = clicks.score === null ? "finding the object ..." : clicks.nothing ? "nothing was found: click on the middle of the object." : `match about ${Math.round(100 * clicks.score)}%${clicks.score < 0.7 ? ": click more." : "."}`;
  return `Object ${clicks.id}: ${score} ${touch() ? "Press Not part, then tap on what is too much." : "Right or Alt click: not part of it. Enter keeps, Esc discards."}`;
};
