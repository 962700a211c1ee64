// Makes elements. Children are nodes or strings, and strings become text nodes: no text that came
// over the wire is ever read as HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value); // onclick → click
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Whether the fleet is on this machine: then both pages need no key. */
export const onLoopback = ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname);

export function byId(id) {
  return document.getElementById(id);
}

export function button(text, testid, onclick) {
  return el("button", { type: "button", class: "quiet", "data-testid": testid, onclick }, text);
}
