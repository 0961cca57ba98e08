// Requests to the server. Each says which project the page shows, so that nothing else is changed.
import { shown } from "./state.js";

// The address has the token behind its #. The token stays in this tab, out of reach of other servers.
const stored = () => { // after a reload
  try { return sessionStorage.getItem("emavos-token"); } catch { return ""; } // a browser that stores nothing
};
const token = location.hash.slice(1) || stored() || "";
if (location.hash) history.replaceState(null, "", location.pathname);
try { sessionStorage.setItem("emavos-token", token); } catch { /* then a reload needs the printed address */ }

export class Refused extends Error {
  constructor(text, outdated = false, lost = false) {
    super(text);
    this.outdated = outdated; // the page shows an old state
    this.lost = lost; // there is no server, or another one
  }
}

export async function ask(method, path, body, more = {}) {
  const headers = { "x-emavos-token": token, "x-project": shown.key, ...more };
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { method, body, headers });
  } catch {
    throw new Refused("emavos ui does not answer", false, true);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 403) throw new Refused("open the address that emavos ui printed, token included", false, true);
  throw new Refused(told.error || "the server could not answer", Boolean(told.outdated));
}

export const bytes = async (answer) => new Uint8Array(await answer.arrayBuffer());
