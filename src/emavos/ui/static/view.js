// The canvas: frame and mask, zoom and pan, and the marks above them.
import { $, colour, isHidden, shown } from "./state.js";

const canvas = $("canvas"), pen = canvas.getContext("2d"), layer = document.createElement("canvas");
const stage = $("stage"), marks = $("marks");
const zoom = { scale: 1, x: 0, y: 0 }; // of the canvas in its stage, in CSS pixels

export function resizeCanvas(width, height) {
  canvas.width = layer.width = width;
  canvas.height = layer.height = height;
  fit();
}

// Draw the frame and its mask again, inside this rectangle.
export function draw(left = 0, top = 0, right = canvas.width, bottom = canvas.height) {
  const { mask, picture } = shown, across = canvas.width;
  [left, top] = [Math.max(left, 0), Math.max(top, 0)];
  [right, bottom] = [Math.min(right, canvas.width), Math.min(bottom, canvas.height)];
  const width = right - left, height = bottom - top;
  if (!picture || width <= 0 || height <= 0) return;
  const over = new ImageData(width, height), out = new Uint32Array(over.data.buffer);
  const opacity = Math.round(2.55 * $("opacity").value), line = opacity ? 255 : 0, paint = [], unseen = Array.from({ length: 256 }, (_, id) => isHidden(id));
  for (let v = top, o = 0; v < bottom; v++)
    for (let u = left, i = v * across + left; u < right; u++, i++, o++) {
      const one = mask[i];
      if (!one || unseen[one]) continue;
      const [r, g, b] = paint[one] ??= colour(one);
      const edge = u > 0 && mask[i - 1] !== one || u < across - 1 && mask[i + 1] !== one
        || v > 0 && mask[i - across] !== one || v < canvas.height - 1 && mask[i + across] !== one;
      out[o] = ((edge ? line : opacity) << 24) | (b << 16) | (g << 8) | r;
    }
  layer.getContext("2d").putImageData(over, left, top);
  for (const from of [picture, layer]) pen.drawImage(from, left, top, width, height, left, top, width, height);
}

export function fitted() { // where the video is on the screen: the canvas is fitted into its box
  const box = canvas.getBoundingClientRect(), scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  return { scale, left: box.left + (box.width - canvas.width * scale) / 2, top: box.top + (box.height - canvas.height * scale) / 2 };
}

export function at(event) { // pixels of the video
  const { scale, left, top } = fitted();
  return [(event.clientX - left) / scale, (event.clientY - top) / scale];
}

export const inside = ([x, y]) => x >= 0 && y >= 0 && x < canvas.width && y < canvas.height;

export function fit() {
  Object.assign(zoom, { scale: 1, x: 0, y: 0 });
  move();
}

function move() {
  const box = stage.getBoundingClientRect(), far = zoom.scale - 1;
  zoom.x = Math.min(0, Math.max(-far * box.width, zoom.x)); // no empty border inside the stage
  zoom.y = Math.min(0, Math.max(-far * box.height, zoom.y));
  canvas.style.transform = zoom.scale === 1 ? "" : `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
  canvas.style.imageRendering = fitted().scale > 3 ? "pixelated" : "auto";
  $("fit").hidden = zoom.scale === 1;
  drawMarks();
}

export function zoomAt(clientX, clientY, factor) {
  const box = stage.getBoundingClientRect(), scale = Math.min(Math.max(zoom.scale * factor, 1), 16);
  const [x, y] = [clientX - box.left, clientY - box.top], by = scale / zoom.scale;
  Object.assign(zoom, { scale, x: x - (x - zoom.x) * by, y: y - (y - zoom.y) * by });
  move();
}

export function panBy(x, y) {
  zoom.x += x;
  zoom.y += y;
  move();
}

export function reveal([x, y]) { // pan until this place of the video is in the stage
  const box = stage.getBoundingClientRect(), { scale, left, top } = fitted(), margin = 24;
  const into = (at, side) => Math.min(Math.max(at, margin), side - margin) - at;
  panBy(into(left - box.left + x * scale, box.width), into(top - box.top + y * scale, box.height));
}

// What is drawn above the picture at the size of the screen: brush ring, crosshair, clicks, box and lasso.
export const hints = { pointer: null, cross: null, box: null, path: null };

export function drawMarks() {
  const box = stage.getBoundingClientRect(), dense = devicePixelRatio || 1, to = marks.getContext("2d");
  [marks.width, marks.height] = [Math.round(box.width * dense), Math.round(box.height * dense)];
  if (!shown.mask) return;
  const { scale, left, top } = fitted();
  const place = ([x, y]) => [(left - box.left + x * scale) * dense, (top - box.top + y * scale) * dense];
  const stroke = (path, dashes = []) => { // dark below light is seen on every picture
    to.setLineDash(dashes.map((one) => one * dense));
    for (const [style, width] of [["#000a", 3], ["#fff", 1.5]]) {
      [to.strokeStyle, to.lineWidth] = [style, width * dense];
      to.stroke(path);
    }
  };
  const path = new Path2D(), pointer = hints.cross ?? hints.pointer;
  if (pointer && shown.tool === "brush") {
    const [x, y] = place(pointer);
    path.arc(x, y, Math.max($("size").value / 2 * scale * dense, 1), 0, 7);
  }
  stroke(path, shown.erase ? [4, 3] : []);
  if (hints.cross) {
    const [x, y] = place(hints.cross), cross = new Path2D();
    for (const [u, v] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) cross.moveTo(x + 4 * u * dense, y + 4 * v * dense), cross.lineTo(x + 16 * u * dense, y + 16 * v * dense);
    stroke(cross);
  }
  const outline = new Path2D(), rectangle = hints.box ?? shown.clicks?.box;
  if (rectangle) {
    const [x0, y0] = place(rectangle), [x1, y1] = place(rectangle.slice(2));
    outline.rect(x0, y0, x1 - x0, y1 - y0);
  }
  if (hints.path) { // a ring where it begins
    const [x, y] = place(hints.path[0]);
    outline.arc(x, y, 4 * dense, 0, 7);
  }
  hints.path?.forEach((point, i) => (i ? outline.lineTo(...place(point)) : outline.moveTo(...place(point))));
  stroke(outline, hints.path ? [] : [6, 4]);
  shown.clicks?.points.forEach((point, i) => {
    const [x, y] = place(point), yes = shown.clicks.labels[i], r = 7 * dense, sign = new Path2D(), disk = new Path2D();
    disk.arc(x, y, r, 0, 7);
    to.fillStyle = yes ? "#0a7d32" : "#c3202f";
    to.fill(disk);
    stroke(disk);
    sign.moveTo(x - r / 2, y);
    sign.lineTo(x + r / 2, y);
    if (yes) sign.moveTo(x, y - r / 2), sign.lineTo(x, y + r / 2);
    [to.strokeStyle, to.lineWidth] = ["#fff", 2 * dense];
    to.stroke(sign);
  });
}
new ResizeObserver(() => move()).observe(stage);
