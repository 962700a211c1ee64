// Messages that were written and not yet accepted. They outlive a lost connection and a reload,
// and are sent again under the same id until the fleet says that it has them.

const KEY = "flotilla.outbox";
const MESSAGES_MAX = 20;
const OVERDUE_MS = 15_000;

export class Outbox {
  #messages = load();

  get messages() {
    return this.#messages;
  }

  get full() {
    return this.#messages.length >= MESSAGES_MAX;
  }

  add(text) {
    const message = { id: newId(), text, problem: null, sentAt: 0 };
    this.#messages.push(message);
    this.#save();
    return message;
  }

  /** Takes a message out; true if it was ours. */
  accepted(id) {
    const before = this.#messages.length;
    this.#messages = this.#messages.filter((message) => message.id !== id);
    this.#save();
    return this.#messages.length < before;
  }

  /** The fleet said no: keep the text, stop sending it. */
  refused(id, problem) {
    const message = this.#messages.find((each) => each.id === id);
    if (!message) return false;
    message.problem = problem;
    this.#save();
    return true;
  }

  /** What to send now: everything on a new connection, else only what has waited too long. */
  due(now, fresh = false) {
    return this.#messages.filter(
      (each) => !each.problem && (fresh || now - each.sentAt > OVERDUE_MS),
    );
  }

  clear() {
    this.#messages = [];
    this.#save();
  }

  #save() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.#messages));
    } catch {
      // Storage is full or forbidden: the messages still live in this page.
    }
  }
}

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? [];
  } catch {
    return [];
  }
}

// Not crypto.randomUUID(): that exists on https and localhost only.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `c-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
