"""The same turn of the same conversation, as others would have one build it, one after the other on this machine:
`python -m benchmarks.peers [--quick] [--only a,d,flotilla] [--json FILE]`. What each is, and what is fair about it and
what isn't, is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import uvloop

from benchmarks.peers import actor_chat, bare, langgraph_chat, ours, serve_chat
from benchmarks.peers.measuring import QUICK, Measured, Sizes, measure
from benchmarks.peers.results import durable, forgetful
from benchmarks.peers.servers import Peer
from benchmarks.report import arguments, report

PEERS = {
    peer.name: peer
    for peer in (bare.PEER, *serve_chat.PEERS, actor_chat.PEER, langgraph_chat.PEER, ours.PEER)
}


def chosen(words: str) -> list[Peer]:
    """`a` stands for all ways of Ray Serve. Raises `argparse.ArgumentTypeError` for a name that nobody has."""
    names = [name for name in words.split(",") if name]
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"There is no peer {name!r}; there are {', '.join(PEERS)}.")
    return [peer for peer in PEERS.values() if {peer.name, peer.name.partition("-")[0]} & set(names)]


def run(peers: Sequence[Peer], sizes: Sizes) -> list[Measured]:
    """One peer at a time: each is stopped before the next one starts."""
    found: list[Measured] = []
    for peer in peers:
        with peer.start() as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for way in server.ways:
                print(f"{peer.name}: {way.name}", flush=True)
                found.append(runner.run(measure(server, way, sizes)))
    return found


def main() -> None:
    parser = arguments("peers", "The same turn, as others would have one build it.")
    parser.add_argument("--only", type=chosen, default=list(PEERS.values()), metavar="NAMES")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    # What a peer has started is stopped on the way out, also when this is told to end.
    signal.signal(signal.SIGTERM, _leave)
    found = run(options.only, sizes)
    json = options.json
    report("peers: no record is kept", forgetful(found, sizes), json)
    if ours_too := durable(found, sizes):
        report("peers: durable", ours_too, json and json.with_stem(f"{json.stem}_durable"))


def _leave(sign: int, frame: FrameType | None) -> None:
    sys.exit(128 + sign)


if __name__ == "__main__":
    main()
