"""Which host owns an actor: the same answer everywhere, and few moves when hosts come and go."""

from __future__ import annotations

import subprocess
import sys
import timeit
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import placement
from actors.roster import Roster
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from tests.actors.membership import LOG, Board, Hands, member

ACTORS = [ActorId("t", "session", f"s_{n}") for n in range(4000)]


def hosts(*names: str, capacity: float = 1.0) -> list[Member]:
    return [Member(role="host", name=n, life=n, address="x:1", capacity=capacity) for n in names]


def owners(members: list[Member]) -> dict[ActorId, str]:
    return {actor: placement.owner(actor, members).name for actor in ACTORS}  # type: ignore[union-attr]


def test_without_hosts_nobody_owns_an_actor() -> None:
    assert placement.owner(ACTORS[0], []) is None


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True), st.randoms())
def test_the_answer_does_not_depend_on_the_order_or_the_life_of_hosts(names: list[str], chance) -> None:
    members = hosts(*names)
    shuffled = [Member(role="host", name=m.name, life="new", address="y:2") for m in members]
    chance.shuffle(shuffled)
    for actor in ACTORS[:20]:
        assert placement.owner(actor, members).name == placement.owner(actor, shuffled).name  # type: ignore


def test_the_answer_is_the_same_in_another_process() -> None:
    code = (
        "from tests.actors.test_placement import *;"
        "print([placement.owner(a, hosts('a', 'b', 'c')).name for a in ACTORS[:50]])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str([placement.owner(a, hosts("a", "b", "c")).name for a in ACTORS[:50]])  # type: ignore


def test_hosts_of_one_capacity_own_equal_shares() -> None:
    shares = Counter(owners(hosts("a", "b", "c", "d")).values())
    assert all(850 < share < 1150 for share in shares.values()) and len(shares) == 4


@settings(max_examples=8)
@given(st.integers(1, 8))
def test_a_new_host_takes_its_share_and_moves_nothing_else(n: int) -> None:
    before = owners(hosts(*(f"h-{i}" for i in range(n))))
    after = owners(hosts(*(f"h-{i}" for i in range(n + 1))))
    moved = [actor for actor in ACTORS if before[actor] != after[actor]]
    assert all(after[actor] == f"h-{n}" for actor in moved)
    share = len(ACTORS) / (n + 1)
    assert 0.8 * share < len(moved) < 1.2 * share


@settings(max_examples=8)
@given(st.integers(2, 6), st.data())
def test_a_host_that_goes_moves_only_what_was_its_own(n: int, data: st.DataObject) -> None:
    names = [f"h-{i}" for i in range(n)]
    gone = data.draw(st.sampled_from(names))
    before = owners(hosts(*names))
    after = owners(hosts(*(name for name in names if name != gone)))
    assert all(after[actor] == owner for actor, owner in before.items() if owner != gone)


def test_a_host_of_three_times_the_capacity_owns_three_times_as_many() -> None:
    shares = Counter(owners(hosts("a") + hosts("b", capacity=3.0)).values())
    assert 2.6 < shares["b"] / shares["a"] < 3.4


def test_a_host_without_capacity_owns_nothing_while_there_is_another() -> None:
    assert set(owners(hosts("a", capacity=0.0) + hosts("b")).values()) == {"b"}


# -- how many move

MANY = [ActorId("t", "session", f"s_{n}") for n in range(20_000)]


def homes(members: list[Member]) -> dict[ActorId, str]:
    return {actor: placement.owner(actor, members).name for actor in MANY}  # type: ignore[union-attr]


@pytest.mark.parametrize("capacities", [[1.0] * 3, [1.0] * 8, [1.0, 2.0, 4.0, 1.0, 8.0]])
def test_at_most_a_tenth_more_than_the_fair_share_moves_with_one_host(capacities: list[float]) -> None:
    fleet = [hosts(f"host-{n}", capacity=c)[0] for n, c in enumerate(capacities)]
    all_of_them, total = homes(fleet), sum(capacities)
    for gone in (fleet[0], fleet[-1]):
        others = homes([host for host in fleet if host is not gone])
        moved = [actor for actor in MANY if all_of_them[actor] != others[actor]]
        assert all(all_of_them[actor] == gone.name for actor in moved), "and nobody else's"
        assert len(moved) <= 1.1 * len(MANY) * gone.capacity / total


# -- exceptions


@settings(max_examples=20)
@given(st.data())
def test_pins_win_while_their_host_is_up_and_touch_nobody_else(data: st.DataObject) -> None:
    members = hosts("a", "b", "c", "d")
    states = data.draw(st.lists(st.sampled_from(["up", "draining"]), min_size=4, max_size=4))
    members = [msgspec.structs.replace(m, state=s) for m, s in zip(members, states, strict=True)]
    up = {m.name for m in members if m.state == "up"}
    pins = data.draw(st.dictionaries(st.sampled_from(ACTORS[:20]), st.sampled_from("abcdx")))
    for actor in ACTORS[:40]:
        owner, hashed = placement.owner(actor, members, pins), placement.owner(actor, members)
        if pins.get(actor) in up:
            assert owner is not None and owner.name == pins[actor]
        else:
            assert owner == hashed
        assert owner is None if not up else owner is not None and owner.name in up


def test_draining_moves_what_removing_would() -> None:
    members = hosts("a", "b", "c")
    draining = [*members[:2], msgspec.structs.replace(members[2], state="draining")]
    assert owners(draining) == owners(members[:2])


# -- what it costs


async def test_asking_again_costs_a_tenth_of_hashing() -> None:
    board = Board(*(member(f"host-{n}") for n in range(8)))
    roster = Roster(board, Hands(), LOG, "host", pins=board)
    await roster.refresh()
    few = ACTORS[:500]

    def seconds(owner: object) -> float:
        return min(timeit.repeat(lambda: [owner(actor) for actor in few], number=3, repeat=5))  # type: ignore

    remembered = seconds(roster.owner)
    assert remembered < seconds(roster.pooled_owner) / 10
