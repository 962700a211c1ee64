"""What goes into a model and what comes out."""

from __future__ import annotations

from typing import Literal

import msgspec


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    role: Literal["system", "user", "assistant"]
    text: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a model.

    `said` is the beginning of the reply that somebody has already seen: the model goes on from
    there and never repeats it. `sources` are texts, also to be found in `messages`, in whose words
    the reply should be; an engine with a small model holds it to them.
    """

    messages: tuple[ChatMessage, ...]
    said: str = ""
    tokens_max: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag="piece"):
    """Text that one engine step added."""

    text: str
    tokens: int = 1


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The end of a generation, with the engine's own clock: times in ms from the request's arrival."""

    reason: Literal["stop", "length"]
    usage: Usage
    first_token_ms: float
    total_ms: float


Generated = Piece | Finished


class Shown(msgspec.Struct, frozen=True):
    """What customers have seen of a reply. Behind a `sealed` one nothing more can be shown."""

    text: str = ""
    sealed: bool = False
