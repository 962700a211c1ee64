// The page: put together here, and told of the world around it.

import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { fitVisualViewport } from "./viewport.js";

fitVisualViewport();
const chat = new Chat();

// `offline` only nudges: a laptop without Wi-Fi still reaches a fleet on itself.
for (const name of ["online", "offline", "pageshow"]) addEventListener(name, () => chat.nudge());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) chat.nudge();
});
byId("card-close").addEventListener("click", () => byId("card").hidePopover());

chat.composer.focus();
await chat.begin();
