// The node, and a card for each kind: its sessions, its handler, and how long its backlog will take.

import { ask, change } from "./api.js";
import { doing, sure } from "./app.js";
import { badge, button, bytes, count, facts, keyed, make, show, spark, span } from "./dom.js";

const KEPT = 150; // of two seconds each: five minutes
const backlogs = new Map();

export function overview(root) {
  show(root, make("h1", {}, "Overview"), make("p", { class: "quiet" }, "Asking the pipe ..."));
  return {
    async refresh(current) {
      const [{ node, kinds }, { jobs }] = await Promise.all([ask("overview"), ask("jobs")]);
      if (!current()) return;
      show(root, make("h1", {}, `Node ${node.name}`), about(node),
        make("div", { class: "cards" }, ...kinds.map((kind) => card(kind, jobs.find((job) => job.kind === kind.number)))));
    },
  };
}

function about(node) {
  const fact = (name, value) => make("li", {}, make("span", {}, `${name} `), value);
  return make("ul", { class: "facts" },
    make("li", {}, node.ready ? badge("takes sessions", "good") : badge("takes no sessions", "bad")),
    node.trouble ? make("li", {}, badge(node.trouble, "bad")) : null,
    fact("role", node.role), fact("clients", count(node.connections)),
    fact("log", bytes(node.log_bytes)), fact("store", bytes(node.store_bytes)),
    node.log_space === "low" ? make("li", {}, badge("the disk is nearly full", "bad")) : null,
    fact("loop lag", `${(node.lag_s * 1000).toFixed(1)} ms`), fact("event", `${node.term}-${node.seq}`),
    fact("version", node.version));
}

function card(kind, job) {
  const unfinished = kind.phases.stored + kind.phases.repeating;
  const past = backlogs.get(kind.number) ?? [];
  past.push(unfinished);
  backlogs.set(kind.number, past.slice(-KEPT));
  const parked = kind.phases.parked;
  const name = `kind-${kind.number}`;
  return make("section", { class: "card", "aria-labelledby": name },
    make("div", { class: "top" },
      make("h2", { id: name }, kind.name, " ", make("span", { class: "quiet" }, `kind ${kind.number}`)), health(kind)),
    make("ul", { class: "phases" }, ...Object.entries(kind.phases).map(([phase, number]) =>
      make("li", {}, keyed(`${name} ${phase}`, make("a", {
        href: `#/sessions?kind=${kind.number}&phase=${phase}`,
        class: phase === "parked" && number ? "bad" : "",
      }, make("strong", {}, count(number)), phase))))),
    spark(past, `unfinished sessions over the last minutes, now ${unfinished}`),
    facts([
      ["oldest due", kind.oldest_due_s === null ? "nothing is due" : `for ${span(kind.oldest_due_s)}`],
      ["finished", kind.rate ? `${kind.rate.finished_per_s.toFixed(1)}/s` : "not known yet"],
      ["backlog", drained(kind, unfinished)],
      ["handler", kind.handler.route],
      ["state", kind.handler.state],
      ...trouble(kind.handler.breaker),
      ["at work", `${count(kind.handler.out)} of ${count(kind.handler.concurrency)}`],
      ["hand-overs", outcomes(kind)],
    ]),
    job && job.state === "running"
      ? make("p", {}, `resuming: ${count(job.resumed)} of ${count(job.expected)} `,
        make("progress", { max: Math.max(1, job.expected), value: job.resumed }))
      : null,
    make("p", { class: "actions" },
      keyed(`${name} pause`, kind.paused
        ? button("Continue", () => doing(`${kind.name} goes on`, () => change("POST", `kinds/${kind.number}/continue`)))
        : button("Pause", () => pause(kind))),
      parked ? keyed(`${name} resume`, button(`Resume ${count(parked)} parked`, () => resume(kind, parked))) : null));
}

function health(kind) {
  const { handler } = kind;
  if (kind.paused) return badge("paused", "warn");
  if (handler.breaker.stage !== "closed") return badge("in trouble, left alone", "bad");
  if (!handler.reachable) return badge("handler takes nothing", "bad");
  if (handler.out >= handler.concurrency) return badge("handler has all it may", "warn");
  return badge("handler well", "good");
}

function trouble(breaker) {
  if (!breaker.failures && breaker.stage === "closed") return [];
  const until = breaker.until_ms ? `, tried again in ${span(Math.max(0, (breaker.until_ms - Date.now()) / 1000))}` : "";
  return [["breaker", `${breaker.stage}: ${breaker.failures} failed in a row (${breaker.cause || "?"} ${breaker.detail})${until}`]];
}

function drained(kind, unfinished) {
  if (!unfinished) return "nothing is unfinished";
  const { rate } = kind;
  if (!rate) return `${count(unfinished)} unfinished`;
  if (rate.drained_in_s !== null) return `${count(unfinished)} unfinished, none left in about ${span(rate.drained_in_s)}`;
  const grows = rate.backlog_per_s > 0 ? `, growing by ${rate.backlog_per_s.toFixed(1)}/s` : ", not becoming fewer";
  return `${count(unfinished)} unfinished${grows}`;
}

function outcomes(kind) {
  const named = Object.entries(kind.outcomes).sort((a, b) => b[1] - a[1]);
  return [`${count(kind.deliveries)} tried`, ...named.map(([name, number]) => `${count(number)} ${name}`)].join(", ");
}

async function pause(kind) {
  const text = "Nothing of this kind is handed over until somebody continues it, whatever restarts. Clients notice nothing.";
  if (await sure(`Pause ${kind.name}?`, text)) {
    await doing(`${kind.name} is paused`, () => change("POST", `kinds/${kind.number}/pause`));
  }
}

async function resume(kind, parked) {
  const text = `${count(parked)} sessions are handed to ${kind.handler.route} again, their attempts counted anew.`;
  if (await sure(`Resume all parked sessions of ${kind.name}?`, text)) {
    await doing("resuming", () => change("POST", `kinds/${kind.number}/resume`));
  }
}
