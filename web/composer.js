// Where a person writes. Enter sends, Shift+Enter breaks the line, Esc stops the reply.

import { byId } from "./dom.js";
import { byteLength } from "./text.js";

const TEXT_BYTES_MAX = 64 * 1024;
const TYPING_EVERY_MS = 3_000;

export class Composer {
  #form = byId("composer");
  #input = byId("input");
  #send = byId("send");
  #stop = byId("stop");
  #notice = byId("notice");
  #lastTyping = 0;
  #actions;

  /** `actions` = { say(text) -> boolean, stop(), typing() }. */
  constructor(actions) {
    this.#actions = actions;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    this.#input.addEventListener("input", () => this.#changed());
    this.#stop.addEventListener("click", () => actions.stop());
    document.addEventListener("keydown", (event) => this.#escape(event));
    this.#changed();
  }

  setRunning(running, connected) {
    if (!running && document.activeElement === this.#stop) this.#input.focus();
    this.#stop.hidden = !running;
    this.#stop.disabled = !connected; // a stop that arrives late could stop another reply
  }

  setClosed(closed) {
    this.#input.disabled = closed;
    this.#changed();
  }

  notice(text) {
    this.#notice.textContent = text;
  }

  /** Puts text back where the person can see and send it. */
  giveBack(text) {
    this.#input.value = [text, this.#input.value].filter(Boolean).join("\n\n");
    this.#changed();
  }

  // On a touch screen focus would raise the keyboard over the page before it is read.
  focus() {
    if (matchMedia("(pointer: fine)").matches) this.#input.focus();
  }

  #submit() {
    const text = this.#input.value.trim();
    if (!text || tooLong(text) || this.#input.disabled) return;
    if (!this.#actions.say(text)) return;
    this.#input.value = "";
    this.#lastTyping = 0;
    this.#changed();
  }

  #key(event) {
    // While an input method composes a word, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #escape(event) {
    if (event.key !== "Escape" || event.isComposing || document.querySelector(":popover-open")) return;
    if (!this.#stop.hidden && !this.#stop.disabled) this.#actions.stop();
  }

  #changed() {
    const text = this.#input.value.trim();
    const problem = tooLong(text);
    this.#send.disabled = !text || Boolean(problem) || this.#input.disabled;
    this.notice(problem);
    this.#fit();
    if (text && performance.now() - this.#lastTyping > TYPING_EVERY_MS) {
      this.#lastTyping = performance.now();
      this.#actions.typing();
    }
  }

  #fit() {
    this.#input.style.height = "auto";
    this.#input.style.height = `${this.#input.scrollHeight}px`;
  }
}

function tooLong(text) {
  const bytes = byteLength(text);
  if (bytes <= TEXT_BYTES_MAX) return "";
  const size = Math.ceil((bytes / 1024) * 10) / 10;
  return `This message is ${size} KB and the limit is 64 KB. Shorten it, or send it in parts.`;
}
