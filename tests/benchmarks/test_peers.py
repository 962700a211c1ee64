"""What the peers are compared with: the same reply from each, a client that sees whether it was whole, and
in-memory and durable figures in tables of their own. The peers that need Ray, or packages of others, are started by
`make bench`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.peers import bare, script
from benchmarks.peers.__main__ import PEERS, chosen
from benchmarks.peers.client import Broken, Busy, Said, Streamed, client, data_of, read_data
from benchmarks.peers.langgraph_chat import HERE, PINS
from benchmarks.peers.langgraph_chat import read as read_langgraph
from benchmarks.peers.measuring import Flow, Measured, Sizes, measure
from benchmarks.peers.ours import model_of, read_chunk, read_event
from benchmarks.peers.results import durable, forgetful
from benchmarks.peers.serve_chat import SERVES

SMALL = Sizes(
    warm_up_turns=2,
    alone_turns=5,
    together=8,
    together_turns=1,
    pace_s=0.002,
    streams=20,
    warm_up_s=0.1,
    window_s=0.3,
    idle=10,
)


def test_the_floor_brings_whole_replies_and_is_measured() -> None:
    with bare.start() as server:
        (way,) = server.ways
        measured = asyncio.run(measure(server, way, SMALL))
    assert not server.processes(), "it has been stopped"
    assert [len(firsts) for firsts in measured.alone] == [5, 5, 5]
    assert len(measured.overhead) == 8 and min(measured.overhead) > 0
    assert measured.flow.tokens_per_s > 100 and not measured.flow.turned_away_per_s
    assert measured.flow.server_cores > 0 and measured.idle_bytes is not None


async def _answering(answer: bytes) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def _asked(answer: bytes) -> None:
    server, url = await _answering(answer)
    async with server, client() as http:
        await Streamed(http, url, {}, read_data).turn(lambda tokens: None)


async def test_a_reply_that_is_cut_is_broken_and_says_with_what_it_ended() -> None:
    cut = b'HTTP/1.1 200 OK\r\n\r\ndata: {"text": "Take the card"}\n\n'
    with pytest.raises(Broken, match=r"^3 tokens came instead of 60.*Take the card"):
        await _asked(cut)


async def test_whoever_is_turned_away_is_told_for_how_long() -> None:
    with pytest.raises(Busy) as caught:
        await _asked(b"HTTP/1.1 503 Busy\r\nRetry-After: 1.5\r\nContent-Length: 0\r\n\r\n")
    assert caught.value.retry_after_s == 1.5


async def test_a_refusal_without_a_time_is_broken() -> None:
    with pytest.raises(Broken, match=r"^404: no such path"):
        await _asked(b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nno such path")


def test_events_are_read_as_each_peer_sends_them() -> None:
    assert read_data(b'data: {"text": " so"}') == Said(text=" so")
    assert read_langgraph(b'event: custom\ndata: {"text":" so"}') == Said(text=" so")
    assert read_langgraph(b'event: metadata\ndata: {"run_id":"r"}') == Said()
    assert read_chunk(b'{"choices":[{"delta":{"content":" so"}}]}') == Said(text=" so")
    assert read_chunk(b"[DONE]") == Said() == read_data(b": a comment")
    assert data_of(b"id: 4:7\ndata: {}\nretry: 3") == b"{}"


def test_events_of_our_own_are_deltas_ends_and_refusals() -> None:
    assert read_event(b'{"type":"reply.delta","data":{"offset":0,"text":"so"}}') == Said(text="so")
    assert read_event(b'{"type":"message.accepted","data":{"text":"a question"}}') == Said()
    done = b'{"type":"reply.completed","data":{"text":"so","timing":{"first_token":1.5}}}'
    assert read_event(done) == Said(text="so", whole=True, engine_ms=1.5, ended=True)
    with pytest.raises(Busy, match="2 s"):
        read_event(b'{"type":"error","problem":{"status":503,"retry_after_s":2}}')
    with pytest.raises(Broken, match=r"reply\.failed"):
        read_event(b'{"type":"reply.failed","data":{"problem":{}}}')
    assert (model_of(0), model_of(0.02)) == ("fast", "paced")


def test_the_script_imports_nothing_of_ours() -> None:
    """LangGraph's environment has a copy of it, and nothing else."""
    lines = Path(script.__file__).read_text().splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names | {"__future__"}


async def test_the_script_keeps_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [token async for token in script.reply(0)] == list(script.TOKENS)
    assert len(script.TOKENS) == 60 and "".join(script.TOKENS) == script.TEXT
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert len([token async for token in script.reply(10.0)]) == 60
    assert len(slept) == 60 and slept[0] == 0 and 589 < slept[-1] <= 590


def test_packages_of_the_peer_with_another_licence_are_pinned_and_not_ours() -> None:
    pins = PINS.read_text().splitlines()
    assert all("==" in pin for pin in pins) and any(pin.startswith("langgraph-api==") for pin in pins)
    ours = (HERE.parents[1] / "pyproject.toml").read_text()
    assert "langgraph" not in ours


def test_peers_are_chosen_by_name() -> None:
    assert [peer.name for peer in chosen("a,d")] == ["d", "a", "a-haproxy", "a-tuned"]
    assert [peer.name for peer in chosen("a-tuned,flotilla")] == ["a-tuned", "flotilla"]
    assert list(PEERS) == ["d", "a", "a-haproxy", "a-tuned", "b", "c", "flotilla"]
    with pytest.raises(argparse.ArgumentTypeError, match="no peer 'x'; there are d, a,"):
        chosen("a,x")


def _measured(name: str, first_ms: float, tokens_per_s: float, *, durable: bool = False) -> Measured:
    flow = Flow(tokens_per_s, client_cores=0.1, server_cores=1.0, turned_away_per_s=0.0)
    return Measured(name=name, durable=durable, alone=[[first_ms] * 3] * 3, overhead=[10.0], flow=flow)


def test_in_memory_and_durable_figures_are_never_in_one_table() -> None:
    found = [
        _measured(SERVES[0], 20.0, 1_000.0),
        _measured("floor", 1.0, 50_000.0),
        _measured("ours", 4.0, 15_000.0, durable=True),
    ]
    kept = {result.measure: result for result in forgetful(found, Sizes())}
    assert not any("ours" in measure for measure in kept)
    assert kept["first_token_alone_p50: floor"].ratio == 20
    assert kept["tokens_at_300: floor"].ratio == 50
    ours = {result.measure: result for result in durable(found, Sizes())}
    assert not any(measure.endswith(": floor") for measure in ours)
    assert ours["first_token_alone_p50: ours"].met and ours["overhead_of_64_p95: ours"].met
    first = ours[f"first_token_times: ours over {SERVES[0]}"]
    tokens = ours[f"tokens_times: ours over {SERVES[0]}"]
    assert (first.value, first.met, tokens.value, tokens.met) == (5.0, True, 15.0, False)
