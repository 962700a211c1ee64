"""What a key looks like, who can make one that works, and which scopes it may give."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.api_keys import IssuedKey, Pepper, id_of, new_key_id
from flotilla.core.errors import Refused
from flotilla.core.scopes import OF_A_TENANT, SCOPES, check_scopes

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PEPPER = Pepper("a secret of the fleet")


def test_a_key_names_its_record_and_no_two_are_alike() -> None:
    id = new_key_id()
    keys = {PEPPER.fresh(id).key for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert re.fullmatch(r"flo_[0-9a-z]{26}_[0-9A-Za-z]{49}", key) and id_of(key) == id


@given(st.integers(0, 79), st.characters(codec="utf-8"))
def test_a_key_with_any_character_changed_is_told_by_its_checksum(place: int, other: str) -> None:
    key = PEPPER.fresh(new_key_id()).key
    changed = key[:place] + other + key[place + 1 :]
    assert changed == key or id_of(changed) is None


@given(st.text())
def test_no_other_text_is_a_key(text: str) -> None:
    assert id_of(text) is None and id_of("flo_" + text) is None


def test_a_digest_rests_on_the_secret_of_the_fleet() -> None:
    new = PEPPER.fresh(new_key_id())
    assert PEPPER.digest(new.key) == new.digest != Pepper("another").digest(new.key)
    assert len(new.digest) == 32 and new.key.startswith(new.shown) and len(new.shown) < 40


def test_what_is_shown_of_a_key_and_its_repr_tell_nothing_of_the_secret() -> None:
    id = new_key_id()
    new = PEPPER.fresh(id)
    key = IssuedKey(id=id, tenant="t", name="n", scopes=(), shown=new.shown, digest=new.digest, created=NOW)
    secret = new.key.rpartition("_")[2]
    assert secret[4:] not in repr(key)


def test_an_expired_key_has_no_secret_that_works() -> None:
    new = PEPPER.fresh(new_key_id())
    ends = NOW + timedelta(hours=1)
    key = IssuedKey(
        id="key_1", tenant="t", name="n", scopes=(), shown="", digest=new.digest, created=NOW, expires=ends
    )
    assert key.until(new.digest, NOW) == ends
    for digest, at in ((new.digest, ends), (PEPPER.digest("another"), NOW)):
        with pytest.raises(KeyError):
            key.until(digest, at)


def test_nobody_gives_a_scope_that_it_does_not_hold() -> None:
    assert check_scopes(["usage:read", "usage:read", "keys:read"], OF_A_TENANT) == ("keys:read", "usage:read")
    assert set(check_scopes(SCOPES, SCOPES)) == SCOPES
    for asked, held in ((["operator"], OF_A_TENANT), (["no:such"], SCOPES), ([], SCOPES)):
        with pytest.raises(Refused) as refused:
            check_scopes(asked, held)
        assert refused.value.field == "scopes" and refused.value.next
