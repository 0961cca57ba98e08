// What the page knows: the state of the server, the frame on the canvas, and the strokes on it.
export const $ = (id) => document.getElementById(id);

export const shown = {
  state: null, // answer of /api/state
  project: null, // its project
  key: "", // key of the project that is on the canvas
  index: 0, // frame on the canvas
  picture: null,
  mask: null, // ids of the frame's pixels, with strokes
  base: null, // the same as the server has it
  tag: "", // of `base`
  preview: false, // whether the mask is tracked and not stored yet
  edited: false, // whether there are strokes that were not kept
  past: [], // [mask, edited, clicks] before each stroke or click
  future: [], // the same of what was undone
  clicks: null, // {id, points, labels, box, base, score, nothing}: clicks on an object that were not kept
  sure: {}, // {frame: {id: confidence}}
  id: 1, // object to paint
  listed: new Set([1]), // objects in the list
  hiddenIds: new Set(), // objects that are not drawn
  alone: null, // the only object that is drawn
  locked: new Set(), // objects whose pixels are left alone
  tool: "brush", // click, brush or lasso
  erase: false,
  range: null, // [first, last] frame that is played and tracked
  playing: false,
  sending: false, // a video is sent to the server
  news: "", // what ended while the page was in the background, for its title
  lost: false, // the server does not answer
};

export const isHidden = (id) => (shown.alone === null ? shown.hiddenIds.has(id) : shown.alone !== id);

// Whether painting leaves the pixels of an id alone: an object that is locked, or that nobody sees.
export const isSpared = (id) => id > 0 && (shown.locked.has(id) || isHidden(id));

export const touch = () => matchMedia("(pointer: coarse)").matches; // fingers have no right button

export const running = () => Boolean(shown.state?.job?.running);

// Whether an edit made the mask of a frame outdated.
export const isOutdated = ({ outdated }, index) => outdated.some(([start, end]) => start <= index && index < end);

// The colours of emavos.io.palette: eight, the same darker, then paler; again a shade nearer to gray from 25 on.
const vivid = [[255, 84, 92], [38, 156, 255], [70, 214, 105], [255, 202, 48], [176, 102, 255], [0, 208, 204],
  [255, 110, 196], [255, 142, 38]];
export function colour(id) {
  const place = id - 1, towards = [null, 0, 255][Math.floor(place / 8) % 3], shade = Math.floor(place / 24);
  const mixed = vivid[place % 8].map((part) => (towards === null ? part : Math.floor((2 * part + towards) / 3)));
  return mixed.map((part) => part + (part < 128 ? shade : -shade));
}

// Parts of the page announce what changed; page.js says what follows from it.
export const events = new EventTarget();
export const announce = (name) => events.dispatchEvent(new Event(name));

export function say(text, kind = "note") {
  for (const place of ["told", "exports-told", "clips-told"]) { // of which an open dialog hides the first
    $(place).textContent = text;
    $(place).dataset.kind = kind;
  }
}
