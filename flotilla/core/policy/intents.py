"""Messages that need no search, and the fixed words an agent has for them."""

from __future__ import annotations

import re

import msgspec

from flotilla.core.agents import Agent


class Canned(msgspec.Struct, frozen=True, kw_only=True):
    """A reply in fixed words."""

    text: str
    offers_person: bool = False
    wants_person: bool = False


DONT_KNOW = Canned(
    text="I don't know: I found nothing in our documents that answers this. "
    "Would you like to talk to a person?",
    offers_person=True,
)
NOT_SURE = (
    "\n\nI could not tie this answer to our documents, so please don't rely on it. "
    "Would you like to talk to a person?"
)
PERSON_ASKED = Canned(
    text="I have noted that you would like to talk to a person. "
    "Until someone joins, I can go on looking things up in our documents.",
    wants_person=True,
)
WELCOME = Canned(text="You're welcome. Is there anything else I can look up for you?")

WISH_CHARACTERS_MAX = 120

_GREETING = re.compile(r"\W*(hi|hello|hey|good (morning|afternoon|evening|day))( there)?\W*", re.I)
_THANKS = re.compile(r"\W*(thanks|thank you|thx|cheers)( (a lot|so much|very much))?\W*", re.I)
# The whole message is the wish: one that only mentions a person is searched for like any other.
_PERSON = re.compile(
    r"\W*(?:(?:hi|hello|please|sorry)\W+)?"
    r"(?:(?:can|could|may) i (?:please )?|i(?:'d|’d| would)? (?:like|want|need|wish|prefer) to |let me |please )?"
    r"(?:(?:talk|speak|chat) (?:to|with)|(?:connect|transfer|put) me (?:through )?(?:to|with)|get me) "
    r"(?:an? |some|your )?(?:real |human |live )?(?:person|human|human being|agent|representative|someone|somebody)"
    r"(?: (?:please|now))*\W*",
    re.I,
)


def reply_without_search(text: str, agent: Agent) -> Canned | None:
    """The fixed reply to a greeting, to thanks or to a wish for a person; None for everything else."""
    if _GREETING.fullmatch(text):
        return Canned(text=agent.greeting)
    if _THANKS.fullmatch(text):
        return WELCOME
    if len(text) <= WISH_CHARACTERS_MAX and _PERSON.fullmatch(text):
        return PERSON_ASKED
    return None
