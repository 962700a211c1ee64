"""What providers answer when they don't generate, in the fleet's words. One vocabulary for all of them.

Nothing of a provider's exception is chained to ours: its request holds the key. What a provider says goes into
an error only without the key, and cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from flotilla.core.errors import FlotillaError, Misconfigured, RateLimited, Refused, Unavailable

RATE_RETRY_S = 5.0
DOWN_RETRY_S = 5.0
RETRY_S_MAX = 3600.0
SAID_CHARS_MAX = 300
ELSEWHERE = "Try again later, or ask another model."

TRANSIENT = frozenset({408, 409, 425})
_TOO_LONG = re.compile(
    r"context.?length|context.?window|maximum context|too long|too large|too many.{0,20}tokens"
    r"|token.{0,60}exceed|exceed.{0,60}token",
    re.I | re.S,
)
Headers = Mapping[str, str]


class Troubles:
    """Of one engine: `who` is its name, `key` what must be in no error."""

    def __init__(self, who: str, key: str) -> None:
        self._who, self._key = who, key

    def status(self, status: int, said: str, headers: Headers) -> FlotillaError:
        """The error for an HTTP status of 400 or more."""
        if status in (401, 402, 403):  # without what it said: some repeat a part of the key
            return self._key_rejected(status)
        if status == 404:
            return self._no_such_model(said)
        if status == 429:
            wait_s = retry_after(headers) or RATE_RETRY_S
            return RateLimited(self._says(status, said), next=ELSEWHERE, retry_after_s=wait_s)
        if status >= 500 or status in TRANSIENT:
            wait_s = retry_after(headers) or DOWN_RETRY_S
            return Unavailable(self._says(status, said), next=ELSEWHERE, retry_after_s=wait_s)
        return self.refused(said)

    def _key_rejected(self, status: int) -> Misconfigured:
        return Misconfigured(
            f"The provider of {self._who} doesn't take the key ({status}).",
            field="api_key",
            next="Put a valid one, with the rights and the credit for this model, into the replica's environment.",
        )

    def _no_such_model(self, said: str) -> Misconfigured:
        return Misconfigured(
            self._says(404, said),
            field="settings.model",
            next="Check the model's name and the base_url in the version's settings.",
        )

    def refused(self, said: str) -> Refused:
        """The prompt can't be answered as it is."""
        if _TOO_LONG.search(said):
            next = "Send fewer or shorter messages, or start a new conversation."
            return Refused(self._says(400, said), field="messages", next=next)
        return Refused(self._says(400, said), next="Change the prompt or its settings.")

    def withheld(self, reason: str) -> Refused:
        """A filter of the provider's stood in the way."""
        said = f"The provider of {self._who} withheld the reply ({self._clean(reason)})."
        return Refused(said, field="messages", next="Ask in other words, or ask another model.")

    def unreachable(self, error: Exception) -> Unavailable:
        return self._down(f"can't be reached or hung up ({type(error).__name__})")

    def silent(self, seconds: float) -> Unavailable:
        return self._down(f"said nothing for {seconds:g} s")

    def cut(self) -> Unavailable:
        return self._down("ended the stream before the reply")

    def garbled(self, error: Exception) -> Unavailable:
        return self._down(f"sends what is not its protocol ({type(error).__name__})")

    def gave_up(self, said: str) -> Unavailable:
        return self._down(f"gave the reply up ({self._clean(said)})")

    def _down(self, what: str) -> Unavailable:
        said = f"The provider of {self._who} {what}."
        return Unavailable(said, next=ELSEWHERE, retry_after_s=DOWN_RETRY_S)

    def _says(self, status: int, said: str) -> str:
        return f"The provider of {self._who} answers {status}: {self._clean(said)}"

    def _clean(self, said: str) -> str:
        shown = said.replace(self._key, "…") if self._key else said
        return shown[:SAID_CHARS_MAX] + "…" * (len(shown) > SAID_CHARS_MAX)


def retry_after(headers: Headers) -> float | None:
    """Seconds, from `retry-after-ms` or `Retry-After` (seconds or a date); None if neither can be read."""
    if (ms := _number(headers.get("retry-after-ms", ""))) is not None:
        return _bounded(ms / 1000)
    said = headers.get("retry-after", "")
    seconds = _number(said)
    if seconds is None and said:
        seconds = _until(said)
    return None if seconds is None else _bounded(seconds)


def _bounded(seconds: float) -> float:
    return min(RETRY_S_MAX, max(0.0, seconds))


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text.strip()) else None


def _until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()
