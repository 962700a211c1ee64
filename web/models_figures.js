// Both versions side by side, as customers see them; the worse figure is marked.

import { el } from "./dom.js";

// A difference below this share is no difference.
const NOTICED = 0.05;

const ROWS = [
  { word: "Replies", of: (f) => f.replies ?? 0 },
  { word: "Errors", of: (f) => f.errors ?? 0, judge: (f) => (f.errors ?? 0) / Math.max(1, (f.replies ?? 0) + (f.errors ?? 0)), better: "less" },
  { word: "First token, p50", of: (f) => ms(f.first_token_p50), judge: (f) => f.first_token_p50, better: "less" },
  { word: "First token, p95", of: (f) => ms(f.first_token_p95), judge: (f) => f.first_token_p95, better: "less" },
  { word: "First token, p99", of: (f) => ms(f.first_token_p99), judge: (f) => f.first_token_p99, better: "less" },
  { word: "Tokens per second", of: (f) => (f.tokens_per_s ? f.tokens_per_s.toFixed(0) : "–"), judge: (f) => f.tokens_per_s, better: "more" },
  { word: "Quality", of: (f) => (f.judged ? (f.quality ?? 0).toFixed(2) : "–"), judge: (f) => (f.judged ? f.quality ?? 0 : undefined), better: "more" },
];

export function figures({ serving, swap, figures: counted, span_s: span }) {
  if (!serving) return el("div");
  const sides = swap ? [side(counted, swap.from), side(counted, swap.to, swap.stage)] : [side(counted, serving.stable)];
  const head = el("tr", {}, el("td", {}), ...sides.map((one) => el("th", { scope: "col" }, one.head)));
  const rows = ROWS.map((row) => el("tr", {}, el("th", { scope: "row" }, row.word), ...cells(row, sides)));
  const since = span ? `the last ${Math.min(60, Math.max(1, Math.round(span / 10) * 10))} s` : "since it began";
  return el(
    "section",
    { class: "part", "data-testid": "figures" },
    el("h2", {}, sides.length > 1 ? "Side by side" : "As customers see it", el("small", {}, since)),
    el("table", { class: "beside" }, el("thead", {}, head), el("tbody", {}, ...rows)),
  );
}

// What nobody was sent is shown while there is nothing else.
function side(counted, id, stage = "") {
  const found = counted[id] ?? {};
  const shadow = stage === "shadowing" || (!found.sent && found.shadow);
  return { head: shadow ? `${id}, shadow` : id, figures: (shadow ? found.shadow : found.sent) ?? {} };
}

function cells(row, sides) {
  const worse = worst(row, sides);
  return sides.map((one, n) => el("td", { "data-worse": n === worse }, String(row.of(one.figures))));
}

/** Which side is worse, by more than a little; -1 if none is. */
export function worst({ judge, better }, sides) {
  if (!judge || sides.length < 2) return -1;
  const [a, b] = sides.map((one) => judge(one.figures));
  if (a === undefined || b === undefined || sides.some((one) => !(one.figures.replies || one.figures.errors))) return -1;
  if (Math.abs(a - b) <= NOTICED * Math.max(Math.abs(a), Math.abs(b))) return -1;
  return a > b === (better === "less") ? 0 : 1;
}

function ms(value) {
  return value ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "–";
}
