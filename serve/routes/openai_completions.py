"""`POST /openai/v1/completions`: text to go on from, without a chat template."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response

from serve.auth import Principal, needs
from serve.doors import doors_of
from serve.openai_answers import answer
from serve.openai_bodies import CompletionBody
from serve.openai_errors import OpenAIRoute
from serve.openai_generation import Making, admit, repeated
from serve.openai_prompts import choose, completion_prompts, origin_of
from serve.openai_views import CompletionView, Head

router = APIRouter(route_class=OpenAIRoute)

BEGINNING_CHARACTERS = 256  # of the prompt, that name its conversation where nothing else does


@router.post("/completions")
async def complete(
    request: Request, who: Annotated[Principal, needs("completions:write")], body: CompletionBody
) -> Response:
    """What follows each prompt; with `stream`, as it is made."""
    doors, key = doors_of(request), request.state.id
    prompts = completion_prompts(body)
    headers = await admit(doors, who.tenant)
    origin = origin_of(request, who.tenant, body, prompts[0].raw[:BEGINNING_CHARACTERS])
    version, pinned = choose(doors.model, origin, body.model)
    prompts = [
        msgspec.structs.replace(prompt, origin=origin, model=version, pinned=pinned) for prompt in prompts
    ]
    n = body.n or 1
    making = Making(doors, who.tenant, key, repeated(prompts, n), n=n, version=version)
    view = CompletionView(making.choices, logprobs=body.logprobs is not None)
    head = Head(id=f"cmpl-{key}", object="text_completion", created=int(doors.clock.now().timestamp()))
    return await answer(request, making, view, head, body=body, headers=headers)
