"""Those who talk where there are models: some ask for an adapter, and in some worlds there is a crowd, of whose
conversations a canary's share can be counted."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from flotilla.core.ids import ActorId
from simulation.clients import TENANT, Customer, Outside
from simulation.versions import BASES

ADAPTERS_SHARE = 0.5
CROWD_SHARE = 0.1
CROWD = 36
CROWD_PAUSES_S = (1.0, 3.0)


class Insistent(Customer):
    """Asks for `version`, once a version answers at all: before that there is none to ask for."""

    pauses_s = (0.0, 0.4, 3.0)

    def __init__(self, name: str, outside: Outside, version: str, answers: Callable[[], bool]) -> None:
        super().__init__(name, outside)
        self.model = version
        self._answers = answers

    async def run(self, session: ActorId, messages: int) -> None:
        while not self._answers():
            await self.pause(1.0)
        await super().run(session, messages)


class Bystander(Customer):
    """One of many, who says something now and then."""

    pauses_s = CROWD_PAUSES_S

    def _agent(self) -> str:
        return "chat"

    async def _say(self, session: ActorId, number: int) -> None:
        await self.send(session, self._post(number))

    async def _interrupt(self, session: ActorId) -> None:
        return None


class Audience:
    """Who there is in the world of `seed`. `asked` are the adapters asked for, by the conversations that ask."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"audience {seed}")
        self.adapters_max = self.chance.choice((1, 1, 2))
        asking = self.chance.choice((2, 3)) if self.chance.random() < ADAPTERS_SHARE else 0
        ids = sorted(BASES)
        self.asked = {ActorId(TENANT, "session", f"a_{n}"): self.chance.choice(ids) for n in range(asking)}
        many = CROWD if self.chance.random() < CROWD_SHARE else 0
        self.crowd = [ActorId(TENANT, "session", f"c_{n}") for n in range(many)]

    @property
    def sessions(self) -> list[ActorId]:
        return [*self.asked, *self.crowd]

    def people(self, outside: Outside, answers: Callable[[], bool]) -> Iterator[Coroutine[Any, Any, None]]:
        for n, (session, version) in enumerate(self.asked.items()):
            insistent = Insistent(f"insistent-{n}", outside, version, answers)
            yield insistent.run(session, self.chance.randint(6, 16))
        for n, session in enumerate(self.crowd):
            yield Bystander(f"bystander-{n}", outside).run(session, self.chance.randint(6, 12))
