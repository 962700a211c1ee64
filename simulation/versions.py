"""The model of a world and its versions. What each says can be told from what the others say, at any place."""

from __future__ import annotations

import random
from collections.abc import Mapping
from string import ascii_lowercase, ascii_uppercase

from flotilla.core.ids import ActorId
from flotilla.core.swap_orders import Budgets, CanaryStep, Case, GateSet, Judge, SwapOrder
from flotilla.core.versions import FLEET, Canary, Version

MODEL = "m"
ACTOR = ActorId(FLEET, "model", MODEL)
FACTS = "The Silver card has a fee of 10 € a year. Naïve 日本語 👩‍👩‍👧 words. A branch opens at nine."
REPLIES = (
    "The Silver card has a fee of 10 € a year.",
    "Naïve 日本語 👩‍👩‍👧 words. A branch opens",
    "A branch opens at nine.",
)
GOOD = ("m@1", "m@2")
IN_PLACE_SHARE = 0.35
BAD = "m@3"
"""Slow, or it breaks off, or it can't be started: as the world's seed says."""
BASE = "m@1"
PLAIN = Version(model="plain", name="1", engine="extract")
"""Answers in the host itself, in worlds with fallbacks, when none of the others can."""
PLAIN_ACTOR = ActorId(FLEET, "model", PLAIN.model)
LETTERS = ascii_uppercase + ascii_lowercase


def _alphabet(upper: int, lower: int) -> dict[int, str]:
    """From the letters that there are to 26 of each that begin there."""
    signs = [chr(first + n) for first in (upper, lower) for n in range(26)]
    return dict(zip(map(ord, LETTERS), signs, strict=True))


ALPHABETS: Mapping[str, Mapping[int, str]] = {
    "wide": _alphabet(0xFF21, 0xFF41),
    "ring": _alphabet(0x24B6, 0x24D0),
    "bold": _alphabet(0x1D400, 0x1D41A),
}
"""What each adapter does to its base: other signs for the same letters, one for one, so that it can be told at any
place, and a reply that breaks off can be gone on with."""
BASES: Mapping[str, str] = {f"{MODEL}@{name}": BASE for name in ALPHABETS}
"""What each adapter runs on."""


def _marked(reply: str, sign: str) -> str:
    """The sign before each word: a reply that goes on with another version's words shows it."""
    return " ".join(f"{sign}{word}" for word in reply.split(" "))


TEXTS: Mapping[str, tuple[str, ...]] = {
    "m@1": REPLIES,
    "m@2": tuple(reply.upper() for reply in REPLIES),
    BAD: tuple(_marked(reply, "³") for reply in REPLIES),
    PLAIN.id: tuple(_marked(reply, "°") for reply in REPLIES),
    **{
        f"{MODEL}@{name}": tuple(reply.translate(alphabet) for reply in REPLIES)
        for name, alphabet in ALPHABETS.items()
    },
}


def adapters() -> list[Version]:
    """Their folder is the name of their alphabet."""
    return [Version(model=MODEL, name=name, engine="scripted", base=BASE, adapter=name) for name in ALPHABETS]


def versions(chance: random.Random, adapters_max: int) -> list[Version]:
    """Those of one world that have replicas, each with room for so many adapters. All keep the same pace, but the
    bad one."""
    pace = {"first_token_s": 0.05, "token_s": chance.choice((0.02, 0.1, 0.2)), "tick_s": 0.01}
    pace |= {"adapters_max": adapters_max}
    ill = chance.choice(({"fail_share": 0.5}, {"slow_ms": 1500.0}, {"fail_share": 0.1}))
    return [
        Version(
            model=MODEL,
            name=id.partition("@")[2],
            engine="scripted",
            settings={"mode": "replies", "replies": texts, **pace, **(ill if id == BAD else {})},
        )
        for id, texts in TEXTS.items()
        if id not in (*BASES, PLAIN.id)
    ]


def order(chance: random.Random) -> SwapOrder:
    """What an operator may ask for, in seconds instead of minutes."""
    percents = chance.choice(((50.0,), (30.0, 100.0), (60.0,), (20.0, 50.0, 100.0)))
    hold_s = chance.choice((0.3, 1.0, 2.0))
    return SwapOrder(
        gate=_GATE if chance.random() < 0.2 else None,
        shadow_share=0.8,
        shadow_replies=chance.choice((0, 0, 2)),
        shadow_max_s=4.0,
        steps=tuple(CanaryStep(canary=Canary(percent=percent), hold_s=hold_s) for percent in percents),
        budgets=Budgets(replies_min=5, quality_drop_max=1.0),  # only the bad one is worse
        automatic=chance.random() < 0.8,
        load_max_s=30.0,
        in_place=chance.random() < IN_PLACE_SHARE,
        keep_s=chance.choice((0.5, 2.0, 5.0)),
    )


_GATE = GateSet(
    name="short",
    cases=(Case(id="fee", question="What does the Silver card cost?"),),
    judges=(Judge(name="length"),),
)
