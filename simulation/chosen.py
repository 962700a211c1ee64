"""Whether who was to answer did: a conversation keeps its version through a canary, a canary has its share of the
conversations, and who asks for an adapter is answered with it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from simulation.observations import Chose, Hung, Journals, Observation, Received, Violation

CHANCE_LEAST = 1e-7
"""What happens less often than this by chance alone is no chance."""
READ_BY_ALL_S = 1.0
"""So often each process reads who is there."""
Bases = Mapping[str, str]
"""What each adapter runs on."""
Drawn = dict[str, dict[float, set[bool]]]
"""By the conversation and the canary's percentage: whether the candidate was to answer."""


def check_chosen(
    seen: Sequence[Observation], journals: Journals, bases: Bases, calm_until: float
) -> Iterator[Violation]:
    """While nothing has gone wrong (`calm_until`) whoever asks for an adapter, by `bases`, gets it."""
    for salt, drawn in sorted(_drawn(seen).items()):
        for conversation, by_percent in sorted(drawn.items()):
            yield from _kept(salt, conversation, by_percent)
        yield from _shares(salt, drawn)
    up = _up(seen, journals, bases)
    for o in seen:
        if isinstance(o, Received) and o.at < calm_until:
            yield from _with_adapter(o, seen, journals, bases, up)


# -- canaries


def _drawn(seen: Iterable[Observation]) -> dict[str, Drawn]:
    """By the salt of the draw, which is a swap's own."""
    plans: dict[int, Hung] = {}
    found: dict[str, Drawn] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for o in seen:
        if isinstance(o, Hung):
            plans[o.revision] = o
        elif isinstance(o, Chose) and (plan := plans.get(o.revision)) and plan.candidate and not plan.shadow:
            found[plan.salt][o.conversation][plan.percent].add(o.version == plan.candidate)
    return found


def _kept(salt: str, conversation: str, by_percent: Mapping[float, set[bool]]) -> Iterator[Violation]:
    """Who is in stays in as the canary grows, whichever process chooses."""
    was_in = False
    for percent, draws in sorted(by_percent.items()):
        if len(draws) > 1 or (was_in and draws == {False}):
            said = f"{conversation} changed its version in the canary of {salt}, at {percent:g} %"
            yield Violation(rule="kept", session=conversation, at=0.0, what=said)
        was_in = was_in or True in draws


def _shares(salt: str, drawn: Drawn) -> Iterator[Violation]:
    """How many are in is what chance makes of the percentage."""
    percents = {percent for by_percent in drawn.values() for percent in by_percent}
    for percent in sorted(percents):
        draws = [True in by_percent[percent] for by_percent in drawn.values() if percent in by_percent]
        if _chance(sum(draws), len(draws), percent / 100) < CHANCE_LEAST:
            said = f"{sum(draws)} of {len(draws)} conversations are in the canary of {salt} at {percent:g} %"
            yield Violation(rule="share", session="", at=0.0, what=said)


def _chance(found: int, of: int, share: float) -> float:
    """That so many or more of them are in, or so many or fewer, whichever is rarer, by a binomial draw."""
    each = [math.comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(of + 1)]
    return min(sum(each[found:]), sum(each[: found + 1]))


# -- adapters


def _with_adapter(
    got: Received, seen: Sequence[Observation], journals: Journals, bases: Bases, up: Mapping[str, float]
) -> Iterator[Violation]:
    """Unless its base was not there yet for all (`up`) when the turn began, or on its way out."""
    entries = journals.get(got.session, ())
    wanted = next((entry.wanted for entry in entries if entry.wanted in bases), "")
    made_by = next((entry.model for entry in entries if entry.seq == got.seq), "")
    if not wanted or made_by in ("", wanted):
        return
    turn = (got.session, got.turn)
    began = min(o.at for o in seen if isinstance(o, Received) and (o.session, o.turn) == turn)
    plans = [o for o in seen if isinstance(o, Hung) and o.at <= got.at and o.placed]
    stays = all(bases[wanted] in plan.placed and not plan.reloading for plan in plans)
    if stays and up.get(bases[wanted], math.inf) + READ_BY_ALL_S <= began:
        said = f"{got.turn} was asked of {wanted}, and is by {made_by}"
        yield Violation(rule="instead", session=got.session, at=got.at, what=said)


def _up(seen: Sequence[Observation], journals: Journals, bases: Bases) -> dict[str, float]:
    """Since when each version has answered anybody, by itself or with an adapter."""
    made_by = {(name, entry.seq): entry.model for name, entries in journals.items() for entry in entries}
    found: dict[str, float] = {}
    for o in seen:
        if isinstance(o, Received) and (model := made_by.get((o.session, o.seq))):
            found.setdefault(bases.get(model, model), o.at)
    return found
