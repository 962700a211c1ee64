// Values under the pointer, one line through all plots over time, and legends that hide curves.
"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const tip = document.getElementById("tip");
const svgs = [...document.querySelectorAll("svg.chart")];
const short = (value) => (value == null ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));

function nearest(xs, x) {
  let best = 0;
  for (let n = 1; n < xs.length; n++) if (Math.abs(xs[n] - x) < Math.abs(xs[best] - x)) best = n;
  return best;
}

function rows(svg, chart, place) {
  return chart.series.map((series, n) => {
    if (svg.querySelector(`path[data-series="${n}"]`).classList.contains("off") || !series.p.length) return "";
    const row = document.createElement("div");
    const name = document.createElement("span");
    const colour = document.createElement("i");
    colour.style.color = `var(--${series.colour})`;
    name.append(colour, series.name);
    row.append(name, `${short(series.v[nearest(series.p, place)])} ${chart.unit}`);
    return row;
  });
}

function show(event) {
  const svg = event.currentTarget;
  const chart = charts[svg.dataset.chart];
  const box = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / box.width;
  const x = Math.min(Math.max((event.clientX - box.left) * scale, chart.left), chart.right);
  const place = (x - chart.left) / (chart.right - chart.left);
  for (const one of svgs) {
    const line = one.querySelector(".cross");
    const seen = one === svg || (chart.timed && charts[one.dataset.chart].timed);
    line.setAttribute("visibility", seen ? "visible" : "hidden");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
  const head = document.createElement("b");
  head.textContent = chart.timed ? `${short(place * chart.until)} s` : `≤ ${short(chart.from * (chart.until / chart.from) ** place)} ms`;
  tip.replaceChildren(head, ...rows(svg, chart, place));
  tip.hidden = false;
  const left = event.clientX + 16 + tip.offsetWidth > innerWidth ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8)}px`;
}

function hide() {
  tip.hidden = true;
  for (const one of svgs) one.querySelector(".cross").setAttribute("visibility", "hidden");
}

for (const svg of svgs) {
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerleave", hide);
}
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    const path = button.closest(".card").querySelector(`path[data-series="${button.dataset.series}"]`);
    path.classList.toggle("off", !on);
  });
}
