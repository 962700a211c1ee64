// Replicas, versions and the swaps there were, as tables.

import { el } from "./dom.js";

function table(testid, title, heads, rows, empty) {
  const head = el("tr", {}, ...heads.map((word) => el("th", { scope: "col" }, word)));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, String(cell || cell === 0 ? cell : "–")))));
  const shown = rows.length
    ? el("div", { class: "scroll-x", tabindex: "0", role: "group", "aria-label": title }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)))
    : el("p", { class: "empty-part" }, empty);
  return el("section", { class: "part", "data-testid": testid }, el("h2", {}, title), shown);
}

export function replicas({ replicas: all }) {
  const heads = ["Replica", "State", "Running", "Waiting", "Cache used", "Adapters"];
  const rows = all.map(({ name, state, load, adapters }) => [
    name,
    state,
    load.running ?? 0,
    load.waiting ?? 0,
    `${Math.round(100 * (load.cache_used ?? 0))} %`,
    adapters.join(", "),
  ]);
  return table("replicas", "Replicas", heads, rows, "None runs now.");
}

export function versions({ versions: all, scores, serving, swap }) {
  const now = (one) => (one.id === serving?.stable ? "answers" : one.id === swap?.to && !swap.back ? "comes" : one.placed ? "loaded" : "");
  const heads = ["Version", "Runs on", "Weights", "Gate", "Now", "Note"];
  const rows = all.map((one) => [
    one.id,
    one.base ? `adapter on ${one.base}` : (one.engine ?? "vllm"),
    one.adapter ?? one.source,
    scores[one.id] ? (scores[one.id].quality ?? 0).toFixed(2) : "",
    now(one),
    one.note,
  ]);
  return table("versions", "Versions and adapters", heads, rows, "There is none.");
}

const ENDS = { done: "done", rolled_back: "rolled back", failed: "failed" };

export function past({ swaps }) {
  if (!swaps.length) return el("div");
  const heads = ["Swap", "Ended", "Why", "By"];
  const rows = swaps.map((one) => [`${one.from} → ${one.to}`, ENDS[one.end] ?? one.end, one.reason, one.by]);
  return table("past", "Before", heads, rows, "");
}
