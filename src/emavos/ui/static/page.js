// The page: a canvas at video size, ids in an array of bytes, and a state that is asked of the server.
const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d"), layer = document.createElement("canvas");
const colours = [[255, 84, 92], [38, 156, 255], [70, 214, 105], [255, 202, 48], [176, 102, 255], [0, 208, 204],
  [255, 110, 196], [255, 142, 38]]; // those of emavos.visualize, by id
let state = null, project = null, opened = "", index = 0, mask = null, base = null, tag = "", picture = null, past = [];
let sure = {}, known = 0, edits = ""; // confidence of the frames before `known`, after so many edits
let id = 1, listed = new Set([1]), erase = false, painting = null, edited = false;
let playing = false, following = false, sending = false, showing = 0;

function colour(id) { // the eight, then the same darker, then paler, and again
  const towards = [null, 0, 255][Math.floor((id - 1) / colours.length) % 3], vivid = colours[(id - 1) % colours.length];
  return towards === null ? vivid : vivid.map((one) => Math.floor((2 * one + towards) / 3));
}

// The address has the token behind its #; it stays in this tab, where no other server can ask for it.
const token = location.hash.slice(1) || stored() || "";
if (location.hash) history.replaceState(null, "", location.pathname);

function stored() { // after the page is loaded again
  try {
    return sessionStorage.getItem("emavos-token");
  } catch { // a browser that stores nothing
    return "";
  }
}
try { sessionStorage.setItem("emavos-token", token); } catch { /* then the address is opened again */ }

class Refused extends Error {
  constructor(status, told) {
    super(told);
    this.outdated = status === 412; // the page shows something else than there is
  }
}

async function ask(method, path, body, more = {}) { // with what the page shows, so that nothing else is changed
  const headers = { "x-emavos-token": token, "x-project": opened, ...more };
  const answer = await fetch(`/api/${path}`, { method, body, headers });
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => ({}))).error
    || (answer.status === 403 ? "open the address that emavos ui printed, token included" : "the server did not answer");
  $("told").textContent = told;
  throw new Refused(answer.status, told);
}

const quietly = (act) => Promise.resolve().then(act).catch((error) => { $("told").textContent = error.message; });
const press = (name, act) => { $(name).onclick = () => { $("told").textContent = ""; quietly(act); }; };
const running = () => Boolean(state?.job?.running);

async function refresh() {
  state = await (await ask("GET", "state")).json();
  project = state.project;
  if (project && state.key !== opened) {
    opened = state.key;
    canvas.width = layer.width = project.width;
    canvas.height = layer.height = project.height;
    canvas.hidden = false;
    $("empty").hidden = true;
    [id, listed, edited] = [1, new Set([1]), false];
    await show(0);
    if (state.notes.length) $("told").textContent = state.notes.join("; ");
  }
  if (project) {
    const now = `${opened} ${project.edits}`;
    if (now !== edits) [edits, sure, known] = [now, {}, 0];
    if (project.reached > known) {
      Object.assign(sure, await (await ask("GET", `confidence?start=${known}`)).json());
      known = project.reached;
    }
    project.ids.forEach((one) => listed.add(one));
  }
  describe();
}

const words = { open: "reading frame", track: "tracking frame" };
function describe() {
  const job = state?.job, busy = running() || sending;
  $("name").textContent = project ? `${project.name} · ${project.width} × ${project.height} · ${project.count} frame${project.count === 1 ? "" : "s"}` : "no video yet";
  if (job?.error) $("told").textContent = job.error;
  $("stop").disabled = !running();
  for (const name of ["track", "add", "eraser"]) $(name).disabled = busy || !project;
  $("undo").disabled = busy || !past.length;
  $("keep").disabled = busy || !edited;
  $("back").disabled = busy || !(project && index in project.given);
  $("remove").disabled = busy || !project || listed.size < 2 && !project.ids.includes(id);
  $("mask").disabled = busy || !project;
  $("video").disabled = busy || Boolean(state?.keeps && project);
  $("play").disabled = !project;
  for (const button of document.querySelectorAll("[data-download]")) button.disabled = busy || !project?.reached;
  $("progress").hidden = $("doing").hidden = !busy;
  $("doing").textContent = sending ? "sending the video" : `${words[job?.kind] ?? "writing"} ${job?.done ?? 0}${job?.total ? ` of ${job.total}` : ""}`;
  if (running() && job.total) [$("progress").max, $("progress").value] = [job.total, job.done ?? 0];
  else $("progress").removeAttribute("value"); // how far it is is not known
  $("frame").textContent = project ? `frame ${index} of ${project.count - 1}` : "–";
  $("kind").textContent = !project ? "" : edited ? "edited, not kept yet"
    : index in project.given ? "given by you" : index in sure ? "tracked"
    : index >= project.reached && index < project.made ? "outdated: track again" : "no mask yet";
  $("objects").replaceChildren(...[...listed].sort((a, b) => a - b).map((one) => {
    const button = document.createElement("button"), of = sure[index]?.[one];
    button.textContent = `${one}${of === undefined ? "" : ` · ${Math.round(100 * of)}%`}`;
    button.title = of === undefined ? `object ${one}` : `object ${one}: how sure its mask is on this frame`;
    button.style.setProperty("--colour", `rgb(${colour(one)})`);
    button.setAttribute("aria-pressed", String(!erase && id === one));
    button.onclick = () => choose(one);
    return button;
  }));
  $("eraser").setAttribute("aria-pressed", String(erase));
  document.body.dataset.job = running() ? job.kind : "";
  document.body.dataset.reached = project?.reached ?? "";
  drawTimeline();
}

function choose(one) {
  listed.add(one);
  [id, erase] = [one, false];
  describe();
}

async function show(next) {
  await keep();
  const turn = ++showing, at = Math.min(Math.max(next, 0), project.count - 1);
  const frame = ask("GET", `frames/${at}?project=${opened}`).then((answer) => answer.blob()).then(createImageBitmap);
  const [image, answer] = await Promise.all([frame, outdated(() => ask("GET", `masks/${at}`))]);
  const ids = new Uint8Array(await answer.arrayBuffer());
  if (turn !== showing) return; // another frame was asked for meanwhile
  picture?.close();
  [index, picture, mask, base, tag, past] = [at, image, ids, ids.slice(), answer.headers.get("etag"), []];
  draw();
  describe();
}

function draw(left = 0, top = 0, right = canvas.width, bottom = canvas.height) { // this rectangle alone
  [left, top] = [Math.max(left, 0), Math.max(top, 0)];
  [right, bottom] = [Math.min(right, canvas.width), Math.min(bottom, canvas.height)];
  const width = right - left, height = bottom - top, across = canvas.width;
  if (!picture || width <= 0 || height <= 0) return;
  const over = new ImageData(width, height), out = new Uint32Array(over.data.buffer);
  const opacity = Math.round(2.55 * $("opacity").value), line = opacity ? 255 : 0, paint = [];
  for (let v = top, o = 0; v < bottom; v++)
    for (let u = left, i = v * across + left; u < right; u++, i++, o++) {
      const one = mask[i];
      if (!one) continue;
      const [r, g, b] = paint[one] ??= colour(one);
      const edge = u > 0 && mask[i - 1] !== one || u < across - 1 && mask[i + 1] !== one
        || v > 0 && mask[i - across] !== one || v < canvas.height - 1 && mask[i + across] !== one;
      out[o] = ((edge ? line : opacity) << 24) | (b << 16) | (g << 8) | r;
    }
  layer.getContext("2d").putImageData(over, left, top);
  for (const from of [picture, layer]) pen.drawImage(from, left, top, width, height, left, top, width, height);
}

function at(event) { // pixels of the video; the canvas is fitted into its box
  const box = canvas.getBoundingClientRect(), scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  return [(event.clientX - box.left - (box.width - canvas.width * scale) / 2) / scale,
    (event.clientY - box.top - (box.height - canvas.height * scale) / 2) / scale];
}

function stroke([x0, y0], [x1, y1], value) {
  const r = $("size").value / 2, steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(r / 2, 1)));
  for (let s = 0; s <= steps; s++) {
    const x = x0 + (x1 - x0) * s / steps, y = y0 + (y1 - y0) * s / steps;
    for (let v = Math.max(0, Math.ceil(y - r)); v <= Math.min(canvas.height - 1, y + r); v++)
      for (let u = Math.max(0, Math.ceil(x - r)); u <= Math.min(canvas.width - 1, x + r); u++)
        if ((u - x) ** 2 + (v - y) ** 2 <= r * r) mask[v * canvas.width + u] = value;
  }
  const far = Math.ceil(r) + 2; // outlines change beside the stroke as well
  draw(Math.floor(Math.min(x0, x1)) - far, Math.floor(Math.min(y0, y1)) - far,
    Math.ceil(Math.max(x0, x1)) + far, Math.ceil(Math.max(y0, y1)) + far);
}

function change() { // what comes next can be undone
  past = [...past.slice(-29), [mask.slice(), edited]];
  edited = true;
}

canvas.onpointerdown = (event) => {
  if (running() || playing || !mask) return;
  canvas.setPointerCapture(event.pointerId);
  change();
  painting = at(event);
  stroke(painting, painting, erase || event.button === 2 ? 0 : id);
};
canvas.onpointermove = (event) => {
  if (!painting) return;
  const here = at(event);
  stroke(painting, here, erase || event.buttons === 2 ? 0 : id);
  painting = here;
};
canvas.onpointerup = () => { painting = null; describe(); };
canvas.oncontextmenu = () => false;

function undo() {
  if (!past.length) return;
  [mask, edited] = past.pop();
  draw();
  describe();
}

async function keep() {
  if (!edited || running()) return;
  tag = (await outdated(() => ask("PUT", `masks/${index}`, mask, { "if-match": tag }))).headers.get("etag");
  [edited, past, base] = [false, [], mask.slice()];
  await refresh();
}

// What another window changed is shown as it is now, and under strokes that were not kept yet.
async function outdated(act) {
  try {
    return await act();
  } catch (error) {
    if (!error.outdated) throw error;
    const [video, at, before, painted, strokes] = [opened, index, base, mask, edited];
    edited = false;
    await refresh();
    if (opened === video) await show(at);
    if (opened === video && strokes) {
      change();
      mask = mask.map((one, i) => (painted[i] === before[i] ? one : painted[i]));
      draw();
    }
    describe();
    if (edited) error.message += ", under your strokes: keep it again";
    throw error; // and is told
  }
}

async function track() {
  await keep();
  await ask("POST", "track");
  following = true;
  await follow();
}

async function follow() { // until what is being done is done
  await refresh();
  while (running()) {
    await new Promise((done) => setTimeout(done, 250));
    await refresh();
    if (state.job.kind === "track" && following && project.reached > 0 && index !== project.reached - 1) await show(project.reached - 1);
  }
  following = false;
}

async function download(name) {
  await ask("POST", `downloads/${name}`);
  await follow();
  if (state.job.kind !== name || state.job.error || state.job.stopped) return;
  const answer = await ask("GET", `downloads/${name}`), link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = /filename="(.*)"/.exec(answer.headers.get("content-disposition"))[1];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function open(file) {
  const left = project && (edited || Object.keys(project.given).length);
  if (left && !confirm(`Leave ${project.name} and open ${file.name}? What you painted stays in a folder, which this page will name.`)) return;
  if (left) await keep();
  sending = true;
  describe();
  try {
    await ask("PUT", `video?name=${encodeURIComponent(file.name)}`, file);
  } finally {
    sending = false;
    describe();
  }
  await follow();
  if (left && !state.job.error) {
    const last = state.left.at(-1);
    $("told").textContent = `the work on ${last.name} is in ${last.folder}`;
  }
}

async function load(file) {
  const ids = new Uint8Array(await (await ask("POST", "mask-file", file)).arrayBuffer());
  change();
  mask = ids;
  new Set(ids).forEach((one) => one && listed.add(one));
  draw();
  describe();
}

async function remove() {
  if (project.ids.includes(id)) {
    if (!confirm(`Remove object ${id} from all frames? They are tracked anew without it.`)) return;
    await keep();
    await outdated(() => ask("DELETE", `objects/${id}`, undefined, { "if-match": String(project.edits) }));
  }
  listed.delete(id);
  [id] = listed.size ? listed : [1];
  listed.add(id);
  await refresh();
  await show(index);
}

function go(next) { // where a person looks, the page does not look away
  following = false;
  return show(next);
}

function drawTimeline() {
  const line = $("timeline"), to = line.getContext("2d"), width = line.width = line.clientWidth, height = line.height;
  if (!project) return;
  const x = (i) => (i + 0.5) * width / project.count, step = Math.max(width / project.count, 1);
  const row = (height - 14) / Math.max(project.ids.length, 1);
  to.fillStyle = "#343a47"; // masks that an edit before them made outdated
  if (project.made > project.reached) to.fillRect(x(project.reached) - step / 2, 14, (project.made - project.reached) * width / project.count, height);
  project.ids.forEach((one, place) => {
    to.fillStyle = `rgb(${colour(one)})`;
    for (const [frame, of] of Object.entries(sure))
      if (one in of) to.fillRect(x(+frame) - step / 2, 14 + (place + 1 - of[one]) * row, step, of[one] * row - 1);
  });
  to.fillStyle = "#fff";
  for (const frame of Object.keys(project.given)) to.fillRect(x(+frame) - 2, 3, 5, 8);
  to.fillRect(x(index), 0, 1, height);
}
const pointed = (event) => quietly(() => project && go(Math.floor(event.offsetX / $("timeline").clientWidth * project.count)));
$("timeline").onpointerdown = pointed;
$("timeline").onpointermove = (event) => event.buttons === 1 && pointed(event);
window.onresize = drawTimeline;

async function play() {
  playing = !playing;
  $("play").textContent = playing ? "Pause" : "Play";
  if (playing && index === project.count - 1) await go(0);
  while (playing && index < project.count - 1) {
    await Promise.all([go(index + 1), new Promise((done) => setTimeout(done, 1000 / (project.fps || 25)))]);
  }
  playing = false;
  $("play").textContent = "Play";
}

press("add", () => choose(Math.min(Math.max(0, ...listed) + 1, 255)));
press("remove", remove);
press("eraser", () => { erase = !erase; describe(); });
press("undo", undo);
press("keep", keep);
press("back", async () => {
  await outdated(() => ask("DELETE", `masks/${index}`, undefined, { "if-match": tag }));
  edited = false;
  await refresh();
  await show(index);
});
press("track", track);
press("stop", () => ask("POST", "stop"));
press("play", () => project && play());
for (const button of document.querySelectorAll("[data-download]"))
  button.onclick = () => quietly(() => download(button.dataset.download));
for (const [name, act] of [["video", open], ["mask", load]])
  $(name).onchange = (event) => {
    const file = event.target.files[0];
    $("told").textContent = "";
    quietly(() => file && act(file).finally(() => { $(name).value = ""; }));
  };
$("opacity").oninput = () => draw();
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file && !$("video").disabled) quietly(() => open(file));
};

// A button that was clicked lets go of the keys; one that was reached by Tab keeps Space and Enter.
document.addEventListener("click", (event) => event.detail && event.target.closest("button, input, label")?.blur());
document.onkeydown = (event) => {
  if (!project || event.altKey || event.target.type === "range") return;
  if ([" ", "Enter"].includes(event.key) && event.target.closest("button, input, label")) return;
  const size = $("size");
  const keys = {
    ArrowLeft: () => go(index - 1), ArrowRight: () => go(index + 1), Home: () => go(0), End: () => go(project.count - 1),
    " ": play, Enter: keep, e: () => $("eraser").click(), "[": () => { size.value -= 2; }, "]": () => { size.value = +size.value + 2; },
  };
  const act = event.ctrlKey || event.metaKey ? event.key === "z" && !running() && undo
    : /^[1-9]$/.test(event.key) ? () => choose(+event.key) : keys[event.key];
  if (!act) return;
  event.preventDefault();
  quietly(act);
};
quietly(follow);
