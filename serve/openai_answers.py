"""A reply on its way to an OpenAI client: as events while it is made, or whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import msgspec
from fastapi import Request, Response

from flotilla.core.generation import Finished, Piece
from serve.doors import doors_of
from serve.openai_bodies import Sampling
from serve.openai_generation import Gone, Making, Part, while_there
from serve.openai_streaming import DONE, EventStream, begun, sse, with_errors
from serve.openai_views import ChatView, CompletionView, Head, Json, usage_of

View = ChatView | CompletionView
_GONE = 499  # nobody reads it


async def answer(
    request: Request, making: Making, view: View, head: Head, *, body: Sampling, headers: Mapping[str, str]
) -> Response:
    """`headers` go with it. Raises what the model raises before the first part is there."""
    try:
        if not body.stream:
            whole = await while_there(request, _whole(making, view, head))
            return Response(msgspec.json.encode(whole), 200, dict(headers), media_type="application/json")
        parts = await while_there(request, begun(making.parts()))
    except Gone:
        return Response(status_code=_GONE)
    events = _events(parts, making, view, head, counts=body.counts)
    return EventStream(with_errors(events, doors_of(request).log), headers)


async def _whole(making: Making, view: View, head: Head) -> Json:
    pieces: list[list[Piece]] = [[] for _ in range(making.choices)]
    ends: dict[int, Finished] = {}
    async with aclosing(making.parts()) as parts:
        async for index, part in parts:
            if isinstance(part, Piece):
                pieces[index].append(part)
            else:
                ends[index] = part
    version = making.made_by
    made = [view.choice(n, pieces[n], ends[n], version) for n in range(making.choices)]
    return head.chunk(version, made, usage=usage_of(making.usage))


async def _events(
    parts: AsyncGenerator[Part], making: Making, view: View, head: Head, *, counts: bool
) -> AsyncGenerator[bytes]:
    more: Json = {"usage": None} if counts else {}
    async with aclosing(parts):
        if isinstance(view, ChatView):
            for n in range(making.choices):
                yield sse(head.chunk(making.made_by, [view.first(n)], **more))
        async for index, part in parts:
            for delta in view.deltas(index, part, making.made_by):
                yield sse(head.chunk(making.made_by, [delta], **more))
    if counts:
        yield sse(head.chunk(making.made_by, [], usage=usage_of(making.usage)))
    yield DONE
