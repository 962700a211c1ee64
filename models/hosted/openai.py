"""OpenAI's chat completions, and every endpoint that speaks them (`base_url`).

A reply is gone on with by asking for it; an endpoint of vLLM's goes on to the character, with `prefill`
(`continue_final_message`). Text as it stands (`raw`) goes through completions, which OpenAI's own chat models
don't have.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import httpx2
import openai

from flotilla.core.errors import FlotillaError
from flotilla.core.generation import Alternative, ChatMessage, Piece, Prompt, TokenLogprob, ToolCall, Usage
from flotilla.core.versions import Version
from models.hosted.errors import Troubles
from models.hosted.model import End, HostedModel, HostedSettings, Step
from models.hosted.opening import connections, open_hosted
from models.hosted.text import CONTINUE, Overlap
from models.structured import Schema, parameters_of, schema_of, tools_of

BASE_URL = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"


class OpenaiSettings(HostedSettings, frozen=True, kw_only=True):
    tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """How the endpoint calls the bound of a reply; older ones know `max_tokens`."""
    stops_max: int = 4
    """The provider takes no more; the others are looked for here."""


async def open_engine(version: Version, folder: str, *, name: str, threads: int = 0) -> HostedModel:
    """See `models.engines.open_engine`. Raises `Misconfigured` if there is no key."""
    return open_hosted(version, name, _Openai, OpenaiSettings, KEY)


class _Openai:
    """See `Provider`."""

    def __init__(self, settings: OpenaiSettings, key: str, troubles: Troubles) -> None:
        self._settings, self._troubles = settings, troubles
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=settings.base_url or BASE_URL,
            max_retries=0,
            timeout=None,  # see `HostedModel`
            http_client=connections(settings),
        )

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Step]:
        try:
            async with aclosing(self._completion(prompt) if prompt.raw else self._chat(prompt)) as steps:
                async for step in steps:
                    yield step
        except FlotillaError:
            raise
        except Exception as error:
            raise self._translated(error) from None

    async def _chat(self, prompt: Prompt) -> AsyncGenerator[Step]:
        reply = _Reply(self._troubles)
        async with await self._client.chat.completions.create(**_chat(self._settings, prompt)) as stream:
            async for chunk in stream:
                yield reply.chat(chunk)
        yield reply.end()

    async def _completion(self, prompt: Prompt) -> AsyncGenerator[Step]:
        reply = _Reply(self._troubles)
        async with await self._client.completions.create(**_completion(self._settings, prompt)) as stream:
            async for chunk in stream:
                yield reply.completion(chunk)
        yield reply.end()

    def overlap(self, said: str) -> Overlap:
        return Overlap("" if self._settings.prefill else said)

    def stops_kept(self, stops: tuple[str, ...]) -> tuple[str, ...]:
        return stops[self._settings.stops_max :]

    async def check(self) -> None:
        try:
            await self._client.models.list()
        except Exception as error:
            raise self._translated(error) from None

    async def close(self) -> None:
        await self._client.close()

    def _translated(self, error: Exception) -> FlotillaError:
        match error:
            case openai.APIStatusError():
                said = f"{error.code or ''} {error.message}".strip()
                return self._troubles.status(error.status_code, said, error.response.headers)
            case openai.APIConnectionError() | httpx2.HTTPError():
                return self._troubles.unreachable(error)
            case openai.APIError():  # told in the middle of the stream
                return self._troubles.gave_up(error.message)
            case _:
                return self._troubles.garbled(error)


# -- what is sent


def _chat(settings: OpenaiSettings, prompt: Prompt) -> dict[str, Any]:
    body: dict[str, Any] = _common(settings, prompt) | {
        settings.tokens_field: prompt.tokens_max,
        "messages": [*map(_message, prompt.messages), *_said(settings, prompt)],
    }
    if tools := tools_of(prompt):
        body |= {"tools": [_tool(tool) for tool in tools], "tool_choice": _choice(prompt.tool_choice)}
    if (schema := schema_of(prompt)) is not None:
        asked = {"name": "reply", "schema": schema, "strict": _is_strict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": asked}
    if prompt.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": prompt.logprobs}
    if prompt.said and settings.prefill:
        exactly = {"continue_final_message": True, "add_generation_prompt": False}
        body["extra_body"] = exactly | settings.extra
    return body


def _completion(settings: OpenaiSettings, prompt: Prompt) -> dict[str, Any]:
    body = _common(settings, prompt) | {
        "max_tokens": prompt.tokens_max,
        "prompt": prompt.raw + prompt.said,
    }
    return body | ({"logprobs": prompt.logprobs} if prompt.logprobs is not None else {})


def _common(settings: OpenaiSettings, prompt: Prompt) -> dict[str, Any]:
    sampling = {"temperature": prompt.temperature, "top_p": prompt.top_p, "seed": prompt.seed}
    stops = prompt.stop[: settings.stops_max]
    return {
        "model": settings.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": dict(settings.extra),
        **(sampling if settings.sampling else {}),
        **({"stop": list(stops)} if stops else {}),
    }


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "content": message.text, "tool_call_id": message.answers}
    if not message.calls:
        return {"role": message.role, "content": message.text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"role": message.role, "content": message.text or None, "tool_calls": calls}


def _said(settings: OpenaiSettings, prompt: Prompt) -> list[dict[str, Any]]:
    if not prompt.said:
        return []
    said = {"role": "assistant", "content": prompt.said}
    return [said] if settings.prefill else [said, {"role": "user", "content": CONTINUE}]


def _tool(tool: Any) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    function = {"name": tool.name, "parameters": parameters_of(tool) or {"type": "object", "properties": {}}}
    return {"type": "function", "function": function | described}


def _choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _is_strict(schema: Any) -> bool:
    """Whether the provider can hold the reply to it: each object names all it may have, and wants all of it.
    A schema that leaves something open is sent as a wish."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    node: Schema = schema
    if node.get("type") == "object" or "properties" in node:
        closed = node.get("additionalProperties") is False
        if not closed or set(node.get("required", ())) != set(node.get("properties", ())):
            return False
    return all(map(_is_strict, node.values()))


# -- what comes back


class _Reply:
    """Puts a streamed reply together."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._reason = ""
        self._usage = Usage()
        self._calls: dict[int, list[str]] = {}

    def chat(self, chunk: Any) -> Piece:
        self._note(chunk)
        if not chunk.choices:
            return Piece(text="", tokens=0)
        choice = chunk.choices[0]
        self._reason = choice.finish_reason or self._reason
        for call in choice.delta.tool_calls or ():
            self._call(call)
        content = choice.logprobs.content if choice.logprobs else None
        logprobs = tuple(map(_logprob, content or ()))
        text = choice.delta.content or ""
        return Piece(text=text, tokens=len(logprobs) or (1 if text else 0), logprobs=logprobs)

    def completion(self, chunk: Any) -> Piece:
        self._note(chunk)
        if not chunk.choices:
            return Piece(text="", tokens=0)
        choice = chunk.choices[0]
        self._reason = choice.finish_reason or self._reason
        logprobs = _legacy_logprobs(choice.logprobs)
        text = choice.text or ""
        return Piece(text=text, tokens=len(logprobs) or (1 if text else 0), logprobs=logprobs)

    def _note(self, chunk: Any) -> None:
        if usage := chunk.usage:
            details = getattr(usage, "prompt_tokens_details", None)
            self._usage = Usage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cached_tokens=(details.cached_tokens or 0) if details else 0,
            )

    def _call(self, call: Any) -> None:
        parts = self._calls.setdefault(call.index, ["", "", ""])
        parts[0] = call.id or parts[0]
        if call.function:
            parts[1] += call.function.name or ""
            parts[2] += call.function.arguments or ""

    def end(self) -> End:
        """Raises `Unavailable` if this is not the end of a reply, `Refused` if it was withheld."""
        if self._reason == "content_filter":
            raise self._troubles.withheld(self._reason)
        if not self._reason:
            raise self._troubles.cut()
        parts = [self._calls[index] for index in sorted(self._calls)]
        calls = tuple(ToolCall(id=id, name=name, arguments=given or "{}") for id, name, given in parts)
        reason = "tools" if calls else "length" if self._reason == "length" else "stop"
        return End(reason=reason, usage=self._usage, calls=calls)


def _logprob(entry: Any) -> TokenLogprob:
    top = tuple(Alternative(token=other.token, logprob=other.logprob) for other in entry.top_logprobs or ())
    return TokenLogprob(token=entry.token, logprob=entry.logprob, top=top)


def _legacy_logprobs(found: Any) -> tuple[TokenLogprob, ...]:
    if not found or not found.tokens:
        return ()
    tops = found.top_logprobs or [{}] * len(found.tokens)
    return tuple(
        TokenLogprob(
            token=token,
            logprob=logprob or 0.0,  # the first token of a text has none
            top=tuple(Alternative(token=other, logprob=value) for other, value in (top or {}).items()),
        )
        for token, logprob, top in zip(found.tokens, found.token_logprobs, tops, strict=True)
    )
