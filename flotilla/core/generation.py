"""What goes into a model and what comes out: one vocabulary for every engine."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call that the model asks for. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """`calls` are an assistant's; `answers` is the id of the call that a tool's message answers."""

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A tool that the model may call. `parameters` is a JSON Schema, as JSON text."""

    name: str
    description: str = ""
    parameters: str = "{}"


class Origin(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """For whom a reply is made: what routing and the ledger go by. `conversation` is what shares a
    prefix from one prompt to the next."""

    tenant: str = ""
    conversation: str = ""
    agent: str = ""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request to a model.

    `said` is the beginning of the reply that somebody has already seen: the model goes on from
    there and never repeats it. `sources` are texts, also to be found in `messages`, in whose words
    the reply should be; an engine with a small model holds it to them. `raw` is text to go on from as
    it stands, in place of `messages` and without a chat template.

    Structured output: `schema` is a JSON Schema (JSON text) that the reply has to fit; `tools` may be
    called as `tool_choice` says: "auto", "none", "required", or the name of the one that must be.
    Neither goes with `said`: what nobody has seen is simply made again.

    `logprobs`: how many alternatives to report with each token, 0 to 20; None for no logprobs at all.
    `model` is the name of a model (`smollm2`) or the id of a version (`smollm2@2`); "" for the default.
    `pinned`: no other may stand in for it, as its own tools' results are among the messages.
    `adapter` is the id of the version whose adapter to apply: whoever routes fills it in.
    `apart_s`: pieces that come sooner one after the other may be joined; the first comes at once.
    """

    messages: tuple[ChatMessage, ...] = ()
    raw: str = ""
    said: str = ""
    tokens_max: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    schema: str = ""
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    logprobs: int | None = None
    model: str = ""
    pinned: bool = False
    adapter: str = ""
    origin: Origin = Origin()
    apart_s: float = 0.0

    @property
    def structured(self) -> bool:
        """Whether the reply is of use only when it is whole."""
        return bool(self.schema or (self.tools and self.tool_choice != "none"))


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Alternative(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    token: str
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A token of the reply with its natural logarithm of probability, and the likeliest at its place."""

    token: str
    logprob: float
    top: tuple[Alternative, ...] = ()


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag="piece", omit_defaults=True):
    """Text that one engine step added. `model` is the id of the version that makes the reply, in its first
    piece: a reply that is cut short has no `Finished`. Engines leave it to the replica, and to whoever routes."""

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()
    model: str = ""

    def joined(self, later: Piece) -> Piece:
        return Piece(
            text=self.text + later.text,
            tokens=self.tokens + later.tokens,
            logprobs=self.logprobs + later.logprobs,
            model=self.model or later.model,
        )


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", omit_defaults=True):
    """The end of a generation, with the engine's own clock: times in ms from the request's arrival.
    `calls` are the tools that the model wants called, with reason "tools". `model` is the id of the version
    that made it; engines leave it to whoever routes."""

    reason: Literal["stop", "length", "tools"]
    usage: Usage
    first_token_ms: float
    total_ms: float
    calls: tuple[ToolCall, ...] = ()
    model: str = ""


Generated = Piece | Finished


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is busy with. `queued_tokens` are the prompt tokens that wait for their first step;
    `first_token_ms` is about the 95th percentile of the last minute, 0 if there was nothing;
    `cache_used` the share of the KV cache in use, 0 to 1. `adapters` are those loaded, by id."""

    running: int = 0
    waiting: int = 0
    queued_tokens: int = 0
    first_token_ms: float = 0.0
    cache_used: float = 0.0
    adapters: tuple[str, ...] = ()


CLAIM_MARK = "\x1e"
"""A record separator: stands around what the hot log of a reply has before its text, and so in no text."""


class Shown(msgspec.Struct, frozen=True):
    """What customers have seen of a reply. Behind a `sealed` one nothing more can be shown."""

    text: str = ""
    sealed: bool = False
