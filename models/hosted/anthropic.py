"""Anthropic's messages.

A reply is given its beginning (`prefill`), until the model says that it takes none; from then on it is asked
to go on. A schema is a tool that has to be called, whose arguments are the reply. The SDK has no words for
sampling any more; with `sampling` they are put into the body, for older models.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anthropic
import httpx2

from flotilla.core.errors import FlotillaError, Unsupported
from flotilla.core.generation import ChatMessage, Piece, Prompt, ToolCall, Usage
from flotilla.core.versions import Version
from models.hosted.errors import Troubles
from models.hosted.model import End, HostedModel, HostedSettings, Step
from models.hosted.opening import connections, open_hosted
from models.hosted.text import CONTINUE, Overlap
from models.structured import arguments_of, parameters_of, schema_of, tools_of

BASE_URL = "https://api.anthropic.com"
KEY = "ANTHROPIC_API_KEY"
REPLY_TOOL = "reply"


class AnthropicSettings(HostedSettings, frozen=True, kw_only=True):
    sampling: bool = False
    prefill: bool = True
    cache: bool = True
    """Has the provider keep the prompt's prefix."""


async def open_engine(version: Version, folder: str, *, name: str, threads: int = 0) -> HostedModel:
    """See `models.engines.open_engine`. Raises `Misconfigured` if there is no key."""
    return open_hosted(version, name, _Anthropic, AnthropicSettings, KEY)


class _Anthropic:
    """See `Provider`."""

    def __init__(self, settings: AnthropicSettings, key: str, troubles: Troubles) -> None:
        self._settings, self._troubles = settings, troubles
        self._prefills = settings.prefill
        self._client = anthropic.AsyncAnthropic(
            api_key=key or "none",
            base_url=settings.base_url or BASE_URL,
            max_retries=0,
            timeout=None,  # see `HostedModel`
            http_client=connections(settings),
        )

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Step]:
        _check(prompt)
        try:
            reply = _Reply(self._troubles, is_json=bool(prompt.schema))
            async with await self._begin(prompt) as stream:
                async for event in stream:
                    yield reply.take(event)
            yield reply.end()
        except FlotillaError:
            raise
        except Exception as error:
            raise self._translated(error) from None

    async def _begin(self, prompt: Prompt) -> Any:
        try:
            return await self._client.messages.create(
                **_body(self._settings, prompt, prefills=self._prefills)
            )
        except anthropic.BadRequestError as error:
            if not (
                prompt.said and self._prefills and "prefill" in f"{error.error_code} {error.message}".lower()
            ):
                raise
            self._prefills = False
        return await self._client.messages.create(**_body(self._settings, prompt, prefills=False))

    def overlap(self, said: str) -> Overlap:
        if not self._prefills:
            return Overlap(said)
        return Overlap(said[len(said.rstrip()) :], chars_min=1)  # sent without it, so it comes again

    def stops_kept(self, stops: tuple[str, ...]) -> tuple[str, ...]:
        """Blank ones are refused."""
        return tuple(stop for stop in stops if not stop.strip())

    async def check(self) -> None:
        try:
            await self._client.models.list(limit=1)
        except Exception as error:
            raise self._translated(error) from None

    async def close(self) -> None:
        await self._client.close()

    def _translated(self, error: Exception) -> FlotillaError:
        match error:
            case anthropic.APIStatusError() if error.status_code < 400:  # told in the middle of the stream
                return self._told(error)
            case anthropic.APIStatusError():
                said = error.api_message or error.message
                return self._troubles.status(error.status_code, said, error.response.headers)
            case anthropic.APIConnectionError() | httpx2.HTTPError():
                return self._troubles.unreachable(error)
            case _:
                return self._troubles.garbled(error)

    def _told(self, error: anthropic.APIStatusError) -> FlotillaError:
        said = f"{error.type or ''} {error.api_message or ''}".strip()
        if error.type == "rate_limit_error":
            return self._troubles.status(429, said, {})
        return self._troubles.gave_up(said or "an error without words")


def _check(prompt: Prompt) -> None:
    asked = {"raw": prompt.raw, "logprobs": prompt.logprobs is not None}
    for field, is_asked in asked.items():
        if is_asked:
            raise Unsupported(
                f"Anthropic has no `{field}`.", field=field, next="Ask another model, or leave it out."
            )
    schema = schema_of(prompt)
    if schema is not None and schema.get("type", "object") != "object":
        raise Unsupported("Anthropic makes JSON objects only.", field="schema", next="Wrap it in an object.")


# -- what is sent


def _body(settings: AnthropicSettings, prompt: Prompt, *, prefills: bool) -> dict[str, Any]:
    system = "\n\n".join(message.text for message in prompt.messages if message.role == "system")
    stops = [stop for stop in prompt.stop if stop.strip()]
    sampling = {"temperature": prompt.temperature, "top_p": prompt.top_p} if settings.sampling else {}
    return {
        "model": settings.model,
        "max_tokens": prompt.tokens_max,
        "messages": [*_messages(prompt), *_said(prompt.said, prefills=prefills)],
        "stream": True,
        "extra_body": sampling | settings.extra,
        **({"system": system} if system else {}),
        **({"stop_sequences": stops} if stops else {}),
        **({"cache_control": {"type": "ephemeral"}} if settings.cache else {}),
        **_tools(prompt),
    }


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The results of tools that were called together go in one message, as they must."""
    out: list[dict[str, Any]] = []
    for message in prompt.messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if out and out[-1]["role"] == role:
            out[-1]["content"] += _blocks(message)
        else:
            out.append({"role": role, "content": _blocks(message)})
    return out


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.answers, "content": message.text}]
    text = [{"type": "text", "text": message.text}] if message.text else []
    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}
        for call in message.calls
    ]
    return [*text, *calls]


def _said(said: str, *, prefills: bool) -> list[dict[str, Any]]:
    if not said.strip():
        return []
    if prefills:
        return [{"role": "assistant", "content": said.rstrip()}]  # blanks at the end are refused
    return [{"role": "assistant", "content": said}, {"role": "user", "content": CONTINUE}]


def _tools(prompt: Prompt) -> dict[str, Any]:
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": {"type": "object"} | parameters_of(tool),
        }
        for tool in tools_of(prompt)
    ]
    schema = schema_of(prompt)
    if schema is None:
        return {"tools": tools, "tool_choice": _choice(prompt.tool_choice)} if tools else {}
    if tools and prompt.tool_choice != "auto":  # the reply comes once the tool has answered
        return {"tools": tools, "tool_choice": _choice(prompt.tool_choice)}
    described = {
        "name": REPLY_TOOL,
        "description": "Gives the reply.",
        "input_schema": {"type": "object"} | schema,
    }
    only = {"type": "any"} if tools else {"type": "tool", "name": REPLY_TOOL}
    return {"tools": [*tools, described], "tool_choice": only}


def _choice(choice: str) -> dict[str, str]:
    match choice:
        case "auto" | "none":
            return {"type": choice}
        case "required":
            return {"type": "any"}
        case name:
            return {"type": "tool", "name": name}


# -- what comes back


class _Reply:
    """Puts a streamed reply together; with `is_json` the arguments of `REPLY_TOOL` are its text."""

    def __init__(self, troubles: Troubles, *, is_json: bool) -> None:
        self._troubles, self._is_json = troubles, is_json
        self._reason, self._detail = "", ""
        self._read = self._cached = self._made = 0
        self._calls: dict[int, list[str]] = {}

    def take(self, event: Any) -> Piece:
        match event.type:
            case "message_start":
                self._count(event.message.usage)
            case "content_block_start" if event.content_block.type == "tool_use":
                self._calls[event.index] = [event.content_block.id, event.content_block.name, ""]
            case "content_block_delta":
                return self._delta(event)
            case "message_delta":
                self._reason = event.delta.stop_reason or self._reason
                self._count(event.usage)
            case _:
                pass
        return Piece(text="", tokens=0)

    def _delta(self, event: Any) -> Piece:
        delta = event.delta
        if delta.type == "text_delta" and not self._is_json:  # words around the JSON are none of it
            return Piece(text=delta.text)
        if delta.type == "input_json_delta":
            call = self._calls[event.index]
            if self._is_reply(call):
                return Piece(text=delta.partial_json)
            call[2] += delta.partial_json
        return Piece(text="", tokens=0)

    def _is_reply(self, call: list[str]) -> bool:
        return self._is_json and call[1] == REPLY_TOOL

    def _count(self, usage: Any) -> None:
        """The numbers are running totals; what an event leaves out is as before."""
        self._cached = usage.cache_read_input_tokens or self._cached
        new, written = usage.input_tokens or 0, usage.cache_creation_input_tokens or 0
        self._read = max(self._read, new + written + self._cached)
        self._made = usage.output_tokens or self._made

    def end(self) -> End:
        """Raises `Unavailable` if this is not the end of a reply, `Refused` if it was withheld."""
        if not self._reason:
            raise self._troubles.cut()
        if self._reason == "refusal":
            raise self._troubles.withheld(self._reason)
        if self._reason == "pause_turn":
            raise self._troubles.gave_up(self._reason)
        calls = tuple(
            ToolCall(id=call[0], name=call[1], arguments=call[2] or "{}")
            for _, call in sorted(self._calls.items())
            if not self._is_reply(call)
        )
        is_cut = self._reason in ("max_tokens", "model_context_window_exceeded")
        usage = Usage(prompt_tokens=self._read, completion_tokens=self._made, cached_tokens=self._cached)
        return End(reason="tools" if calls else "length" if is_cut else "stop", usage=usage, calls=calls)
