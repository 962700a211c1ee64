"""What a process knows of the fleet: fresh while the stores answer, kept while they don't."""

from __future__ import annotations

import msgspec
import pytest

from actors import roster as rosters
from actors.roster import Roster
from flotilla.core.errors import Unavailable
from flotilla.core.ids import ActorId
from tests.actors.membership import LOG, Board, Hands, member

ACTORS = [ActorId("t", "session", f"s_{n}") for n in range(200)]


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def board() -> Board:
    return Board(*(member(f"host-{n}") for n in range(3)))


@pytest.fixture
async def roster(board: Board, clock: Hands) -> Roster:
    made = Roster(board, clock, LOG, "host", "dedicated", pins=board, dedicated=["solo"])
    await made.refresh()
    return made


def homes(roster: Roster) -> dict[ActorId, str]:
    return {actor: owner.name for actor in ACTORS if (owner := roster.owner(actor))}


async def test_the_version_stands_still_while_nothing_changes_but_load(roster: Roster, board: Board) -> None:
    version, before = roster.version, homes(roster)
    await board.beat(member("host-0", load={"busy": 0.9}))
    await roster.refresh()
    assert roster.version == version and homes(roster) == before


@pytest.mark.parametrize("change", [{"state": "draining"}, {"capacity": 9.0}, {"life": "l-new"}])
async def test_the_version_counts_what_changes_who_owns_what(
    roster: Roster, board: Board, change: dict[str, object]
) -> None:
    version = roster.version
    homes(roster)
    await board.beat(msgspec.structs.replace(member("host-0"), **change))
    await roster.refresh()
    assert roster.version == version + 1
    owner = next(
        o for a in ACTORS if (o := roster.owner(a)) and (o.name != "host-0" or "state" not in change)
    )
    assert owner in await board.members("host")


async def test_a_draining_host_owns_nothing_and_is_still_a_member(roster: Roster, board: Board) -> None:
    await board.beat(member("host-1", state="draining"))
    await roster.refresh()
    assert set(homes(roster).values()) == {"host-0", "host-2"}
    assert len(roster.members("host")) == 3


async def test_a_pin_moves_its_actor_alone(roster: Roster, board: Board) -> None:
    before = homes(roster)
    actor = next(a for a, home in before.items() if home != "host-2")
    await board.pin(actor, "host-2")
    await roster.refresh()
    assert homes(roster) == before | {actor: "host-2"}
    await board.unpin(actor)
    await roster.refresh()
    assert homes(roster) == before


async def test_pins_are_kept_while_their_store_is_down_and_members_go_on_being_read(
    roster: Roster, board: Board
) -> None:
    actor = next(a for a, home in homes(roster).items() if home != "host-2")
    await board.pin(actor, "host-2")
    await roster.refresh()
    board.down.add("pins")
    await board.beat(member("host-3"))
    await roster.refresh()
    assert homes(roster)[actor] == "host-2" and len(roster.members("host")) == 4


async def test_a_suspect_owns_nothing_until_its_time_is_up(roster: Roster, clock: Hands) -> None:
    before, version = homes(roster), roster.version
    roster.suspect(member("host-1"))
    assert roster.version > version
    assert "host-1" not in homes(roster).values()
    clock.at += rosters.SUSPECT_FOR_S
    assert homes(roster) == before


async def test_a_suspect_owns_again_at_once_when_it_has_a_new_life(roster: Roster, board: Board) -> None:
    before = homes(roster)
    roster.suspect(member("host-1"))
    await board.beat(member("host-1", life="l-next"))
    await roster.refresh()
    assert homes(roster) == before


async def test_a_suspect_is_asked_when_all_others_drain(roster: Roster, board: Board) -> None:
    for name in ("host-0", "host-2"):
        await board.beat(member(name, state="draining"))
    await roster.refresh()
    roster.suspect(member("host-1"))
    assert set(homes(roster).values()) == {"host-1"}


async def test_who_could_not_beat_while_the_directory_was_down_is_given_time(
    roster: Roster, board: Board, clock: Hands
) -> None:
    before, known = homes(roster), dict(board.found)
    board.down.add("members")
    with pytest.raises(Unavailable):
        await roster.refresh()
    assert homes(roster) == before
    board.down.clear()
    board.found = {("host", "host-0"): known["host", "host-0"]}  # the first to beat again
    await roster.refresh()
    assert homes(roster) == before
    clock.at += rosters.FORGIVE_FOR_S
    await roster.refresh()
    assert set(homes(roster).values()) == {"host-0"}


async def test_an_address_where_nobody_is_any_more_is_told(roster: Roster, board: Board) -> None:
    gone: list[str] = []
    roster.on_gone(gone.append)
    await board.beat(member("host-9", address="127.0.0.1:9"))
    await roster.refresh()
    await board.leave(member("host-9"))
    await roster.refresh()
    assert gone == ["127.0.0.1:9"]


async def test_a_dedicated_actor_lives_in_its_own_process_and_nowhere_else(
    roster: Roster, board: Board
) -> None:
    actor = ActorId("t", "solo", "s")
    assert roster.owner(actor) is None and roster.pooled_owner(actor) is not None
    mine = member("t~solo~s", role="dedicated", info={"actor": str(actor)})
    await board.beat(mine)
    await roster.refresh()
    assert roster.owner(actor) == mine
    await board.leave(mine)
    await roster.refresh()
    assert roster.owner(actor) is None


async def test_what_is_remembered_is_bounded(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert roster._owner.cache_info().maxsize == rosters.OWNERS_KEPT
    homes(roster)
    homes(roster)
    assert roster._owner.cache_info().hits >= len(ACTORS)
