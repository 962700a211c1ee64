// The fleet's side of the models, and the key that opens it: `dev` on this machine, else what a person types.

const KEY = "flotilla.key";
const PATIENCE_MS = 10_000;

/** The fleet said no, and why. */
export class Problem extends Error {
  constructor(status, problem) {
    super([problem.detail ?? problem.title ?? `HTTP ${status}`, problem.next ?? ""].join(" ").trim());
    this.status = status;
  }
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY) ?? "dev";
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json", ...options.headers };
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const response = await fetch(`/v1/models${path}`, { ...options, headers, signal });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, body);
  return body;
}

const post = (path, body, headers = {}) => call(path, { method: "POST", body: JSON.stringify(body), headers });
const pathOf = (name) => `/${encodeURIComponent(name)}`;

export const models = () => call("");
export const model = (name) => call(pathOf(name));
export const steer = (name, what, body) => post(`${pathOf(name)}/swap/${what}`, body);
export const swap = (name, to) => post(`${pathOf(name)}/swaps`, { to }, { "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}` });
