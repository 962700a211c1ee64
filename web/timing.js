// Where the time of a reply went, hop by hop, as the fleet measured it.

import { el } from "./dom.js";

const HOPS = {
  queued: "Waiting",
  retrieval: "Retrieval",
  prompt: "Prompt",
  first_token: "First token",
  generation: "Generation",
};

/** A line that opens into a bar and its numbers; null if there is nothing to show. */
export function timingView(timing) {
  const hops = Object.keys(HOPS).filter((name) => isDuration(timing?.[name]));
  const summary = summaryOf(timing ?? {});
  if (!summary) return null;
  const numbers = hops.map((name) => row(HOPS[name], timing[name], name));
  for (const [name, label] of [["overhead", "Fleet overhead"], ["total", "Total"]]) {
    if (isDuration(timing[name])) numbers.push(row(label, timing[name], name));
  }
  return el("details", { class: "timing", "data-testid": "timing" },
    el("summary", { "aria-label": `Timing: ${summary}` }, summary),
    bar(hops, timing),
    el("dl", {}, ...numbers));
}

function summaryOf({ total, overhead }) {
  const parts = [];
  if (isDuration(total)) parts.push(duration(total));
  if (isDuration(overhead)) parts.push(`overhead ${duration(overhead)}`);
  return parts.join(" · ");
}

function bar(hops, timing) {
  const parts = hops.map((name) => {
    const part = el("span", { class: `hop hop-${name}`, title: `${HOPS[name]} ${duration(timing[name])}` });
    part.style.flexGrow = timing[name];
    return part;
  });
  return el("div", { class: "bar", "aria-hidden": "true" }, ...parts);
}

function row(label, ms, name) {
  return el("div", { class: `row row-${name}` },
    el("dt", {}, label),
    el("dd", { "data-testid": `timing-${name}`, "data-ms": ms }, `${exact(ms)} ms`));
}

function isDuration(value) {
  return typeof value === "number" && value >= 0;
}

function exact(ms) {
  return ms < 10 ? ms.toFixed(1).replace(/\.0$/u, "") : Math.round(ms).toLocaleString("en");
}

function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 1 ? `${Math.round(ms)} ms` : `${exact(ms)} ms`;
}
