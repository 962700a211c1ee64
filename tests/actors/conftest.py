"""A cluster without hosts, taken down after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.actors.cluster import Cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.aclose()
