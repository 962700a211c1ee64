"""Facts of other releases: brought up to date, or said to be unreadable; never guessed at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from flotilla.core.actor import Actor, Fact, Kind
from flotilla.core.errors import Undecodable
from flotilla.core.journal import Entry, Stored
from flotilla.core.ledger import Codec

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Counted(Fact, frozen=True, kw_only=True, tag="counted"):
    by_year: dict[int, int] = {}
    raw: bytes = b""


def _renamed(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "by_year": body.pop("years")}


class Tally(Actor):
    kind: ClassVar[Kind] = Kind(
        name="tally", messages=Counted, facts=Counted, version=2, upcasters={("counted", 1): _renamed}
    )


class Torn(Actor):
    kind: ClassVar[Kind] = Kind(
        name="torn",
        messages=Counted,
        facts=Counted,
        version=2,
        upcasters={("counted", 1): lambda body: body["type"].nothing},
    )


def stored(version: int, body: bytes) -> Stored:
    return Stored(1, NOW, Entry("counted", version, body))


def test_an_old_fact_is_read_as_a_new_one_is() -> None:
    """Keys that are numbers and bytes are words in JSON."""
    old = stored(1, b'{"type":"counted","years":{"2026":7},"raw":"aGk="}')
    assert Codec(Tally).recorded(old).fact == Counted(by_year={2026: 7}, raw=b"hi")


def test_a_fact_of_a_later_release_is_not_read_as_one_of_this() -> None:
    """It might have another meaning under the same name."""
    with pytest.raises(Undecodable):
        Codec(Tally).recorded(stored(3, b'{"type":"counted","per_year":{"2026":7}}'))


@pytest.mark.parametrize("body", [b'{"type":"counted"}', b"[]", b"7"])
def test_an_upcaster_that_breaks_is_an_unreadable_record(body: bytes) -> None:
    with pytest.raises(Undecodable):
        Codec(Torn).recorded(stored(1, body))
