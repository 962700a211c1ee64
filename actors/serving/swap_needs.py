"""What the stages of a swap use of the world, and what a prompt of the fleet's own looks like."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.generation import Finished, Origin, Prompt
from flotilla.core.members import Member
from flotilla.core.policy.gate import Answered
from flotilla.core.policy.retry import passes
from flotilla.core.ports import Model, TallyBoard
from flotilla.core.versions import FLEET, Version

LOOK_EVERY_S = 0.25


class Sight(Protocol):
    """The replicas, one by one (`actors/serving/sight.py`)."""

    def of(self, version_id: str) -> list[Member]:
        """Those that serve the version now, as of the last refresh."""
        ...

    async def refresh(self) -> None: ...

    async def reload(self, member: Member, version: Version, timeout_s: float) -> None: ...

    async def load_adapter(self, member: Member, version: Version) -> None: ...

    def failure(self, version_id: str) -> str | None:
        """Why replicas of it don't come up."""
        ...


class SwapNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """`judges` are the modules whose functions may judge."""

    model: Model
    tallies: TallyBoard
    replicas: Sight
    clock: Clock
    log: Any
    judges: Collection[str] = ()

    async def look(self) -> bool:
        """At the replicas; False if the directory doesn't answer just now."""
        try:
            await self.replicas.refresh()
        except FlotillaError as error:
            if not passes(error):
                raise
            return False
        return True

    def up(self, version_id: str) -> list[Member]:
        return [member for member in self.replicas.of(version_id) if member.state == "up"]

    async def ask(self, prompt: Prompt, version: str, conversation: str) -> Answered:
        """What that version answers, and no other in its place. Raises what the model raises."""
        prompt = msgspec.structs.replace(
            prompt, model=version, pinned=True, origin=Origin(tenant=FLEET, conversation=conversation)
        )
        begun, first, text = self.clock.monotonic(), None, list[str]()
        async with aclosing(self.model.generate(prompt)) as parts:
            async for part in parts:
                first = self.clock.monotonic() if first is None else first
                if isinstance(part, Finished):
                    return Answered(
                        case=conversation,
                        text="".join(text),
                        first_token_ms=(first - begun) * 1000,
                        tokens=part.usage.completion_tokens,
                        seconds=self.clock.monotonic() - begun,
                    )
                text.append(part.text)
        raise Unavailable(f"{version} ended a reply without saying so.")
