"""What each process counts of the replies of a version: sums that can be added up and subtracted.

Times go into buckets that grow by a tenth each, so a quantile is right within 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from flotilla.core.swap_orders import Figures

GROWTH = 1.1
BUCKETS = 144  # 1 ms to 15 min
SHADOW = "shadow:"
"""In front of the id of a version whose replies nobody was sent."""


class Tally(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`first_token` and `lasted` count replies by bucket, of the time to the first token and to the end;
    `seconds` and `first_seconds` are the sums of those times. `prompts` and `completions` count them by
    `size`, of the tokens that went in and came out. `running` is how many are being made now,
    `held` how many tasks of agents go on with the version that began them."""

    running: int = 0
    held: int = 0
    replies: int = 0
    errors: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    judged: int = 0
    quality: float = 0.0
    quality_squared: float = 0.0
    first_token: dict[int, int] = {}
    lasted: dict[int, int] = {}
    prompts: dict[int, int] = {}
    completions: dict[int, int] = {}

    def reply(self, first_token_ms: float, tokens: int, seconds: float, prompt_tokens: int = 0) -> None:
        _count(self.first_token, bucket(first_token_ms))
        _count(self.lasted, bucket(1000 * seconds))
        _count(self.prompts, size(prompt_tokens))
        _count(self.completions, size(tokens))
        self.replies += 1
        self.tokens += tokens
        self.prompt_tokens += prompt_tokens
        self.seconds += seconds
        self.first_seconds += first_token_ms / 1000

    def failed(self) -> None:
        self.errors += 1

    def score(self, quality: float) -> None:
        """What a judge says of a reply, 0 to 1."""
        self.judged += 1
        self.quality += quality
        self.quality_squared += quality * quality

    def add(self, other: Tally, times: int = 1) -> None:
        """Adds `other`, or takes it off with `times=-1`."""
        for field in _SUMS:
            setattr(self, field, getattr(self, field) + times * getattr(other, field))
        for field in _COUNTS:
            mine: dict[int, int] = getattr(self, field)
            for at, count in getattr(other, field).items():
                _count(mine, at, times * count)

    def figures(self, version: str) -> Figures:
        mean = self.quality / self.judged if self.judged else 0.0
        spread = max(0.0, self.quality_squared / self.judged - mean * mean) if self.judged else 0.0
        return Figures(
            version=version,
            replies=self.replies,
            errors=self.errors,
            first_token_p50=self.quantile(0.5),
            first_token_p95=self.quantile(0.95),
            first_token_p99=self.quantile(0.99),
            tokens_per_s=self.tokens / self.seconds if self.seconds > 0 else 0.0,
            judged=self.judged,
            quality=mean,
            quality_deviation=math.sqrt(spread),
        )

    def quantile(self, share: float) -> float:
        """Milliseconds to the first token that `share` of the replies stayed within; 0 without replies."""
        total = sum(self.first_token.values())
        left = math.ceil(share * total)
        for at in sorted(self.first_token):
            left -= self.first_token[at]
            if left <= 0:
                return middle(at) if total else 0.0
        return 0.0


_SUMS = (
    "replies", "errors", "tokens", "prompt_tokens", "seconds", "first_seconds",
    "judged", "quality", "quality_squared",
)  # fmt: skip
_COUNTS = ("first_token", "lasted", "prompts", "completions")


def _count(counts: dict[int, int], at: int, times: int = 1) -> None:
    counts[at] = counts.get(at, 0) + times


def bucket(ms: float) -> int:
    return min(BUCKETS - 1, max(0, math.floor(math.log(max(ms, 1e-9), GROWTH)) + 1))


def middle(at: int) -> float:
    """Milliseconds in the middle of a bucket, on its logarithmic scale."""
    return GROWTH ** (at - 0.5)


def size(tokens: int) -> int:
    """The least n with `tokens <= 4**n`: the bounds that OpenTelemetry has for tokens."""
    return (max(1, tokens) - 1).bit_length() + 1 >> 1


Tallies = dict[str, Tally]
"""By the id of the version."""


def since(now: Mapping[str, Tally], before: Mapping[str, Tally]) -> Tallies:
    """What was counted between two looks at the same process; `running` and `held` as of the second. Where
    less is counted than before, it was begun anew: a version that was gone from all plans has come back."""
    return {id: _less(tally, before.get(id)) for id, tally in now.items()}


def _less(now: Tally, before: Tally | None) -> Tally:
    left = Tally(running=now.running, held=now.held)
    left.add(now)
    if before is not None and all(getattr(now, field) >= getattr(before, field) for field in _SUMS):
        left.add(before, times=-1)
    return left


def summed(parts: Sequence[Mapping[str, Tally]]) -> Tallies:
    """All processes together."""
    out: Tallies = {}
    for part in parts:
        for id, tally in part.items():
            total = out.setdefault(id, Tally())
            total.add(tally)
            total.running += tally.running
            total.held += tally.held
    return out
