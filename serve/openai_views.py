"""Replies in OpenAI's shapes, whole and in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from flotilla.core.generation import Finished, Generated, Piece, TokenLogprob, ToolCall, Usage
from serve.openai_prompts import signed

_REASONS = {"stop": "stop", "length": "length", "tools": "tool_calls"}

Json = dict[str, Any]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What all chunks of a reply say. `object` is what they are."""

    id: str
    object: str
    created: int

    def chunk(self, version: str, choices: Sequence[Json], **more: Any) -> Json:
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": version,
            "system_fingerprint": version,
            "choices": choices,
            **more,
        }


def usage_of(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


# -- chat


class ChatView:
    """`one_call`: at most one tool is called. `logprobs`: they were asked for."""

    def __init__(self, *, one_call: bool, logprobs: bool) -> None:
        self._one_call = one_call
        self._logprobs = logprobs

    def first(self, index: int) -> Json:
        return self._delta(index, {"role": "assistant", "content": "", "refusal": None})

    def deltas(self, index: int, part: Generated, version: str) -> Iterator[Json]:
        if isinstance(part, Piece):
            yield self._delta(index, {"content": part.text}, logprobs=part.logprobs)
            return
        for at, call in enumerate(self._calls(part, version)):
            function = {"name": call.name, "arguments": ""}
            named = {"index": at, "id": call.id, "type": "function", "function": function}
            yield self._delta(index, {"tool_calls": [named]})
            said = {"index": at, "function": {"arguments": call.arguments}}
            yield self._delta(index, {"tool_calls": [said]})
        yield self._delta(index, {}, _REASONS[part.reason])

    def choice(self, index: int, pieces: Sequence[Piece], end: Finished, version: str) -> Json:
        text = "".join(piece.text for piece in pieces)
        calls = [_called(call) for call in self._calls(end, version)]
        message: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = calls
        tokens = [token for piece in pieces for token in piece.logprobs]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs_of(tokens),
            "finish_reason": _REASONS[end.reason],
        }

    def _delta(
        self, index: int, delta: Json, reason: str | None = None, logprobs: Sequence[TokenLogprob] = ()
    ) -> Json:
        found = self._logprobs_of(logprobs) if logprobs else None
        return {"index": index, "delta": delta, "logprobs": found, "finish_reason": reason}

    def _calls(self, end: Finished, version: str) -> tuple[ToolCall, ...]:
        calls = end.calls[:1] if self._one_call else end.calls
        return signed(calls, version)

    def _logprobs_of(self, tokens: Sequence[TokenLogprob]) -> Json | None:
        return {"content": [_token(token) for token in tokens], "refusal": None} if self._logprobs else None


def _called(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _token(token: TokenLogprob) -> Json:
    top = [_bare(other.token, other.logprob) for other in token.top]
    return {**_bare(token.token, token.logprob), "top_logprobs": top}


def _bare(token: str, logprob: float) -> Json:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


# -- plain completions


class CompletionView:
    def __init__(self, choices: int, *, logprobs: bool) -> None:
        self._logprobs = logprobs
        self._offsets = [0] * choices

    def deltas(self, index: int, part: Generated, _version: str) -> Iterator[Json]:
        if isinstance(part, Piece):
            yield self._choice(index, part.text, part.logprobs, None)
        else:
            yield self._choice(index, "", (), _REASONS[part.reason])

    def choice(self, index: int, pieces: Sequence[Piece], end: Finished, _version: str) -> Json:
        text = "".join(piece.text for piece in pieces)
        tokens = [token for piece in pieces for token in piece.logprobs]
        return self._choice(index, text, tokens, _REASONS[end.reason])

    def _choice(self, index: int, text: str, tokens: Sequence[TokenLogprob], reason: str | None) -> Json:
        found = self._logprobs_of(index, tokens) if self._logprobs and (tokens or reason) else None
        return {"index": index, "text": text, "logprobs": found, "finish_reason": reason}

    def _logprobs_of(self, index: int, tokens: Sequence[TokenLogprob]) -> Json:
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token.token)
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{other.token: other.logprob for other in token.top} for token in tokens],
            "text_offset": offsets,
        }
