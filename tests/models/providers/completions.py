"""Speaks OpenAI's chat completions and completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from models.hosted.text import CONTINUE
from tests.models.providers.server import REPLY, Asked, Said, Server, event


class CompletionsServer(Server):
    """As vLLM does it, it goes on with the last message if it is asked to."""

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self.answer, methods=["POST"]),
            Route("/v1/completions", self.answer, methods=["POST"]),
            Route("/v1/models", self.check),
        ]

    def key(self, request: Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    def asked(self, body: dict[str, Any]) -> Asked:
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True}
        if "prompt" in body:
            return Asked(
                question=body["prompt"],
                tokens_max=body["max_tokens"],
                stop=body.get("stop", []),
                logprobs=body.get("logprobs"),
            )
        return self._chat(body)

    def _chat(self, body: dict[str, Any]) -> Asked:
        messages = body["messages"]
        exactly = body.get("continue_final_message", False)
        said_at = -1 if exactly else -2
        is_begun = exactly or messages[-1]["content"] == CONTINUE
        said = messages[said_at]["content"] if is_begun else ""
        before = messages[:said_at] if is_begun else messages
        question = next(m["content"] for m in reversed(before) if m["role"] == "user")
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return Asked(
            question=question,
            said=said,
            tokens_max=body.get("max_completion_tokens") or body["max_tokens"],
            stop=body.get("stop", []),
            tool=self._tool(body, question),
            schema=schema,
            logprobs=body.get("top_logprobs") if body.get("logprobs") else None,
        )

    def _tool(self, body: dict[str, Any], question: str) -> str:
        match body.get("tool_choice"):
            case {"function": {"name": name}}:
                return name
            case "required":
                return body["tools"][0]["function"]["name"]
            case "auto" if "weather" in question and body["messages"][-1]["role"] != "tool":
                return body["tools"][0]["function"]["name"]
            case _:
                return ""

    async def events(self, asked: Asked, said: Said) -> AsyncIterator[str]:
        is_chat = "messages" in self.bodies[-1]
        reason = {"tools": "tool_calls"}.get(said.reason, said.reason)
        if is_chat:
            yield self._chunk({"delta": {"role": "assistant", "content": ""}})
        for place, token in enumerate(said.tokens):
            logprobs = self._logprobs(token, place, asked.logprobs, is_chat=is_chat)
            body = {"delta": {"content": token}} if is_chat else {"text": token}
            yield self._chunk(body | logprobs)
        for part in self._call(asked.tool, said.arguments) if asked.tool else ():
            yield self._chunk({"delta": {"tool_calls": [part]}})
        if self.behaviour == "withholds":
            reason = "content_filter"
        yield self._chunk(({"delta": {}} if is_chat else {"text": ""}) | {"finish_reason": reason})
        made = len(said.tokens) or 5
        usage = {"prompt_tokens": 12, "completion_tokens": made, "total_tokens": 12 + made}
        yield event(
            {
                "id": "c",
                "object": "chunk",
                "choices": [],
                "usage": usage | {"prompt_tokens_details": {"cached_tokens": 8}},
            }
        )
        yield "data: [DONE]\n\n"

    def _chunk(self, choice: dict[str, Any]) -> str:
        filled = {"index": 0, "finish_reason": None, "logprobs": None} | choice
        return event(
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [filled]}
        )

    def _call(self, name: str, arguments: str) -> list[dict[str, Any]]:
        half = len(arguments) // 2
        return [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}},
            {"index": 0, "function": {"arguments": arguments[:half]}},
            {"index": 0, "function": {"arguments": arguments[half:]}},
        ]

    def _logprobs(self, token: str, place: int, wanted: int | None, *, is_chat: bool) -> dict[str, Any]:
        if wanted is None:
            return {}
        top = [(token, -0.1), *((f" other{n}", -1.0 - n) for n in range(wanted - 1))][:wanted]
        if not is_chat:
            legacy = {
                "tokens": [token],
                "token_logprobs": [None if place == 0 else -0.1],
                "top_logprobs": [dict(top)],
            }
            return {"logprobs": legacy}
        tops = [{"token": t, "logprob": p, "bytes": None} for t, p in top]
        return {
            "logprobs": {"content": [{"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": tops}]}
        }

    def problem(self, status: int, message: str) -> dict[str, Any]:
        code = "context_length_exceeded" if "too long" in message else None
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}

    def gives_up(self) -> str:
        return event({"error": {"message": "The engine died.", "type": "server_error", "code": None}})


__all__ = ["REPLY", "CompletionsServer"]
