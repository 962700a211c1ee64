"""What a session takes, and what it refuses with the field at fault and the next move."""

from __future__ import annotations

from flotilla.core.conversation import Conversation, Seen
from flotilla.core.errors import Conflict, LimitReached, NotFound, Refused, Rejected
from flotilla.core.ids import is_name

PERSON_CHARACTERS_MAX = 128


def check_opened(session: Conversation) -> None:
    if session.opened is None:
        raise NotFound(f"There is no session {session.id.name!r}.", next="Open one with POST /v1/sessions.")


def check_not_closed(session: Conversation) -> None:
    if session.closed:
        raise Conflict("This session is closed.", next="Open a new one with POST /v1/sessions.")


def check_message(id: str, text: str) -> None:
    if not is_name(id):
        raise Refused(
            "`id` must be 1 to 128 letters, digits or _ . : -", field="id", next="Choose an id of your own."
        )
    if not text.strip():
        raise Refused("`text` is empty.", field="text", next="Send at least one visible character.")


def check_person(person: str) -> None:
    if not person.strip() or len(person) > PERSON_CHARACTERS_MAX:
        raise Refused(
            f"`person` must be a name of 1 to {PERSON_CHARACTERS_MAX} characters.",
            field="person",
            next="Send the name that your desk knows the person by.",
        )


def check_taken_by(session: Conversation, person: str) -> None:
    if not session.taken_by:
        raise Conflict(
            "No person has taken this session over.",
            field="person",
            next="Take it over with POST /v1/sessions/ID/handoff and the action `accept`.",
        )
    if session.taken_by != person:
        raise Conflict(
            f"{session.taken_by!r} has this session.",
            field="person",
            next=f"Ask {session.taken_by!r} to return it first.",
        )


def check_room(session: Conversation) -> None:
    """For one more message of anybody."""
    if len(session.seen) + len(session.written) >= session.limits.messages_per_session_max:
        raise LimitReached("This session has reached its last message.", next="Open a new session.")


def check_waiting(session: Conversation, waiting: int) -> None:
    if waiting >= session.limits.pending_turns_max:
        raise LimitReached(
            f"{waiting} messages already wait for their reply in this session.",
            next="Wait for a reply, or interrupt it.",
            retry_after_s=1.0,
        )


def rejected() -> Rejected:
    return Rejected(
        "The agent is still talking, and takes no message until it is done.",
        field="while_talking",
        next="Wait for the end of the reply, or send it with `while_talking`: `queue`.",
        retry_after_s=1.0,
    )


def check_same(seen: Seen, digest: bytes, id: str) -> None:
    """For a message that comes again under its id."""
    if seen.digest != digest:
        raise Conflict(
            f"The id {id!r} was already used for another message.",
            field="id",
            next="Give each message an id of its own.",
        )
