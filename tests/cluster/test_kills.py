"""Processes and stores die under twenty customers who talk; none of them notices more than a pause.

One fleet for all cases: three hosts on two Ray nodes, real PostgreSQL and Valkey. The checker of the
simulator judges what the customers have noted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks.crowd import DOCUMENTS, talking
from benchmarks.faults import FAULTS
from benchmarks.nodes import TwoNodes

CUSTOMERS = 20
SEED = 11


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    """Replies of two seconds."""
    nodes = TwoNodes(FLOTILLA_SCRIPTED_TOKEN_S="0.04")
    try:
        nodes.up().know("bank", DOCUMENTS)
        yield nodes
    finally:
        nodes.down()


@pytest.mark.parametrize("what", FAULTS)
async def test_nothing_acknowledged_is_lost_doubled_or_reordered(nodes: TwoNodes, what: str) -> None:
    t0 = time.monotonic()
    async with talking(nodes, CUSTOMERS, SEED) as crowd:
        t1 = time.monotonic()
        await FAULTS[what](nodes, crowd, False)
        t2 = time.monotonic()
        await crowd.until_replies(CUSTOMERS)
    print(
        what,
        round(t1 - t0, 1),
        round(t2 - t1, 1),
        round(time.monotonic() - t2, 1),
        len(crowd.log.observations),
    )
