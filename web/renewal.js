// A visit's token lives for minutes: a new one is fetched at half its time, for as long as the page is open.

import { backoffMs } from "./backoff.js";
import { endOf, expired, keepVisit } from "./visit.js";

const LEAST_MS = 1_000;

export class Renewal {
  #timer = 0;
  #visit = null;
  #attempt = 0;

  /** Keeps `visit.token` and `visit.endsAt` new. */
  start(visit) {
    this.stop();
    this.#visit = visit;
    this.#attempt = 0;
    this.#wait((visit.endsAt - Date.now()) / 2);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#visit = null;
  }

  #wait(ms) {
    this.#timer = setTimeout(() => this.#renew(this.#visit), Math.max(LEAST_MS, ms));
  }

  async #renew(visit) {
    const answer = expired(visit) ? null : await post(visit);
    if (this.#visit !== visit) return; // another conversation has begun meanwhile
    if (answer?.ok) {
      const { token, expires_at } = await answer.json();
      keepVisit(Object.assign(visit, { token, endsAt: endOf(answer, expires_at) }));
      this.start(visit);
    } else if (!expired(visit) && !(answer?.status >= 400 && answer.status < 429)) {
      this.#wait(backoffMs((this.#attempt += 1)));
    }
  }
}

async function post(visit) {
  try {
    return await fetch(`/v1/sessions/${visit.session}/token`, {
      method: "POST",
      headers: { Authorization: `Bearer ${visit.token}` },
    });
  } catch {
    return null; // no network: later
  }
}
