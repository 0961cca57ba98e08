// The list of objects: names, and which of them are hidden, shown alone or locked against painting.
import { $, colour, isHidden, say, shown } from "./state.js";
import { ask } from "./server.js";
import { act, quietly } from "./acting.js";
import { describe, renew } from "./describe.js";
import { draw } from "./view.js";
import { choose } from "./tools.js";
import { refresh } from "./sync.js";

export const nameOf = (id) => shown.project?.labels[id] ?? "";
export const titleOf = (id) => (nameOf(id) ? `${id} · ${nameOf(id)}` : String(id));

const icons = {
  hide: '<path d="M1 8s2.5-4.5 7-4.5S15 8 15 8s-2.5 4.5-7 4.5S1 8 1 8z"/><circle cx="8" cy="8" r="2"/>',
  alone: '<circle cx="8" cy="8" r="2.5"/><path d="M8 1v2.5M8 12.5V15M1 8h2.5M12.5 8H15"/>',
  lock: '<rect x="3" y="7" width="10" height="7" rx="1.5"/><path d="M5.2 7V4.8a2.8 2.8 0 0 1 5.4-1"/>',
};
const pressed = { // crossed out, and closed
  hide: `${icons.hide}<path d="M2.5 14 13.5 2"/>`,
  alone: icons.alone,
  lock: '<rect x="3" y="7" width="10" height="7" rx="1.5"/><path d="M5.2 7V4.8a2.8 2.8 0 0 1 5.6 0V7"/>',
};
const words = { hide: "hide (H)", alone: "show only this object (S)", lock: "lock: brush, lasso and clicks leave its pixels alone (K)" };
const on = { hide: "hidden", alone: "shown alone", lock: "locked" }; // what a press does
const off = { hide: "shown", alone: "shown with the others", lock: "unlocked" };
const is = { hide: (id) => shown.hiddenIds.has(id), alone: (id) => shown.alone === id, lock: (id) => shown.locked.has(id) };

export function drawObjects() {
  const { sure, index, id, listed, project } = shown, ids = [...listed].sort((a, b) => a - b);
  const facts = [ids, id, sure[index], project?.labels, [...shown.hiddenIds], shown.alone, [...shown.locked]];
  renew("objects", facts, () => ids.map(row));
  const field = $("label");
  field.disabled = !project || shown.lost;
  if (document.activeElement !== field) field.value = nameOf(id);
}

function row(id) {
  const box = document.createElement("li"), pick = document.createElement("button"), of = shown.sure[shown.index]?.[id];
  pick.className = "pick";
  pick.dataset.id = id;
  const name = document.createElement("span");
  name.textContent = titleOf(id);
  pick.append(name);
  if (of !== undefined) {
    const sure = document.createElement("small");
    sure.textContent = `${Math.round(100 * of)}%`;
    pick.append(sure);
  }
  pick.title = of === undefined ? `object ${id}` : `object ${id}: how sure its mask is on this frame`;
  pick.style.setProperty("--colour", `rgb(${colour(id)})`);
  pick.setAttribute("aria-pressed", String(shown.id === id));
  pick.onclick = () => choose(id);
  const switches = Object.keys(icons).map((what) => {
    const button = document.createElement("button");
    button.className = "icon";
    button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true">${(is[what](id) ? pressed : icons)[what]}</svg>`;
    button.title = words[what];
    button.setAttribute("aria-label", `${words[what].split(/[:(]/)[0].trim()}, object ${titleOf(id)}`);
    button.setAttribute("aria-pressed", String(is[what](id)));
    button.onclick = () => toggle(what, id);
    return button;
  });
  box.append(pick, ...switches);
  return box;
}

export function toggle(what, id = shown.id) {
  if (!shown.project) return;
  const set = { hide: shown.hiddenIds, lock: shown.locked }[what];
  if (what === "alone") shown.alone = shown.alone === id ? null : id;
  else if (!set.delete(id)) set.add(id);
  draw();
  describe();
  saveSwitches(id, (is[what](id) ? on : off)[what]);
}

// Names and switches are sent one after another. The page waits for them before it opens another video.
let saving = Promise.resolve();
export const objectsSaved = () => saving;

function save(id, done, path, body) {
  const { key, project: { name } } = shown; // another project may be shown when it is their turn
  const saved = saving.then(() => ask("PUT", path, body, { "x-project": key })).catch((error) => {
    if (error.outdated) error.message = `object ${id} of ${name} was not ${done}, because another video was opened`;
    throw error;
  });
  saving = saved.catch(() => { /* told by the caller */ });
  return saved;
}

// The project keeps its switches, so that they are the same after a reload.
function saveSwitches(id, done) {
  const body = JSON.stringify({ hidden: [...shown.hiddenIds], locked: [...shown.locked], alone: shown.alone });
  quietly(() => save(id, done, "switches", body));
}

export function forgetSwitches(id) { // of an object that was removed
  const switched = Object.values(is).some((isOn) => isOn(id));
  shown.hiddenIds.delete(id);
  shown.locked.delete(id);
  if (shown.alone === id) shown.alone = null;
  if (switched) saveSwitches(id, "switched off");
}

// Whether the chosen object cannot be edited now, and why.
export function locked() {
  if (shown.locked.has(shown.id)) say(`object ${titleOf(shown.id)} is locked: unlock it, or choose another`, "error");
  else if (isHidden(shown.id)) say(`object ${titleOf(shown.id)} is hidden: show it to edit it`, "error");
  else return false;
  return true;
}

async function rename() {
  const { id } = shown, label = $("label").value.trim();
  if (label === nameOf(id)) return;
  await save(id, "renamed", `objects/${id}`, label);
  await refresh();
}
$("label").onchange = () => act(rename);
$("label").onkeydown = (event) => {
  event.stopPropagation();
  if (event.key === "Enter" || event.key === "Escape") {
    if (event.key === "Escape") event.target.value = nameOf(shown.id);
    event.target.blur();
  }
};
