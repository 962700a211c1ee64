"""Wiring functions of processes that do nothing but live: so long, or until they are told to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog

from actors import frames
from actors.service import Ended, Service
from flotilla.core.clock import SystemClock
from flotilla.core.members import Member
from flotilla.stores import valkey
from tests.actors.membership import TOKEN, Board


async def echo(method: str, body: bytes) -> AsyncGenerator[bytes]:
    yield body


async def lives(lives_s: float) -> Service:
    """Ends for good after `lives_s` seconds."""

    async def work(_: Member) -> None:
        await asyncio.sleep(lives_s)
        raise Ended("its time is up")

    return Service(
        role="host",
        handler=echo,
        directory=Board(),
        clock=SystemClock(),
        log=structlog.get_logger("tests"),
        token=TOKEN,
        housekeeping=(work,),
    )


async def beats(url: str) -> Service:
    """A host without actors, in the directory at `url`."""
    draining: list[bool] = []

    async def answer(method: str, body: bytes) -> AsyncGenerator[bytes]:
        assert method == "drain"
        draining.append(True)
        yield frames.encode(0)

    return Service(
        role="host",
        handler=answer,
        directory=valkey.ValkeyDirectory(valkey.connect(url)),
        clock=SystemClock(),
        log=structlog.get_logger("tests"),
        token=TOKEN,
        report=lambda: ("draining" if draining else "up", {"busy": 0.5, "activations": 1.0}),
    )
