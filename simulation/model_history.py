"""Whether the models kept their promises, too: what was hung up, seen and said, beside a model's own record."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from simulation.chosen import check_chosen
from simulation.observations import (
    Change,
    Entry,
    Fault,
    Hung,
    Journals,
    Observation,
    Received,
    Saw,
    Told,
    Violation,
)
from simulation.reloads import Pairs, blamed, replaced, spliced, with_adapters, woven

BOARDS_LOST = "the boards are lost"
STARTING = "hosts start"
PASSING = frozenset({"unavailable", "other-version", "overloaded", "deadline-passed"})
"""A task's end that says no more than that its caller's time was up."""
WORD = 5
"""So many signs at least are said before anything breaks."""
Bases = Mapping[str, str]
"""What each adapter runs on."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's record says at one of its entries."""

    stable: str = ""
    swap: str = ""
    from_: str = ""
    to: str = ""
    stage: str = ""
    turned: bool = False
    paused: bool = False
    waits: bool = False
    in_place: bool = False

    def after(self, change: Change) -> State:
        replace = msgspec.structs.replace
        match change.type:
            case "model.served":
                return replace(self, stable=self.stable or change.version)
            case "swap.begun":
                words = {"swap": change.swap, "to": change.to, "in_place": change.in_place}
                return replace(State(), stable=self.stable, from_=self.stable, **words)
            case "swap.went":
                promoted = change.stage in ("promoted", "retiring")
                stable = self.to if promoted else self.stable
                return replace(self, stable=stable, stage=change.stage, paused=False, waits=False)
            case "swap.paused" | "swap.resumed":
                return replace(self, paused=change.type == "swap.paused")
            case "swap.waits":
                return replace(self, waits=True)
            case "swap.turned":
                return replace(self, stable=self.from_, turned=True, paused=False, waits=False)
            case "swap.ended":
                return State(stable=self.to if change.end == "done" else self.from_)
            case _:
                return self

    @property
    def asked(self) -> set[str]:
        """Whoever customers may be answered by: while replicas turn from one into the other, both."""
        if self.in_place:
            return {self.from_, self.to}
        canary = self.stage == "canary" and not self.turned
        return {id for id in (self.stable, self.to if canary else "") if id}

    @property
    def placed(self) -> set[str]:
        """Whoever is to have replicas. In place there are those that were there."""
        besides = () if self.in_place else (self.from_, self.to)
        return {id for id in (self.stable, *besides) if id}


def states(changes: Iterable[Change]) -> list[State]:
    """By `seq`, the one before the first entry too."""
    found = [State()]
    for change in changes:
        found.append(found[-1].after(change))
    return found


def check_models(
    seen: Sequence[Observation],
    changes: Sequence[Change],
    journals: Journals,
    texts: Mapping[str, Sequence[str]],
    closings: Sequence[str],
    *,
    bases: Bases = MappingProxyType({}),
) -> list[Violation]:
    """`texts` are what each version may say; `closings` what may stand behind that."""
    known = states(changes)
    words = _Words(texts, closings)
    calm_until = min(
        (o.at for o in seen if isinstance(o, Fault) and o.what != STARTING), default=float("inf")
    )
    plans = [o for o in seen if isinstance(o, Hung)]
    found = [broken for o in plans for broken in _hung(o, known, bases)]
    found += _cut([plan for plan in plans if plan.at < calm_until], bases)
    found += [broken for o in seen if isinstance(o, Told) for broken in _told(o, known)]
    found += _backwards(seen)
    found += _unasked(seen, known, journals)
    found += blamed(seen, known)
    found += check_chosen(seen, journals, bases, calm_until)
    gone = with_adapters(replaced(plans, calm_until), bases)
    refused = _refused(plans, bases)
    for name in sorted(journals):
        found += _said(name, journals[name], words, gone, refused)
    return found


def _broken(rule: str, what: str, at: float = 0.0, session: str = "") -> Violation:
    return Violation(rule=rule, session=session, at=at, what=what)


# -- plans


def _hung(hung: Hung, known: Sequence[State], bases: Bases) -> Iterable[Violation]:
    """A plan says what the record says there."""
    if hung.revision >= len(known):
        yield _broken("stable", f"plan {hung.revision} hangs there, the record ends before", hung.at)
        return
    state = known[hung.revision]
    if hung.stable != state.stable:
        said = f"plan {hung.revision} has everybody answered by {hung.stable!r}; recorded is {state.stable!r}"
        yield _broken("stable", said, hung.at)
    elif hung.candidate and not hung.shadow and hung.candidate not in state.asked:
        yield _broken("stable", f"plan {hung.revision} has {hung.candidate} answer in no canary", hung.at)
    missing = {bases.get(id, id) for id in state.placed} - {*hung.placed}
    if missing:
        yield _broken("unplaced", f"plan {hung.revision} has no replicas for {sorted(missing)}", hung.at)


def _cut(plans: Sequence[Hung], bases: Bases) -> Iterable[Violation]:
    """While all is calm nobody is left behind by a plan; in place they are answered by what is there instead. Adapters
    are asked for by their id until they are gone, and what they have begun by then is finished as their replica drains.
    """
    instead: set[str] = set()
    for plan in plans:
        instead = (instead - {*plan.placed}) | {*plan.reloading}
        if cut := {id for id in plan.cut if id not in bases and id not in instead}:
            said = f"{sorted(cut)} were answering when plan {plan.revision} left them out"
            yield _broken("unplaced", said, plan.at)


def _told(told: Told, known: Sequence[State]) -> Iterable[Violation]:
    if told.seq >= len(known):
        yield _broken("lost", f"{told.client} was told of entry {told.seq}; the record ends before", told.at)
    elif told.stable != known[told.seq].stable:
        said = f"{told.client} was told that {told.stable} is stable at {told.seq}, where the record has "
        yield _broken("lost", said + known[told.seq].stable, told.at)


def _backwards(seen: Sequence[Observation]) -> Iterable[Violation]:
    """No process is given an older plan than before; unless the boards were lost."""
    latest: dict[str, int] = {}
    for o in seen:
        if isinstance(o, Fault) and o.what == BOARDS_LOST:
            latest.clear()
        elif isinstance(o, Saw):
            before = latest.get(o.process, 0)
            if o.revision < before:
                yield _broken("backwards", f"{o.process} saw plan {o.revision} after {before}", o.at)
            latest[o.process] = o.revision


def _unasked(seen: Sequence[Observation], known: Sequence[State], journals: Journals) -> Iterable[Violation]:
    """Nobody is answered by a version before a plan has it answer anybody, but who has asked for it."""
    wanted = {name: entry.wanted for name, entries in journals.items() for entry in entries if entry.wanted}
    made_by = {(name, entry.seq): entry.model for name, entries in journals.items() for entry in entries}
    asked: set[str] = set()
    for o in seen:
        if isinstance(o, Hung):
            asked |= {*known[min(o.revision, len(known) - 1)].asked, *o.fallbacks}
        elif (
            isinstance(o, Received)
            and (model := made_by.get((o.session, o.seq)))
            and model
            not in (
                *asked,
                wanted.get(o.session),
            )
        ):
            said = f"{o.client} got {o.turn} of {model}, which was to answer nobody"
            yield _broken("unasked", said, o.at, o.session)


# -- texts


class _Words:
    def __init__(self, texts: Mapping[str, Sequence[str]], closings: Sequence[str]) -> None:
        self._texts = texts
        self._closings = closings

    def whole(self, text: str, version: str) -> bool:
        return self._body(text) in self._texts.get(version, ())

    def begun(self, text: str) -> bool:
        """Whether it is the beginning of what one version says."""
        body = self._body(text)
        return any(whole.startswith(body) for texts in self._texts.values() for whole in texts)

    def gone_on_with(self, text: str, gone: Pairs, version: str = "") -> bool:
        """Whether a version began it whose weights are gone, and the one in its place goes on with it: to the
        end, where that is named; or until the first one is back."""
        body = self._body(text)
        pairs = [(old, new) for old, new in gone if version in ("", new)]
        came_back = {new for old, new in gone if old == version}
        if self._begins(body, version) and any(woven(body, {version, new}, self._texts) for new in came_back):
            return True
        if any(spliced(body, old, new, self._texts, whole=bool(version)) for old, new in pairs):
            return True
        there_and_back = [{old, new} for old, new in pairs if (new, old) in gone]
        return any(woven(body, both, self._texts) for both in there_and_back)

    def _begins(self, body: str, version: str) -> bool:
        return any(whole.startswith(body[:WORD]) for whole in self._texts.get(version, ()))

    def _body(self, text: str) -> str:
        for closing in self._closings:
            text = text.removesuffix(closing)
        return text


def _refused(plans: Sequence[Hung], bases: Bases) -> set[str]:
    """The adapters that were in no plan at some time: whoever asked for one then was told that there is none."""
    return {id for id in bases if any(id not in plan.versions for plan in plans)}


def _said(
    name: str, entries: Sequence[Entry], words: _Words, gone: Pairs, refused: Container[str]
) -> Iterable[Violation]:
    """Each text is one version's, and each task is one version's; unless that one is gone. No reply fails, but
    of one that asks for what there isn't."""
    retired = {id for id, _ in gone}
    wanted = next((entry.wanted for entry in entries if entry.wanted), "")
    of_task: dict[str, str] = {}
    for entry in entries:
        if entry.type == "reply.failed" and entry.text == "not-found" and wanted in refused:
            continue
        if entry.type == "reply.failed" or (entry.type == "task.failed" and entry.text not in PASSING):
            yield _broken("failed", f"{entry.type} of {entry.turn} at {entry.seq} {entry.text}", session=name)
        elif entry.type == "reply.interrupted":
            if not (words.begun(entry.text) or words.gone_on_with(entry.text, gone)):
                yield _broken("mixed", f"{entry.turn} was made by several: {entry.text!r}", session=name)
        elif entry.model:
            whole = words.whole(entry.text, entry.model)
            if not (whole or words.gone_on_with(entry.text, gone, entry.model)):
                said = f"{entry.turn} is said to be by {entry.model}, and is {entry.text!r}"
                yield _broken("mixed", said, session=name)
            before = of_task.setdefault(entry.turn, entry.model)
            if entry.type == "step.done" and before != entry.model and before not in retired:
                said = f"{entry.turn} went on at {entry.model} after {before}"
                yield _broken("changed", said, session=name)
