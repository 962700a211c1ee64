"""The client library: one vocabulary over HTTP, SSE, WebSocket and gRPC. See docs/client.md."""

from flotilla.client.blocking import Client
from flotilla.client.conversing import Reply
from flotilla.client.events import (
    Accepted,
    Closed,
    Completed,
    Delta,
    Denied,
    Event,
    Failed,
    Interrupted,
    Noted,
    Opened,
    Other,
    PersonCame,
    PersonLeft,
    PersonSpoke,
    PersonWanted,
    Rewound,
    Started,
)
from flotilla.client.fleet import DEFAULT_KEY, DEFAULT_URL, AsyncClient
from flotilla.client.limits import ClientLimits
from flotilla.client.sessions import Session
from flotilla.client.talking import Talk
from flotilla.core.policy.retry import Patience

__all__ = [
    "DEFAULT_KEY",
    "DEFAULT_URL",
    "Accepted",
    "AsyncClient",
    "Client",
    "ClientLimits",
    "Closed",
    "Completed",
    "Delta",
    "Denied",
    "Event",
    "Failed",
    "Interrupted",
    "Noted",
    "Opened",
    "Other",
    "Patience",
    "PersonCame",
    "PersonLeft",
    "PersonSpoke",
    "PersonWanted",
    "Reply",
    "Rewound",
    "Session",
    "Started",
    "Talk",
]
