// Elements from values. Text is always set as text, so nothing that the pipe says can become markup; the page's policy
// (Trusted Types) would refuse it besides.

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function facts(pairs) {
  return make("dl", {}, ...pairs.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));
}

export const badge = (text, sort = "") => make("span", { class: `badge ${sort}` }, text);

export function button(text, act, sort = "") {
  const element = make("button", { type: "button", class: sort }, text);
  element.addEventListener("click", async () => {
    element.disabled = true;
    try {
      await act();
    } finally {
      element.disabled = false;
    }
  });
  return element;
}

// A line of the last values; its meaning is beside it in words.
export function spark(values, label) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const most = Math.max(1, ...values);
  const line = document.createElementNS(space, "polyline");
  const step = 100 / Math.max(1, values.length - 1);
  line.setAttribute("points", values.map((value, at) => `${at * step},${28 - (value / most) * 26}`).join(" "));
  svg.append(line);
  return svg;
}

// `root` shows `next`, and what had the focus there has it again.
export function show(root, ...next) {
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  root.replaceChildren(...next);
  if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

export function keyed(key, element) {
  element.dataset.key = key;
  return element;
}

const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];

export function span(seconds) {
  for (const [unit, length] of UNITS) {
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit}`;
  }
  if (seconds > 0 && seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds >= 10 || Number.isInteger(seconds) ? `${Math.round(seconds)} s` : `${seconds.toFixed(1)} s`;
}

export const count = (number) => number.toLocaleString("en");

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${at && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

export function time(at_ms) {
  if (!at_ms) return "not known";
  const date = new Date(at_ms);
  if (Number.isNaN(date.valueOf())) return `${at_ms} ms since 1970`;
  return make("time", { datetime: date.toISOString() }, date.toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC"));
}
