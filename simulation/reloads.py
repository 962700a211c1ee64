"""What swaps in place may do that others may not, and what they may not: see `simulation.model_history`.

While the replicas of a version are reloaded one by one with another, both answer what is new. In the end nobody
has the weights of the first: what it had begun and could not finish is gone on with by the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from simulation.observations import Fault, Hung, Observation, Violation

QUIET_S = 15.0
"""So long behind a fault it may still cost replies: most are mended only then."""
Pairs = set[tuple[str, str]]
"""A version whose weights are gone, and the one that was loaded in their place."""


def replaced(plans: Sequence[Hung], calm_until: float) -> Pairs:
    """In place: those whose reload came to an end, or was turned back. Beside each other: those that were placed
    once and then not, when who was going on with one may have been cut off from the boards, or gone."""
    found: Pairs = set()
    for before, after in pairwise(plans):
        retired = {*before.placed} - {*after.placed} if after.at >= calm_until else set[str]()
        found |= {(id, after.stable) for id in retired | {*before.reloading} - {after.stable}}
    return _closed(found)


def with_adapters(gone: Pairs, bases: Mapping[str, str]) -> Pairs:
    """An adapter goes with its base, and another one may have come; and it comes back with its base, to go on with
    what was begun instead."""
    went = {(id, new) for old, new in gone for id, base in bases.items() if base == old}
    came = {(old, id) for old, new in gone for id, base in bases.items() if base == new}
    return _closed(gone | went | came)


def _closed(pairs: Pairs) -> Pairs:
    """With those that were replaced one after the other."""
    while more := {(old, newest) for old, new in pairs for newer, newest in pairs if new == newer} - pairs:
        pairs = pairs | more
    return pairs


def spliced(text: str, gone: str, came: str, texts: Mapping[str, Sequence[str]], *, whole: bool) -> bool:
    """Whether `text` begins with words of `gone` and goes on with those that `came` has there."""
    for first, then in zip(texts.get(gone, ()), texts.get(came, ()), strict=False):
        begun = next((at for at, (a, b) in enumerate(zip(text, first, strict=False)) if a != b), len(text))
        rest = text[begun:]
        if begun and (then[begun:] == rest if whole else then[begun:].startswith(rest)):
            return True
    return False


def woven(text: str, versions: set[str], texts: Mapping[str, Sequence[str]]) -> bool:
    """Whether each sign of `text` is what one of them has there, of the same reply."""
    for wholes in zip(*(texts.get(id, ()) for id in versions), strict=False):
        if all(any(whole[at : at + 1] == sign for whole in wholes) for at, sign in enumerate(text)):
            return True
    return False


class Sort(Protocol):
    """What of a model's record is looked at."""

    @property
    def in_place(self) -> bool: ...


def blamed(seen: Sequence[Observation], known: Sequence[Sort]) -> Iterator[Violation]:
    """While nothing is wrong no errors are counted in a swap in place of versions that make none: that processes
    hear of a reload one after the other is nobody's fault. `known` is the record's, by the plans' revisions."""
    plans = [o for o in seen if isinstance(o, Hung) and o.revision < len(known)]
    faults = [o.at for o in seen if isinstance(o, Fault)]
    for before, after in pairwise(plans):
        grew = after.errors - before.errors
        if grew > 0 and known[before.revision].in_place and _quiet(faults, before.at, after.at):
            said = f"{grew} errors were counted of versions that make none before plan {after.revision}"
            yield Violation(rule="blamed", session="", at=after.at, what=said)


def _quiet(faults: Iterable[float], begin: float, end: float) -> bool:
    return not any(begin - QUIET_S <= at <= end for at in faults)
