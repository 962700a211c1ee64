"""From what an OpenAI client asks to prompts, and to whom they belong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from secrets import randbits
from typing import Any

import msgspec
from fastapi import Request

from flotilla.core.errors import NotFound
from flotilla.core.generation import ChatMessage, Origin, Prompt, ToolCall, ToolSpec
from flotilla.core.ports import ModelDoor
from serve.openai_bodies import (
    CHOICES_MAX,
    PROMPTS_MAX,
    TOKENS_DEFAULT,
    TOKENS_MAX,
    ChatBody,
    CompletionBody,
    ContentPart,
    MessageBody,
    Sampling,
    ToolChoice,
)
from serve.openai_errors import Invalid

AGENT = "openai"
CONVERSATION = "x-flotilla-conversation"
COMPLETION_TOKENS_DEFAULT = 16  # OpenAI's own
_CONVERSATION_MAX = 128
_ANY_OBJECT = '{"type":"object"}'
_RESERVED = ("auto", "none", "required")
_TOP_P_LEAST = 1e-4  # 0 stands for the likeliest token alone, as this does
_MADE_BY = "~"  # between a call's own id and the version that made it; in no name of a version


# -- for whom


def origin_of(request: Request, tenant: str, body: Sampling, begins: str) -> Origin:
    """The conversation is what the header, `prompt_cache_key` or `user` says; else `begins`, the part that
    stays the same while a chat grows, so that it comes back to the replica that knows its beginning."""
    named = request.headers.get(CONVERSATION) or body.prompt_cache_key or body.user
    if named is None or len(named) > _CONVERSATION_MAX:
        digest = hashlib.blake2b((named or begins).encode(errors="surrogateescape"), digest_size=12)
        named = digest.hexdigest()
    return Origin(tenant=tenant, conversation=named, agent=AGENT)


def beginning(messages: Sequence[ChatMessage]) -> str:
    """Up to the first thing that the user said."""
    user = next((n for n, message in enumerate(messages) if message.role == "user"), len(messages) - 1)
    return msgspec.json.encode([(m.role, m.text) for m in messages[: user + 1]]).decode()


def choose(
    door: ModelDoor, origin: Origin, wanted: str, messages: Sequence[ChatMessage] = ()
) -> tuple[str, bool]:
    """The version that is to answer, and whether no other may: one that was asked for by its id, or the one
    whose own calls' results are the last that it is told.

    Raises `NotFound` (field `model`), `Unavailable`."""
    if made_by := _caller(messages):
        try:
            return door.choose(origin, made_by), True
        except NotFound:
            pass  # it is gone; whoever there is now reads the results
    try:
        return door.choose(origin, wanted), "@" in wanted
    except NotFound as error:
        raise NotFound(
            error.detail, field="model", next=error.next or "GET /openai/v1/models lists them."
        ) from None


# -- the version that made a call, in the call's id: the client sends it back with the result


def signed(calls: Sequence[ToolCall], version: str) -> tuple[ToolCall, ...]:
    return tuple(msgspec.structs.replace(call, id=f"{call.id}{_MADE_BY}{version}") for call in calls)


def _caller(messages: Sequence[ChatMessage]) -> str:
    """The version whose calls the last messages answer; "" outside of a tool loop."""
    if not messages or messages[-1].role != "tool":
        return ""
    _, _, version = messages[-1].answers.rpartition(_MADE_BY)
    return version if "@" in version else ""


# -- what


def chat_prompt(body: ChatBody) -> Prompt:
    """Raises `Invalid` with the parameter's name."""
    tools = _tools(body)
    choice = _choice(body, tools)
    return Prompt(
        messages=_messages(body.messages),
        tokens_max=_tokens(body, body.max_completion_tokens or body.max_tokens or TOKENS_DEFAULT),
        schema=_schema(body),
        tools=tools if choice != "none" else (),
        tool_choice=choice,
        logprobs=_chat_logprobs(body),
        **_sampling(body),
    )


def completion_prompts(body: CompletionBody) -> list[Prompt]:
    texts = _texts(body.prompt)
    choices = len(texts) * (body.n or 1)
    if choices > PROMPTS_MAX:
        raise Invalid(f"{choices} choices are asked for; {PROMPTS_MAX} are the most.", field="prompt")
    tokens = _tokens(body, body.max_tokens or COMPLETION_TOKENS_DEFAULT, choices)
    return [Prompt(raw=text, tokens_max=tokens, logprobs=body.logprobs, **_sampling(body)) for text in texts]


def _sampling(body: Sampling) -> dict[str, Any]:
    """Two requests without a seed differ, as OpenAI's do."""
    return {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else max(_TOP_P_LEAST, body.top_p),
        "seed": randbits(31) if body.seed is None else body.seed % 2**63,
        "stop": body.stops,
    }


def _tokens(body: Sampling, tokens: int, choices: int | None = None) -> int:
    choices = choices or body.n or 1
    if tokens * choices > TOKENS_MAX:
        raise Invalid(
            f"{choices} choices of {tokens} tokens are more than {TOKENS_MAX}.",
            field="n",
            next=f"Ask for fewer tokens or choices (at most {CHOICES_MAX}).",
        )
    return tokens


def _texts(prompt: str | list[Any]) -> list[str]:
    texts: list[Any] = [prompt] if isinstance(prompt, str) else prompt
    for text in texts:
        if not isinstance(text, str):
            raise Invalid(
                "Prompts of tokens are not read: tokens are another model's with each version.",
                field="prompt",
                next="Send text.",
                code="unsupported_value",
            )
        if not text:
            raise Invalid("The prompt is empty.", field="prompt", next="Send text to go on from.")
    return texts


# -- messages


def _messages(given: Sequence[MessageBody]) -> tuple[ChatMessage, ...]:
    known: set[str] = set()
    messages: list[ChatMessage] = []
    for n, message in enumerate(given):
        messages.append(_message(message, f"messages.{n}", known))
        known |= {call.id for call in messages[-1].calls}
    return tuple(messages)


def _message(given: MessageBody, field: str, known: set[str]) -> ChatMessage:
    text = _text(given, field)
    match given.role:
        case "assistant":
            calls = tuple(
                ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
                for call in given.tool_calls or ()
            )
            return ChatMessage(role="assistant", text=text, calls=calls)
        case "tool":
            if given.tool_call_id not in known:
                raise Invalid(
                    "A tool's message must answer a call of a message before it.",
                    field=f"{field}.tool_call_id",
                    next="Send the assistant's message with its tool_calls first.",
                )
            return ChatMessage(role="tool", text=text, answers=given.tool_call_id or "")
        case "developer":
            return ChatMessage(role="system", text=text)
        case role:
            return ChatMessage(role=role, text=text)


def _text(given: MessageBody, field: str) -> str:
    if isinstance(given.content, str):
        return given.content
    if given.content is None:
        if given.role == "assistant":
            return ""
        raise Invalid("There is no content.", field=f"{field}.content", next="Send text.")
    return "".join(_part(part, f"{field}.content.{n}") for n, part in enumerate(given.content))


def _part(part: ContentPart, field: str) -> str:
    match part.type:
        case "text" if part.text is not None:
            return part.text
        case "refusal" if part.refusal is not None:
            return part.refusal
        case "text" | "refusal":
            raise Invalid(f"The part has no {part.type}.", field=f"{field}.{part.type}")
        case _:
            raise Invalid(
                f"These models read text, and no {part.type!r}.",
                field=f"{field}.type",
                next="Send parts of type text.",
                code="unsupported_value",
            )


# -- tools, schemas, logprobs


def _tools(body: ChatBody) -> tuple[ToolSpec, ...]:
    specs: dict[str, ToolSpec] = {}
    for n, tool in enumerate(body.tools or ()):
        given = tool.function
        if given.name in specs or given.name in _RESERVED:
            raise Invalid(
                f"{given.name!r} can't name this tool: it means something already.",
                field=f"tools.{n}.function.name",
                next="Use another name.",
            )
        specs[given.name] = ToolSpec(
            name=given.name,
            description=given.description or "",
            parameters=_as_json(
                given.parameters or {"type": "object", "properties": {}}, f"tools.{n}.function.parameters"
            ),
        )
    return tuple(specs.values())


def _choice(body: ChatBody, tools: Sequence[ToolSpec]) -> str:
    choice = body.tool_choice
    if not tools:
        if choice is None or choice in ("none", "auto"):
            return "none"
        raise Invalid("There are no tools to choose from.", field="tool_choice", next="Send `tools` too.")
    if not isinstance(choice, ToolChoice):
        return choice or "auto"
    if choice.function.name not in {tool.name for tool in tools}:
        raise Invalid(
            f"There is no tool {choice.function.name!r}.",
            field="tool_choice",
            next="Name one of `tools`.",
        )
    return choice.function.name


def _schema(body: ChatBody) -> str:
    wanted = body.response_format
    match wanted and wanted.type:
        case "json_object":
            return _ANY_OBJECT
        case "json_schema":
            assert wanted is not None
            if wanted.json_schema is None:
                raise Invalid("There is no schema.", field="response_format.json_schema", next="Send one.")
            return _as_json(wanted.json_schema.definition, "response_format.json_schema.schema")
        case _:
            return ""


def _as_json(value: Any, field: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise Invalid(
            "The schema has a number that isn't one, or is too deep.", field=field, next="Send JSON."
        ) from None


def _chat_logprobs(body: ChatBody) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise Invalid(
            "`top_logprobs` goes with `logprobs`.", field="top_logprobs", next="Set logprobs to true."
        )
    return (body.top_logprobs or 0) if body.logprobs else None
