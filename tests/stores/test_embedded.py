"""The servers that a machine without any gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey

KEYS = 200_000  # one command each: Valkey listens to others every thousand


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with TemporaryDirectory(dir="/tmp") as sockets:  # a socket's path is short
        made = Valkey(tmp_path, Path(sockets))
        made.start()
        yield made
        made.stop()


async def test_a_started_valkey_answers_however_much_it_has_to_read(server: Valkey) -> None:
    async with valkey.connect(server.url) as client:
        for begin in range(0, KEYS, 10_000):
            many = client.pipeline(transaction=False)
            for n in range(begin, begin + 10_000):
                many.set(f"key{n}", n)
            await many.execute()
    server.stop()
    server.start()
    async with Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as impatient:
        assert await impatient.get("key7") == b"7"
