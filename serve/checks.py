"""What a fleet needs before any of it is started: `python -m serve.checks`, with its settings in the environment.

Stores that answer, and weights that are there. It needs no Ray, so that a wrong setting is told within a second or two.
"""

from __future__ import annotations

import asyncio

from flotilla.core.errors import Unavailable
from flotilla.core.versions import Plans
from flotilla.stores import valkey
from flotilla.stores.postgres import migrate, open_journal
from flotilla.stores.valkey_boards import ValkeyPlanBoard
from models.sources import fetch
from serve.settings import Settings, read_settings
from serve.steps import step, told
from serve.versions import default_version


def check(settings: Settings) -> Plans:
    """The plans of the models that the fleet has had before, if it has been up. Brings the schema up to date, and
    fetches the weights. May be called again: it finds nothing to do."""
    with step("stores answer, schema up to date"):
        plans = asyncio.run(_stores(settings))
    with step("weights"):
        asyncio.run(_fetch(settings))
    return plans


async def _stores(settings: Settings) -> Plans:
    await migrate(settings.database_url)
    await (await open_journal(settings.database_url, secret=settings.secret)).close()  # that it can be
    client = valkey.connect(settings.redis_url)
    try:
        await valkey.ValkeyDirectory(client).ping()
        return await ValkeyPlanBoard(client).plans()
    except Unavailable as error:
        raise Unavailable(
            f"No Redis answers at REDIS_URL: {error.detail}",
            field="REDIS_URL",
            next="Start it, or unset REDIS_URL to use the embedded one.",
        ) from None
    finally:
        await client.aclose()


async def _fetch(settings: Settings) -> None:
    """Where a person sees how it goes, and before anything is started."""
    version = default_version(settings)
    if version.source:
        await fetch(version.source, version.checksum, settings.cache)


if __name__ == "__main__":
    told(lambda: check(read_settings()))
