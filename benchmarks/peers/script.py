"""What every peer's model says: the same tokens at the same pace. It stands alone, so that it can be copied
into a peer that has an environment of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

QUESTION = "Which of your cards should I take along when I travel abroad this summer?"
TEXT = (
    "Take the card whose fee is lowest where you are going and keep a second one at home in a drawer. "
    "Tell the branch your dates before you leave, so that no payment is held up while you sleep. "
    "Draw cash seldom and in larger sums, and write down the number to call if a card is ever lost abroad."
)
TOKENS = tuple(f" {word}" if at else word for at, word in enumerate(TEXT.split()))
"""A token is a word with the space before it."""


async def reply(pace_s: float) -> AsyncGenerator[str]:
    """The tokens, the first one at once, then one every `pace_s` seconds; 0 is as fast as they are read."""
    began = time.monotonic()
    for at, token in enumerate(TOKENS):
        if pace_s > 0:
            await asyncio.sleep(max(0.0, began + at * pace_s - time.monotonic()))
        yield token
