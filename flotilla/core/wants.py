"""What a plan may want, and what it is given for it: two closed sets.

A plan is a generator: it yields wants and is sent what came of them (`flotilla.core.flow`).

| want | is given |
|---|---|
| `Search` | `tuple[Hit, ...]`, best first |
| `Generate` | `str`, the text |
| `AskAgent` | `Done` |
| `CallTool` | the tool's JSON value |
| `Publish`, `Pause` | `None` |
| `Pass` | nothing: the plan ends with the other agent's answer |
| `Gather` | a list with what each of its wants is given, in their order |
"""

from __future__ import annotations

from collections.abc import Generator
from hashlib import blake2b
from typing import Any

import msgspec

from flotilla.core.calls import Budget
from flotilla.core.errors import Refused
from flotilla.core.generation import Prompt, Usage
from flotilla.core.knowledge import Hit, Passage

GATHER_MAX = 64


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan returns."""

    text: str
    documents: tuple[Passage, ...] = ()


class Done(Reply, frozen=True, kw_only=True):
    """An agent's answer. `usage` is of the models alone; `spent` is what went off the budget, both with
    those of the agents that it asked."""

    usage: Usage = Usage()
    spent: Budget = Budget(tokens=0, calls=0)


# -- wants


class _Want(msgspec.Struct, frozen=True, tag_field="want"):
    @property
    def what(self) -> str:
        """For people who read the record."""
        return type(self).__name__


class Search(_Want, frozen=True, tag="search"):
    collection: str
    query: str
    limit: int = 4

    @property
    def what(self) -> str:
        return f"Search {self.collection}"


class Generate(_Want, frozen=True, tag="generate"):
    """The budget may shorten `prompt.tokens_max`."""

    prompt: Prompt


class AskAgent(_Want, frozen=True, tag="ask"):
    """Asks the agent of that kind and name; without a name, the one that has this agent's own."""

    kind: str
    question: str
    name: str | None = None
    context: tuple[str, ...] = ()
    timeout_s: float = 60.0

    @property
    def what(self) -> str:
        return f"AskAgent {self.kind}"


class Pass(AskAgent, frozen=True, tag="pass"):
    """Hands the task over. Should the other agent fail, its error is raised into the plan, which may
    then try somebody else."""

    @property
    def what(self) -> str:
        return f"Pass {self.kind}"


class CallTool(_Want, frozen=True, tag="tool"):
    name: str
    args: dict[str, Any] = {}

    @property
    def what(self) -> str:
        return f"CallTool {self.name}"


class Publish(_Want, frozen=True, tag="publish"):
    """A note on a side thread: whoever follows the agent sees it, a customer never does."""

    text: str


class Pause(_Want, frozen=True, tag="pause"):
    """Outlives processes; never shorter than that."""

    seconds: float


Want = Search | Generate | AskAgent | Pass | CallTool | Publish | Pause


class Gather:
    """All at once. The plan goes on when each has ended: with all outcomes or, if one failed, with the first
    error raised. With `settle` nothing is raised, and a `Problem` stands where an outcome is missing."""

    def __init__(self, *wants: Want, settle: bool = False) -> None:
        if len(wants) > GATHER_MAX:
            raise Refused(f"{len(wants)} wants at once; {GATHER_MAX} are the most.", next="Gather fewer.")
        if any(isinstance(want, Pass) for want in wants):
            raise Refused("A plan can't pass its task to several agents.", next="Use AskAgent in a Gather.")
        self.wants = wants
        self.settle = settle


Plan = Generator[Want | Gather, Any, Reply]


def digest(value: Any) -> str:
    """The same for what is equal, in any process and release."""
    return blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=8).hexdigest()


# -- outcomes


class Hits(msgspec.Struct, frozen=True, tag_field="outcome", tag="hits"):
    hits: tuple[Hit, ...]

    @property
    def given(self) -> tuple[Hit, ...]:
        return self.hits


class Text(msgspec.Struct, frozen=True, tag_field="outcome", tag="text"):
    """`model` is the id of the version that made it; "" if nobody said."""

    text: str
    usage: Usage = Usage()
    model: str = ""

    @property
    def given(self) -> str:
        return self.text


class Asked(msgspec.Struct, frozen=True, tag_field="outcome", tag="asked"):
    done: Done

    @property
    def given(self) -> Done:
        return self.done


class Value(msgspec.Struct, frozen=True, tag_field="outcome", tag="value"):
    """JSON, as it will be read back."""

    value: Any = None

    @property
    def given(self) -> Any:
        return self.value


Outcome = Hits | Text | Asked | Value
NOTHING = Value()
