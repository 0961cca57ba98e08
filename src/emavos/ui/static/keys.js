// The keyboard.
import { $, shown } from "./state.js";
import { act, openDialog } from "./acting.js";
import { blocked, discard } from "./painting.js";
import { keep, redo, undo } from "./edits.js";
import { choose, resize, use } from "./tools.js";
import { cancel, drawing, drawingPolygon, dropCorner, dropPolygon, endPolygon, holdSpace, letSpaceGo } from "./pointer.js";
import { fit } from "./view.js";
import { toggle } from "./objects.js";
import { aim, go, isShown } from "./sync.js";
import { mark, play } from "./playback.js";
import { nextToFix } from "./review.js";

// A button that was clicked lets go of the keys; one that was reached by Tab keeps Space and Enter.
document.addEventListener("click", (event) => {
  if (event.detail && !event.target.closest(".text")) event.target.closest("button, input, label")?.blur();
});
const step = (by) => go(Math.min(Math.max(aim() + by, 0), shown.project.count - 1));
const whileDrawing = ["Escape", "[", "]"]; // other keys would act on half a stroke
const steps = ["ArrowLeft", "ArrowRight", "PageUp", "PageDown"];
const keys = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => go(0), End: () => go(shown.project.count - 1),
  PageUp: () => step(-10), PageDown: () => step(10),
  i: () => mark(0), o: () => mark(1), n: () => !$("fix").disabled && nextToFix(),
  Enter: () => (drawingPolygon() ? endPolygon() : keep()),
  Escape: () => {
    if (drawing()) cancel();
    else if (drawingPolygon()) dropPolygon();
    else if (shown.edited && !blocked()) discard();
  },
  c: () => use("click"), b: () => use("brush"), l: () => use("lasso"), e: () => $("eraser").click(), g: () => $("clean").click(), f: () => fit(), h: () => toggle("hide"), s: () => toggle("alone"), k: () => toggle("lock"),
  x: () => $("canvas").focus(),
  F2: () => $("label").focus(),
  "[": () => resize(-2), "]": () => resize(2),
};
document.onkeydown = (event) => {
  if (document.querySelector("dialog[open]") || event.altKey || event.target.closest("input:not([type=file]):not([type=checkbox]), select")) return;
  if (event.key === "?" && !drawing()) return openDialog("keys");
  if (!shown.project || [" ", "Enter"].includes(event.key) && event.target.closest("button, input, label")) return;
  if (event.key === " ") {
    event.preventDefault();
    if (!event.repeat && !drawing()) holdSpace();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, ctrl = event.ctrlKey || event.metaKey;
  const action = ctrl ? (key === "z" ? (event.shiftKey ? redo : drawingPolygon() ? dropCorner : undo) : key === "y" ? redo : null)
    : /^[1-9]$/.test(key) ? () => choose(+key) : keys[key];
  if (!action) return;
  event.preventDefault();
  if (drawing() && !whileDrawing.includes(key)) return;
  if (event.repeat && steps.includes(key) && !isShown()) return; // a key that is held shows each frame
  if (ctrl && blocked()) return;
  act(action);
};
document.onkeyup = (event) => {
  if (event.key === " " && letSpaceGo()) act(play);
};
window.onblur = letSpaceGo;
document.addEventListener("change", (event) => { // after a choice with the mouse, keys work again
  if (event.target.matches("select") && !event.target.matches(":focus-visible")) event.target.blur();
});
