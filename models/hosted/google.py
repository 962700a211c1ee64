"""Google's Gemini, by `generate_content_stream`.

A reply is gone on with by asking for it. What a model wants to see again of its own calls (the thought's
signature) travels in the call's id: it has no other place to stay.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import count
from typing import Any, Literal, cast

import httpx2
from google import genai
from google.genai import errors, types

from flotilla.core.errors import FlotillaError, Unsupported
from flotilla.core.generation import Alternative, ChatMessage, Piece, Prompt, TokenLogprob, ToolCall, Usage
from flotilla.core.versions import Version
from models.hosted.errors import Troubles
from models.hosted.model import End, HostedModel, HostedSettings, Step
from models.hosted.opening import connections, open_hosted
from models.hosted.text import CONTINUE, Overlap
from models.structured import arguments_of, parameters_of, schema_of, tools_of

KEY = "GEMINI_API_KEY"
STOPS_MAX = 5
SIGNATURE = "~"
"""Between a call's id and its thought's signature."""

Reason = Literal["stop", "length"]
REASONS: dict[str, Reason] = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
WITHHELD = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"}
)


async def open_engine(version: Version, folder: str, *, name: str, threads: int = 0) -> HostedModel:
    """See `models.engines.open_engine`. Raises `Misconfigured` if there is no key."""
    return open_hosted(version, name, _Google, HostedSettings, KEY)


class _Google:
    """See `Provider`."""

    def __init__(self, settings: HostedSettings, key: str, troubles: Troubles) -> None:
        self._settings, self._troubles = settings, troubles
        self._open: dict[str, httpx2.Response] = {}
        self._numbers = count(1)
        self._http = connections(settings, {"response": [self._opened]})
        # With a client of ours there are no implicit retries; without retry_options, no others.
        options = types.HttpOptions(base_url=settings.base_url or None, httpx_async_client=self._http)
        self._client = genai.Client(vertexai=False, api_key=key or "none", http_options=options)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Step]:
        _check(prompt)
        number = f"{next(self._numbers)}"
        try:
            async with aclosing(self._chat(prompt, number)) as steps:
                async for step in steps:
                    yield step
        except FlotillaError:
            raise
        except Exception as error:
            raise self._translated(error) from None
        finally:  # the SDK leaves closing to the garbage collector
            if response := self._open.pop(number, None):
                await response.aclose()

    async def _chat(self, prompt: Prompt, number: str) -> AsyncGenerator[Step]:
        reply = _Reply(self._troubles)
        chunks = await self._client.aio.models.generate_content_stream(
            model=self._settings.model,
            contents=cast(Any, [*_contents(prompt), *_said(self._settings, prompt)]),
            config=_config(self._settings, prompt, number),
        )
        async for chunk in chunks:
            yield reply.take(chunk)
        yield reply.end()

    async def _opened(self, response: httpx2.Response) -> None:
        if number := response.request.headers.get(NUMBER):
            self._open[number] = response

    def overlap(self, said: str) -> Overlap:
        return Overlap("" if self._settings.prefill else said)

    def stops_kept(self, stops: tuple[str, ...]) -> tuple[str, ...]:
        return stops[STOPS_MAX:]

    async def check(self) -> None:
        try:
            await self._client.aio.models.get(model=self._settings.model)
        except Exception as error:
            raise self._translated(error) from None

    async def close(self) -> None:
        await self._client.aio.aclose()
        self._client.close()
        await self._http.aclose()

    def _translated(self, error: Exception) -> FlotillaError:
        match error:
            case errors.APIError():
                return self._answered(error)
            case httpx2.HTTPError():
                return self._troubles.unreachable(error)
            case _:
                return self._troubles.garbled(error)

    def _answered(self, error: errors.APIError) -> FlotillaError:
        status, said = _status(error), f"{error.status or ''} {error.message or ''}".strip()
        if status == 400 and "api key" in said.lower():  # an invalid key is a bad request here
            status = 401
        headers = getattr(error.response, "headers", None)
        waits = {"retry-after": delay} if (delay := _retry_delay(error.details)) else {}
        return self._troubles.status(status, said, {**waits, **_lower(headers)})


NUMBER = "x-flotilla-request"
"""The header by which a response is found again."""


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _status(error: errors.APIError) -> int:
    return error.code if type(error.code) is int and error.code >= 400 else 500


def _retry_delay(details: Any) -> str:
    """Seconds, from a `google.rpc.RetryInfo`: {"retryDelay": "30s"}."""
    found = details.get("error", details).get("details", []) if isinstance(details, dict) else []
    delays = (entry.get("retryDelay", "") for entry in found if isinstance(entry, dict))
    return next((delay.removesuffix("s") for delay in delays if delay), "")


def _check(prompt: Prompt) -> None:
    if prompt.raw:
        raise Unsupported("Gemini has no `raw`.", field="raw", next="Ask another model, or send messages.")


# -- what is sent


def _config(settings: HostedSettings, prompt: Prompt, number: str) -> types.GenerateContentConfig:
    system = "\n\n".join(message.text for message in prompt.messages if message.role == "system")
    options = types.HttpOptions(headers={NUMBER: number}, extra_body=settings.extra or None)
    schema = schema_of(prompt)
    asked: dict[str, Any] = {
        "max_output_tokens": prompt.tokens_max,
        "stop_sequences": list(prompt.stop[:STOPS_MAX]) or None,
        "system_instruction": system or None,
        "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True),
        "automatic_continuation": False,
        "http_options": options,
        **_tools(prompt),
    }
    if settings.sampling:
        asked |= {"temperature": prompt.temperature, "top_p": prompt.top_p, "seed": prompt.seed}
    if schema is not None:
        asked |= {"response_mime_type": "application/json", "response_json_schema": schema}
    if prompt.logprobs is not None:
        asked |= {"response_logprobs": True, "logprobs": prompt.logprobs or None}
    return types.GenerateContentConfig(**asked)


def _contents(prompt: Prompt) -> Iterator[dict[str, Any]]:
    names = {call.id: call.name for message in prompt.messages for call in message.calls}
    for message in prompt.messages:
        if message.role != "system":
            role = "model" if message.role == "assistant" else "user"
            yield {"role": role, "parts": list(_parts(message, names))}


def _parts(message: ChatMessage, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        given = {"name": names.get(message.answers, message.answers), "response": {"result": message.text}}
        yield {"function_response": given}
        return
    if message.text or not message.calls:
        yield {"text": message.text}
    for call in message.calls:
        signature = call.id.partition(SIGNATURE)[2]
        signed = {"thought_signature": base64.urlsafe_b64decode(signature)} if signature else {}
        yield {"function_call": {"name": call.name, "args": arguments_of(call)}} | signed


def _said(settings: HostedSettings, prompt: Prompt) -> list[dict[str, Any]]:
    if not prompt.said:
        return []
    said = {"role": "model", "parts": [{"text": prompt.said}]}
    return [said] if settings.prefill else [said, {"role": "user", "parts": [{"text": CONTINUE}]}]


def _tools(prompt: Prompt) -> dict[str, Any]:
    tools = tools_of(prompt)
    if not tools:
        return {}
    functions = [
        types.FunctionDeclaration(
            name=tool.name,
            description=tool.description,
            parameters_json_schema=parameters_of(tool) or {"type": "object", "properties": {}},
        )
        for tool in tools
    ]
    calling: dict[str, Any] = {"mode": "AUTO" if prompt.tool_choice == "auto" else "ANY"}
    if prompt.tool_choice not in ("auto", "required"):
        calling["allowed_function_names"] = [prompt.tool_choice]
    config = types.ToolConfig(function_calling_config=types.FunctionCallingConfig(**calling))
    return {"tools": [types.Tool(function_declarations=functions)], "tool_config": config}


# -- what comes back


class _Reply:
    """Puts a streamed reply together."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._reason = ""
        self._usage = Usage()
        self._calls: list[ToolCall] = []

    def take(self, chunk: types.GenerateContentResponse) -> Piece:
        self._note(chunk)
        if not chunk.candidates:
            return Piece(text="", tokens=0)
        candidate = chunk.candidates[0]
        if candidate.finish_reason:
            self._reason = candidate.finish_reason.value
        parts = (candidate.content.parts if candidate.content else None) or []
        self._calls += [
            _call(part, len(self._calls) + n) for n, part in enumerate(parts) if part.function_call
        ]
        text = "".join(part.text for part in parts if part.text and not part.thought)
        logprobs = _logprobs(candidate.logprobs_result)
        return Piece(text=text, tokens=len(logprobs) or (1 if text else 0), logprobs=logprobs)

    def _note(self, chunk: types.GenerateContentResponse) -> None:
        if (feedback := chunk.prompt_feedback) and feedback.block_reason:
            raise self._troubles.withheld(str(feedback.block_reason.value))
        if usage := chunk.usage_metadata:
            made = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            self._usage = Usage(
                prompt_tokens=usage.prompt_token_count or self._usage.prompt_tokens,
                completion_tokens=made or self._usage.completion_tokens,
                cached_tokens=usage.cached_content_token_count or self._usage.cached_tokens,
            )

    def end(self) -> End:
        """Raises `Unavailable` if this is not the end of a reply, `Refused` if it was withheld."""
        if not self._reason:
            raise self._troubles.cut()
        if self._reason in WITHHELD:
            raise self._troubles.withheld(self._reason)
        if self._reason not in REASONS:
            raise self._troubles.gave_up(self._reason)
        reason = "tools" if self._calls else REASONS[self._reason]
        return End(reason=reason, usage=self._usage, calls=tuple(self._calls))


def _call(part: types.Part, number: int) -> ToolCall:
    call = part.function_call
    assert call is not None
    id = call.id or f"call_{number}"
    if part.thought_signature:
        id += SIGNATURE + base64.urlsafe_b64encode(part.thought_signature).decode()
    return ToolCall(id=id, name=call.name or "", arguments=json.dumps(call.args or {}, ensure_ascii=False))


def _logprobs(found: types.LogprobsResult | None) -> tuple[TokenLogprob, ...]:
    if found is None or not found.chosen_candidates:
        return ()
    tops = found.top_candidates or [types.LogprobsResultTopCandidates()] * len(found.chosen_candidates)
    return tuple(
        TokenLogprob(
            token=chosen.token or "",
            logprob=chosen.log_probability or 0.0,
            top=tuple(
                Alternative(token=other.token or "", logprob=other.log_probability or 0.0)
                for other in top.candidates or ()
            ),
        )
        for chosen, top in zip(found.chosen_candidates, tops, strict=True)
    )
