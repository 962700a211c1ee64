"""Those outside: customers, a person at a desk, readers, buyers. Each notes what it does and sees."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from actors import frames
from actors.link import Links
from flotilla.core import signals
from flotilla.core.effects import Message
from flotilla.core.errors import FlotillaError, NotFound, Unavailable
from flotilla.core.ids import ActorId
from flotilla.views.events import Frame
from simulation.kinds import Buy, Pay, Receipt, Wind
from simulation.loop import SimLoop
from simulation.nodes import TOKEN
from simulation.observations import Acked, Connected, Observation, Received, Refused, Sent, TookOver

A = TypeVar("A")
TENANT = "demo"
TRY_S = 6.0
TEXTS = ("What does the Silver card cost?", "When do you open?", "hello", "naïve 日本語?")

decode_frame = msgspec.msgpack.Decoder(Frame).decode
decode_event = msgspec.json.Decoder(dict[str, Any]).decode


class Outside(msgspec.Struct):
    """What clients know of the world."""

    loop: SimLoop
    seed: int
    gateways: list[str]
    observe: Callable[[Observation], None]


class Client:
    """Run it inside a process of its own. It goes to any gateway, and to another when one fails."""

    def __init__(self, name: str, outside: Outside) -> None:
        self.name = name
        self.chance = random.Random(f"{outside.seed} {name}")
        self._outside = outside
        self._links = Links(TOKEN)

    @property
    def now(self) -> float:
        return self._outside.loop.time()

    def see(self, kind: Callable[..., Observation], **words: Any) -> None:
        self._outside.observe(kind(at=self.now, client=self.name, **words))

    async def pause(self, most_s: float) -> None:
        await asyncio.sleep(most_s * self.chance.random())

    async def ask(self, actor: ActorId, message: Message[A], note: Callable[[], None] = lambda: None) -> A:
        """The answer; again and again while nobody gives one, if the message may be sent again. `note` is
        called before each try. Raises what the actor refuses with."""
        body = frames.encode(frames.AskFrame(actor, frames.encode(message)))
        while True:
            note()
            try:
                link = await self._links.to(self.chance.choice(self._outside.gateways))
                return frames.decode_answer(message, await link.ask("ask", body, timeout_s=TRY_S))
            except FlotillaError as error:
                if not (message.idempotent and passing(error)):
                    raise
            await self.pause(0.2)

    async def send(self, actor: ActorId, message: Any) -> None:
        """Something with an id, until it is acknowledged or refused."""
        session, id = actor.key, message.id

        def note() -> None:
            self.see(Sent, session=session, message=id)

        try:
            answer = await self.ask(actor, message, note)
        except FlotillaError as error:
            return self.see(Refused, session=session, message=id, problem=error.slug)
        turn = "" if isinstance(answer, Receipt) else answer.turn
        return self.see(Acked, session=session, message=id, seq=answer.seq, turn=turn)


def passing(error: FlotillaError) -> bool:
    return error.status >= 500 or error.status == 429


class Customer(Client):
    pauses_s = (0.0, 0.05, 0.4)
    model = ""

    async def run(self, session: ActorId, messages: int) -> None:
        await self.ask(session, signals.Open(agent=self._agent(), customer=self.name, model=self.model))
        for number in range(messages):
            await self._say(session, number)
            if self.chance.random() < 0.3:
                await self._interrupt(session)
            await self.pause(self.chance.choice(self.pauses_s))

    def _agent(self) -> str:
        """One that searches or, for every third customer, one that has nothing to look up."""
        return "chat" if crc32(self.name.encode()) % 3 == 0 else "bank"

    async def _say(self, session: ActorId, number: int) -> None:
        first = self._post(number)
        match self.chance.randrange(5):
            case 0:  # the same twice, at the same time
                await asyncio.gather(self.send(session, first), self.send(session, first))
            case 1:  # another one without waiting
                await asyncio.gather(self.send(session, first), self.send(session, self._post(number, "b")))
            case 2:  # the same again, later
                await self.send(session, first)
                await self.pause(0.3)
                await self.send(session, first)
            case _:
                await self.send(session, first)

    def _post(self, number: int, mark: str = "") -> signals.Post:
        way = self.chance.choice((None, None, "queue", "interrupt", "merge", "reject"))
        return signals.Post(
            id=f"{self.name}.{number}{mark}", text=self.chance.choice(TEXTS), while_talking=way
        )

    async def _interrupt(self, session: ActorId) -> None:
        await self.pause(0.15)
        with contextlib.suppress(FlotillaError):
            await self.ask(session, signals.Interrupt())


class Person(Client):
    """Takes a conversation over, speaks, and may give it back."""

    async def run(self, session: ActorId, returns: bool) -> None:
        view = await self._accept(session)
        self.see(TookOver, session=session.key, seq=view.seq)
        for number in range(self.chance.randrange(3)):
            kind = self.chance.choice((signals.Speak, signals.Note))
            await self.send(session, kind(person=self.name, id=f"{self.name}.{number}", text="I see."))
            await self.pause(0.2)
        if returns:
            with contextlib.suppress(FlotillaError):
                await self.ask(session, signals.Return(person=self.name))

    async def _accept(self, session: ActorId) -> signals.SessionView:
        while True:
            try:
                return await self.ask(session, signals.Accept(person=self.name))
            except NotFound:  # the customer is not there yet
                await self.pause(0.3)


class Buyer(Client):
    async def run(self, cashier: ActorId, till: ActorId, orders: int) -> None:
        for number in range(orders):
            buy = Buy(id=f"{self.name}.{number}", till=till.name)
            pay = Pay(id=f"{self.name}.{number}p")
            if self.chance.random() < 0.3:
                await asyncio.gather(self.send(cashier, buy), self.send(cashier, buy))
            else:
                await self.send(cashier, buy)
            if self.chance.random() < 0.3:
                await self.send(till, pay)
            await self.pause(0.3)


class Ringer(Client):
    async def run(self, bell: ActorId, times: int) -> None:
        await self.send(bell, Wind(id=self.name, times=times))


class Reader(Client):
    """Follows a session until it is told that it has seen everything; breaks off now and then by itself."""

    def __init__(self, name: str, outside: Outside, session: ActorId) -> None:
        super().__init__(name, outside)
        self.session = session
        self.after = 0
        self._offset = 0

    async def run(self) -> None:
        while True:
            self.see(Connected, session=self.session.key, after=self.after, offset=self._offset)
            with contextlib.suppress(FlotillaError, TimeoutError):
                await self._read(patience_s=self.chance.choice((0.1, 1.0, 5.0, 1000.0)))
            await self.pause(0.2)

    async def _read(self, patience_s: float) -> None:
        body = frames.encode(frames.FollowFrame(self.session, self.after, self._offset))
        address = self.chance.choice(self._outside.gateways)
        async with asyncio.timeout(patience_s):
            link = await self._links.to(address)
            async with aclosing(link.call("follow", body)) as items:
                async for item in items:
                    self._take(decode_frame(item))
        raise Unavailable("The stream has ended.")

    def _take(self, frame: Frame) -> None:
        event = decode_event(frame.json)
        data: dict[str, Any] = event["data"]
        self.see(
            Received,
            session=self.session.key,
            seq=frame.seq,
            type=event["type"],
            turn=event.get("turn") or "",
            offset=data.get("offset", 0),
            text=data.get("text", ""),
        )
        after, _, offset = frame.id.partition(":")
        self.after, self._offset = int(after), int(offset or 0)
