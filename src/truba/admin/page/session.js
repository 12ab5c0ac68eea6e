// One session: why it is where it is, who had it, and what may be done about it.

import { ask, change, query, Refused } from "./api.js";
import { doing, SORTS, sure } from "./app.js";
import { badge, button, bytes, count, facts, keyed, make, show, span, time } from "./dom.js";

const SHOWN = 4096; // bytes of one record

export function session(root, id) {
  const path = `sessions/${encodeURIComponent(id)}`;
  let contents = false;
  let seconds = "60";
  show(root, make("h1", {}, `Session ${id}`), make("p", { class: "quiet" }, "Asking the pipe ..."));

  function actions(found) {
    const act = (text, done, method, tail, body) => keyed(text, button(text, () => doing(done, () => change(method, path + tail, body))));
    const items = [];
    if (found.phase === "parked" || found.phase === "stored") items.push(act("Resume", `${id} is resumed`, "POST", "/resume"));
    if (found.phase === "stored") {
      const field = keyed("seconds", make("input", { type: "number", min: 0, value: seconds, "aria-label": "seconds from now" }));
      field.addEventListener("input", () => { seconds = field.value; });
      items.push(act("Deliver now", `${id} is due`, "POST", "/deliver"), field,
        keyed("due", button("Due in so many seconds", () =>
          doing(`${id} is due in ${seconds} s`, () => change("PUT", `${path}/due`, { in_s: seconds ? Number(seconds) : null })))));
    }
    if (items.length) items.push(keyed("delete", button("Delete", remove, "danger")));
    else items.push(make("span", { class: "quiet" }, "An owner holds it: nothing can be done from here until that ends."));
    return make("p", { class: "actions" }, ...items);
  }

  async function remove() {
    if (!(await sure(`Delete session ${id}?`, "It is gone for good with all its records: nobody will finish its work."))) return;
    await doing(`${id} is deleted`, () => change("DELETE", path));
  }

  function history(found) {
    return make("section", { class: "card" }, make("h2", {}, "History"),
      found.history_complete ? null : make("p", { class: "quiet" }, "Earlier holds, or their times, are not known."),
      make("ol", { class: "history" }, ...found.history.map((hold) => make("li", {},
        make("strong", {}, hold.to || "the client"), ` (epoch ${hold.epoch}), from `, time(hold.at_ms),
        hold.cause
          ? make("span", {}, " to ", time(hold.ended_ms),
            hold.at_ms && hold.ended_ms ? ` (${span((hold.ended_ms - hold.at_ms) / 1000)})` : "",
            ": ", badge(hold.cause, hold.cause === "stored" ? "" : "bad"), hold.detail ? ` ${hold.detail}` : "")
          : make("span", {}, " until now")))));
  }

  function records(found) {
    return make("section", { class: "card" }, make("h2", {}, "Records"),
      make("p", { class: "quiet" }, `${count(found.records)}, ${bytes(found.bytes)} together`),
      make("table", {}, make("tbody", {}, ...found.record_list.map((record) => make("tr", {},
        make("td", { "data-title": "Number" }, `${record.number}`),
        make("td", { class: "number", "data-title": "Size" }, bytes(record.bytes)),
        record.shown === null ? null : make("td", { "data-title": "Shown by its codec" }, make("pre", {}, record.shown)),
        record.base64 === null ? null : make("td", { "data-title": "Contents" }, make("pre", {}, text(record.base64))))))),
      found.next_record === null ? null : make("p", { class: "quiet" }, `and more, from number ${found.next_record} on`),
      contents || !found.record_list.some((record) => record.shown === null) // what a codec allows is shown at once
        ? null
        : make("p", {}, keyed("contents", button("Show contents", showContents))));
  }

  async function showContents() {
    await doing("contents are shown", async () => {
      await ask(path + query({ contents: true }));
      contents = true;
    });
  }

  return {
    async refresh(current) {
      let found;
      try {
        found = await ask(path + query({ contents: contents || "" }));
      } catch (error) {
        if (!current()) return;
        if (error instanceof Refused && [400, 404].includes(error.status)) {
          show(root, make("h1", {}, `Session ${id}`), make("p", {}, error.message));
          return;
        }
        throw error;
      }
      if (!current()) return;
      show(root, make("h1", {}, "Session ", make("span", { class: "id" }, found.id), " ", badge(found.phase, SORTS[found.phase])),
        make("div", { class: "two" },
          make("section", { class: "card" }, make("h2", {}, "Why"),
            make("ul", { class: "why" }, ...found.why.map((sentence) => make("li", {}, sentence))), actions(found)),
          make("section", { class: "card" }, make("h2", {}, "Facts"), facts([
            ["kind", `${found.name} (${found.kind})`], ["opened", time(found.created_ms)],
            ["due", found.due_ms ? time(found.due_ms) : "-"], ["epoch", count(found.epoch)],
            ["attempts", count(found.attempts)], ["deliveries", count(found.deliveries)],
            ["cause", found.cause || "-"], ["detail", found.detail || "-"], ["trace", found.trace || "-"]])),
          history(found), records(found)));
    },
  };
}

function text(base64) {
  const raw = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const shown = raw.subarray(0, SHOWN);
  const more = raw.length > SHOWN ? ` ... ${raw.length - SHOWN} bytes more` : "";
  try {
    const plain = new TextDecoder("utf-8", { fatal: true }).decode(shown);
    if (!/[\u0000-\u0008\u000e-\u001f]/.test(plain)) return plain + more;
  } catch {
    // not text, or cut within a letter: shown as numbers
  }
  return Array.from(shown, (byte) => byte.toString(16).padStart(2, "0")).join(" ") + more;
}
