// A visitor's session: opened once, kept for the life of the tab so that a reload goes on with it.

import { backoffMs, sleep } from "./backoff.js";

const KEY = "flotilla.visit";
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]); // trying again may help

/** The fleet will not open a conversation, and says why. */
export class VisitRefused extends Error {
  constructor(problem) {
    super(problem.title);
    this.problem = problem;
  }
}

export function wantedAgent() {
  return new URLSearchParams(location.search).get("agent") ?? "";
}

/** The visit of this tab, if there is one for the same agent that has not run out. */
export function keptVisit() {
  try {
    const visit = JSON.parse(sessionStorage.getItem(KEY));
    return visit && visit.wanted === wantedAgent() && !expired(visit) ? visit : null;
  } catch {
    return null;
  }
}

export function keepVisit(visit) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(visit));
  } catch {
    // Without storage a reload starts afresh; the conversation itself works.
  }
}

export function forgetVisit() {
  sessionStorage.removeItem(KEY);
}

export function expired(visit) {
  return visit.endsAt <= Date.now();
}

/** Opens a visit, trying again for as long as trying helps. Raises VisitRefused. */
export async function openVisit(onWaiting) {
  const wanted = wantedAgent();
  for (let attempt = 0; ; attempt += 1) {
    const answer = await post(wanted ? { agent: wanted } : {});
    if (answer?.ok) return received(answer, wanted);
    if (answer && !PASSING.has(answer.status)) throw new VisitRefused(await problemOf(answer));
    onWaiting();
    await sleep(Math.max(backoffMs(attempt), retryAfterMs(answer)));
  }
}

/** When what this answer brought ends, by this machine's clock, which may be hours away from the fleet's. */
export function endOf(answer, expiresAt) {
  const fleetNow = Date.parse(answer.headers.get("Date")) || Date.now();
  return Date.now() + Date.parse(expiresAt) - fleetNow;
}

async function received(answer, wanted) {
  const visit = await answer.json();
  return { ...visit, wanted, endsAt: endOf(answer, visit.expires_at) };
}

async function post(body) {
  try {
    return await fetch("/v1/web/visits", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    return null; // no network: the same as a gateway that is not there yet
  }
}

function retryAfterMs(answer) {
  return (Number(answer?.headers.get("Retry-After")) || 0) * 1000;
}

async function problemOf(answer) {
  const fallback = { title: "This conversation could not be opened", detail: `HTTP ${answer.status}` };
  try {
    return { ...fallback, ...(await answer.json()) };
  } catch {
    return fallback;
  }
}
