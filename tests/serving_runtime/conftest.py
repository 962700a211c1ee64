"""What the tests of the router share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.serving_runtime.replica_rig import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.aclose()
