"""A fleet that is started again with other settings behind the same name of a version."""

from __future__ import annotations

import msgspec

from flotilla.core.versions import Plan, Route
from serve.deploy import recipes
from serve.settings import read_settings
from serve.versions import Manned, default_version


def test_replicas_of_a_version_that_is_known_are_of_what_is_recorded() -> None:
    """A version never changes: two replicas of one name must not have two sets of weights."""
    settings = read_settings({"FLOTILLA_LISTEN": "127.0.0.1"})
    before, now = (
        msgspec.structs.replace(settings, model=f"/{place}/weights") for place in ("before", "now")
    )
    known = default_version(before)
    assert known.id == default_version(now).id
    plan = Plan(model=known.model, revision=3, route=Route(stable=known.id), versions={known.id: known})
    (replica, *_) = [part for part in recipes(now, 0.0, {known.model: plan}) if part.role == "model"]
    assert isinstance(replica.settings, Manned) and replica.settings.version == known
