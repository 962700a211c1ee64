"""A message on its way in, whichever door it came through."""

from __future__ import annotations

import time

from starlette.requests import HTTPConnection

from flotilla.core import signals
from flotilla.core.errors import Refused
from flotilla.core.ids import ActorId
from serve import auth
from serve.auth import Principal
from serve.bodies import PostMessage, check_text
from serve.doors import Doors
from serve.limits.headers import limited
from serve.tracing import header_of


async def post(
    connection: HTTPConnection, doors: Doors, who: Principal, actor: ActorId, body: PostMessage, *, door: str
) -> signals.Accepted:
    """Once the message is in the record; of a customer, or of the person that it names. `door` is what the
    span is called."""
    began = time.monotonic()
    check_text(body.text)
    await limited(connection, doors.limits.message(who))
    if body.person is not None:
        return await _speak(doors, who, actor, body, body.person)
    waited_ms = (time.monotonic() - began) * 1000
    message = signals.Post(id=body.id, text=body.text, waited_ms=waited_ms, while_talking=body.while_talking)
    with doors.traces.call(door, actor, header_of(connection, visitor=who.visitor)) as call:
        return await doors.fleet.ask(actor, message, call=call)


async def _speak(
    doors: Doors, who: Principal, actor: ActorId, body: PostMessage, person: str
) -> signals.Accepted:
    auth.check_key(who)
    check_text(person, field="as")
    if body.while_talking is not None:
        raise Refused(
            "`while_talking` is about messages to the agent.",
            field="while_talking",
            next="Leave it out of a person's message.",
        )
    return await doors.fleet.ask(actor, signals.Speak(person=person, id=body.id, text=body.text))
