// One turn on the page: what was asked, the reply as it grows, and what stands under it.

import { citedText, sourceList, sourcesOf } from "./citations.js";
import { button, el } from "./dom.js";
import { Reveal } from "./reveal.js";
import { timingView } from "./timing.js";

const ASK_FOR_A_PERSON = "I would like to talk to a person.";

export function messageView(message, state, ...under) {
  return el("div", { class: "message", "data-testid": "message", "data-id": message.id, "data-state": state },
    el("p", { class: "bubble", dir: "auto" }, message.text), ...under);
}

export class TurnView {
  #messages = el("div", { class: "messages" });
  #live = document.createTextNode("");
  #body = el("div", { class: "body", "data-testid": "reply-text", dir: "auto" }, this.#live);
  #foot = el("div", { class: "foot" });
  #notices = el("div", { class: "notices" });
  #reply = el("article", { class: "reply", "data-testid": "reply" }, this.#body, this.#foot);
  #reveal = new Reveal(this.#live);
  #settled = false;
  #say;

  /** `say(text)` sends a message for the person. */
  constructor(turn, say) {
    this.#say = say;
    this.element = el("li", { class: "turn", "data-testid": "turn", "data-turn": turn.id },
      this.#messages, this.#reply, this.#notices);
  }

  update(turn) {
    this.#showMessages(turn.messages);
    this.#notices.replaceChildren(...turn.notices.map((text) => el("p", { class: "aside" }, text)));
    if (turn.running) this.#showRunning(turn);
    else if (!this.#settled) this.#end(turn);
  }

  #showMessages(messages) {
    const shown = this.#messages.childElementCount;
    this.#messages.append(...messages.slice(shown).map((message) => messageView(message, "accepted")));
  }

  #showRunning(turn) {
    this.#reply.dataset.status = turn.reply.text ? "streaming" : "waiting";
    this.#reveal.to(turn.reply.text);
  }

  #end(turn) {
    this.#settled = true;
    const settle = () => this.#settle(turn);
    if (turn.live) this.#reveal.to(turn.reply.text, settle);
    else settle(); // history: nothing to watch
  }

  #settle(turn) {
    const { text } = turn.reply;
    const sources = sourcesOf(turn.end.citations ?? []);
    this.#body.replaceChildren(...citedText(text, sources));
    this.#foot.replaceChildren(...this.#under(turn, sources).filter(Boolean));
    this.#reply.dataset.status = turn.status;
  }

  #under(turn, sources) {
    if (turn.status === "completed") {
      return [sourceList(sources), this.#person(turn.end), timingView(turn.end.timing)];
    }
    if (turn.status === "interrupted") return [el("p", { class: "aside", "data-testid": "stopped" }, "Stopped")];
    if (turn.status === "failed") return [this.#failure(turn)];
    if (turn.status === "person") return [el("p", { class: "aside", "data-testid": "by" }, turn.end.by)];
    return [];
  }

  #person(end) {
    if (end.offers_person !== true) return null;
    return button("Talk to a person", "talk-to-person", (event) => {
      event.currentTarget.disabled = true;
      this.#say(ASK_FOR_A_PERSON);
    });
  }

  #failure(turn) {
    const asked = turn.messages.at(-1);
    const again = button("Try again", "try-again", (event) => {
      event.currentTarget.disabled = true;
      this.#say(asked.text);
    });
    return el("div", { class: "failure", "data-testid": "failure" },
      ...problemView(turn.end.problem), asked ? again : null);
  }
}

/** A problem document as lines: what happened, why, and the next move. */
export function problemView(problem) {
  const { title, detail, next } = problem ?? {};
  return [
    el("p", { class: "problem-title" }, title ?? "The reply could not be finished"),
    detail && detail !== title ? el("p", {}, detail) : null,
    next ? el("p", {}, next) : null,
  ];
}
