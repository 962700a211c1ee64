"""The team of examples/team.py on the real runtime: who is asked, and that only what can be quoted is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from actors.serving.single import OneModel
from benchmarks.cluster import LOG, Cluster
from examples import team
from flotilla.core.flow import Do, Done
from flotilla.core.flow_facts import ThreadSaid
from flotilla.core.ids import ActorId
from flotilla.core.knowledge import Hit, Passage
from flotilla.core.ledger import Codec
from flotilla.core.policy import citations
from models.scripted import ScriptedModel, ScriptSettings
from tests.fleet import BANK, QUESTION


class Words:
    """Finds the documents of tests/fleet.py that share most words with the query."""

    async def search(self, tenant: str, collection: str, query: str, *, limit: int) -> tuple[Hit, ...]:
        asked = set(query.casefold().strip("?").split())
        found = [(len(asked & set(d["text"].casefold().split())), d) for d in BANK]
        best = sorted((pair for pair in found if pair[0] > 1), key=lambda pair: -pair[0])[:limit]
        return tuple(
            Hit(
                passage=Passage(id=f"{d['id']}#0", document=d["id"], title=d["title"], text=d["text"]),
                score=float(score),
                similarity=0.5,
            )
            for score, d in best
        )


class Made(Cluster):
    def __init__(self, script: ScriptSettings) -> None:
        self.model = ScriptedModel(script)
        super().__init__(Made._residents)

    def _residents(self) -> Any:
        doors: Any = SimpleNamespace(
            knowledge=Words(),
            model=OneModel(self.model),
            letters=self.letters,
            clock=self.clock,
            log=LOG,
            bills=None,
        )
        return team.residents(doors)

    async def ask(self, question: str) -> Done:
        task = Do(task="t-1", question=question)
        return await self.fleet.ask(ActorId("t1", "router", "s-1"), task, timeout_s=10.0)

    async def said(self, kind: type[Any]) -> list[str]:
        stored = await self.journal.read(ActorId("t1", kind.kind.name, "s-1"))
        facts = [Codec(kind).recorded(one).fact for one in stored]
        return [fact.text for fact in facts if isinstance(fact, ThreadSaid)]


QUOTE = ScriptSettings(mode="quote", first_token_s=0.0, token_s=0.0)
MADE_UP = ScriptSettings(mode="words", first_token_s=0.0, token_s=0.0)


@pytest.fixture
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Made]:
    cluster = Made(request.param)
    await cluster.add("h-1")
    yield cluster
    await cluster.aclose()


@pytest.mark.parametrize("made", [QUOTE], indirect=True)
async def test_the_desk_that_knows_answers_with_what_can_be_quoted(made: Made) -> None:
    done = await made.ask(QUESTION)
    assert "95 dollars a year" in done.text
    assert citations.find(done.text, done.documents)
    assert done.usage.completion_tokens and done.spent.calls >= 4
    assert await made.said(team.Router) == ["I ask cards and accounts."]
    assert "100%" in (await made.said(team.Reviewer))[0]


@pytest.mark.parametrize("made", [MADE_UP], indirect=True)
async def test_what_nothing_supports_is_no_answer(made: Made) -> None:
    done = await made.ask(QUESTION)
    assert done.text == "" and not done.documents


@pytest.mark.parametrize("made", [QUOTE], indirect=True)
async def test_nobody_is_asked_about_what_no_document_knows(made: Made) -> None:
    assert (await made.ask("Xyzzy?")).text == ""
    assert await made.said(team.Router) == ["I ask nobody."]
