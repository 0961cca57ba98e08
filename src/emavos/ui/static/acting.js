// What the person does: errors are told, and a server that ended is told with how to go on.
import { $, announce, say, shown } from "./state.js";

// Run an action of the person: old messages go, and an error is told.
export const act = (action) => {
  if (!shown.lost) say("");
  return quietly(action);
};
export const quietly = (action) => Promise.resolve().then(action).catch((error) => {
  if (error.lost) lose(error);
  else say(error.message, "error");
});
export function openDialog(name) {
  $(name).showModal();
  $(name).scrollTop = 0; // the focus is on its last button
}
// A button that was pressed by the keyboard and disabled meanwhile gets the focus back.
export const press = (name, action) => {
  const button = $(name);
  button.onclick = async (event) => {
    const focused = !event.detail && document.activeElement === button;
    await act(action);
    if (focused && document.activeElement === document.body) button.focus();
  };
};

function lose(error) {
  shown.lost = true;
  const again = shown.project?.again ?? "emavos ui";
  $("lost").hidden = false;
  $("again").textContent = again;
  $("why").textContent = error.message.startsWith("open") ? "This address is of an emavos ui that has ended, or lacks its token. Open the address that was printed last, or start it again:"
    : "emavos ui has ended. Your masks are kept. Start it again in a terminal, and open the address it prints:";
  announce("painted");
}
