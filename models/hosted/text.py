"""What is done to a provider's text on its way through: what was said already is taken off its beginning,
and it is ended at stops that the provider was not told of."""

from __future__ import annotations

OVERLAP_CHARS_MIN = 4
"""A shorter one is chance: "a" at the end of what was said, and "and" after it."""

CONTINUE = (
    "Your reply was cut off there. Go on from exactly where it ends, in the middle of a word if need be. "
    "Repeat nothing of it and don't mention that you were cut off."
)
"""Said to a model that can't be given the beginning of its own reply."""


class Overlap:
    """Takes off what a model repeats of `said`: all of it, or its end. Text is held back for as long as it
    may be a repetition, at most the length of `said`."""

    def __init__(self, said: str, *, chars_min: int = OVERLAP_CHARS_MIN) -> None:
        self._said, self._chars_min = said, chars_min
        self._held = ""
        self._done = not said

    def take(self, text: str) -> str:
        """What of `text`, and of what was held back, is new."""
        if self._done:
            return text
        self._held += text
        return "" if self._held in self._said else self.rest()

    def rest(self) -> str:
        """What is new of what was held back: nothing more will come that could decide it."""
        self._done = True
        repeated = self._repeated()
        new, self._held = self._held[repeated:], ""
        return new if repeated or not self._said.endswith(" ") else new.lstrip(" ")

    def _repeated(self) -> int:
        """How many characters of what is held are the end of `said`: whole words, or all of it."""
        if self._held.startswith(self._said):
            return len(self._said)
        for length in range(min(len(self._held), len(self._said)), self._chars_min - 1, -1):
            at = len(self._said) - length
            if self._said.endswith(self._held[:length]) and self._begins_word(at):
                return length
        return 0

    def _begins_word(self, at: int) -> bool:
        return at == 0 or not (self._said[at - 1].isalnum() and self._said[at].isalnum())


class Stops:
    """Ends a text before the first of `stops`. Text is held back for as long as it may be the beginning of
    one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def take(self, text: str) -> str:
        """What can be shown."""
        if not self._stops:
            return text
        self._held += text
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.found, shown, self._held = True, self._held[: min(ends)], ""
            return shown
        keep = max(map(self._begun, self._stops))
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _begun(self, stop: str) -> int:
        """How many characters at the end of what is held begin `stop`."""
        return next((n for n in range(len(stop) - 1, 0, -1) if self._held.endswith(stop[:n])), 0)

    def rest(self) -> str:
        shown, self._held = self._held, ""
        return shown
