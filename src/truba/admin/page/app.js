// Which page is shown, and that it is shown anew every two seconds while somebody looks at it.
//
//   #/                    overview.js     #/sessions?kind=...   sessions.js     #/session/3-117   session.js

import { Refused } from "./api.js";
import { overview } from "./overview.js";
import { session } from "./session.js";
import { sessions } from "./sessions.js";

export const SORTS = { active: "", stored: "warn", repeating: "good", parked: "bad" };
const BEAT_MS = 2000;
const main = document.getElementById("main");
const live = document.getElementById("live");
const said = document.getElementById("said");
let page = null;
let turn = 0;
let quiet;

export function say(text, bad = false) {
  clearTimeout(quiet);
  said.textContent = text;
  said.className = bad ? "bad" : "";
  quiet = setTimeout(() => { said.textContent = ""; }, bad ? 12000 : 5000);
}

// Does it, says how it ended, and shows what has become of it.
export async function doing(what, act) {
  try {
    await act();
    say(what);
  } catch (error) {
    say(error instanceof Refused ? error.message : `${what}: ${error}`, true);
  }
  await refresh();
}

export function sure(title, text) {
  const dialog = document.getElementById("sure-dialog");
  document.getElementById("sure-title").textContent = title;
  document.getElementById("sure-text").textContent = text;
  return new Promise((resolve) => {
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

async function refresh() {
  const mine = ++turn;
  const shown = page;
  try {
    await shown.refresh(() => mine === turn && shown === page);
    if (mine !== turn) return;
    live.textContent = `live, ${new Date().toISOString().slice(11, 19)} UTC`;
    live.className = "";
  } catch (error) {
    if (mine !== turn) return;
    live.textContent = error instanceof Refused ? error.message : "the pipe does not answer; trying again";
    live.className = "bad";
  }
}

function route() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const wishes = Object.fromEntries(new URLSearchParams(search));
  const [room, coded = ""] = path.split("/");
  let id = coded;
  try {
    id = decodeURIComponent(coded);
  } catch { /* as it is written: the pipe says that it is no id */ }
  let name = room || "overview";
  if (room === "session") page = session(main, id);
  else if (room === "sessions") page = sessions(main, wishes);
  else {
    name = "overview";
    page = overview(main);
  }
  if (name === "sessions" && wishes.phase === "parked") name = "parked";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${id || name} - truba`;
  refresh();
}

document.getElementById("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = document.getElementById("find-id").value.trim();
  if (id) location.hash = `#/session/${encodeURIComponent(id)}`;
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.getElementById("find-id").focus();
});
window.addEventListener("hashchange", () => {
  route();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh());
setInterval(() => document.visibilityState === "visible" && !document.querySelector("dialog[open]") && refresh(), BEAT_MS);
route();
