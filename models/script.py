"""What the scripted model says, and with which settings: all of it follows from the seed and the prompt."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Literal
from zlib import crc32

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.generation import Alternative, Finished, Prompt, TokenLogprob, ToolCall, ToolSpec, Usage
from models.instances import instance
from models.quoting import quote, stems
from models.structured import forced_tool, parameters_of, schema_of, tools_of

Mode = Literal["words", "replies", "quote"]

# A few words of more than one byte, so that whoever splits text learns not to split characters.
_VOCABULARY = (
    "your account card payment transfer balance fee limit branch statement deposit savings rate is has "
    "will can open check arrives today tomorrow within three days without charge and or when after the "
    "a this once confirmed naïve café Zürich 日本語 👍 👩‍👩‍👧 €5"
)
WORDS = _VOCABULARY.split()


class ScriptSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`words` makes sentences up; `replies` gives `replies` in the order of a conversation's turns, with the
    engine's name (the id of its version) where they say `{model}`; `quote` answers with the one of the
    prompt's sources that shares most words with the question."""

    name: str = "scripted"
    mode: Mode = "words"
    seed: int = 0
    replies: tuple[str, ...] = ()
    tokens_median: int = 60
    """Length of a made-up reply: log-normal around this,"""
    tokens_spread: float = 0.4
    """with this standard deviation of the logarithm; 0 makes all replies equally long."""
    first_token_s: float = 0.15
    token_s: float = 0.02
    """Seconds between tokens; 0 makes a piece per token as fast as it is read."""
    tick_s: float = 0.005
    """Replies that are due within the same tick share one timer."""
    context_tokens_max: int = 8192
    running_max: int = 100_000
    adapters_max: int = 8
    """Adapters loaded at once; one more lets go the one that was used longest ago."""
    prefill_tokens_per_s: float = 0.0
    """How fast prompts are read, one after the other, less what the prefix cache holds; 0: at once, no cache."""
    cache_tokens_max: int = 200_000
    capacity_tokens_per_s: float = 0.0
    """What all running replies share; 0: without bound."""

    # To misbehave, in drills.
    slow_ms: float = 0.0
    """On top of `first_token_s`."""
    fail_share: float = 0.0
    """Of the replies, that break off in the middle (`Unavailable`)."""
    garble_share: float = 0.0
    """Of the replies in mode `quote`, that say something which is in no source."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to say, and how it ends. The tokens of `calls` are made and not shown."""

    tokens: list[str]
    reason: Literal["stop", "length", "tools"]
    prompt_tokens: int
    calls: tuple[ToolCall, ...] = ()

    def finished(self, *, first_token_s: float, total_s: float, cached_tokens: int = 0) -> Finished:
        return Finished(
            reason=self.reason,
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=len(self.tokens),
                cached_tokens=cached_tokens,
            ),
            first_token_ms=1000 * first_token_s,
            total_ms=1000 * total_s,
            calls=self.calls,
        )


def compose(settings: ScriptSettings, prompt: Prompt, weights: str = "") -> Reply:
    """The rest of the reply after `said`. Other `weights` have other words. Raises `Refused` if the prompt
    fills the context, or for a schema or tools that nothing can be done with."""
    prompt_tokens = sum(len(tokens_of(message.text)) for message in prompt.messages)
    prompt_tokens += len(tokens_of(prompt.raw))
    room = settings.context_tokens_max - prompt_tokens
    if room <= 0:
        raise _too_long(prompt_tokens, settings.context_tokens_max)
    if called := _call(settings, prompt, weights):
        return _calling(called, prompt_tokens)
    whole = tokens_of(until_stop(_text(settings, prompt, weights), prompt.stop))
    kept = whole[: min(prompt.tokens_max, room)]
    return Reply(
        tokens=after(kept, len(prompt.said)),
        reason="stop" if len(kept) == len(whole) else "length",
        prompt_tokens=prompt_tokens + len(tokens_of(prompt.said)),
    )


def _too_long(tokens: int, tokens_max: int) -> Refused:
    return Refused(
        f"The prompt has {tokens} tokens; this model takes {tokens_max}, reply included.",
        field="messages",
        next="Send fewer or shorter messages, or start a new conversation.",
    )


def tokens_of(text: str) -> list[str]:
    """Words with the space before them; they join to `text`."""
    return re.findall(r"\s*\S+|\s+$", text)


def after(tokens: list[str], offset: int) -> list[str]:
    """What tokens have after `offset` characters; one that is cut gives its rest."""
    starts = accumulate(map(len, tokens), initial=0)
    rests = (token[max(0, offset - start) :] for token, start in zip(tokens, starts, strict=False))
    return [rest for rest in rests if rest]


# -- text


def _text(settings: ScriptSettings, prompt: Prompt, weights: str) -> str:
    if (schema := schema_of(prompt)) is not None:
        return _json(instance(schema, _digest(settings, prompt, weights)))
    told = f"({prompt.adapter}) " if prompt.adapter else ""  # an adapter can be seen
    return told + _told(settings, prompt, weights)


def _told(settings: ScriptSettings, prompt: Prompt, weights: str) -> str:
    match settings.mode:
        case "words":
            return _made_up(settings, prompt, weights)
        case "replies":
            turn = sum(message.role == "assistant" for message in prompt.messages)
            reply = settings.replies[turn % len(settings.replies)] if settings.replies else ""
            return reply.replace("{model}", settings.name)
        case "quote":
            garbled = settings.garble_share and _is_garbled(settings, prompt, weights)
            return _made_up(settings, prompt, weights) if garbled else quote(prompt)


def _is_garbled(settings: ScriptSettings, prompt: Prompt, weights: str) -> bool:
    return random.Random(_digest(settings, prompt, weights) + b"garble").random() < settings.garble_share


def until_stop(text: str, stop: tuple[str, ...]) -> str:
    ends = [at for s in stop if s and (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def _made_up(settings: ScriptSettings, prompt: Prompt, weights: str) -> str:
    chance = random.Random(_digest(settings, prompt, weights))
    length = round(settings.tokens_median * chance.lognormvariate(0.0, settings.tokens_spread))
    words = [chance.choice(WORDS) for _ in range(max(1, length))]
    ends = {at for at in range(len(words)) if chance.random() < 0.1} | {len(words) - 1}
    return " ".join(word + "." * (at in ends) for at, word in enumerate(words))


def _digest(settings: ScriptSettings, prompt: Prompt, weights: str) -> bytes:
    """Greedy decoding has no chance in it, so the prompt's seed counts only above temperature 0."""
    seed = prompt.seed if prompt.temperature > 0 else 0
    more = tuple(part for part in (prompt.raw, prompt.adapter, weights) if part)
    decisive = (settings.seed, seed, prompt.messages, *more)
    return blake2b(msgspec.msgpack.encode(decisive), digest_size=16).digest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- tools


def _call(settings: ScriptSettings, prompt: Prompt, weights: str) -> ToolCall | None:
    tools = tools_of(prompt)
    tool = forced_tool(prompt) or (_asked_for(tools, prompt) if tools else None)
    if tool is None:
        return None
    seed = _digest(settings, prompt, weights) + tool.name.encode()
    arguments = instance(parameters_of(tool) or {"type": "object"}, seed, field="tools")
    return ToolCall(
        id=f"call_{blake2b(seed, digest_size=12).hexdigest()}", name=tool.name, arguments=_json(arguments)
    )


def _asked_for(tools: Sequence[ToolSpec], prompt: Prompt) -> ToolSpec | None:
    """The tool whose name, or a word of whose description, is in the user's message, if that is the last one;
    if one is required, any."""
    last = prompt.messages[-1] if prompt.messages else None
    asked = last.text if last is not None and last.role == "user" else ""
    words = stems(asked)
    for tool in tools:
        if asked and (tool.name in asked or words & stems(tool.description)):
            return tool
    return tools[0] if prompt.tool_choice == "required" else None


def _calling(call: ToolCall, prompt_tokens: int) -> Reply:
    return Reply(tokens=tokens_of(call.arguments), reason="tools", prompt_tokens=prompt_tokens, calls=(call,))


# -- logprobs


def logprobs_of(tokens: Sequence[str], first: int, alternatives: int | None) -> tuple[TokenLogprob, ...]:
    """Made-up numbers for tokens from place `first` of the reply on: the same ones for the same token there."""
    if alternatives is None:
        return ()
    return tuple(_logprob(token, first + at, alternatives) for at, token in enumerate(tokens))


def _logprob(token: str, place: int, alternatives: int) -> TokenLogprob:
    chance = crc32(f"{place} {token}".encode())
    logprob = -(chance % 500) / 1000
    others = (f" {word}" for word in WORDS[chance % len(WORDS) :] + WORDS if f" {word}" != token)
    ranked = zip(others, range(alternatives - 1), strict=False)
    top = (Alternative(token=token, logprob=logprob),) if alternatives else ()
    rest = tuple(Alternative(token=other, logprob=logprob - 1.0 - rank) for other, rank in ranked)
    return TokenLogprob(token=token, logprob=logprob, top=top + rest)
