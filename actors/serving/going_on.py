"""A reply, whatever dies while it is made: the next replica goes on from the text so far."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, NotFound, Overloaded, Unavailable
from flotilla.core.generation import Finished, Generated, Piece, Prompt, Usage
from flotilla.core.ports import Model

PAUSE_FIRST_S = 0.05
PAUSE_MOST_S = 2.0
# Whoever has chosen a version may have read of it a moment before whoever is to answer with it.
PLANS_READ_S = 2.0


async def going_on(
    model: Model,
    prompt: Prompt,
    *,
    clock: Clock,
    patience_s: float,
    retried: Callable[[FlotillaError], None] = lambda _: None,
) -> AsyncGenerator[Generated]:
    """Pieces, then one `Finished`, as of a single generation: no word twice, none left out.

    A schema or a forced call is of use only when it is whole: nothing of it is handed on before, and it is
    made again from its beginning. Where tools may be called and words came instead, the words are gone on
    with, without tools.

    Raises what `model` raised once nothing was handed on for `patience_s` seconds (`PLANS_READ_S` for a version that
    is not found), and at once what doesn't pass by itself. `retried` hears of each failure in between.
    """
    reply, pauses = _Reply(prompt, clock), _pauses()
    while True:
        before = reply.handed_on
        try:
            async with aclosing(model.generate(reply.rest())) as parts:
                async for part in parts:
                    if isinstance(part, Finished):
                        for piece in reply.held:
                            yield piece
                        yield reply.finished(part)
                        return
                    if reply.takes(part):
                        yield part
            raise FlotillaError(f"The model {model.name} ended a reply without saying so.")
        except (Unavailable, Overloaded, NotFound) as error:
            patient_s = min(patience_s, PLANS_READ_S) if isinstance(error, NotFound) else patience_s
            if clock.monotonic() - reply.progress_at >= patient_s:
                raise
            retried(error)
        if reply.handed_on > before:
            pauses = _pauses()
        await clock.sleep(next(pauses))


class _Reply:
    """What of a reply is there, over the generations that made it."""

    def __init__(self, prompt: Prompt, clock: Clock) -> None:
        self._prompt = prompt
        self._clock = clock
        self._whole = bool(prompt.schema) or (
            bool(prompt.tools) and prompt.tool_choice not in ("auto", "none")
        )
        self.held: list[Piece] = []
        self.handed_on = 0  # pieces
        self._text = ""
        self._tokens = 0  # of which `_before` were made by generations that broke
        self._before = 0
        self._runs = 0
        self._began = self.progress_at = clock.monotonic()
        self._first_at: float | None = None

    def rest(self) -> Prompt:
        """What to ask for now."""
        self._runs += 1
        self.held.clear()
        self._before = self._tokens
        if not self._text:
            return self._prompt
        return msgspec.structs.replace(self._prompt, said=self._prompt.said + self._text, tools=())

    def takes(self, piece: Piece) -> bool:
        """Whether the piece goes out now; it is held back otherwise."""
        now = self._clock.monotonic()
        if self._first_at is None:
            self._first_at = now
        if self._whole:
            self.held.append(piece)
            return False
        self.progress_at = now
        self.handed_on += 1
        self._text += piece.text
        self._tokens += piece.tokens
        return True

    def finished(self, end: Finished) -> Finished:
        """As if one generation had made it all. (What was said is in the last one's prompt.)"""
        if self._runs == 1:
            return end
        now = self._clock.monotonic()
        prompt_tokens = max(0, end.usage.prompt_tokens - self._before)
        return msgspec.structs.replace(
            end,
            usage=Usage(
                prompt_tokens=prompt_tokens,
                completion_tokens=end.usage.completion_tokens + self._before,
                cached_tokens=min(prompt_tokens, end.usage.cached_tokens),
            ),
            first_token_ms=1000 * ((self._first_at or now) - self._began),
            total_ms=1000 * (now - self._began),
        )


def _pauses() -> Iterator[float]:
    """Seconds between tries: doubling, up to a bound, without end."""
    pause_s = PAUSE_FIRST_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, PAUSE_MOST_S)
