"""An agent that writes in two goes, with a tool in between: what it is made by must not change on the way."""

from __future__ import annotations

from typing import Any

from flotilla.core.clock import Clock
from flotilla.core.flow import Agent, Do, agent_kind
from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.wants import CallTool, Generate, Plan, Reply

LOOKS_UP_S = 4.0


class Writer(Agent):
    kind = agent_kind("writer")

    def answer(self, task: Do) -> Plan:
        asked = ChatMessage(role="user", text=task.question)
        draft = yield Generate(Prompt(messages=(asked,)))
        found = yield CallTool("lookup", {"text": draft})
        said = ChatMessage(role="assistant", text=draft)
        more = ChatMessage(role="user", text=found)
        rest = yield Generate(Prompt(messages=(asked, said, more)))
        return Reply(text=f"{draft}\n{rest}")


class Lookup:
    """Implements `Tool`."""

    name = "lookup"
    description = "Looks a text up."
    schema: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}}
    keyed = True

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def call(self, args: dict[str, Any], key: str) -> str:
        await self._clock.sleep(LOOKS_UP_S)
        return "There it is."
