// One conversation from end to end: the visit, the socket, the outbox, the fold and the page.

import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Outbox } from "./outbox.js";
import { Renewal } from "./renewal.js";
import { Shell } from "./shell.js";
import { Transcript } from "./transcript.js";
import { VisitRefused, expired, forgetVisit, keepVisit, keptVisit, openVisit } from "./visit.js";

export class Chat {
  #conversation = new Conversation();
  #outbox = new Outbox();
  #connection = null;
  #visit = null;
  #renewal = new Renewal();
  #over = false; // ended for good: nothing more can be sent
  #round = 0; // counts conversations, so that an answer to an older one is let go

  constructor() {
    const say = (text) => this.say(text);
    this.shell = new Shell({ say, startAgain: () => this.startAgain() });
    this.transcript = new Transcript({
      say,
      retry: (message) => this.#again(message),
      discard: (message) => this.#drop(message.id),
    });
    this.composer = new Composer({
      say,
      stop: () => this.#connection?.send({ type: "interrupt" }),
      typing: () => this.#connection?.send({ type: "typing" }),
    });
  }

  async begin() {
    const round = (this.#round += 1);
    this.#refresh();
    this.shell.state("connecting");
    try {
      const visit = keptVisit() ?? (await openVisit(() => this.shell.state("reconnecting")));
      if (round === this.#round) this.#enter(visit);
    } catch (error) {
      if (!(error instanceof VisitRefused)) throw error;
      if (round === this.#round) this.#ended("refused", error.problem);
    }
  }

  /** A new conversation. What was written and never sent goes back to the composer. */
  startAgain() {
    const unsent = this.#outbox.messages.map((message) => message.text).join("\n\n");
    this.#connection?.close();
    this.#connection = null;
    this.#renewal.stop();
    forgetVisit();
    this.#outbox.clear();
    this.#conversation = new Conversation();
    this.#visit = null;
    this.#over = false;
    this.transcript.clear();
    this.shell.reset();
    this.composer.setClosed(false);
    this.composer.giveBack(unsent);
    this.composer.focus();
    return this.begin();
  }

  /** Sends, now or when there is a connection again; false if it cannot be kept either. */
  say(text) {
    if (this.#over) return false;
    if (this.#outbox.full) {
      this.composer.notice("Many messages are still waiting to be sent. Wait until some have left.");
      return false;
    }
    this.#outbox.add(text);
    if (this.#visit && !this.#visit.talked) keepVisit(Object.assign(this.#visit, { talked: true }));
    this.#sendDue();
    this.#refresh();
    this.shell.goToEnd();
    this.composer.focus(); // the pressed example or button may be gone
    return true;
  }

  nudge() {
    this.#connection?.nudge();
  }

  #enter(visit) {
    this.#visit = visit;
    if (this.#outbox.messages.length) visit.talked = true;
    keepVisit(visit);
    this.shell.meet(visit.agent);
    this.#connection = new Connection({
      url: () => socketUrl(visit.session, this.#conversation.seen),
      token: () => visit.token,
      onOpen: () => this.#sendDue(true),
      onFrame: (frame) => this.#received(frame),
      onState: (state, reason) => this.#moved(state, reason),
    });
    this.#connection.start();
    this.#renewal.start(visit);
    this.#refresh();
  }

  #received(frame) {
    if (frame.type === "pong") return this.#sendDue();
    if (frame.type === "error") this.#troubled(frame);
    else this.#applied(frame);
    return this.#refresh();
  }

  #applied(event) {
    // Before the fold: an answer to a message sent twice repeats an event that is already seen.
    const ours = event.type === "message.accepted" && this.#outbox.accepted(event.data.id);
    const turn = this.#conversation.on(event);
    if (!turn) return;
    turn.live ||= ours;
    this.transcript.show(turn);
  }

  #troubled({ id, problem }) {
    if (id && this.#outbox.refused(id, problem)) return;
    this.composer.notice([problem?.title, problem?.detail].filter(Boolean).join(". "));
  }

  #moved(state, reason) {
    if (state === "ended") return this.#ended(reason);
    // A handshake that is refused looks like a lost network to a page; the clock tells them apart.
    if (state === "reconnecting" && expired(this.#visit)) {
      this.#connection.close();
      return this.#ended("expired");
    }
    this.shell.state(state);
    return this.#refresh();
  }

  #ended(reason, problem = null) {
    this.#over = true;
    this.#renewal.stop();
    forgetVisit();
    this.shell.ended(reason, problem);
    this.composer.setClosed(true);
    this.#refresh();
  }

  #sendDue(fresh = false) {
    for (const message of this.#outbox.due(Date.now(), fresh)) {
      const { id, text } = message;
      if (!this.#connection?.send({ type: "message", id, text })) return;
      message.sentAt = Date.now();
    }
  }

  #again(message) {
    this.#drop(message.id);
    this.say(message.text);
  }

  #drop(id) {
    this.#outbox.accepted(id);
    this.#refresh();
  }

  #refresh() {
    const { turns, running, closed } = this.#conversation;
    this.transcript.showPending(this.#outbox.messages);
    this.composer.setRunning(running && !this.#over, Boolean(this.#connection?.open));
    const talked = turns.length > 0 || this.#outbox.messages.length > 0 || this.#visit?.talked;
    this.shell.welcome(Boolean(this.#visit) && !talked);
    if (closed && this.#connection) {
      this.#connection.close();
      this.#connection = null;
      this.#ended("closed");
    }
  }
}

function socketUrl(session, after) {
  const url = new URL(`/v1/sessions/${encodeURIComponent(session)}/ws`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("after", after);
  return url.href;
}
