"""What agents do in the world: patience, keys, breakers and dead letters; and a host that is killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from actors.residents.agent import GIVEN_UP, UNKNOWN, AgentPerformer, AgentSettings, at_home
from actors.serving.single import OneModel
from benchmarks.cluster import LOG, Cluster
from flotilla.connectors.http_tool import HttpTool
from flotilla.core.calls import Call
from flotilla.core.errors import FlotillaError, NotFound, Refused, Unavailable
from flotilla.core.flow import Agent, agent_kind
from flotilla.core.flow_facts import Came, Do, LetGo, Perform, Redo
from flotilla.core.generation import Finished, Generated, Piece, Prompt, Usage
from flotilla.core.ids import ActorId
from flotilla.core.ledger import Codec
from flotilla.core.policy.breaker import BreakerSettings
from flotilla.core.policy.retry import Patience
from flotilla.core.tools import Tool, Toolbox, check, label, tools_in
from flotilla.core.wants import CallTool, Generate, Hits, Pause, Plan, Reply, Search, Text, Value
from flotilla.stores.memory import MemoryLetters
from tests.actors.cluster import Shelf
from tests.core.test_flow import prompt

AT = ActorId("t1", "clerk", "a-1")
SCHEMA = {"properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


class Hands:
    """A clock whose sleepers turn its hands."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0)


class Counting:
    """Fails `times` times with `error`, then gives what it was asked; keeps the keys."""

    description, schema = "Counts.", SCHEMA

    def __init__(self, times: int = 0, error: Exception | None = None, keyed: bool = True) -> None:
        self.name, self.keyed = "count", keyed
        self.times, self.error = times, error or Unavailable("Not now.")
        self.keys: list[str] = []
        self.called, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def call(self, args: dict[str, Any], key: str) -> Any:
        self.keys.append(key)
        self.called.set()
        await self.gate.wait()
        if len(self.keys) <= self.times:
            raise self.error
        return {"n": args["n"], "pair": (1, 2)}


class Stammering:
    """A model that is lost twice in the middle of what it says, and goes on."""

    name, text = "stammering", "one two three"

    def __init__(self) -> None:
        self.said: list[str] = []

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        self.said.append(prompt.said)
        yield Piece(text=self.text[len(prompt.said) :][:4])
        if len(self.said) < 3:
            raise Unavailable("Lost.")
        yield Piece(text=self.text[len(prompt.said) + 4 :])
        yield Finished(reason="stop", usage=Usage(completion_tokens=3), first_token_ms=1.0, total_ms=1.0)


class Bench:
    def __init__(self, *tools: Tool, knowledge: Any = None, model: Any = None, **settings: Any) -> None:
        self.clock, self.letters = Hands(), MemoryLetters()
        self.performer = AgentPerformer(
            knowledge=knowledge or Shelf(),  # type: ignore[arg-type]
            model=model,
            toolbox=Toolbox(tools),
            letters=self.letters,
            clock=self.clock,
            log=LOG,
            random=Random(7),
            settings=AgentSettings(**settings),
        )
        self.at: Any = SimpleNamespace(id=AT)

    async def perform(self, want: Any, *, left_s: float | None = None, last: bool = False) -> Came:
        effect = Perform(step="t-1.1", want=want, idempotency_key=f"{AT}:t-1.1", last=last)
        signals = [s async for s in self.performer.work(self.at, effect, Call(left_s=left_s))]
        (came,) = signals
        assert isinstance(came, Came) and came.step == "t-1.1"
        return came

    async def count(self, **how: Any) -> Came:
        return await self.perform(CallTool("count", {"n": 1}), **how)


# -- searching and generating


async def test_a_search_gives_hits() -> None:
    came = await Bench().perform(Search("bank", "x"))
    assert isinstance(came.outcome, Hits) and came.outcome.hits


async def test_a_search_that_can_not_succeed_is_not_tried_again() -> None:
    class Empty:
        calls = 0

        async def search(self, *_: Any, **__: Any) -> Any:
            self.calls += 1
            raise NotFound("No such collection.")

    shelf = Empty()
    came = await Bench(knowledge=shelf).perform(Search("nowhere", "x"))
    assert came.problem and came.problem.status == 404 and shelf.calls == 1


async def test_a_bug_behind_a_door_is_an_outcome_without_its_words() -> None:
    class Buggy:
        async def search(self, *_: Any, **__: Any) -> Any:
            raise KeyError("secret")

    came = await Bench(knowledge=Buggy()).perform(Search("bank", "x"))
    assert came.problem and "KeyError" in came.problem.detail and "secret" not in came.problem.detail


async def test_a_generation_goes_on_from_the_text_so_far() -> None:
    model = Stammering()
    came = await Bench(model=model).perform(Generate(prompt("x")))
    assert came.outcome == Text("one two three", Usage(completion_tokens=3))
    assert model.said == ["", "one ", "one two "]


# -- tools


async def test_a_call_that_fails_in_passing_is_made_again_under_its_key() -> None:
    tool = Counting(times=3)
    came = await Bench(tool).count()
    assert came.outcome == Value({"n": 1, "pair": [1, 2]}), "as the record will give it back"
    assert tool.keys == [f"{AT}:t-1.1"] * 4


@pytest.mark.parametrize("error", [Refused("No."), ValueError("bug")])
async def test_a_call_that_is_refused_is_not_made_again(error: Exception) -> None:
    tool, bench = Counting(times=9, error=error), None
    bench = Bench(tool)
    came = await bench.count()
    assert came.problem and len(tool.keys) == 1
    assert not await bench.letters.list("t1")


async def test_after_patience_there_is_a_letter_that_can_be_replayed() -> None:
    tool = Counting(times=99)
    bench = Bench(tool, tool=Patience(first_s=1.0, longest_s=4.0, most_s=20.0))
    came = await bench.count()
    assert came.problem and came.problem.detail == "Not now." and not came.let_go
    assert bench.clock.at <= 20.0
    (letter,) = await bench.letters.list("t1")
    assert letter.actor == AT and letter.tries == len(tool.keys) > 3
    redo = Codec(type("Clerk", (Agent,), {"kind": agent_kind("clerk")})).message(letter.message)
    assert redo == Redo(key=f"{AT}:t-1.1", call=CallTool("count", {"n": 1}))
    await bench.count()
    assert len(await bench.letters.list("t1")) == 1, "the same call is one letter"


async def test_patience_ends_with_the_callers_time() -> None:
    bench = Bench(Counting(times=99), tool=Patience(first_s=1.0, most_s=1000.0))
    assert (await bench.count(left_s=5.0)).problem
    assert bench.clock.at <= 5.0


async def test_a_tool_that_never_answers_is_unavailable() -> None:
    tool = Counting()
    tool.gate.clear()
    bench = Bench(tool, attempt_s=0.001, tool=Patience(tries_max=2))
    came = await bench.count()
    assert came.problem and "does not answer" in came.problem.detail and len(tool.keys) == 2


async def test_a_breaker_leaves_a_broken_tool_alone() -> None:
    tool = Counting(times=99)
    breaker = BreakerSettings(calls_min=4, open_s=1000.0)
    bench = Bench(tool, breaker=breaker, tool=Patience(first_s=0.1, most_s=30.0))
    came = await bench.count()
    assert came.problem and "left alone" in came.problem.detail
    assert len(tool.keys) == 4
    await bench.count()
    assert len(tool.keys) == 4, "it is shared by all calls"


async def test_a_call_in_flight_is_waited_for_when_it_is_let_go() -> None:
    tool = Counting()
    tool.gate.clear()
    bench = Bench(tool)
    call = asyncio.create_task(bench.count())
    await tool.called.wait()
    await bench.performer.step(bench.at, LetGo(step="t-1.1"))
    tool.gate.set()
    assert (await call).outcome == Value({"n": 1, "pair": [1, 2]})


@pytest.mark.parametrize("keyed", [True, False])
async def test_no_other_try_is_made_once_a_call_is_let_go(keyed: bool) -> None:
    tool = Counting(times=99, keyed=keyed)
    tool.gate.clear()
    bench = Bench(tool)
    call = asyncio.create_task(bench.count())
    await tool.called.wait()
    await bench.performer.step(bench.at, LetGo(step="t-1.1"))
    tool.gate.set()
    came = await call
    assert came.problem and came.problem.detail == "Not now." and len(tool.keys) == 1
    assert came.let_go is keyed, "without keys it may have been done, so it isn't done again"
    assert not await bench.letters.list("t1")


async def test_a_call_that_was_never_made_is_given_up() -> None:
    bench = Bench(Counting(times=99), breaker=BreakerSettings(calls_min=1), tool=Patience(tries_max=1))
    await bench.count()
    came = await bench.count(last=True)
    assert came.problem == GIVEN_UP and came.let_go


async def test_what_came_of_a_lost_call_is_asked_only_of_a_tool_with_keys() -> None:
    keyed, unkeyed = Counting(), Counting(keyed=False)
    assert (await Bench(keyed).count(last=True)).outcome and len(keyed.keys) == 1
    assert (await Bench(unkeyed).count(last=True)).problem == UNKNOWN and not unkeyed.keys


@pytest.mark.parametrize("args", [{}, {"n": "1"}, {"n": True}, {"n": 1, "m": 2}])
async def test_arguments_that_do_not_fit_never_reach_a_tool(args: dict[str, Any]) -> None:
    tool = Counting()
    came = await Bench(tool).perform(CallTool("count", args))
    assert came.problem and came.problem.field in ("n", "m") and not tool.keys
    check(tool, {"n": 1})


async def test_an_unknown_tool_is_an_outcome_that_names_the_others() -> None:
    came = await Bench(Counting()).perform(CallTool("nothing"))
    assert came.problem and came.problem.status == 404 and came.problem.next == "Known: count."


async def test_too_large_a_value_is_an_outcome() -> None:
    class Large(Counting):
        async def call(self, args: dict[str, Any], key: str) -> Any:
            return "x" * 100_000

    came = await Bench(Large()).count()
    assert came.problem and came.problem.status == 413


def test_a_toolbox_says_what_may_happen_twice() -> None:
    assert label(Counting()) == "exactly-once" and label(Counting(keyed=False)) == "at-least-once"
    assert "count (exactly-once)" in repr(Toolbox([Counting()]))


def test_a_folder_is_a_registry(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "our_tools"
    folder.mkdir()
    (folder / "__init__.py").touch()
    source = "from tests.actors.test_agent_performer import Counting\ncount = Counting()\n"
    (folder / "counting.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert [tool.name for tool in tools_in("our_tools")] == ["count"]
    (folder / "again.py").write_text(source)
    with pytest.raises(FlotillaError, match="Two tools"):
        tools_in("our_tools")


# -- a tool behind HTTP


class Ledger(BaseHTTPRequestHandler):
    """Books once per key. `/busy` is not there yet the first time; `/bad` refuses; `/text` speaks no JSON."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        server.keys.append(key)
        if self.path == "/bad":
            return self._send(422, b"no such account")
        if self.path == "/text":
            return self._send(200, b"hello")
        if self.path == "/busy" and len(server.keys) == 1:
            return self._send(503, b"", {"Retry-After": "7"})
        server.booked.setdefault(key, json.loads(body))
        return self._send(200, json.dumps({"booked": len(server.booked)}).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not into the output of the tests."""


@pytest.fixture
def ledger() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Ledger)
    server.keys, server.booked = [], {}
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def http_tool(server: Any, path: str = "/") -> HttpTool:
    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    return HttpTool("book", description="Books.", schema={}, url=url, keyed=True, timeout_s=5.0)


async def test_a_key_travels_over_http(ledger: Any) -> None:
    tool = http_tool(ledger)
    bench = Bench(tool)
    for _ in range(2):
        came = await bench.perform(CallTool("book", {"amount": 5}))
        assert came.outcome == Value({"booked": 1})
    assert ledger.booked == {f"{AT}:t-1.1": {"amount": 5}} and len(ledger.keys) == 2
    await tool.close()


async def test_retry_after_is_kept(ledger: Any) -> None:
    tool, hands = http_tool(ledger, "/busy"), Bench()
    bench = Bench(tool)
    assert (await bench.perform(CallTool("book"))).outcome == Value({"booked": 1})
    assert bench.clock.at == 7.0 and len(ledger.keys) == 2 and hands.clock.at == 0.0
    await tool.close()


@pytest.mark.parametrize(("path", "words"), [("/bad", "no such account"), ("/text", "else than JSON")])
async def test_what_the_other_side_refuses_is_refused(ledger: Any, path: str, words: str) -> None:
    tool = http_tool(ledger, path)
    came = await Bench(tool).perform(CallTool("book"))
    assert came.problem and words in came.problem.detail and len(ledger.keys) == 1
    await tool.close()


async def test_nobody_there_is_unavailable(ledger: Any) -> None:
    ledger.shutdown()
    ledger.server_close()
    tool = http_tool(ledger)
    with pytest.raises(Unavailable):
        await tool.call({}, "k")
    await tool.close()


# -- in the real runtime


TOOL = Counting()


class Clerk(Agent):
    kind = agent_kind("clerk")

    def answer(self, task: Do) -> Plan:
        hits = yield Search("bank", task.question)
        yield Pause(0.01)
        value = yield CallTool("count", {"n": 7})
        return Reply(text=f"{value['n']}", documents=(hits[0].passage,))


def residents(cluster: Cluster) -> list[Any]:
    model: Any = Stammering()
    doors: Any = SimpleNamespace(
        knowledge=Shelf(),
        model=OneModel(model),
        letters=cluster.letters,
        clock=cluster.clock,
        log=LOG,
        bills=None,
    )
    return at_home(Clerk, tools=[TOOL])(doors)


async def test_an_agent_answers_though_its_host_is_killed_in_the_middle_of_a_call() -> None:
    TOOL.keys.clear()
    TOOL.gate.clear()
    cluster = Cluster(residents)
    for name in ("h-1", "h-2"):
        await cluster.add(name)
    try:
        async with asyncio.timeout(20):
            asked = asyncio.create_task(cluster.fleet.ask(AT, Do(task="t-1", question="?"), timeout_s=15.0))
            while not TOOL.keys:
                await asyncio.sleep(0.001)
            await cluster.kill(next(name for name, host in cluster.hosts.items() if AT in host.active))
            TOOL.gate.set()
            done = await asked
    finally:
        await cluster.aclose()
    assert done.text == "7" and done.documents
    assert len(TOOL.keys) >= 2 and len(set(TOOL.keys)) == 1


async def test_a_letter_of_a_tool_can_be_replayed_to_its_agent() -> None:
    TOOL.keys.clear()
    TOOL.gate.set()
    cluster = Cluster(residents)
    await cluster.add("h-1")
    try:
        redo = Redo(key=f"{AT}:t-9.1", call=CallTool("count", {"n": 3}))
        assert (await cluster.fleet.ask(AT, redo, timeout_s=10.0))["n"] == 3
    finally:
        await cluster.aclose()
    assert TOOL.keys == [redo.key]
    assert msgspec.msgpack.encode(redo)
