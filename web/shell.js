// What stands around the transcript: the name of the agent, the state of the line, the empty page.

import { byId, el, onLoopback } from "./dom.js";
import { followEnd } from "./transcript.js";

const EXAMPLES_MAX = 3;

const STATES = {
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  ended: "Ended",
};

const ENDINGS = {
  expired: { title: "This conversation has expired.", next: "Start a new one to go on." },
  refused: { title: "This conversation cannot be continued here.", next: "Start a new one to go on." },
  closed: { title: "This conversation is closed.", next: "Start a new one if there is more." },
};

export class Shell {
  #actions;

  /** `actions` = { say(text), startAgain() }. */
  constructor(actions) {
    this.#actions = actions;
    this.goToEnd = followEnd(byId("scroller"), byId("column"), byId("to-end"));
    byId("new").addEventListener("click", () => actions.startAgain());
    byId("start-again").addEventListener("click", () => actions.startAgain());
    byId("to-models").hidden = !onLoopback;
  }

  state(name) {
    const status = byId("status");
    if (status.dataset.state === name) return;
    status.dataset.state = name;
    byId("status-text").textContent = STATES[name];
  }

  meet(agent) {
    byId("agent").textContent = agent?.name ?? "";
    document.title = agent?.name ? `${agent.name} · Flotilla` : "Flotilla";
    byId("greeting").textContent = agent?.greeting ?? "How can I help?";
    const examples = (agent?.examples ?? []).slice(0, EXAMPLES_MAX);
    byId("examples").replaceChildren(...examples.map((text) => this.#example(text)));
  }

  welcome(shown) {
    byId("empty").hidden = !shown;
  }

  ended(reason, problem) {
    this.state("ended");
    const { title, next } = { ...ENDINGS[reason], ...problem };
    byId("ending-text").textContent = [title, next].filter(Boolean).join(" ");
    byId("ending").hidden = false;
    byId("start-again").focus();
  }

  reset() {
    byId("ending").hidden = true;
    this.welcome(false);
  }

  #example(text) {
    const press = () => this.#actions.say(text);
    return el("li", {}, el("button", { type: "button", "data-testid": "example", onclick: press }, text));
  }
}
