"""How many hosts: within bounds, one change at a time, the dead replaced, two controllers of one mind."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.members import Member, MemberState
from flotilla.core.policy import scaling
from flotilla.core.policy.scaling import Bounds, History, Plan, plan

BOUNDS = Bounds(least=2, most=4, activations_max=1000)


def host(n: int, busy: float = 0.5, state: MemberState = "up", activations: float = 300) -> Member:
    load = {"busy": busy, "activations": activations}
    return Member(role="host", name=f"host-{n}", life=f"l-{n}", address="x:1", state=state, load=load)


class Watch:
    """A controller's eyes: looks once a second at a fleet that the test sets up."""

    def __init__(self, *hosts: Member, bounds: Bounds = BOUNDS) -> None:
        self.hosts, self.bounds = list(hosts), bounds
        self.running = {h.name for h in hosts}
        self.history, self.now = History(), 1000.0

    def look(self) -> Plan:
        self.now += 1.0
        found = plan(self.hosts, self.running, self.bounds, self.now, self.history)
        self.history = found.history
        return found

    def until(self, seconds: float) -> Plan | None:
        """The first plan that asks for something, in so many seconds."""
        for _ in range(int(seconds)):
            found = self.look()
            if found.start or found.drain or found.stop:
                return found
        return None

    def set(self, busy: float, activations: float = 300) -> None:
        load = {"busy": busy, "activations": activations}
        self.hosts = [msgspec.structs.replace(h, load=load) for h in self.hosts]

    def come_up(self, *names: str) -> None:
        for name in names:
            self.running.add(name)
            self.hosts.append(host(int(name.removeprefix("host-"))))

    def die(self, n: int, *, for_good: bool = False) -> None:
        self.hosts = [h for h in self.hosts if h.name != f"host-{n}"]
        if for_good:
            self.running.discard(f"host-{n}")


def test_a_fleet_at_ease_is_left_alone() -> None:
    assert Watch(host(0), host(1)).until(600) is None


def test_missing_hosts_are_started_at_once_and_all_together() -> None:
    found = Watch().look()
    assert found.start == ("host-0", "host-1")


def test_what_is_being_started_is_not_started_again() -> None:
    watch = Watch(host(0))
    assert watch.look().start == ("host-1",)
    watch.running.add("host-1")
    assert watch.until(scaling.NEVER_UP_AFTER_S) is None


# -- load


def test_busy_hosts_get_another_after_five_seconds_of_it_and_the_cool_down() -> None:
    watch = Watch(host(0), host(1))
    assert watch.until(60) is None
    watch.set(busy=0.8)
    assert watch.until(scaling.HIGH_FOR_S) is None
    assert watch.look().start == ("host-2",)


def test_a_short_rush_starts_nothing() -> None:
    watch = Watch(host(0), host(1))
    watch.until(60)
    for _ in range(20):
        watch.set(busy=1.0)
        assert watch.until(4) is None
        watch.set(busy=0.5)
        assert watch.look().start == ()


def test_full_hosts_get_another_though_they_idle() -> None:
    watch = Watch(host(0, 0.0, activations=900), host(1, 0.0, activations=800))
    found = watch.until(scaling.COOL_DOWN_S + 10)
    assert found and found.start == ("host-2",)


def test_one_change_at_a_time_and_never_more_than_the_most() -> None:
    watch, began = Watch(host(0, 1.0), host(1, 1.0)), 1000.0
    for wanted in ("host-2", "host-3"):
        found = watch.until(120)
        assert found and found.start == (wanted,)
        assert watch.now - began >= scaling.COOL_DOWN_S
        watch.running.add(wanted)
        assert watch.until(50) is None, "one was still on the way"
        watch.come_up(wanted)
        watch.set(busy=1.0)
        began = watch.now
    assert watch.until(600) is None


def test_idle_hosts_lose_their_last_after_a_minute_of_it_and_never_below_the_least() -> None:
    watch = Watch(host(0), host(1), host(2))
    watch.until(60)
    watch.set(busy=0.1, activations=200)
    assert watch.until(scaling.LOW_FOR_S) is None
    assert watch.look().drain == ("host-2",)
    watch.die(2, for_good=True)
    assert watch.until(600) is None


def test_what_would_not_fit_the_others_is_not_taken_down() -> None:
    assert Watch(*(host(n, busy=0.0, activations=300) for n in range(3))).until(600) is None


def test_more_than_the_most_are_drained_without_waiting_for_load() -> None:
    watch = Watch(*(host(n) for n in range(6)))
    found = watch.look()
    assert found.drain == ("host-5",)
    watch.die(5, for_good=True)
    assert watch.look().drain == ("host-4",)


# -- leaving


def test_a_drain_goes_on_until_nothing_is_left_of_the_host() -> None:
    watch = Watch(host(0), host(1), host(2, state="draining"))
    assert watch.look().drain == ("host-2",)
    watch.die(2)  # its process died in the middle of it, and is started again
    assert watch.look().drain == ("host-2",)
    watch.come_up("host-2")  # ... and knows nothing of its drain
    found = watch.look()
    assert found.drain == ("host-2",) and not found.start
    watch.die(2, for_good=True)
    assert watch.until(60) is None


def test_a_host_that_left_on_purpose_is_not_replaced_and_its_name_not_used_again() -> None:
    watch = Watch(host(0), host(1), host(2))
    watch.look()
    watch.hosts[2] = host(2, state="draining")
    watch.look()
    watch.die(2, for_good=True)
    watch.until(60)
    watch.set(busy=1.0)
    found = watch.until(60)
    assert found and found.start == ("host-3",)


def test_a_host_drained_below_the_least_is_replaced() -> None:
    watch = Watch(host(0), host(1, state="draining"))
    found = watch.look()
    assert found.start == ("host-2",) and found.drain == ("host-1",)


# -- dying


def test_a_host_that_its_scheduler_starts_again_is_waited_for() -> None:
    watch = Watch(host(0), host(1))
    watch.look()
    watch.die(1)
    assert watch.until(scaling.LOST_AFTER_S) is None
    watch.come_up("host-1")
    assert watch.until(120) is None


def test_a_host_that_is_gone_for_good_is_replaced_at_once_under_a_new_name() -> None:
    watch = Watch(host(0), host(1), host(2))
    watch.look()
    watch.die(1, for_good=True)
    assert watch.look().start == ("host-3",), "there were three, though two are enough"


def test_a_host_that_does_not_come_back_is_given_up_and_replaced() -> None:
    watch = Watch(host(0), host(1))
    watch.look()
    watch.die(1)
    found = watch.until(120)
    assert found and found.stop == ("host-1",) and found.start == ("host-2",)
    assert watch.now - 1001.0 > scaling.LOST_AFTER_S


def test_a_host_that_never_found_a_place_is_given_up_and_not_wanted_any_more() -> None:
    watch = Watch(host(0), host(1))
    watch.look()
    watch.running.add("host-2")
    found = watch.until(scaling.NEVER_UP_AFTER_S + 10)
    assert found and found.stop == ("host-2",) and not found.start
    watch.running.discard("host-2")
    assert watch.until(60) is None


# -- two of them


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["calm", "hot", "cold", "kill", "lose", "drain", "skip"]), max_size=12),
    st.randoms(use_true_random=False),
)
def test_two_controllers_never_leave_the_bounds_and_come_to_rest(events: list[str], chance) -> None:
    """Each acts at once on what it sees; the second sees what the first has done, or sleeps through it."""
    first, second = Watch(host(0), host(1), host(2)), Watch()
    number, skipping = 0, 0
    for event in [*events, "calm"]:
        skipping = 40 if event == "skip" else 0
        _happen(first, event, chance)
        for _ in range(80):
            for watch in (first, second) if skipping <= 0 else (first,):
                watch.hosts, watch.running, watch.now = first.hosts, first.running, max(first.now, watch.now)
                _act(first, watch.look())
            skipping -= 1
            number = len([h for h in first.hosts if h.state == "up"])
            assert number <= BOUNDS.most + 1
    assert BOUNDS.least <= number <= BOUNDS.most
    assert first.look().start == second.look().start == ()


def _happen(fleet: Watch, event: str, chance) -> None:
    loads = {"calm": 0.5, "hot": 1.0, "cold": 0.0}
    if event in loads:
        fleet.set(busy=loads[event], activations=100)
    elif event in ("kill", "lose") and fleet.hosts:
        number = int(chance.choice(fleet.hosts).name.removeprefix("host-"))
        fleet.die(number, for_good=event == "lose")
    elif event == "drain" and fleet.hosts:
        fleet.hosts[-1] = msgspec.structs.replace(fleet.hosts[-1], state="draining")


def _act(fleet: Watch, found: Plan) -> None:
    """What the fleet does within the second."""
    for name in (*found.stop, *found.drain):
        fleet.die(int(name.removeprefix("host-")), for_good=True)
    for name in found.start:
        if name not in fleet.running:
            fleet.come_up(name)


@pytest.mark.parametrize("name", ["host", "odd-name", "host-x"])
def test_names_of_another_kind_do_not_count(name: str) -> None:
    stranger = msgspec.structs.replace(host(0), name=name)
    assert Watch(stranger).look().start == ("host-0",)
