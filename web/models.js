// The page of the models: asks once a second, shows what it hears, and passes on what a person wants.

import { byId, button, el, onLoopback } from "./dom.js";
import { keepKey, model, models, Problem, steer, swap } from "./models_api.js";
import { view } from "./models_view.js";

const EVERY_MS = 1_000;
let chosen = new URLSearchParams(location.search).get("model") ?? "";
let shown = null; // the model as it was last heard of
let heardAt = null;

function say(text) {
  if (byId("notice").textContent !== text) byId("notice").textContent = text;
}

function status(state, text) {
  if (byId("status").dataset.state === state && byId("status-text").textContent === text) return;
  byId("status").dataset.state = state;
  byId("status-text").textContent = text;
}

// -- what a person wants

async function act(what, to) {
  const name = shown.name;
  try {
    if (what === "swap") await swap(name, to);
    else await steer(name, what, what === "resume" ? { at: shown.swap?.at ?? 0 } : {});
    say("");
    await look();
  } catch (error) {
    say(error instanceof Problem ? error.message : "The fleet doesn't answer: nothing is known of what became of this.");
  }
}

function choose(name) {
  chosen = name;
  history.replaceState(null, "", `?model=${encodeURIComponent(name)}`);
  look().catch(failed);
}

// -- what is there

async function look() {
  const { models: all } = await models();
  if (!all.some((one) => one.name === chosen)) chosen = first(all);
  const wanted = chosen;
  const heard = wanted ? await model(wanted) : null;
  if (wanted !== chosen) return; // another tab was pressed meanwhile
  shown = heard;
  heardAt = new Date();
  patch(byId("names"), all.length > 1 ? all.map(tab) : []);
  patch(byId("model"), shown ? view(shown, act) : nothing());
  well();
}

// The one that is being swapped, else one with something to swap.
function first(all) {
  const by = (one) => [one.stage ? 1 : 0, one.versions, one.replicas];
  const best = [...all].sort((a, b) => by(b).reduce((found, value, n) => found || value - by(a)[n], 0));
  return best[0]?.name ?? "";
}

function tab({ name, stage }) {
  const one = button(name, `model-${name}`, () => choose(name));
  one.setAttribute("aria-current", String(name === chosen));
  one.toggleAttribute("data-swaps", Boolean(stage));
  return one;
}

function nothing() {
  return [
    el("h1", { class: "headline", "data-testid": "headline" }, "There is no model yet."),
    el("p", { class: "facts" }, "Add one: ", el("code", {}, "flotilla models add NAME@1 --source /path/to/weights")),
  ];
}

// Only what has changed is drawn again: nothing flickers, and no list closes under anybody's finger.
function patch(place, nodes) {
  const focused = document.activeElement?.dataset?.testid;
  nodes.forEach((node, n) => {
    const old = place.children[n];
    if (!old) place.append(node);
    else if (old.outerHTML !== node.outerHTML) old.replaceWith(node);
  });
  while (place.children.length > nodes.length) place.lastElementChild.remove();
  if (focused && document.activeElement === document.body) {
    place.querySelector(`[data-testid="${CSS.escape(focused)}"]`)?.focus();
  }
}

// -- how the line is

function well() {
  if (byId("status").dataset.state !== "connected") say("");
  byId("key-form").hidden = true;
  byId("model").hidden = byId("names").hidden = false;
  document.querySelector(".board").toggleAttribute("data-stale", false);
  status("connected", "Live");
}

function failed(error) {
  const locked = error instanceof Problem && [401, 403].includes(error.status);
  byId("key-form").hidden = !locked;
  byId("model").hidden = byId("names").hidden = locked;
  document.querySelector(".board").toggleAttribute("data-stale", !locked);
  if (locked) {
    status("locked", "Locked");
    return say(sessionStorage.length ? error.message : "");
  }
  status("reconnecting", "Reconnecting…");
  const since = heardAt ? ` What you see is from ${heardAt.toLocaleTimeString()}.` : "";
  return say(error instanceof Problem ? error.message : `The fleet doesn't answer.${since}`);
}

async function keepLooking() {
  for (;;) {
    if (!document.hidden) await look().catch(failed);
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(byId("key").value);
  look().then(() => say(""), failed);
});

byId("to-chat").hidden = !onLoopback;
keepLooking();
