// The fleet's side of the models, and the key that opens it: `dev` on this machine, else what a person types.

const KEY = "flotilla.operator";

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
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
  const response = await fetch(`/v1/models${path}`, { ...options, headers: { ...headers, ...options.headers } });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, body);
  return body;
}

export const models = () => call("");
export const model = (name) => call(`/${encodeURIComponent(name)}`);

export function steer(name, what, body = {}) {
  return call(`/${encodeURIComponent(name)}/swap/${what}`, { method: "POST", body: JSON.stringify(body) });
}

export function swap(name, to) {
  const headers = { "Idempotency-Key": crypto.randomUUID() };
  return call(`/${encodeURIComponent(name)}/swaps`, { method: "POST", body: JSON.stringify({ to }), headers });
}
