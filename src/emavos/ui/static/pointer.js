// The pointer on the canvas: one finger or button edits, two fingers or Space zoom and pan. An edit begins, moves and
// ends; crosshair.js does the same with keys.
import { $, say, shown } from "./state.js";
import { act } from "./acting.js";
import { at, drawMarks, fitted, hints, inside, panBy, zoomAt } from "./view.js";
import { blocked, change, fill, painted, stroke, undoStroke } from "./painting.js";
import { click, settle } from "./clicks.js";
import { locked } from "./objects.js";
import { resize } from "./tools.js";

const canvas = $("canvas"), pointers = new Map();
let gesture = null, space = false, panned = false;

const spread = () => {
  const [[x0, y0], [x1, y1]] = pointers.values();
  return [(x0 + x1) / 2, (y0 + y1) / 2, Math.hypot(x1 - x0, y1 - y0)];
};
const value = (button) => (shown.erase || button === 2 ? 0 : shown.id);

canvas.onpointerdown = (event) => {
  if (!shown.mask) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (pointers.size > 1) { // what one finger began is taken back
    if (gesture?.kind === "stroke") undoStroke(), shown.future = [];
    const polygon = gesture?.kind === "polygon" ? { ...gesture, corners: gesture.corners.slice(0, -1) } : gesture?.polygon;
    hints.box = null;
    hints.path = polygon?.corners ?? null;
    gesture = { kind: "pinch", at: spread(), polygon };
    return;
  }
  const here = at(event), button = event.altKey ? 2 : event.button;
  if (space || button === 1) gesture = { kind: "pan", from: [event.clientX, event.clientY] };
  else begin(here, button);
  drawMarks();
};

export function begin(here, button) {
  if (gesture?.kind === "polygon") gesture.corners.push(here), hints.path = [...gesture.corners];
  else if (!blocked() && !locked()) {
    say("");
    gesture = { kind: shown.tool === "brush" ? "stroke" : shown.tool, from: here, button, corners: [here] };
    if (gesture.kind === "stroke") {
      change();
      settle();
      stroke(here, here, value(button));
    }
  }
}

// Where the pointer was since the event before: the browser sends one event for each picture that it draws.
const places = (event) => {
  const all = event.getCoalescedEvents?.() ?? [];
  return (all.length ? all : [event]).map(at);
};

canvas.onpointermove = (event) => {
  hints.pointer = event.pointerType === "touch" ? null : at(event);
  if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (gesture?.kind === "pinch" && pointers.size === 2) {
    const [x, y, far] = spread(), [x0, y0, far0] = gesture.at;
    panBy(x - x0, y - y0);
    zoomAt(x, y, far / Math.max(far0, 1));
    gesture.at = [x, y, far];
  } else if (gesture?.kind === "pan") {
    panned = true;
    panBy(event.clientX - gesture.from[0], event.clientY - gesture.from[1]);
    gesture.from = [event.clientX, event.clientY];
  } else move(places(event));
  drawMarks();
};

export function move(along) {
  const here = along.at(-1);
  if (gesture?.kind === "stroke") {
    for (const next of along) {
      stroke(gesture.from, next, value(gesture.button));
      gesture.from = next;
    }
  } else if (gesture?.kind === "click") hints.box = dragged(gesture.from, here);
  else if (gesture?.kind === "lasso") {
    gesture.corners.push(...along);
    hints.path = gesture.corners;
  } else if (gesture?.kind === "polygon") hints.path = [...gesture.corners, here];
}

// The box between two points, clipped to the frame; null if it is too small to be meant.
function dragged([x0, y0], [x1, y1]) {
  const clip = (one, most) => Math.min(Math.max(one, 0), most), { width, height } = canvas;
  const box = [clip(Math.min(x0, x1), width), clip(Math.min(y0, y1), height), clip(Math.max(x0, x1), width), clip(Math.max(y0, y1), height)];
  return Math.min(box[2] - box[0], box[3] - box[1]) * fitted().scale >= 8 ? box : null;
}

// The longer side of the box around some points, in pixels of the screen.
function extent(points) {
  const side = (values) => Math.max(...values) - Math.min(...values);
  return Math.max(side(points.map(([x]) => x)), side(points.map(([, y]) => y))) * fitted().scale;
}

export function endPolygon() {
  const { corners, button } = gesture;
  gesture = hints.path = null;
  if (corners.length < 3) return drawMarks();
  change();
  settle();
  fill(corners, value(button));
  painted();
}

canvas.onpointerup = (event) => {
  pointers.delete(event.pointerId);
  if (gesture?.kind !== "pinch") end(at(event));
  else if (!pointers.size) gesture = gesture.polygon ?? null; // whose corners stay
};

export function end(here) {
  const done = gesture;
  if (!done || done.kind === "polygon") return;
  gesture = null;
  if (done.kind === "stroke") {
    shown.edited = true; // also if the mask was kept in the middle of the stroke, by another finger
    painted();
  }
  if (done.kind === "click") {
    const box = dragged(done.from, here);
    hints.box = null;
    if (box || inside(done.from)) act(() => click(done.from, done.button === 2 || shown.erase ? 0 : 1, box));
    drawMarks();
  }
  if (done.kind === "lasso") {
    gesture = { ...done, kind: "polygon" };
    if (extent([...done.corners, here]) >= 8) endPolygon(); // drawn freely
    else gesture.corners = hints.path = [done.from]; // a click: the first corner
    drawMarks();
  }
}
canvas.ondblclick = () => gesture?.kind === "polygon" && endPolygon();
canvas.onpointerleave = () => { hints.pointer = null; drawMarks(); };
canvas.onpointercancel = (event) => {
  pointers.delete(event.pointerId);
  if (stroking()) end();
  else gesture = hints.box = hints.path = null;
  drawMarks();
};
canvas.oncontextmenu = () => false;
$("stage").addEventListener("wheel", (event) => {
  if (!shown.project) return;
  event.preventDefault();
  if (event.ctrlKey || event.metaKey || shown.tool !== "brush") zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 300));
  else resize(event.deltaY < 0 ? 2 : -2);
}, { passive: false });

export const idle = () => !gesture;
export const drawing = () => ["stroke", "click", "lasso"].includes(gesture?.kind); // the button is held
export function cancel() { // what was begun is taken back; the pointer may still be down
  if (stroking()) undoStroke(), shown.future = [];
  gesture = hints.box = hints.path = null;
  drawMarks();
}
export const stroking = () => gesture?.kind === "stroke";
export const drawingPolygon = () => gesture?.kind === "polygon";
export function dropCorner() { // the last one; without corners, there is no polygon
  gesture.corners.pop();
  hints.path = [...gesture.corners];
  if (gesture.corners.length) drawMarks();
  else dropPolygon();
}
export function dropPolygon() { // which belongs to its frame and to the lasso
  if (drawingPolygon()) gesture = hints.path = null;
  drawMarks();
}

// While Space is held the pointer pans. Letting go says whether Space was only pressed.
export function holdSpace() {
  [space, panned] = [true, false];
}
export function letSpaceGo() {
  const pressed = space && !panned;
  space = false;
  return pressed;
}
