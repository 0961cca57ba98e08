// Play the video with its masks: speed, loop, and the range between the in and the out frame.
import { $, say, shown } from "./state.js";
import { describe } from "./describe.js";
import { go } from "./sync.js";

export async function play() {
  shown.playing = !shown.playing;
  describe();
  const { key } = shown;
  let begun = false, skipped = 0; // frames are skipped to keep a speed above 1
  while (shown.playing && shown.key === key) {
    const [first, last] = shown.range ?? [0, shown.project.count - 1], speed = +$("speed").value;
    const ended = shown.index >= last || shown.index < first;
    if (ended && begun && !$("loop").checked) break;
    const since = performance.now(), wait = 1000 / ((shown.project.fps || 25) * speed);
    await Promise.all([go(ended ? first : Math.min(shown.index + 1 + skipped, last)), new Promise((done) => setTimeout(done, wait))]);
    skipped = speed > 1 ? Math.max(0, Math.round((performance.now() - since) / wait) - 1) : 0;
    begun = true;
  }
  shown.playing = false;
  describe();
}

// The in and the out frame limit playing and tracking.
export function mark(end) {
  const { index, project } = shown, [first, last] = shown.range ?? [0, project.count - 1];
  shown.range = end ? [Math.min(first, index), index] : [index, Math.max(last, index)];
  describe();
}

export function clearRange() {
  shown.range = null;
  say("all frames are played and tracked");
  describe();
}
