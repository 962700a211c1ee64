"""What whoever waits for an actor is told when there is no answer.

Each is made anew: an error that is raised twice holds on to the frames of both.
"""

from __future__ import annotations

from flotilla.core.errors import DeadlinePassed, Moved, Unavailable


def moved() -> Moved:
    """Nothing has come of it here: whoever sent it may send it to the actor's new home."""
    return Moved("The actor goes on at another host.", next="Connect again.", retry_after_s=0.1)


def unknown() -> Unavailable:
    """It was taken: only what its actor knows by an id may be sent again."""
    return Unavailable(
        "The actor took the message and was lost before it answered.",
        next="See what became of it before you send it again.",
        retry_after_s=0.1,
    )


def late() -> DeadlinePassed:
    return DeadlinePassed("The message waited beyond its deadline.", next="Give it more time, or send less.")
