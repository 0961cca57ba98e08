// The timeline: a row for each object, as high as its mask is sure.
import { $, colour, shown } from "./state.js";
import { renew } from "./describe.js";
import { titleOf } from "./objects.js";

const line = $("timeline"), TOP = 14, BOTTOM = 14; // for marks, and for the numbers of frames

export function drawTimeline() {
  const { project, sure, index, range } = shown, dense = devicePixelRatio || 1, to = line.getContext("2d");
  const width = line.clientWidth, height = line.clientHeight, floor = height - BOTTOM;
  [line.width, line.height] = [Math.round(width * dense), Math.round(height * dense)];
  to.scale(dense, dense);
  if (!project) return;
  const theme = getComputedStyle(document.documentElement), of = (name) => theme.getPropertyValue(name);
  const edge = (i) => Math.round(i * width / project.count * dense) / dense; // on whole pixels, so bars touch
  const bar = (from, until, top, bottom) => to.fillRect(edge(from), top, Math.max(edge(until) - edge(from), 1 / dense), bottom - top);
  const middle = (i) => (i + 0.5) * width / project.count, row = (floor - TOP) / Math.max(project.ids.length, 1);
  labelRows(row);
  drawTicks(to, width, height, middle, of("--soft"), of("--line"));
  to.fillStyle = of("--outdated"); // masks that an edit before them made outdated
  for (const [start, end] of project.outdated) bar(start, end, TOP, floor);
  const passed = shown.state.job?.passed;
  if (passed) { // masks of a pass backward, which are not stored yet
    to.fillStyle = of("--passed");
    bar(...passed, TOP, floor);
    to.fillStyle = of("--focus");
    bar(...passed, floor, floor + 3);
  }
  project.ids.forEach((one, place) => {
    const foot = TOP + (place + 1) * row;
    to.fillStyle = `rgb(${colour(one)})`;
    for (const [frame, ids] of Object.entries(sure))
      if (one in ids) bar(+frame, +frame + 1, foot - Math.max(ids[one] * (row - 1), 1), foot - Math.min(1, row / 4));
  });
  if (range) { // what is not played or tracked is darker
    to.fillStyle = of("--veil");
    bar(0, range[0], 0, height);
    bar(range[1] + 1, project.count, 0, height);
    to.fillStyle = of("--text");
    to.fillRect(edge(range[0]), 0, 2, height);
    to.fillRect(edge(range[1] + 1) - 2, 0, 2, height);
  }
  to.fillStyle = to.strokeStyle = of("--text");
  for (const frame of Object.keys(project.given)) to.fillRect(middle(+frame) - 2, 3, 5, 8);
  for (const frame of project.drafts) to.strokeRect(middle(frame) - 2.5, 3.5, 5, 7);
  to.fillRect(middle(index), 0, 1.5, height);
  line.setAttribute("aria-valuemax", project.count - 1);
  line.setAttribute("aria-valuenow", index);
  line.setAttribute("aria-valuetext", `frame ${index}, ${$("kind").textContent}`);
}

function drawTicks(to, width, height, middle, ink, faint) { // numbers at round frames, not too close
  const { count } = shown.project, least = count / Math.max(width / 64, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1))), step = [1, 2, 5, 10].find((one) => one * power >= least) * power;
  to.font = "10px system-ui, sans-serif";
  to.textAlign = "left";
  for (let i = 0; i < count; i += step) {
    to.fillStyle = faint;
    to.fillRect(middle(i), TOP, 1, height - TOP);
    to.fillStyle = ink;
    if (middle(i) + 6 * String(i).length < width) to.fillText(i, middle(i) + 3, height - 3);
  }
}

function labelRows(row) { // beside the rows, if there is room for letters
  const { ids, labels } = shown.project, room = row >= 11 && line.clientWidth > 500;
  $("rows").hidden = !room || !ids.length;
  renew("rows", [ids, labels, row], () => ids.map((one) => {
    const label = document.createElement("span");
    label.textContent = titleOf(one);
    label.title = `object ${titleOf(one)}`;
    label.style.height = label.style.lineHeight = `${row}px`;
    return label;
  }));
}

export function frameAt(event) {
  const box = line.getBoundingClientRect();
  return Math.floor((event.clientX - box.left) / box.width * shown.project.count);
}
