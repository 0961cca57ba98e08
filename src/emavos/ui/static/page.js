// The page: a canvas at video size, ids in an array of bytes, and a state that is asked of the server.
const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d"), layer = document.createElement("canvas");
const colours = [[255, 84, 92], [38, 156, 255], [70, 214, 105], [255, 202, 48], [176, 102, 255], [0, 208, 204],
  [255, 110, 196], [255, 142, 38]]; // those of emavos.visualize, by id
const colour = (id) => colours[(id - 1) % colours.length];
let state = null, project = null, opened = 0, sure = {}, index = 0, mask = null, picture = null, past = [];
let id = 1, erase = false, most = 1, painting = null, edited = false, playing = false, showing = 0;

async function ask(method, path, body) {
  const answer = await fetch(`/api/${path}`, { method, body });
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => ({}))).error || "the server did not answer";
  $("told").textContent = told;
  throw new Error(told);
}

const press = (name, act) => { $(name).onclick = () => Promise.resolve(act()).catch(() => {}); };
const running = () => Boolean(state?.job?.running);

async function refresh() {
  state = await (await ask("GET", "state")).json();
  project = state.project;
  if (project && state.opened !== opened) {
    opened = state.opened;
    canvas.width = layer.width = project.width;
    canvas.height = layer.height = project.height;
    canvas.hidden = false;
    $("empty").hidden = true;
    await show(0);
  }
  if (project) {
    sure = await (await ask("GET", "confidence")).json();
    most = Math.max(most, 1, ...project.ids);
  }
  describe();
}

function describe() {
  const job = state?.job, busy = running();
  $("name").textContent = project ? `${project.name} · ${project.count} frames` : "no video yet";
  if (job?.error) $("told").textContent = job.error;
  $("stop").disabled = !busy;
  for (const name of ["track", "keep", "back", "undo", "add"]) $(name).disabled = busy || !project;
  $("progress").hidden = !busy;
  if (busy && job.total) { $("progress").max = job.total; $("progress").value = job.done ?? 0; }
  $("frame").textContent = project ? `frame ${index} of ${project.count - 1}` : "–";
  $("kind").textContent = !project ? "" : edited ? "edited, not kept yet"
    : index in project.given ? "given by you" : index in sure ? "tracked" : index > project.reached ? "not up to date" : "no mask";
  $("objects").replaceChildren(...Array.from({ length: most }, (_, i) => {
    const button = document.createElement("button"), one = sure[index]?.[i + 1];
    button.textContent = `${i + 1}${one === undefined ? "" : ` · ${Math.round(100 * one)}%`}`;
    button.style.setProperty("--colour", `rgb(${colour(i + 1)})`);
    button.setAttribute("aria-pressed", String(!erase && id === i + 1));
    button.onclick = () => { id = i + 1; erase = false; describe(); };
    return button;
  }));
  $("eraser").setAttribute("aria-pressed", String(erase));
  document.body.dataset.job = busy ? job.kind : "";
  document.body.dataset.reached = project?.reached ?? "";
  drawTimeline();
}

async function show(next) {
  if (edited) await keep();
  const turn = ++showing, at = Math.min(Math.max(next, 0), project.count - 1), image = new Image();
  image.src = `/api/frames/${at}?project=${opened}`;
  const [, answer] = await Promise.all([image.decode(), ask("GET", `masks/${at}`)]);
  const ids = new Uint8Array(await answer.arrayBuffer());
  if (turn !== showing) return; // another frame was asked for meanwhile
  [index, picture, mask, past] = [at, image, ids, []];
  draw();
  describe();
}

function draw() {
  const { width, height } = canvas, over = new ImageData(width, height), out = new Uint32Array(over.data.buffer);
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue;
    const [r, g, b] = colour(mask[i]);
    const edge = mask[i] !== mask[i + 1] || mask[i] !== mask[i - 1] || mask[i] !== mask[i + width] || mask[i] !== mask[i - width];
    out[i] = ((edge ? 255 : 115) << 24) | (b << 16) | (g << 8) | r;
  }
  layer.getContext("2d").putImageData(over, 0, 0);
  pen.drawImage(picture, 0, 0);
  pen.drawImage(layer, 0, 0);
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
}

canvas.onpointerdown = (event) => {
  if (running() || !mask) return;
  canvas.setPointerCapture(event.pointerId);
  past = [...past.slice(-29), mask.slice()];
  edited = true;
  painting = at(event);
  stroke(painting, painting, erase || event.button === 2 ? 0 : id);
  draw();
};
canvas.onpointermove = (event) => {
  if (!painting) return;
  const here = at(event);
  stroke(painting, here, erase || event.buttons === 2 ? 0 : id);
  painting = here;
  draw();
};
canvas.onpointerup = () => { painting = null; describe(); };
canvas.oncontextmenu = () => false;

function undo() {
  if (!past.length) return;
  mask = past.pop();
  edited = past.length > 0;
  draw();
  describe();
}

async function keep() {
  await ask("PUT", `masks/${index}`, mask);
  [edited, past] = [false, []];
  await refresh();
}

async function track() {
  if (edited) await keep();
  $("told").textContent = "";
  await ask("POST", "track");
  await follow();
}

async function follow() { // until what is being done is done
  await refresh();
  while (running()) {
    await new Promise((done) => setTimeout(done, 250));
    await refresh();
    if (state.job.kind === "track" && project.reached > 0 && index !== project.reached - 1) await show(project.reached - 1);
  }
  if (state.job?.kind in { "masks.zip": 1, "overlay.mp4": 1, "masks.json": 1 } && !state.job.error && !state.job.stopped)
    location.href = `/api/downloads/${state.job.kind}`;
}

function drawTimeline() {
  const line = $("timeline"), to = line.getContext("2d"), width = line.width = line.clientWidth, height = line.height;
  if (!project) return;
  const x = (i) => (i + 0.5) * width / project.count, step = Math.max(width / project.count, 1);
  const row = (height - 14) / Math.max(project.ids.length, 1);
  project.ids.forEach((one, place) => {
    to.fillStyle = `rgb(${colour(one)})`;
    for (const [frame, of] of Object.entries(sure))
      if (one in of) to.fillRect(x(+frame) - step / 2, 14 + (place + 1 - of[one]) * row, step, of[one] * row - 1);
  });
  to.fillStyle = "#fff";
  for (const frame of Object.keys(project.given)) to.fillRect(x(+frame) - 2, 3, 5, 8);
  to.fillRect(x(index), 0, 1, height);
}
$("timeline").onclick = (event) => project && show(Math.floor(event.offsetX / $("timeline").clientWidth * project.count)).catch(() => {});

async function play() {
  playing = !playing;
  $("play").textContent = playing ? "Pause" : "Play";
  while (playing && index < project.count - 1) {
    await Promise.all([show(index + 1), new Promise((done) => setTimeout(done, 1000 / (project.fps || 25)))]);
  }
  playing = false;
  $("play").textContent = "Play";
}

press("add", () => { id = ++most; erase = false; describe(); });
press("eraser", () => { erase = !erase; describe(); });
press("undo", undo);
press("keep", keep);
press("back", async () => { await ask("DELETE", `masks/${index}`); edited = false; await refresh(); await show(index); });
press("track", track);
press("stop", () => ask("POST", "stop"));
press("play", () => project && play());
for (const button of document.querySelectorAll("[data-download]"))
  button.onclick = () => ask("POST", `downloads/${button.dataset.download}`).then(follow).catch(() => {});
$("video").onchange = async (event) => {
  const file = event.target.files[0];
  $("told").textContent = "";
  await ask("PUT", `video?name=${encodeURIComponent(file.name)}`, file).then(follow).catch(() => {});
  event.target.value = "";
};
$("mask").onchange = async (event) => {
  const answer = await ask("POST", "mask-file", event.target.files[0]).catch(() => null);
  event.target.value = "";
  if (!answer) return;
  past.push(mask.slice());
  mask = new Uint8Array(await answer.arrayBuffer());
  edited = true;
  draw();
  describe();
};
document.onkeydown = (event) => {
  if (!project || event.target.type === "range") return;
  const keys = {
    ArrowLeft: () => show(index - 1), ArrowRight: () => show(index + 1), " ": play, Enter: keep,
    e: () => $("eraser").click(), "[": () => { $("size").value -= 2; }, "]": () => { $("size").value = +$("size").value + 2; },
  };
  const act = event.ctrlKey || event.metaKey ? event.key === "z" && undo
    : /^[1-9]$/.test(event.key) ? () => { id = +event.key; most = Math.max(most, id); erase = false; describe(); } : keys[event.key];
  if (!act) return;
  event.preventDefault();
  Promise.resolve(act()).catch(() => {});
};
follow().catch(() => {});
