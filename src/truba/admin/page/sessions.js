// Sessions by kind, phase, cause and age. A search looks at a bounded number of them at a time, and goes on by itself
// until there is something to show; "More" goes on from there. The list stands still while it is read.

import { ask, change, query } from "./api.js";
import { doing, SORTS } from "./app.js";
import { badge, button, bytes, count, keyed, make, show, span } from "./dom.js";

const PAGE = 50;
const PHASES = ["active", "stored", "repeating", "parked"];
const CAUSES = ["stored", "lost", "idle", "restart", "failed", "late", "unreachable", "unfinished", "resumed"];
const COLUMNS = ["Session", "Kind", "Phase", "Cause", "Opened", "Due", "Attempts", "Records", ""];

export function sessions(root, wishes) {
  const rows = make("tbody");
  const foot = make("p", { class: "actions" });
  const told = make("p", { class: "quiet", role: "status" });
  const kindField = make("select", { name: "kind" }, make("option", { value: "" }, "any"));
  let next = "";
  let begun = false;

  show(root, make("h1", {}, wishes.phase === "parked" ? "Parked sessions" : "Sessions"), filters(), told,
    make("table", {},
      make("thead", {}, make("tr", {}, ...COLUMNS.map((title) =>
        make("th", { scope: "col", class: ["Attempts", "Records"].includes(title) ? "number" : "" }, title)))), rows),
    foot);

  function filters() {
    const field = (name, label, values) => make("label", {}, label, make("select", { name },
      make("option", { value: "" }, "any"),
      ...values.map((value) => make("option", { value, selected: wishes[name] === value }, value))));
    const form = make("form", { class: "filters" },
      make("label", {}, "kind", kindField), field("phase", "phase", PHASES), field("cause", "cause", CAUSES),
      make("label", {}, "due", make("select", { name: "due" }, make("option", { value: "" }, "any"),
        make("option", { value: "true", selected: wishes.due === "true" }, "now"),
        make("option", { value: "false", selected: wishes.due === "false" }, "later"))),
      make("label", {}, "opened more than ... s ago", make("input", {
        name: "min_age_s", type: "number", min: 0, value: wishes.min_age_s ?? "" })),
      make("button", {}, "Search"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const wanted = `#/sessions${query(Object.fromEntries(new FormData(form)))}`;
      if (location.hash === wanted) window.dispatchEvent(new HashChangeEvent("hashchange"));
      else location.hash = wanted;
    });
    return form;
  }

  async function load(current) {
    begun = true;
    show(foot);
    let found = [];
    do {
      told.textContent = next ? `Looked through sessions up to ${next} ...` : "Looking ...";
      const page = await ask(`sessions${query({ ...wishes, limit: PAGE, after: next })}`);
      if (!current()) {
        begun = rows.childElementCount > 0;
        return;
      }
      next = page.next ?? "";
      found = page.sessions;
    } while (next && !found.length);
    rows.append(...found.map(row));
    told.textContent = `${count(rows.childElementCount)} shown${next ? ", and perhaps more" : ", that is all"}`;
    if (next) show(foot, keyed("more", button("More", () => load(() => root.contains(rows)))));
  }

  function row(session) {
    const cell = (title, value, number = false) => make("td", { "data-title": title, class: number ? "number" : "" }, value);
    const due_s = (session.due_ms - Date.now()) / 1000;
    const line = make("tr", {},
      cell("Session", make("a", { class: "id", href: `#/session/${session.id}` }, session.id)),
      cell("Kind", session.name),
      cell("Phase", badge(session.phase, SORTS[session.phase])),
      cell("Cause", `${session.cause}${session.detail ? `: ${session.detail.slice(0, 120)}` : ""}`),
      cell("Opened", `${span((Date.now() - session.created_ms) / 1000)} ago`),
      cell("Due", session.phase !== "stored" ? "" : due_s > 0 ? `in ${span(due_s)}` : "now"),
      cell("Attempts", count(session.attempts), true),
      cell("Records", `${count(session.records)}, ${bytes(session.bytes)}`, true),
      cell("", session.phase === "parked" ? button("Resume", () => resume(session, line)) : ""));
    return line;
  }

  async function resume(session, line) {
    await doing(`${session.id} is resumed`, async () => {
      await change("POST", `sessions/${session.id}/resume`);
      line.replaceWith(row({ ...session, phase: "stored", cause: "resumed", detail: "", due_ms: Date.now(), attempts: 0 }));
    });
  }

  return {
    async refresh(current) {
      if (kindField.childElementCount === 1) {
        const { kinds } = await ask("overview");
        if (!current()) return;
        kindField.append(...kinds.map((kind) => make("option", {
          value: kind.number, selected: [kind.name, String(kind.number)].includes(wishes.kind) }, kind.name)));
      }
      if (!begun) await load(current);
    },
  };
}
