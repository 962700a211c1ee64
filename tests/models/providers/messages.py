"""Speaks Anthropic's messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.hosted.text import CONTINUE
from tests.models.providers.server import REPLY, Asked, Said, Server, event


class MessagesServer(Server):
    """`prefills` says whether the model can be given the beginning of its reply."""

    prefills = True

    def routes(self) -> list[Route]:
        return [Route("/v1/messages", self.answer, methods=["POST"]), Route("/v1/models", self.check)]

    def listing(self) -> dict[str, Any]:
        return {"data": [], "has_more": False, "first_id": None, "last_id": None}

    def key(self, request: Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        if body["messages"][-1]["role"] == "assistant" and not self.prefills:
            return self._problem(400, "This model does not support assistant message prefill.")
        return await super().answer(request)

    def asked(self, body: dict[str, Any]) -> Asked:
        assert body["stream"] is True
        assert all(stop.strip() for stop in body.get("stop_sequences", []))
        messages = body["messages"]
        is_asked = messages[-1]["content"] == CONTINUE
        begun = -2 if is_asked else -1 if messages[-1]["role"] == "assistant" else None
        said = messages[begun]["content"] if begun else ""
        assert is_asked or said == said.rstrip()
        before = messages[:begun] if begun else messages
        question = next(_text(m) for m in reversed(before) if m["role"] == "user" and _text(m))
        choice = body.get("tool_choice", {})
        tool, schema = self._tool(body, choice, question)
        return Asked(
            question=question,
            said=said,
            tokens_max=body["max_tokens"],
            stop=body.get("stop_sequences", []),
            tool=tool,
            schema=schema,
        )

    def _tool(self, body: dict[str, Any], choice: dict[str, Any], question: str) -> tuple[str, Any]:
        tools = {tool["name"]: tool for tool in body.get("tools", [])}
        name = choice.get("name", "")
        if choice.get("type") == "any" or (choice.get("type") == "auto" and "weather" in question):
            name = next(iter(tools))
        if body["messages"][-1]["role"] == "user" and _is_result(body["messages"][-1]):
            name = ""
        is_reply = name == "reply"
        return ("" if is_reply else name), (tools[name]["input_schema"] if is_reply else None)

    async def events(self, asked: Asked, said: Said) -> AsyncIterator[str]:
        usage = {
            "input_tokens": 4,
            "cache_read_input_tokens": 8,
            "cache_creation_input_tokens": 0,
            "output_tokens": 1,
        }
        message = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "m",
            "usage": usage,
        }
        yield event({"type": "message_start", "message": message}, "message_start")
        yield event({"type": "ping"}, "ping")
        block, deltas = self._block(asked, said)
        yield event(
            {"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start"
        )
        for delta in deltas:
            yield event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
        yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        reason = {"tools": "tool_use", "length": "max_tokens"}.get(said.reason, "end_turn")
        reason = "tool_use" if asked.schema is not None and reason == "end_turn" else reason
        reason = "refusal" if self.behaviour == "withholds" else reason
        delta = {"stop_reason": reason, "stop_sequence": None}
        made = {"output_tokens": len(said.tokens) or 5}
        yield event({"type": "message_delta", "delta": delta, "usage": made}, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def _block(self, asked: Asked, said: Said) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if asked.tool or asked.schema is not None:
            name = asked.tool or "reply"
            block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
            parts = [said.arguments[:9], said.arguments[9:]] if asked.tool else said.tokens
            return block, [{"type": "input_json_delta", "partial_json": part} for part in parts]
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": token} for token in said.tokens]

    def problem(self, status: int, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}

    def gives_up(self) -> str:
        error = {"type": "overloaded_error", "message": "Overloaded"}
        return event({"type": "error", "error": error}, "error")


def _is_result(message: dict[str, Any]) -> bool:
    content = message["content"]
    return isinstance(content, list) and content[-1]["type"] == "tool_result"


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


__all__ = ["REPLY", "MessagesServer"]
