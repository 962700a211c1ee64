// Offsets on the wire count Unicode code points; JavaScript strings count UTF-16 units.
// Everything that crosses between the two goes through this file.

const BEYOND_ONE_UNIT = 0xffff;

/** The UTF-16 index of the code point at `offset`; the end of the text if there are fewer. */
export function unitIndex(text, offset) {
  let at = 0;
  for (let left = offset; left > 0 && at < text.length; left -= 1) {
    at += text.codePointAt(at) > BEYOND_ONE_UNIT ? 2 : 1;
  }
  return at;
}

/** How many code points the text has. */
export function codePoints(text) {
  let count = 0;
  for (let at = 0; at < text.length; count += 1) {
    at += text.codePointAt(at) > BEYOND_ONE_UNIT ? 2 : 1;
  }
  return count;
}

/** How many bytes the text takes in UTF-8. */
export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

/** A text put together from deltas. A delta that comes twice, or late, does no harm. */
export class JoinedText {
  text = "";
  #length = 0; // in code points, so that the usual append never walks the text

  /** Joins a delta at its offset; false if text before it is missing. */
  join(offset, delta) {
    if (offset > this.#length) return false;
    if (offset < this.#length) {
      const at = unitIndex(this.text, offset);
      if (this.text.startsWith(delta, at)) return true; // already here, with what follows it
      this.cut(offset);
    }
    this.text += delta;
    this.#length += codePoints(delta);
    return true;
  }

  cut(offset) {
    this.text = this.text.slice(0, unitIndex(this.text, offset));
    this.#length = Math.min(this.#length, offset);
  }

  replace(text) {
    this.text = text;
    this.#length = codePoints(text);
  }
}
