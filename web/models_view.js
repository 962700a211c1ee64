// A model as a person sees it. Everything here is a function of what the fleet said last.

import { button, el } from "./dom.js";
import { figures } from "./models_figures.js";
import { past, replicas, versions } from "./models_tables.js";

const WORDS = {
  loading: "Load",
  warming: "Warm up",
  evaluating: "Evaluate",
  shadowing: "Shadow",
  promoted: "Everybody",
  retiring: "Retire the old",
};
const DOING = {
  loading: "is being loaded",
  warming: "is warming up",
  evaluating: "is put to the gate's questions",
  shadowing: "answers too, and nobody is sent it",
};

export function view(shown, act) {
  return [
    el("h1", { class: "headline", "data-testid": "headline" }, headline(shown)),
    el("p", { class: "facts" }, facts(shown)),
    shown.swap ? stops(shown.swap) : el("div"),
    said(shown),
    acts(shown, act),
    figures(shown),
    replicas(shown),
    versions(shown),
    past(shown),
  ];
}

export const percentOf = (value) => `${Number(value.toFixed(2))} %`;

function headline({ name, serving, swap }) {
  if (!serving) return `${name} answers with no version yet.`;
  const { stable } = serving;
  if (!swap) return `${stable} answers everybody.`;
  if (swap.back) return `${stable} answers everybody again.`;
  const percent = serving.canary?.percent ?? 0;
  if (swap.stage === "canary" && percent > 0) return `${swap.to} answers ${percentOf(percent)} of the conversations.`;
  if (DOING[swap.stage]) return `${stable} answers; ${swap.to} ${DOING[swap.stage]}.`;
  return swap.stage === "canary" ? `${stable} answers; ${swap.to} is ready.` : `${stable} answers everybody.`;
}

function facts({ serving, swap, versions: all }) {
  if (swap?.stage === "promoted" && !swap.back) return `${swap.from} is still loaded: until it is retired, there is a way back.`;
  if (swap) return `A swap from ${swap.from} to ${swap.to}${swap.by ? `, begun by ${swap.by}` : ""}.`;
  const version = all.find((one) => one.id === serving?.stable);
  const parts = version ? [version.engine ?? "vllm", version.quantisation, version.licence, version.source, version.note] : [];
  const instead = serving?.fallbacks?.length ? `${serving.fallbacks.join(", ")} when it can't` : "";
  return [...parts, instead].filter(Boolean).join(" · ");
}

// -- the swap, as a line of stops

function stops(swap) {
  const path = swap.stages.flatMap((stage) =>
    stage === "canary" ? swap.percents.map((percent, step) => ({ stage, step, word: percentOf(percent) })) : [{ stage, step: 0, word: WORDS[stage] }],
  );
  const now = path.findIndex((one) => one.stage === swap.stage && one.step === swap.step);
  const items = path.map((one, place) => {
    const state = stateOf(swap, place, now);
    const current = place === now ? "step" : null;
    return el("li", { class: "stage", "data-state": state, "data-stage": one.stage, "aria-current": current }, one.word);
  });
  return el("ol", { class: "stages", "data-testid": "stops", "data-stage": swap.stage, "aria-label": `The swap to ${swap.to}` }, ...items);
}

function stateOf(swap, place, now) {
  if (place !== now) return place < now ? "done" : "later";
  if (swap.back) return "failed";
  return swap.paused || swap.waits ? "held" : "now";
}

// -- what there is to say about it

function said({ swap, swaps, notes }) {
  const lines = swap ? aboutSwap(swap) : aboutLast(swaps[0]);
  const more = notes.map((note) => el("p", { class: "wrong" }, note));
  return el("div", { class: "said", "data-testid": "said" }, ...lines, ...more);
}

function aboutSwap(swap) {
  const lines = [];
  if (swap.back) lines.push(el("p", { class: "wrong", "data-testid": "reason" }, `It was turned back: ${swap.reason}.`));
  lines.push(gate(swap));
  if (swap.paused) lines.push(el("p", {}, "Paused: nothing moves until somebody goes on. Its budgets are watched all the same."));
  if (swap.waits && !swap.paused) lines.push(el("p", {}, "It waits for somebody to go on."));
  const seen = swap.notes.filter((note) => !(swap.gated === false && note.includes("gate set")));
  return [...lines, ...seen.map((note) => el("p", {}, note))];
}

function aboutLast(last) {
  if (!last || last.end === "done") return [];
  const how = last.end === "failed" ? "failed" : "was rolled back";
  return [el("p", { class: "wrong", "data-testid": "reason" }, `The last swap, to ${last.to}, ${how}: ${last.reason}.`), gate(last)];
}

function gate(swap) {
  const verdict = swap.verdicts.evaluating;
  if (!swap.gated) return el("p", { "data-testid": "gate" }, "Without a gate set: nothing was asked of it first.");
  if (!verdict) return el("p", { "data-testid": "gate" }, "The gate has not been passed yet.");
  const score = (side) => (side ? `${side.version} ${(side.quality ?? 0).toFixed(2)}` : "");
  const scores = [score(verdict.candidate), score(verdict.stable)].filter(Boolean).join(", ");
  const why = verdict.passed ? "" : ` ${verdict.reasons.join("; ")}.`;
  const word = verdict.passed ? "Passed the gate" : "Failed at the gate";
  return el("p", { class: verdict.passed ? "right" : "wrong", "data-testid": "gate", "data-passed": String(verdict.passed) }, `${word}: ${scores}.${why}`);
}

// -- the one button that matters, and those beside it

function acts(shown, act) {
  const { swap } = shown;
  if (!swap) return begin(shown, act);
  if (swap.back) return el("div", { class: "act" }, el("p", { class: "hint" }, `The replies that ${swap.to} has begun are finished; then it is unloaded.`));
  const back = { id: "rollback", word: "Roll back", kind: "back" };
  const on = onward(swap);
  const [first, ...others] = swap.waits || swap.paused ? [on, back] : [back, on];
  if (["shadowing", "canary"].includes(swap.stage) && on?.id !== "promote") others.push({ id: "promote", word: "Promote now" });
  if (!swap.paused && !swap.waits && swap.stage !== "retiring") others.push({ id: "pause", word: "Pause" });
  const quiet = others.filter(Boolean).map(({ id, word }) => button(word, id, () => act(id)));
  return el("div", { class: "act", "data-testid": "acts" }, main(first, act), ...quiet);
}

/** On from where it waits, null where it goes on by itself. */
function onward(swap) {
  if (swap.paused) return { id: "resume", word: "Go on" };
  if (swap.stage === "promoted") return { id: "resume", word: `Go on: retire ${swap.from} now` };
  if (!swap.waits) return null;
  const next = swap.percents[swap.step + 1];
  return next === undefined ? { id: "promote", word: `Promote ${swap.to}` } : { id: "resume", word: `Go on to ${percentOf(next)}` };
}

function main({ id, word, kind }, act) {
  return el("button", { class: "main-act", "data-kind": kind, type: "button", "data-testid": id, onclick: () => act(id) }, word);
}

function begin({ serving, versions: all }, act) {
  const ids = all.map((one) => one.id).filter((id) => id !== serving?.stable);
  if (!serving) return hint("Have it answer: ", "flotilla models serve MODEL VERSION");
  if (!ids.length) return hint("There is nothing to swap to yet. Add a version: ", "flotilla models add NAME@2 --source …");
  const options = ids.reverse().map((id) => el("option", { value: id }, id)); // the newest first
  const select = el("select", { "aria-label": "Version", "data-testid": "to" }, ...options);
  const start = el("button", { class: "main-act", type: "button", "data-testid": "swap", onclick: () => act("swap", select.value) }, "Swap to");
  const how = "5, 25, 50 % of the conversations, 30 s each, then everybody; without a gate set. For one: ";
  return el("div", { class: "act", "data-testid": "acts" }, start, select, el("p", { class: "hint" }, how, el("code", {}, "flotilla models swap … --gate")));
}

function hint(text, command) {
  return el("div", { class: "act", "data-testid": "acts" }, el("p", { class: "hint" }, text, el("code", {}, command)));
}
