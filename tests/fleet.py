"""What tests ask of a fleet: a few documents of a bank, and the promises of the wire, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection

from benchmarks.fleet import ROOT, OwnFleet

BANK = [
    {
        "id": "blue",
        "title": "Blue Card",
        "text": "The Blue Card has no annual fee. It gives one percent cash back on all purchases. "
        "A lost Blue Card is replaced within three working days at no charge.",
    },
    {
        "id": "gold",
        "title": "Gold Card",
        "text": "The Gold Card costs 95 dollars a year. It gives three percent cash back on travel and dining. "
        "Holders of the Gold Card may enter airport lounges twice a year.",
    },
    {
        "id": "dispute",
        "title": "Disputes",
        "text": "To dispute a card transaction, call us within sixty days of the statement. "
        "We credit the amount for the time of the investigation, which takes up to ten working days.",
    },
]
KINDS = "examples.counter,examples.dedicated,examples.ticket"
QUESTION = "How much does the Gold Card cost a year?"


class TestFleet(OwnFleet):
    """Sheds nothing because the machine is busy; shedding is tested in tests/actors/test_overload.py."""

    __test__ = False

    def __init__(self, **settings: str) -> None:
        super().__init__(**{"FLOTILLA_QUEUE_TARGET_S": "10", **settings})

    def know(self, collection: str = "bank", documents: list[dict[str, str]] = BANK) -> None:
        super().know(collection, documents)

    def up(self) -> TestFleet:
        super().up()
        return self


def receive(socket: ClientConnection, until: str, timeout_s: float = 60) -> Iterator[dict[str, Any]]:
    """Events up to and with the first of type `until`."""
    while True:
        event = json.loads(socket.recv(timeout=timeout_s))
        yield event
        if event["type"] == until:
            return


def join(events: list[dict[str, Any]]) -> str:
    """The text that a client has on its screen after these events. Asserts that no delta leaves a gap."""
    text = ""
    for event in events:
        if event["type"] in ("reply.delta", "reply.rewound"):
            offset = event["data"]["offset"]
            assert offset <= len(text), f"gap: delta at {offset}, only {len(text)} characters are there"
            text = text[:offset] + event["data"].get("text", "")
        elif event["type"] == "message.accepted":
            text = ""
    return text


__all__ = ["BANK", "KINDS", "QUESTION", "ROOT", "TestFleet", "join", "receive"]
