"""The process of one actor of a dedicated kind."""

from __future__ import annotations

from actors.dedicated import Alone
from actors.service import Service
from serve.processes.host import host_service


async def wire(alone: Alone) -> Service:
    return await host_service(alone.settings, only=alone.actor)
