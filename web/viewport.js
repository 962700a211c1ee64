// On phones the keyboard covers the page without telling the layout. The visual viewport knows.

export function fitVisualViewport() {
  const view = window.visualViewport;
  if (!view) return;
  const root = document.documentElement;
  const fit = () => {
    if (view.scale > 1.01) return; // pinched: the reader is looking closely, leave the layout alone
    root.style.setProperty("--view-height", `${view.height}px`);
    if (view.offsetTop > 0) window.scrollTo(0, 0);
  };
  view.addEventListener("resize", fit);
  view.addEventListener("scroll", fit);
  fit();
}
