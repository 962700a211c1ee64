"""A team that answers a bank's customers: a router, two desks and a reviewer.

    make up
    flotilla knowledge import PATH --collection bank
    python -m examples.team "Which credit card has no annual fee?"

Each of them is an actor that outlives its host. A plan (`answer`) is a pure generator: it yields what it wants
and is given what came of it. What is wanted is in the journal before it is done, and what came of it before
the plan hears of it, so whichever host takes over runs the plan through the record and goes on.
"""

from __future__ import annotations

import sys
from typing import ClassVar

import msgspec

from actors.residents.agent import at_home
from flotilla.core.flow import Agent, Do, Done, agent_kind
from flotilla.core.knowledge import Passage
from flotilla.core.policy import citations, prompting
from flotilla.core.wants import AskAgent, Gather, Generate, Pass, Plan, Publish, Reply, Search

COLLECTION = "bank"
PASSAGES_MAX = 2  # a small model reads no more with profit


def is_about_cards(passage: Passage) -> bool:
    return "card" in f"{passage.document} {passage.title}".casefold()


class Router(Agent):
    """Asks the desks whose documents the question finds, the best one first. So small a model can't choose
    between them; a search can."""

    kind = agent_kind("router")

    def answer(self, task: Do) -> Plan:
        hits = yield Search(COLLECTION, task.question)
        desks = list(dict.fromkeys("cards" if is_about_cards(hit.passage) else "accounts" for hit in hits))
        yield Publish(f"I ask {' and '.join(desks) or 'nobody'}.")
        drafts = yield Gather(*(AskAgent(desk, task.question) for desk in desks), settle=True)
        written = [draft for draft in drafts if isinstance(draft, Done)]
        yield Pass("reviewer", task.question, context=tuple(map(to_text, written)))
        raise AssertionError("the reviewer's answer is the team's")


class Desk(Agent):
    """Answers from the passages that are its business."""

    persona: ClassVar[str]

    def minds(self, passage: Passage) -> bool:
        raise NotImplementedError

    def answer(self, task: Do) -> Plan:
        hits = yield Search(COLLECTION, task.question, limit=8)
        passages = tuple(hit.passage for hit in hits if self.minds(hit.passage))[:PASSAGES_MAX]
        if not passages:
            return Reply(text="")
        text = yield Generate(prompting.build(self.persona, passages, (), task.question))
        return Reply(text=text.strip(), documents=passages)


class Cards(Desk):
    kind = agent_kind("cards")
    persona = "You know all about the cards of Rho-Bank."

    def minds(self, passage: Passage) -> bool:
        return is_about_cards(passage)


class Accounts(Desk):
    kind = agent_kind("accounts")
    persona = "You know all about the accounts and services of Rho-Bank."

    def minds(self, passage: Passage) -> bool:
        return not is_about_cards(passage)


class Reviewer(Agent):
    """Picks the draft of which most can be quoted from its passages, the first of equals. One of which
    nothing can is no answer."""

    kind = agent_kind("reviewer")

    def answer(self, task: Do) -> Plan:
        drafts = [from_text(text) for text in task.context]
        scores = [support(draft) for draft in drafts]
        yield Publish(f"Supported by quotes: {', '.join(f'{score:.0%}' for score in scores) or 'nothing'}.")
        best = max(scores, default=0.0)
        return drafts[scores.index(best)] if best else Reply(text="")


def support(draft: Reply) -> float:
    """The share of its sentences that quote a passage, 0 to 1."""
    return citations.support(draft.text, citations.find(draft.text, draft.documents))


def to_text(draft: Done) -> str:
    return msgspec.json.encode(Reply(text=draft.text, documents=draft.documents)).decode()


def from_text(text: str) -> Reply:
    return msgspec.json.decode(text, type=Reply)


residents = at_home(Router, Cards, Accounts, Reviewer)


def main(question: str) -> None:
    """Asks the team of a running fleet, over HTTP like any client."""
    from flotilla.cli.client import Client  # noqa: PLC0415 (hosts have no use for it)

    reply = Client().sessions.open("team").ask(question)
    sys.stdout.write(reply.text + "\n")
    for n, citation in enumerate(reply.citations, 1):
        sys.stdout.write(f"  [{n}] {citation.title}: “{citation.quote}”\n")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Which credit card has no annual fee?")
