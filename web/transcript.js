// The list of turns, the messages still on their way, and where the reader stands in it all.

import { button, byId, el } from "./dom.js";
import { TurnView, messageView, problemView } from "./turn_view.js";

const NEAR_THE_END_PX = 64;

export class Transcript {
  #views = new Map();
  #turns = byId("turns");
  #pending = byId("pending");
  #announcer = byId("announcer");
  #actions;

  /** `actions` = { say(text), retry(message), discard(message) }. */
  constructor(actions) {
    this.#actions = actions;
  }

  show(turn) {
    let view = this.#views.get(turn.id);
    if (!view) {
      view = new TurnView(turn, this.#actions.say);
      this.#views.set(turn.id, view);
      this.#turns.append(view.element);
    }
    view.update(turn);
    if (!turn.running && turn.live) this.#announce(turn);
  }

  showPending(messages) {
    const held = new Map([...this.#pending.children].map((node) => [node.dataset.key, node]));
    const nodes = messages.map((message) => {
      const key = `${message.id} ${message.problem ? "refused" : "sending"}`;
      return held.get(key) ?? this.#pendingView(message, key); // kept, so that nothing flickers
    });
    this.#pending.replaceChildren(...nodes);
  }

  clear() {
    this.#views.clear();
    this.#turns.replaceChildren();
    this.#pending.replaceChildren();
    this.#announcer.textContent = "";
  }

  #pendingView(message, key) {
    const state = message.problem ? "refused" : "sending";
    const under = message.problem ? this.#refusal(message) : el("p", { class: "aside" }, "sending…");
    return el("li", { class: "turn", "data-key": key }, messageView(message, state, under));
  }

  #refusal(message) {
    return el("div", { class: "failure", "data-testid": "refused" },
      ...problemView({ title: "Not sent", ...message.problem }),
      button("Try again", "resend", () => this.#actions.retry(message)),
      button("Discard", "discard", () => this.#actions.discard(message)));
  }

  // Screen readers hear whole replies, once: a growing text would be read again and again.
  #announce(turn) {
    turn.live = false;
    const problem = turn.end.problem?.title;
    const words = { failed: problem ?? "The reply failed.", interrupted: "Stopped." };
    this.#announcer.textContent = words[turn.status] ?? turn.reply.text;
  }
}

/** Keeps the end in view while it grows, unless the reader has gone up to read. */
export function followEnd(scroller, content, toEnd) {
  let following = true;
  let top = 0;
  const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_THE_END_PX;
  const follow = () => {
    if (following) scroller.scrollTop = scroller.scrollHeight;
    top = scroller.scrollTop;
    toEnd.hidden = following || atEnd();
  };
  const goToEnd = () => {
    following = true;
    follow();
  };
  scroller.addEventListener("scroll", () => {
    // Only a move upwards is a reader's wish: the end also leaves when the page around it changes.
    if (atEnd()) following = true;
    else if (scroller.scrollTop < top) following = false;
    top = scroller.scrollTop;
    toEnd.hidden = following;
  }, { passive: true });
  toEnd.addEventListener("click", goToEnd);
  const observer = new ResizeObserver(follow);
  observer.observe(scroller);
  observer.observe(content);
  return goToEnd;
}
