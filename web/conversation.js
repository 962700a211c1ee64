// The conversation as a fold of its events. No page, no socket, no clock: events in, turns out.

import { JoinedText } from "./text.js";

const ENDED = new Set(["completed", "failed", "interrupted", "handed", "person"]);

const NOTICES = {
  "handoff.requested": () => "A person has been asked to join.",
  "handoff.accepted": ({ person }) => `${person ?? "A person"} has joined.`,
  "handoff.returned": () => "The agent is answering again.",
};

/** One turn: what was asked, and the reply. `live` means that this page saw it happen. What belongs to no
 *  turn (a person has the conversation) stands in one of its own, that nobody replies to. */
class Turn {
  messages = [];
  notices = [];
  status; // waiting, then streaming, then one of ENDED
  reply = new JoinedText();
  live = false;
  end = {}; // the data of the event that ended the reply

  constructor(id, status = "waiting") {
    this.id = id;
    this.status = status;
  }

  get running() {
    return !ENDED.has(this.status);
  }

  finish(status, data) {
    this.status = status;
    this.end = data;
    if (typeof data.text === "string") this.reply.replace(data.text);
  }
}

const HANDLERS = {
  "message.accepted": (turn, data) => turn.messages.push({ id: data.id, text: data.text }),
  "reply.started": (turn) => {
    if (turn.running) turn.status = "streaming";
  },
  "reply.delta": (turn, data) => {
    if (!turn.running) return;
    turn.live = true;
    // A gap is not shown: reply.completed carries the whole text and heals it.
    if (turn.reply.join(data.offset, data.text)) turn.status = "streaming";
  },
  "reply.rewound": (turn, data) => {
    if (turn.running) turn.reply.cut(data.offset);
  },
  "reply.completed": (turn, data) => turn.finish("completed", data),
  "reply.failed": (turn, data) => turn.finish("failed", data),
  "reply.interrupted": (turn, data) => turn.finish("interrupted", data),
  "message.sent": (turn, data) => turn.finish("person", data),
};
for (const [type, notice] of Object.entries(NOTICES)) {
  HANDLERS[type] = (turn, data) => turn.notices.push(notice(data));
}

export class Conversation {
  turns = [];
  seen = 0; // the last durable seq: what a reconnect asks to go on from
  closed = false;

  get running() {
    return this.turns.some((turn) => turn.running);
  }

  /** Applies one event and returns the turn that it changed, or null. */
  on(event) {
    if (this.#repeated(event)) return null;
    if (event.type === "session.closed") {
      this.closed = true;
      return null;
    }
    const handle = Object.hasOwn(HANDLERS, event.type) ? HANDLERS[event.type] : null;
    if (!handle) return null;
    const turn = this.#turn(event);
    handle(turn, event.data ?? {});
    return turn;
  }

  #repeated(event) {
    if (event.type === "reply.delta" || !Number.isInteger(event.seq)) return false;
    if (event.seq <= this.seen) return true;
    this.seen = event.seq;
    return false;
  }

  #turn({ turn: id, seq }) {
    let turn = this.turns.findLast((each) => each.id === id);
    if (!turn) this.turns.push((turn = id ? new Turn(id) : new Turn(`e-${seq}`, "handed")));
    return turn;
  }
}
