"""`POST /openai/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response

from serve.auth import Principal, needs
from serve.doors import doors_of
from serve.openai_answers import answer
from serve.openai_bodies import ChatBody
from serve.openai_errors import OpenAIRoute
from serve.openai_generation import Making, admit, repeated
from serve.openai_prompts import beginning, chat_prompt, choose, origin_of
from serve.openai_views import ChatView, Head

router = APIRouter(route_class=OpenAIRoute)


@router.post("/chat/completions")
async def chat(
    request: Request, who: Annotated[Principal, needs("completions:write")], body: ChatBody
) -> Response:
    """A reply to a conversation; with `stream`, as it is made."""
    doors, key = doors_of(request), request.state.id
    prompt = chat_prompt(body)
    headers = await admit(doors, who.tenant)
    origin = origin_of(request, who.tenant, body, beginning(prompt.messages))
    version, pinned = choose(doors.model, origin, body.model, prompt.messages)
    prompt = msgspec.structs.replace(prompt, origin=origin, model=version, pinned=pinned)
    n = body.n or 1
    making = Making(doors, who.tenant, key, repeated([prompt], n), n=n, version=version)
    view = ChatView(one_call=body.parallel_tool_calls is False, logprobs=bool(body.logprobs))
    kind = "chat.completion.chunk" if body.stream else "chat.completion"
    head = Head(id=f"chatcmpl-{key}", object=kind, created=int(doors.clock.now().timestamp()))
    return await answer(request, making, view, head, body=body, headers=headers)
