// A small picture of the frame below the mouse on the timeline.
import { $, shown } from "./state.js";
import { ask } from "./server.js";
import { frameAt } from "./timeline.js";

const WIDTH = 160, MOST = 64; // pixels, and pictures that are kept
const line = $("timeline"), box = $("peek"), [picture, caption] = box.children;
const kept = new Map(); // {project and frame: picture}
let wanted = null, seen = "", busy = false;

line.addEventListener("pointermove", (event) => {
  if (event.pointerType === "touch" || event.buttons || !shown.project || shown.lost) return hide();
  const index = Math.min(Math.max(frameAt(event), 0), shown.project.count - 1), room = $("lines").getBoundingClientRect();
  wanted = { name: `${shown.key} ${index}`, key: shown.key, index };
  box.style.left = `${Math.min(Math.max(event.clientX - room.left - WIDTH / 2, 4), room.width - WIDTH - 12)}px`;
  look();
});
line.addEventListener("pointerleave", hide);
line.addEventListener("pointerdown", hide);

function hide() {
  wanted = null;
  seen = "";
  box.hidden = true;
}

async function look() { // one frame is fetched at a time, and of the others the last
  if (busy) return;
  busy = true;
  try {
    while (wanted && wanted.name !== seen) {
      const now = wanted, image = await small(now);
      if (!wanted) break;
      [picture.width, picture.height] = [image.width, image.height];
      picture.getContext("2d").drawImage(image, 0, 0);
      caption.textContent = `frame ${now.index}`;
      seen = now.name;
      box.hidden = false;
    }
  } catch { /* another project was opened, or the server has ended */ } finally {
    busy = false;
  }
}

async function small({ name, key, index }) {
  if (!kept.has(name)) {
    const answer = await ask("GET", `frames/${index}?project=${key}`);
    const image = await createImageBitmap(await answer.blob(), { resizeWidth: WIDTH, resizeQuality: "medium" });
    kept.set(name, image);
    if (kept.size > MOST) {
      const [oldest] = kept.keys();
      kept.get(oldest).close();
      kept.delete(oldest);
    }
  }
  return kept.get(name);
}
