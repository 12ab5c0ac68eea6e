// The pipe's HTTP, as this page uses it. Errors carry what the pipe said.

const KEY = "truba token";

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the pipe answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

let asking = null; // one dialog, however many requests wait for it

function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token-dialog");
    const field = document.getElementById("token");
    field.value = "";
    dialog.addEventListener(
      "close",
      () => {
        if (field.value) sessionStorage.setItem(KEY, field.value);
        asking = null;
        resolve(Boolean(field.value));
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

export async function ask(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { Accept: "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (options.body) headers["Content-Type"] = "application/json";
    const answer = await fetch(`/v1/${path}`, { ...options, headers, cache: "no-store", redirect: "error" });
    if (answer.ok) return answer.json();
    const problem = await answer.json().catch(() => ({}));
    if (answer.status !== 401) throw new Refused(answer.status, problem);
    sessionStorage.removeItem(KEY);
    if (!(await askToken())) throw new Refused(401, problem);
  }
}

export const change = (method, path, body) => ask(path, { method, body: body && JSON.stringify(body) });

export function query(wishes) {
  const given = Object.entries(wishes).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}
