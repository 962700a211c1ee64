"""Versions that can be told apart by each of their words, and whose words a reply is made of."""

from __future__ import annotations

import re
from typing import Any, Literal

from flotilla.core.policy.intents import NOT_SURE

MODEL = "scripted"
PLAIN = "plain@1"
"""Stands in when no replica can be had."""
FIRST_TOKEN_S = 0.2
TOKEN_S = 0.04
WORDS = 30
AMBER, BERYL = f"{MODEL}@amber", f"{MODEL}@beryl"

_MARK = re.compile(r"(\w+@\w+):\d+")

Fit = Literal["whole", "cut", "mixed", "foreign"]


def marked(id: str) -> dict[str, Any]:
    """The body that registers it: each word of its replies has its id, and its place. The ids are equally
    long, so that a reply which another version went on with would be found out by its words."""
    words = " ".join(f"{{model}}:{place}" for place in range(WORDS))
    return version(id, mode="replies", replies=[words])


def version(id: str, **settings: Any) -> dict[str, Any]:
    """At the pace that all versions have in common."""
    pace = {"first_token_s": FIRST_TOKEN_S, "token_s": TOKEN_S}
    return {"name": id.partition("@")[2], "engine": "scripted", "settings": pace | settings}


def text_of(id: str) -> str:
    """What a customer gets: it cites nothing, and its agent says so."""
    return " ".join(f"{id}:{place}" for place in range(WORDS)) + NOT_SURE


def makers(text: str) -> set[str]:
    """The versions that its words are marked with."""
    return set(_MARK.findall(text))


def fit(text: str, id: str, *, whole: bool = True) -> Fit:
    """How the text of a reply fits the version that is named as its maker ("": whichever began it). One that
    was interrupted is no `whole` one."""
    made = makers(text)
    if len(made) > 1 or (made and id == PLAIN):
        return "mixed"
    id = id or next(iter(made), PLAIN)
    if id == PLAIN:
        return "whole"
    wanted = text_of(id)
    if text == wanted or (not whole and wanted.startswith(text)):
        return "whole"
    return "cut" if wanted.startswith(text) else "foreign"
