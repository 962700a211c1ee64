"""What replies have cost each tenant: an entry a reply, and sums by day. No word of a customer is in it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

import msgspec

from flotilla.core.generation import Usage
from flotilla.core.versions import Price, Version

Source = Literal["session", "openai", "agent"]
Outcome = Literal["done", "cancelled", "failed"]
By = Literal["day", "model", "source"]

MILLION = 1_000_000


class Charge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reply, or what there was of it when it was cancelled or failed.

    `key` names it within its tenant (a turn's id, a request's id): charged twice, it counts once. `model` is
    the id of the version, `cost` in micro-units of the ledger's currency, `first_token_ms` from the request's
    arrival, 0 if nothing came."""

    tenant: str
    key: str
    at: datetime
    source: Source
    model: str
    usage: Usage = Usage()
    cost: int = 0
    first_token_ms: float = 0.0
    outcome: Outcome = "done"

    @property
    def day(self) -> date:
        """In UTC, if `at` is."""
        return self.at.date()

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the replies of a day (`name` is YYYY-MM-DD), of a version or of a source."""

    name: str
    replies: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Spent) -> Spent:
        return Spent(
            name=self.name,
            replies=self.replies + other.replies,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=self.cost + other.cost,
        )


def spent_of(charge: Charge, by: By) -> Spent:
    names = {"day": charge.day.isoformat(), "model": charge.model, "source": charge.source}
    return Spent(
        name=names[by],
        replies=1,
        prompt_tokens=charge.usage.prompt_tokens,
        cached_tokens=charge.usage.cached_tokens,
        completion_tokens=charge.usage.completion_tokens,
        cost=charge.cost,
    )


def cost_of(usage: Usage, price: Price) -> int:
    """Micro-units, rounded up: what has a price never costs nothing. Of the prompt's tokens those that were
    cached have their own price."""
    fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
    parts = (
        fresh * price.prompt,
        usage.cached_tokens * price.cached,
        usage.completion_tokens * price.completion,
    )
    return -(-sum(parts) // MILLION)


def price_of(versions: list[Version], id: str) -> Price:
    """Of the version `id`; nothing for one that is not among `versions`."""
    return next((version.price for version in versions if version.id == id), Price())
