// The keyboard on the canvas: arrow keys move a crosshair, and Space is the button of the mouse.
import { $, say, shown } from "./state.js";
import { drawMarks, fitted, hints, inside, reveal } from "./view.js";
import { begin, cancel, drawing, drawingPolygon, end, move } from "./pointer.js";

const STEP = 10; // pixels of the screen for each press of an arrow key
const HELP = "Arrow keys move the crosshair, with Shift by one pixel. Space is the left button, Shift and Space the right. Esc leaves.";
const canvas = $("canvas"), ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let place = [-1, -1], held = false;

canvas.onmousedown = (event) => { // the mouse takes the keys from a field, and does not bring the crosshair
  event.preventDefault();
  document.activeElement.blur();
};
canvas.onfocus = () => {
  if (!inside(place)) place = [canvas.width, canvas.height].map((side) => Math.floor(side / 2) + 0.5);
  hints.cross = place;
  reveal(place);
  say(HELP);
};
canvas.onblur = () => {
  letGo();
  hints.cross = null;
  drawMarks();
  if ($("told").textContent === HELP) say("");
};

function go([across, down], fine) {
  const by = fine ? 1 : Math.max(1, Math.round(STEP / fitted().scale)), limit = (one, side) => Math.min(Math.max(one, 0.5), side - 0.5);
  hints.cross = place = [limit(place[0] + by * across, canvas.width), limit(place[1] + by * down, canvas.height)];
  move([place]);
  reveal(place);
}

function letGo() {
  if (held) end(place);
  held = false;
}

canvas.onkeydown = (event) => {
  if (!shown.mask || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in ways) go(ways[event.key], event.shiftKey);
  else if (event.key === " ") {
    if (!held && !event.repeat) begin(place, event.shiftKey ? 2 : 0), drawMarks();
    held = true;
  } else if (event.key === "Escape" && drawing()) cancel();
  else if (event.key === "Escape" && !drawingPolygon()) canvas.blur();
  else return; // to the other keys
  event.preventDefault();
  event.stopPropagation();
};
canvas.onkeyup = (event) => event.key === " " && letGo();
