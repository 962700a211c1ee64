// Lets text appear at an even pace: engines send it in bursts, eyes read it as a line.

const CATCH_UP_MS = 160; // the shown text is at most about this far behind
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Reveal {
  #node;
  #target = "";
  #frame = 0;
  #last = 0;
  #done = null;

  constructor(node) {
    this.#node = node;
  }

  /** Moves towards `text`; `done` is called once all of it is shown. */
  to(text, done = null) {
    this.#target = text;
    this.#done = done;
    if (!text.startsWith(this.#node.data)) this.#node.data = common(text, this.#node.data);
    if (calm.matches || document.hidden) this.jump(text);
    else if (!this.#frame) this.#start();
  }

  jump(text) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#node.data = this.#target = text;
    this.#finish();
  }

  #start() {
    this.#last = performance.now();
    this.#frame = requestAnimationFrame((now) => this.#step(now));
  }

  #step(now) {
    const shown = this.#node.data.length;
    const behind = this.#target.length - shown;
    const share = Math.min(1, (now - this.#last) / CATCH_UP_MS);
    this.#last = now;
    if (behind > 0) {
      const until = whole(this.#target, shown + Math.max(1, Math.ceil(behind * share)));
      this.#node.appendData(this.#target.slice(shown, until));
    }
    this.#frame = 0;
    if (this.#node.data.length < this.#target.length) this.#start();
    else this.#finish();
  }

  #finish() {
    const done = this.#done;
    this.#done = null;
    done?.();
  }
}

function common(text, other) {
  let at = 0;
  while (at < text.length && text[at] === other[at]) at += 1;
  return text.slice(0, at);
}

// Never stops between the two halves of a surrogate pair.
function whole(text, index) {
  const unit = text.charCodeAt(index - 1);
  return unit >= 0xd800 && unit <= 0xdbff ? index + 1 : index;
}
