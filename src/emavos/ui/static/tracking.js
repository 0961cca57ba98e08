// Track the objects, and write files to download: jobs of the server that this page follows to their end.
import { $, say, shown } from "./state.js";
import { ask } from "./server.js";
import { give, keep } from "./edits.js";
import { follow, outdated, refresh, renewed, show } from "./sync.js";

export async function track() {
  if (!await give() && shown.project.drafts.length && shown.project.first === null) await show(shown.project.drafts[0]), await keep();
  const { edits } = shown.project, way = $("way").value, [first, last] = shown.range ?? ["", ""], frames = $("amount").value;
  await outdated(() => ask("POST", `track?${new URLSearchParams({ way, frames, first, last })}`)).catch((error) => refresh().then(() => { throw error; }));
  await follow(true);
  if (way === "forward") return;
  await renewed();
  if (shown.state.job?.stopped && shown.project.edits === edits) say("stopped before the end of the pass backward: none of its masks is kept");
}

export async function download(name) {
  const also = shown.project.outdated.length > 0 && $("with-outdated").checked;
  await outdated(() => ask("POST", `downloads/${name}${also ? "?outdated=1" : ""}`));
  await follow();
  const { job } = shown.state;
  if (job?.kind !== name || job.error || job.stopped) return;
  const answer = await ask("GET", `downloads/${name}`), link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = decodeURIComponent(/filename\*=UTF-8''(\S+)/.exec(answer.headers.get("content-disposition"))[1]);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  const notes = shown.state.notes.filter((note) => note.startsWith(`${name} has `)); // such as no sound
  say([`${link.download} is downloaded`, ...notes].join("; "));
}
