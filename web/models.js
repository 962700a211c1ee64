// The page of the models: asks once a second, shows what it hears, and passes on what a person wants.

import { keepKey, model, models, Problem, steer, swap } from "./models_api.js";
import { byId, button } from "./dom.js";
import { view } from "./models_view.js";

const EVERY_MS = 1_000;
let chosen = new URLSearchParams(location.search).get("model") ?? "";
let last = ""; // what is on the page, so that nothing is drawn again that hasn't changed

function say(text) {
  byId("notice").textContent = text;
}

function status(state, text) {
  byId("status").dataset.state = state;
  byId("status-text").textContent = text;
}

async function act(what, to) {
  if (what === "rollback" && !confirm("Answer everybody with the version before?")) return;
  try {
    await (what === "swap" ? swap(chosen, to) : steer(chosen, what));
    say("");
    await look();
  } catch (error) {
    say(error.message);
  }
}

async function look() {
  const { models: all } = await models();
  if (!all.some((one) => one.name === chosen)) chosen = all[0]?.name ?? "";
  const shown = chosen ? await model(chosen) : null;
  const said = JSON.stringify([all, shown]);
  if (said === last || selecting()) return;
  last = said;
  byId("names").replaceChildren(...all.map(tab));
  byId("model").replaceChildren(...(shown ? view(shown, act) : ["There is no model yet. Add one with `flotilla models add`."]));
}

// Nobody's list of versions closes under their finger.
function selecting() {
  return document.activeElement?.tagName === "SELECT";
}

function tab({ name }) {
  const one = button(name, `model-${name}`, () => {
    chosen = name;
    history.replaceState(null, "", `?model=${encodeURIComponent(name)}`);
    look().catch(failed);
  });
  one.setAttribute("aria-current", String(name === chosen));
  return one;
}

function failed(error) {
  const locked = error instanceof Problem && [401, 403].includes(error.status);
  byId("key-form").hidden = !locked;
  status("reconnecting", locked ? "Locked" : "Reconnecting…");
  if (error instanceof Problem) say(error.message);
}

async function keepLooking() {
  for (;;) {
    try {
      await look();
      byId("key-form").hidden = true;
      if (byId("status").dataset.state !== "connected") say("");
      status("connected", "Live");
    } catch (error) {
      failed(error);
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(byId("key").value);
  look().then(() => say(""), failed);
});

keepLooking();
