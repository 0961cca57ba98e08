// Play the video with its masks.
import { $, shown } from "./state.js";
import { go } from "./sync.js";

export async function play() {
  shown.playing = !shown.playing;
  $("play").textContent = shown.playing ? "Pause" : "Play";
  if (shown.playing && shown.index === shown.project.count - 1) await go(0);
  while (shown.playing && shown.index < shown.project.count - 1)
    await Promise.all([go(shown.index + 1), new Promise((done) => setTimeout(done, 1000 / (shown.project.fps || 25)))]);
  shown.playing = false;
  $("play").textContent = "Play";
}
