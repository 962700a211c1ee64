// What a reply stands on: underlined words, small numbers, a list of sources, a card with the quote.

import { byId, el } from "./dom.js";
import { unitIndex } from "./text.js";

/** Sources in the order they are first cited: [{ number, document, title, url, citations }]. */
export function sourcesOf(citations) {
  const sources = new Map();
  for (const citation of [...citations].sort((a, b) => (a.end ?? Infinity) - (b.end ?? Infinity))) {
    let source = sources.get(citation.document);
    if (!source) {
      source = { number: sources.size + 1, document: citation.document, citations: [] };
      sources.set(citation.document, source);
    }
    source.title ??= citation.title;
    source.url ??= webAddress(citation.url);
    source.citations.push(citation);
  }
  return [...sources.values()];
}

/** The reply's text as nodes, with what is cited marked. Its textContent is the text, exactly. */
export function citedText(text, sources) {
  const spans = sources.flatMap((source) => spansOf(text, source));
  const edges = new Set([0, text.length, ...spans.flatMap(({ from, to }) => [from, to])]);
  const cuts = [...edges].sort((a, b) => a - b);
  return cuts.slice(1).flatMap((to, index) => piece(text, cuts[index], to, spans));
}

export function sourceList(sources) {
  if (!sources.length) return null;
  const items = sources.map((source) => {
    const press = (event) => openCard(event.currentTarget, source, source.citations);
    const name = el("button", { type: "button", class: "source", onclick: press, "data-testid": "source" },
      el("span", { class: "source-number" }, String(source.number)), nameOf(source));
    return el("li", {}, name);
  });
  return el("ol", { class: "sources", "data-testid": "sources", "aria-label": "Sources" }, ...items);
}

function nameOf(source) {
  return source.title ?? source.document;
}

function spansOf(text, source) {
  return source.citations
    .map((citation) => ({
      source,
      citation,
      from: unitIndex(text, citation.start ?? 0),
      to: unitIndex(text, citation.end ?? 0),
    }))
    .filter(({ from, to }) => from < to);
}

function piece(text, from, to, spans) {
  const part = text.slice(from, to);
  if (!spans.some((span) => span.from <= from && to <= span.to)) return [part];
  const ending = spans.filter((span) => span.to === to);
  if (!ending.length) return [el("span", { class: "cited" }, part)];
  // The last word and its numbers stay on one line.
  const tail = Math.max(0, part.search(/\S+\s*$/u));
  const keep = el("span", { class: "together" }, el("span", { class: "cited" }, part.slice(tail)),
    ...ending.map(mark));
  return tail > 0 ? [el("span", { class: "cited" }, part.slice(0, tail)), keep] : [keep];
}

// The number is drawn by the style sheet, so that copied text has no stray digits in it.
function mark({ source, citation }) {
  return el("button", {
    type: "button",
    class: "mark",
    "data-number": source.number,
    "data-testid": "citation",
    "aria-label": `Source ${source.number}: ${nameOf(source)}`,
    onclick: (event) => openCard(event.currentTarget, source, [citation]),
  });
}

function openCard(opener, source, citations) {
  const card = byId("card");
  const quotes = [...new Set(citations.map(({ quote }) => quote).filter(Boolean))];
  const title = source.url
    ? el("a", { href: source.url, target: "_blank", rel: "noopener noreferrer" }, nameOf(source))
    : nameOf(source);
  byId("card-title").replaceChildren(title);
  byId("card-document").textContent = source.title ? source.document : "";
  byId("card-quotes").replaceChildren(...quotes.map((quote) => el("blockquote", {}, `“${quote}”`)));
  if (card.matches(":popover-open")) card.hidePopover();
  card.showPopover({ source: opener }); // the opener is its anchor, and gets the focus back
  card.focus({ preventScroll: true });
}

function webAddress(url) {
  return typeof url === "string" && /^https?:\/\//iu.test(url) ? url : undefined;
}
