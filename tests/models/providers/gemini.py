"""Speaks Google's generateContent."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from models.hosted.text import CONTINUE
from tests.models.providers.server import Asked, Said, Server, event

SIGNATURE = b"thought"


class GeminiServer(Server):
    def routes(self) -> list[Route]:
        return [
            Route("/v1/models/{model}:streamGenerateContent", self.answer, methods=["POST"]),
            Route("/v1/models/{model}", self.check),
        ]

    def listing(self) -> dict[str, Any]:
        return {"name": "models/m"}

    def key(self, request: Request) -> str:
        return request.headers.get("x-goog-api-key", "")

    def asked(self, body: dict[str, Any]) -> Asked:
        contents, config = body["contents"], body["generationConfig"]
        is_begun = contents[-1]["parts"][0].get("text") == CONTINUE
        said = contents[-2]["parts"][0]["text"] if is_begun else ""
        before = contents[:-2] if is_begun else contents
        question = next(
            c["parts"][0]["text"] for c in reversed(before) if c["role"] == "user" and "text" in c["parts"][0]
        )
        return Asked(
            question=question,
            said=said,
            tokens_max=config["maxOutputTokens"],
            stop=config.get("stopSequences", []),
            tool=self._tool(body, question),
            schema=config.get("responseJsonSchema"),
            logprobs=config.get("logprobs", 0) if config.get("responseLogprobs") else None,
        )

    def _tool(self, body: dict[str, Any], question: str) -> str:
        if "tools" not in body or "functionResponse" in body["contents"][-1]["parts"][0]:
            return ""
        calling = body["toolConfig"]["functionCallingConfig"]
        first = body["tools"][0]["functionDeclarations"][0]["name"]
        if calling["mode"] == "ANY":
            return calling.get("allowedFunctionNames", [first])[0]
        return first if "weather" in question else ""

    async def events(self, asked: Asked, said: Said) -> AsyncIterator[str]:
        for token in said.tokens:
            yield self._chunk([{"text": token}], **self._logprobs(token, asked.logprobs))
        if asked.tool:
            call = {"name": asked.tool, "args": {"city": "Zürich", "days": 3}}
            signed = {"functionCall": call, "thoughtSignature": base64.b64encode(SIGNATURE).decode()}
            yield self._chunk([{"text": "hm", "thought": True}])
            yield self._chunk([signed])
        reason = "MAX_TOKENS" if said.reason == "length" else "STOP"
        reason = "SAFETY" if self.behaviour == "withholds" else reason
        usage = {
            "promptTokenCount": 12,
            "candidatesTokenCount": len(said.tokens) or 5,
            "cachedContentTokenCount": 8,
        }
        yield event({"candidates": [{"index": 0, "finishReason": reason}], "usageMetadata": usage})

    def _chunk(self, parts: list[dict[str, Any]], **more: Any) -> str:
        content = {"role": "model", "parts": parts}
        return event({"candidates": [{"index": 0, "content": content, **more}], "modelVersion": "m"})

    def _logprobs(self, token: str, wanted: int | None) -> dict[str, Any]:
        if wanted is None:
            return {}
        chosen = {"token": token, "logProbability": -0.1, "tokenId": 1}
        top = [chosen, *({"token": f" other{n}", "logProbability": -1.0 - n} for n in range(wanted - 1))][
            :wanted
        ]
        return {"logprobsResult": {"chosenCandidates": [chosen], "topCandidates": [{"candidates": top}]}}

    def problem(self, status: int, message: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}

    def gives_up(self) -> str:
        return event({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}})
