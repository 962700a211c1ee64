"""Who answers: an agent is a persona, the knowledge it may use, and how sure it must be."""

from __future__ import annotations

from typing import Literal

import msgspec

WhileTalking = Literal["queue", "interrupt", "merge", "reject"]
"""What becomes of a message that comes while the agent still talks: it waits for its turn; it stops the
running reply; it is answered together with the message before it; it is refused."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    persona: str
    greeting: str
    # What it may look things up in; "" if it knows only what its model knows.
    collection: str
    examples: tuple[str, ...] = ()
    passages_max: int = 4
    reply_tokens_max: int = 80
    # Cosine of the best passage below which the agent doesn't try to answer (docs/decisions/0005).
    similarity_min: float = 0.30
    public: bool = True
    while_talking: WhileTalking = "queue"
    # The model or the version that makes its replies (`smollm2`, `smollm2@2`); "" for the fleet's default.
    model: str = ""
    # The kind of a team member that answers in its place; "" if it searches and generates itself.
    asks: str = ""


FLOTILLA = Agent(
    name="flotilla",
    persona="You are a helpful assistant who answers questions about Flotilla.",
    greeting="Hello! I am an agent of this fleet. Ask me how it works.",
    collection="flotilla",
    examples=(
        "What happens when a host is killed while it answers?",
        "How do I import my own documents?",
        "How does Flotilla cite its sources?",
    ),
)
BANK = Agent(
    name="bank",
    persona="You are a helpful customer service assistant of Rho-Bank.",
    greeting="Hello! Ask me about Rho-Bank's accounts and cards.",
    collection="bank",
    examples=(
        "Which credit card has no annual fee?",
        "How do I dispute a card transaction?",
        "What is the interest rate of the Silver Plus savings account?",
    ),
)

TEAM = Agent(
    name="team",
    persona="",
    greeting="Hello! A router, two desks and a reviewer answer your questions about Rho-Bank.",
    collection="bank",
    examples=BANK.examples,
    asks="router",  # examples/team.py
)

CHAT = Agent(
    name="chat",
    persona="You are a helpful assistant.",
    greeting="Hello! I have no documents to look things up in: I answer from what my model knows.",
    collection="",
)

AGENTS = {agent.name: agent for agent in (FLOTILLA, BANK, TEAM, CHAT)}
DEFAULT_AGENT = FLOTILLA.name
