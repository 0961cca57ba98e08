// The next frame to fix, with the reason: the frames where one correction helps most.
import { say, shown } from "./state.js";
import { ask } from "./server.js";
import { choose } from "./tools.js";
import { titleOf } from "./objects.js";
import { go } from "./sync.js";

let place = -1, listed = ""; // which suggestion was shown last, and of which masks

export async function nextToFix() {
  const { key, project } = shown, now = `${key} ${project.edits} ${project.tracked}`;
  const found = await (await ask("GET", "review")).json();
  place = now === listed ? place + 1 : 0;
  listed = now;
  if (!found.length) return say("no frame looks wrong: every mask is sure enough");
  const number = place % found.length, one = found[number];
  await go(one.frame);
  choose(one.object);
  say(`${number + 1} of ${found.length} to fix: frame ${one.frame}, object ${titleOf(one.object)}: ${one.reason}, ${Math.round(100 * one.confidence)}% sure`);
}
