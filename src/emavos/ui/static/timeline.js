// The timeline: a row for each object, as high as its mask is sure.
import { $, colour, outdatedFrames, shown } from "./state.js";

const line = $("timeline");

export function drawTimeline() {
  const { project, sure, index } = shown, dense = devicePixelRatio || 1, to = line.getContext("2d");
  const width = line.clientWidth, height = line.clientHeight, top = 14;
  [line.width, line.height] = [Math.round(width * dense), Math.round(height * dense)];
  to.scale(dense, dense);
  if (!project) return;
  const theme = getComputedStyle(document.documentElement), of = (name) => theme.getPropertyValue(name);
  const x = (i) => (i + 0.5) * width / project.count, step = Math.max(width / project.count, 1);
  const row = (height - top) / Math.max(project.ids.length, 1);
  to.fillStyle = of("--outdated"); // masks that an edit before them made outdated
  if (outdatedFrames(project)) to.fillRect(x(project.reached) - step / 2, top, (project.made - project.reached) * width / project.count, height);
  project.ids.forEach((one, place) => {
    to.fillStyle = `rgb(${colour(one)})`;
    for (const [frame, ids] of Object.entries(sure))
      if (one in ids) to.fillRect(x(+frame) - step / 2, top + (place + 1 - ids[one]) * row, step, ids[one] * row - 1);
  });
  to.fillStyle = to.strokeStyle = of("--text");
  for (const frame of Object.keys(project.given)) to.fillRect(x(+frame) - 2, 3, 5, 8);
  for (const frame of project.drafts) to.strokeRect(x(frame) - 2.5, 3.5, 5, 7);
  to.fillRect(x(index), 0, 1.5, height);
  line.setAttribute("aria-valuemax", project.count - 1);
  line.setAttribute("aria-valuenow", index);
  line.setAttribute("aria-valuetext", `frame ${index}, ${$("kind").textContent}`);
}

export function frameAt(event) {
  const box = line.getBoundingClientRect();
  return Math.floor((event.clientX - box.left) / box.width * shown.project.count);
}
