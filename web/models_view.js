// A model as a person sees it. Everything here is a function of what the fleet said last.

import { button, el } from "./dom.js";

const STAGES = ["loading", "warming", "evaluating", "shadowing", "canary", "promoted", "retiring"];
const WORDS = {
  loading: "Load",
  warming: "Warm up",
  evaluating: "Evaluate",
  shadowing: "Shadow",
  canary: "Canary",
  promoted: "Promoted",
  retiring: "Retire the old one",
};
const ROWS = [
  ["Replies", (f) => f.replies ?? 0],
  ["Errors", (f) => f.errors ?? 0, "less"],
  ["First token, p50", (f) => ms(f.first_token_p50), "less"],
  ["First token, p95", (f) => ms(f.first_token_p95), "less"],
  ["First token, p99", (f) => ms(f.first_token_p99), "less"],
  ["Tokens per second", (f) => (f.tokens_per_s ?? 0).toFixed(0)],
  ["Quality", (f) => (f.judged ? `${(100 * f.quality).toFixed(0)} % of ${f.judged}` : "–")],
];

export function view(shown, act) {
  const swap = shown.swap;
  return [
    el("h1", { class: "headline", "data-testid": "headline" }, headline(shown)),
    el("p", { class: "facts" }, facts(shown)),
    swap ? steps(swap) : null,
    swap?.reason ? el("p", { class: "reasons", "data-testid": "reason" }, swap.reason) : null,
    swap ? notes(swap) : null,
    acts(shown, act),
    figures(shown),
    replicas(shown),
    past(shown.swaps ?? []),
  ].filter(Boolean);
}

function headline({ name, plan, swap }) {
  const stable = plan.route?.stable;
  if (!stable) return `${name} answers with no version yet.`;
  if (!swap) return `${stable} answers everybody.`;
  if (swap.reason) return `${swap.from_} answers; ${swap.to} is on its way out.`;
  const percent = plan.route.candidate ? (plan.route.canary?.percent ?? 0) : null;
  if (percent === null) return `${stable} answers everybody.`;
  return percent > 0 ? `${swap.to} answers ${percent} % of the conversations.` : `${stable} answers; ${swap.to} is being tried.`;
}

function facts({ plan }) {
  const version = plan.versions?.[plan.route?.stable];
  if (!version) return "";
  const parts = [version.engine ?? "vllm", version.quantisation, version.licence, version.source, version.note];
  return parts.filter(Boolean).join(" · ");
}

function steps(swap) {
  const now = STAGES.indexOf(swap.stage);
  const items = STAGES.map((stage, place) => {
    const word = stage === "canary" && swap.steps > 1 ? `Canary ${Math.min(swap.step + 1, swap.steps)} of ${swap.steps}` : WORDS[stage];
    return el("li", { class: "step", "data-state": stateOf(swap, place, now), "data-stage": stage }, word);
  });
  return el("ol", { class: "steps", "data-testid": "steps", "aria-label": `The swap to ${swap.to}` }, ...items);
}

function stateOf(swap, place, now) {
  if (place < now) return "done";
  if (place > now) return "later";
  if (swap.reason) return "failed";
  return swap.paused || swap.waits ? "held" : "now";
}

function notes(swap) {
  const said = [...(swap.gated === false ? ["This swap has no gate set."] : []), ...(swap.notes ?? [])];
  if (swap.paused) said.unshift("Paused: nothing moves until somebody goes on. Its budgets are still watched.");
  if (swap.waits) said.unshift("Waits for a person.");
  return said.length ? el("p", { class: "notes" }, [...new Set(said)].join(" ")) : null;
}

// The one that matters: back, while there is something to go back from; else a swap to another version.
function acts(shown, act) {
  const swap = shown.swap;
  if (!swap) return begin(shown, act);
  if (swap.reason) return null;
  const back = el("button", { class: "main-act", "data-kind": "back", type: "button", "data-testid": "rollback", onclick: () => act("rollback") }, "Roll back");
  const others = [];
  if (swap.paused || swap.waits) others.push(button("Go on", "resume", () => act("resume")));
  else if (swap.stage !== "retiring") others.push(button("Pause", "pause", () => act("pause")));
  if (["shadowing", "canary"].includes(swap.stage)) others.push(button("Promote now", "promote", () => act("promote")));
  return el("div", { class: "act" }, back, ...others);
}

function begin({ plan }, act) {
  const stable = plan.route?.stable;
  const ids = Object.keys(plan.versions ?? {}).filter((id) => id !== stable);
  if (!stable || !ids.length) return el("p", { class: "notes" }, "There is no other version to swap to. Add one with `flotilla models add`.");
  const select = el("select", { "aria-label": "Version", "data-testid": "to" }, ...ids.map((id) => el("option", { value: id }, id)));
  const start = el("button", { class: "main-act", type: "button", "data-testid": "swap", onclick: () => act("swap", select.value) }, "Swap");
  return el("div", { class: "act" }, start, el("span", {}, "to"), select);
}

function figures({ plan, swap, figures = {} }) {
  const stable = swap?.from_ ?? plan.route?.stable;
  const ids = [stable, swap?.to].filter((id, place, all) => id && all.indexOf(id) === place);
  if (!ids.length) return null;
  const head = el("tr", {}, el("td", {}), ...ids.map((id) => el("th", { scope: "col" }, id)));
  const rows = ROWS.map(([word, read]) => el("tr", {}, el("th", { scope: "row" }, word), ...ids.map((id) => el("td", {}, String(read(figures[id] ?? {}))))));
  const caption = el("caption", {}, ids.length > 1 ? "Side by side, as customers see it" : "As customers see it");
  return el("div", { class: "scroll-x" }, el("table", { class: "beside", "data-testid": "figures" }, caption, el("thead", {}, head), el("tbody", {}, ...rows)));
}

function replicas({ replicas: found = [] }) {
  if (!found.length) return null;
  const lines = found.map((one) => el("li", {}, `${one.name}: ${one.version}, ${one.state}, ${one.load?.running ?? 0} running, ${one.load?.waiting ?? 0} waiting`));
  return el("section", { class: "replicas", "data-testid": "replicas" }, el("h2", {}, "Replicas"), el("ul", {}, ...lines));
}

function past(swaps) {
  if (!swaps.length) return null;
  const lines = swaps.map((one) => el("li", {}, `${one.from_} → ${one.to}: ${ended(one)}${one.by ? `, by ${one.by}` : ""}`));
  return el("section", { class: "past", "data-testid": "past" }, el("h2", {}, "Before"), el("ul", {}, ...lines));
}

function ended(swap) {
  const words = { done: "done", rolled_back: "rolled back", failed: "failed" };
  return [words[swap.end] ?? swap.end, swap.reason].filter(Boolean).join(": ");
}

function ms(value) {
  return value ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "–";
}
