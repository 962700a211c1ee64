"""How many tokens a tenant may use: a day, a month, both or without bound. Days and months are UTC's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from flotilla.core.errors import LimitReached


class Allowance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Prompt and reply together; 0 for no bound."""

    tokens_per_day: int = 0
    tokens_per_month: int = 0

    @property
    def bounded(self) -> bool:
        return bool(self.tokens_per_day or self.tokens_per_month)


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the tighter of the two bounds, and the seconds until it begins anew."""

    span: Literal["day", "month"]
    limit: int
    tokens: int
    resets_s: float


def left(allowance: Allowance, *, today: int, month: int, now: datetime) -> Left | None:
    """`today` and `month` are the tokens used so far. None if nothing is bounded."""
    spans: list[Left] = []
    if limit := allowance.tokens_per_day:
        resets_s = (_tomorrow(now) - now).total_seconds()
        spans.append(Left(span="day", limit=limit, tokens=max(0, limit - today), resets_s=resets_s))
    if limit := allowance.tokens_per_month:
        resets_s = (_next_month(now) - now).total_seconds()
        spans.append(Left(span="month", limit=limit, tokens=max(0, limit - month), resets_s=resets_s))
    # Of two that are used up, the one that lasts longer is what to wait for.
    return min(spans, key=lambda span: (span.tokens, -span.resets_s), default=None)


def check(left: Left | None) -> None:
    """Raises `LimitReached` if nothing is left. A reply under way may go over it: its length is known only
    when it is made."""
    if left is not None and left.tokens <= 0:
        raise LimitReached(
            f"The {left.limit} tokens of this {left.span} are used up.",
            next=f"Wait until the {left.span} is over (UTC), or ask the operator for more.",
            retry_after_s=left.resets_s,
        )


def _tomorrow(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _next_month(now: datetime) -> datetime:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
