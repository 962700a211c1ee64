// How long to wait before trying again: 0.2 s to 5 s, doubled each time, half of it by chance so that
// ten thousand pages that lost the same gateway do not come back in the same instant.

const FIRST_MS = 400;
const LONGEST_MS = 5_000;

export function backoffMs(attempt, random = Math.random) {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt);
  return (ceiling / 2) * (1 + random());
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
