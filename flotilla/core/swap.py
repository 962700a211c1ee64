"""A model as an actor: the registry of its versions, and the swap from one to another.

`apply(fact)` folds the journal (flotilla.core.swap_registry); `on(signal)` decides. What is under way and
what plan hangs on the board both follow from the facts: each decision records some, and then whatever has
changed is stopped, published and begun. So there is nothing that a crash could leave half-way, and no
list of places at which a plan has to be remembered.
"""

from __future__ import annotations

from typing import assert_never

from flotilla.core import swap_checks as checks
from flotilla.core.effects import Due, Effects, Woken
from flotilla.core.errors import Conflict, NotFound, Refused
from flotilla.core.ids import is_name
from flotilla.core.reminders import Forget
from flotilla.core.swap_facts import (
    AddVersion,
    BeginSwap,
    DropVersion,
    Emptied,
    Judged,
    Loaded,
    Messages,
    Pause,
    Promote,
    Publish,
    Resume,
    RollBack,
    Serve,
    Served,
    Show,
    Stuck,
    SwapBegun,
    SwapPaused,
    SwapResumed,
    SwapWent,
    VersionAdded,
    VersionDropped,
    Warmed,
    Worked,
)
from flotilla.core.swap_state import Swap
from flotilla.core.swap_steps import Steps
from flotilla.core.versions import Version


class Model(Steps):
    def on(self, signal: Messages | Worked | Woken | Due) -> Effects:
        match signal:
            case Woken():
                return self._on_woken()
            case Due():
                return self._on_due(signal)
            case Loaded() | Warmed() | Judged() | Emptied() | Stuck():
                return self._on_worked(signal)
            case AddVersion():
                return self._on_add(signal)
            case DropVersion():
                return self._on_drop(signal)
            case Serve():
                return self._on_serve(signal)
            case BeginSwap():
                return self._on_begin(signal)
            case Show():
                self._check_there()
                hung: Effects = (Publish(plan=self.plan()),) if signal.hang else ()
                return (*hung, self._shown())
            case Pause() | Resume() | Promote() | RollBack():
                return self._on_steered(signal)
            case _:
                assert_never(signal)

    def _on_woken(self) -> Effects:
        """The plan hangs again wherever it was lost; the work is begun again."""
        work = self.work()
        published: Effects = (Publish(plan=self.plan()),) if self.seq else ()
        return (*published, work) if work else published

    # -- the registry

    def _on_add(self, add: AddVersion) -> Effects:
        checks.check_added(add.version, self.id.name, self.versions)
        if add.version.id in self.dropped:
            raise Conflict(
                f"{add.version.id} was dropped.",
                field="name",
                next="A name stands for one version for ever: give the new one a name of its own.",
            )
        if add.version.id in self.versions:
            return (self._shown(),)
        return self._change(VersionAdded(version=add.version, by=add.by))

    def _on_drop(self, drop: DropVersion) -> Effects:
        self._check_there()
        if drop.version in self.dropped:
            return (self._shown(),)
        version = self._find(drop.version, "version")
        self._check_unused(version.id)
        checks.check_dropped(version, self.versions, self.plan())
        return self._change(VersionDropped(version=version.id, by=drop.by))

    def _check_unused(self, id: str) -> None:
        """An adapter that is swapped has no replicas of its own, and one in place none yet."""
        if self.swap is not None and id in (self.swap.from_, self.swap.to):
            raise Conflict(
                f"{id} is part of the swap {self.swap.id}.", field="version", next="Wait for its end."
            )

    def _on_serve(self, serve: Serve) -> Effects:
        self._check_there()
        checks.check_served(serve, self.id.name)
        gone = (
            bool(self.stable) and serve.version in self.dropped
        )  # by its settings a fleet asks for it still
        version = self._find(serve.version, "version").id if serve.version and not gone else ""
        fact = Served(
            version="" if self.stable else version,
            least=serve.least,
            most=serve.most,
            cpus=serve.cpus,
            gpus=serve.gpus,
            fallbacks=serve.fallbacks,
            by=serve.by,
        )
        sizes = self.sizes.changed(fact)
        if sizes.least > sizes.most:
            raise Refused(f"At least {sizes.least} and at most {sizes.most} replicas?", field="least")
        same = fact.fallbacks is None or fact.fallbacks == self.fallbacks
        if not fact.version and sizes == self.sizes and same:
            return (self._shown(),)
        return self._change(fact)

    # -- the swap: begun, steered

    def _on_begin(self, begin: BeginSwap) -> Effects:
        self._check_there()
        if not is_name(begin.swap):
            raise Refused(f"{begin.swap!r} can't be the id of a swap.", field="swap")
        if (known := self.known.get(begin.swap)) is not None:
            if known != begin.to:
                raise Conflict(f"The swap {begin.swap} is one to {known}.", field="swap")
            return (self._shown(),)
        candidate = self._find(begin.to, "to")
        self._check_free(begin)
        checks.check_order(begin.order, self.versions[self.stable], candidate)
        begun = SwapBegun(swap=begin.swap, to=begin.to, order=begin.order, by=begin.by)
        return self._change(begun, SwapWent(swap=begin.swap, stage="loading", by=begin.by))

    def _check_free(self, begin: BeginSwap) -> None:
        if not self.stable:
            raise Refused(
                f"{self.id.name} answers with no version yet.",
                field="to",
                next=f"Have it serve {begin.to}: there is nothing to swap.",
            )
        if self.swap is not None:
            promoted = self.swap.stage == "promoted" and not self.swap.turned
            raise Conflict(
                f"The swap {self.swap.id} to {self.swap.to} is under way ({self.swap.stage}).",
                field="swap",
                next="Resume it: that retires the old version now."
                if promoted
                else "Wait for its end, or roll it back.",
            )
        if begin.to == self.stable:
            raise Refused(f"{begin.to} is the version that is running.", field="to")

    def _on_steered(self, signal: Pause | Resume | Promote | RollBack) -> Effects:
        self._check_there()
        swap = self.swap
        if swap is None:
            return self._on_late(signal)
        match signal:
            case Pause():
                return self._on_pause(swap, signal)
            case Resume():
                return self._on_resume(swap, signal)
            case Promote():
                return self._on_promote(swap, signal)
            case RollBack():
                if swap.turned:
                    return (self._shown(),)
                reason = signal.reason or f"rolled back by {signal.by or 'somebody'}"
                return self._turn(swap, "rolled_back", reason, by=signal.by)

    def _on_late(self, signal: Pause | Resume | Promote | RollBack) -> Effects:
        """No swap is under way. What is as it was asked for, perhaps by the same message before, is so."""
        last = self.swaps[0] if self.swaps else None
        if last is None:
            raise NotFound(f"There is no swap of {self.id.name}.", next="Begin one.")
        promoted, wanted = last.end == "done", isinstance(signal, Promote)
        if isinstance(signal, Promote | RollBack) and promoted == wanted:
            return (self._shown(),)
        if isinstance(signal, Resume) and promoted and 0 < signal.at < last.at:
            return (self._shown(),)
        raise Conflict(
            f"The swap {last.id} has ended ({last.end}).", next="Begin another one; both versions are known."
        )

    def _on_pause(self, swap: Swap, pause: Pause) -> Effects:
        self._check_onward(swap)
        if swap.paused:
            return (self._shown(),)
        remind = (Forget(name=swap.reminder),) if swap.stage == "promoted" else ()
        return self._change(SwapPaused(swap=swap.id, by=pause.by), remind=remind)

    def _on_resume(self, swap: Swap, resume: Resume) -> Effects:
        """On, from wherever it was held; from the end of a step of the canary to the next; from a promotion
        to the retiring of the old version."""
        if resume.at not in (0, swap.at):
            return (self._shown(),)  # it has gone on since, perhaps by this very message
        self._check_onward(swap)
        if swap.waits and swap.stage == "canary":
            if swap.following()[0] == "promoted":
                self._check_for_all(swap)
            return self._go_on(swap, by=resume.by, reported=False)
        if swap.stage == "promoted" and not swap.paused:
            return self._go_on(swap, by=resume.by, reported=False, remind=(Forget(name=swap.reminder),))
        if not swap.paused:
            return (self._shown(),)
        remind = (swap.keep(),) if swap.stage == "promoted" else ()
        return self._change(SwapResumed(swap=swap.id, by=resume.by), remind=remind)

    def _on_promote(self, swap: Swap, promote: Promote) -> Effects:
        self._check_onward(swap)
        if swap.promoted:
            return (self._shown(),)
        if swap.stage not in ("shadowing", "canary"):
            raise Conflict(
                f"{swap.to} can't be promoted while it is {swap.stage}.", next="Wait for the canary."
            )
        self._check_for_all(swap)
        went = SwapWent(swap=swap.id, stage="promoted", by=promote.by)
        return self._change(went, remind=(swap.keep(),))

    # -- checking

    def _check_there(self) -> None:
        if not self.seq:
            raise NotFound(f"There is no model {self.id.name!r}.", field="model", next="Add a version first.")

    def _find(self, id: str, field: str) -> Version:
        if version := self.versions.get(id):
            return version
        raise NotFound(
            f"{self.id.name} has no version {id!r}.", field=field, next=f"Known: {', '.join(self.versions)}."
        )

    def _check_for_all(self, swap: Swap) -> None:
        if why := checks.leaves_out(self.versions[swap.from_], self.versions[swap.to]):
            raise Conflict(why, next="Roll it back, and add a version that all may use.")

    def _check_onward(self, swap: Swap) -> None:
        if swap.turned:
            raise Conflict(f"The swap {swap.id} is on its way back: {swap.reason}.", next="Wait for its end.")
