// One WebSocket that is always on its way back. It knows nothing of conversations:
// frames in, frames out, and a state to show.

import { backoffMs } from "./backoff.js";

const PING_EVERY_MS = 20_000;
const PONG_WITHIN_MS = 10_000;
const OPEN_WITHIN_MS = 10_000;
const RESTARTING = 1012; // a draining gateway: another one is ready now
const REFUSED = 1008;
const EXPIRED = 4401; // a socket ends with the token that opened it

/** What a close code asks of us: an end with a reason, or a wait in milliseconds. `renewed`: there is another token. */
export function afterClose(code, attempt, renewed = false, random = Math.random) {
  if (code === EXPIRED && renewed) return { waitMs: attempt ? backoffMs(attempt, random) : 0 };
  if (code === EXPIRED) return { ended: "expired" };
  if (code === REFUSED || (code >= 4400 && code < 4500)) return { ended: "refused" };
  // Only the first return is at once: a gateway that keeps closing must not be hammered.
  if (code === RESTARTING && attempt === 0) return { waitMs: 0 };
  return { waitMs: backoffMs(attempt, random) };
}

export class Connection {
  #socket = null;
  #attempt = 0;
  #token = "";
  #timers = { retry: 0, ping: 0, dead: 0 };
  #door;

  /** `door` = { url(), token(), onFrame(frame), onOpen(), onState(state, reason) }. */
  constructor(door) {
    this.#door = door;
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  start() {
    this.#clear();
    this.#token = this.#door.token();
    const socket = new WebSocket(this.#door.url(), [`bearer.${this.#token}`]);
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (message) => this.#received(message.data);
    socket.onclose = (close) => this.#lost(close.code);
    this.#timers.dead = setTimeout(() => this.#abandon(), OPEN_WITHIN_MS);
  }

  /** Sends if it can; false if the frame has to wait. */
  send(frame) {
    if (!this.open) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** The world changed (network back, page in view): come back now, or prove that we are alive. */
  nudge() {
    if (this.#timers.retry) this.start();
    else if (this.open) this.#ping();
  }

  close() {
    this.#clear();
    this.#detach();
  }

  #opened() {
    this.#clear();
    this.#door.onState("connected");
    this.#door.onOpen();
    this.#ping();
  }

  #received(data) {
    this.#attempt = 0; // not on open: only a frame proves that the gateway serves us
    clearTimeout(this.#timers.dead);
    this.#timers.dead = 0;
    const frame = parse(data);
    if (frame) this.#door.onFrame(frame);
  }

  #ping() {
    clearTimeout(this.#timers.ping);
    this.#timers.ping = setTimeout(() => this.#ping(), PING_EVERY_MS);
    if (this.send({ type: "ping" }) && !this.#timers.dead) {
      this.#timers.dead = setTimeout(() => this.#abandon(), PONG_WITHIN_MS);
    }
  }

  // A dead network can hold a closing socket for minutes, so we don't wait for its close event.
  #abandon() {
    this.#detach();
    this.#lost(1006);
  }

  #detach() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #lost(code) {
    this.#clear();
    this.#socket = null;
    const next = afterClose(code, this.#attempt, this.#door.token() !== this.#token);
    if (next.ended) {
      this.#door.onState("ended", next.ended);
      return;
    }
    this.#attempt += 1;
    this.#door.onState("reconnecting");
    this.#timers.retry = setTimeout(() => this.start(), next.waitMs);
  }

  #clear() {
    for (const name of Object.keys(this.#timers)) {
      clearTimeout(this.#timers[name]);
      this.#timers[name] = 0;
    }
  }
}

function parse(data) {
  try {
    const frame = JSON.parse(data);
    return typeof frame?.type === "string" ? frame : null;
  } catch {
    return null; // not ours to understand; the next frame may be
  }
}
