// The list of clips: open, add and delete them, and track one after another.
import { $, say, shown } from "./state.js";
import { ask } from "./server.js";
import { act } from "./acting.js";
import { describe } from "./describe.js";
import { saveDraft } from "./painting.js";
import { objectsSaved } from "./objects.js";
import { follow, refresh } from "./sync.js";

const made = (kind, text = "", name = "") => {
  const one = document.createElement(kind);
  one.textContent = text;
  one.className = name;
  return one;
};

// Send videos: the first is shown, the others are read one after another and wait in the list.
export async function add(files) {
  const before = shown.project;
  await allSaved();
  shown.sending = true;
  describe();
  const errors = [];
  try {
    for (const [place, file] of files.entries())
      await ask("PUT", `video?name=${encodeURIComponent(file.name)}${place ? "&add=1" : ""}`, file).catch((error) => errors.push(error));
  } finally {
    shown.sending = false;
    describe();
  }
  await follow();
  if (errors.length) throw errors[0];
  if (before && !shown.state.job?.error) say(`${before.name} is kept: find it under Clips`);
}

let clips = [];
export async function drawClips() { // the list is asked for only while it is seen
  if (!shown.state?.clips) {
    $("begun").hidden = true;
    clips = [];
    return drawLists();
  }
  if (shown.lost || !$("clip-list").open && shown.project) return;
  clips = await (await ask("GET", "clips")).json();
  for (const key of pictures.keys()) if (!clips.some((clip) => clip.key === key)) forgetPicture(key);
  $("begun").hidden = !clips.length;
  drawLists();
  $("track-all").disabled = !clips.some((clip) => clip.left && !clip.job && !clip.problem);
  $("stop-all").disabled = !clips.some((clip) => clip.job && !clip.adding);
}

export async function showClips() {
  $("clip-list").showModal();
  await drawClips();
  if (document.activeElement === document.body) $("clip-list").querySelector("button:enabled")?.focus();
}

function words(clip) {
  const { job, count } = clip;
  if (clip.problem) return clip.problem;
  if (clip.adding) return job?.running ? `being read: ${job.done ?? 0}${job.total ? ` of ${job.total}` : ""}` : "waits to be read";
  if (job?.running) return `tracking: ${job.done ?? 0}${job.total ? ` of ${job.total}` : ""}`;
  if (job) return "waits to be tracked";
  if (clip.error) return clip.error;
  if (!clip.given) return clip.drafts ? "masks not kept yet" : "no mask yet";
  return clip.tracked === count ? "tracked" : `${clip.tracked} of ${count} tracked`;
}

// A card stays the same element while its clip is tracked, so that a click or the keyboard's focus is not lost.
function drawLists() {
  const { compare } = new Intl.Collator(undefined, { numeric: true }); // clip 2 is before clip 10
  const named = [...clips].sort((one, other) => other.adding - one.adding || compare(one.video, other.video));
  for (const [list, ordered] of [[$("recent"), clips], [$("all-clips"), named]]) {
    const cards = new Map([...list.children].map((one) => [one.dataset.key, one]));
    const wanted = ordered.map((clip) => cards.get(clip.key) ?? card());
    ordered.forEach((clip, i) => fill(wanted[i], clip));
    if (list.children.length !== wanted.length || wanted.some((one, i) => list.children[i] !== one)) list.replaceChildren(...wanted);
  }
}

function card() {
  const box = made("li", "", "clip"), go = made("button"), picture = made("img"), text = made("span"), away = made("button", "×", "quiet");
  picture.alt = "";
  text.append(made("b"), made("small"), made("small"), made("progress"));
  go.append(picture, text);
  box.append(go, away);
  return box;
}

function fill(box, clip) {
  const [go, away] = box.children, [picture, text] = go.children, [name, size, said, bar] = text.children;
  const write = (one, words) => { if (one.textContent !== words) one.textContent = words; };
  box.dataset.key = clip.key;
  if (!clip.problem && !clip.adding) thumbnail(picture, clip);
  write(name, clip.video);
  write(size, clip.problem ? "" : `${clip.count} frames`);
  write(said, words(clip));
  name.title = clip.video;
  said.className = clip.problem || clip.error ? "bad" : "";
  Object.assign(bar, { max: Math.max(clip.count, 1), value: clip.adding ? clip.job?.done ?? 0 : clip.tracked });
  bar.setAttribute("aria-label", clip.adding ? "read" : "tracked");
  go.disabled = Boolean(clip.problem) || clip.adding || shown.lost;
  go.setAttribute("aria-current", String(clip.shown));
  go.onclick = () => act(() => open(clip.key));
  away.disabled = clip.shown || Boolean(clip.job) && !clip.adding || shown.lost;
  away.title = clip.shown ? "open another clip first" : clip.job && !clip.adding ? "stop its tracking first" : clip.adding ? `do not add ${clip.video}` : `delete ${clip.video} with its masks`;
  away.setAttribute("aria-label", clip.adding ? away.title : `delete ${clip.video}`);
  away.onclick = () => act(() => remove(clip));
}

const pictures = new Map(); // {key of a clip: {changed: time of its last change, address: of its thumbnail, to come}}
async function thumbnail(picture, { key, changed, job }) {
  let there = pictures.get(key);
  if (!there || there.changed !== changed && !job) { // while a clip is tracked, its picture stays
    forgetPicture(key);
    const address = ask("GET", `thumbnails/${encodeURIComponent(key)}`).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    pictures.set(key, there = { changed, address });
  }
  try {
    const address = await there.address;
    if (pictures.get(key) === there && picture.src !== address) picture.src = address;
  } catch { // the clip has gone since
    if (pictures.get(key) === there) pictures.delete(key);
  }
}

function forgetPicture(key) {
  pictures.get(key)?.address.then((address) => URL.revokeObjectURL(address), () => { /* there is none */ });
  pictures.delete(key);
}

// What waits to be sent belongs to the project that is shown, so it is sent before another is.
// A switch may be pressed while it is being sent; that one is waited for, too.
async function allSaved() {
  for (let last; last !== objectsSaved(); ) {
    last = objectsSaved();
    await Promise.all([saveDraft(), last]);
  }
}

async function open(key) {
  await allSaved();
  await ask("POST", `clips/${encodeURIComponent(key)}`);
  $("clip-list").close();
  await refresh();
}

async function remove(clip) {
  if (!clip.adding && !confirm(`Delete ${clip.video} and all its masks? This cannot be undone.`)) return;
  await ask("DELETE", `clips/${encodeURIComponent(clip.key)}`);
  await refresh();
}

export async function trackAll() {
  const { clips: many } = await (await ask("POST", "queue")).json();
  say(`${many} clip${many === 1 ? "" : "s"} to track, one after another`);
  await refresh();
}
