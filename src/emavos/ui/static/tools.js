// The object and the tool that the pointer works with.
import { $, shown } from "./state.js";
import { describe } from "./describe.js";
import { drawMarks } from "./view.js";
import { lookSoon, settle } from "./clicks.js";
import { dropPolygon } from "./pointer.js";

export function choose(one) {
  if (one !== shown.id && shown.clicks) settle();
  shown.listed.add(one);
  [shown.id, shown.erase] = [one, false];
  drawMarks();
  describe();
}

export function use(tool) {
  if ($(`tool-${tool}`).disabled) return;
  if (tool !== "click" && shown.clicks) settle();
  if ((tool === "click") !== (shown.tool === "click")) shown.erase = false; // it means something else there
  shown.tool = tool;
  dropPolygon();
  describe();
  lookSoon();
}

export function resize(by) {
  $("size").value = +$("size").value + by;
  drawMarks();
}
