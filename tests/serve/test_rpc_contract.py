"""What both ends of gRPC rest on: the contract, the code made of it, events and errors there and back."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from ray.serve._private.grpc_util import gRPCGenericServer

from flotilla.core import facts
from flotilla.core.errors import (
    FlotillaError,
    LimitReached,
    Misconfigured,
    NotFound,
    Overloaded,
    Rejected,
    TooLarge,
    Unavailable,
)
from flotilla.core.generation import Usage
from flotilla.core.ledger import Recorded
from flotilla.rpc import errors, events
from flotilla.rpc import v1_pb2 as pb
from flotilla.views import events as views
from serve.rpc.door import STREAMS, UNARY, RpcDoor
from serve.rpc.health import DIRECT
from serve.rpc.ports import own_ports
from serve.settings import read_settings

ROOT = Path(__file__).parents[2]
GENERATED = ("v1_pb2.py", "v1_pb2.pyi", "v1_pb2_grpc.py")
AT = datetime(2026, 11, 21, 9, 30, 0, 123_000, UTC)


def test_the_generated_code_is_that_of_the_contract(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "protos", tmp_path], check=True)
    for name in GENERATED:
        fresh, committed = tmp_path / "flotilla/rpc" / name, ROOT / "flotilla/rpc" / name
        assert fresh.read_text() == committed.read_text(), "Run scripts/protos."


def test_every_method_of_the_contract_is_answered() -> None:
    services = [*pb.DESCRIPTOR.services_by_name.values(), *health_pb2.DESCRIPTOR.services_by_name.values()]
    methods = {f"/{s.full_name}/{m.name}": m for s in services for m in s.methods}
    assert set(methods) == set(UNARY) | set(STREAMS) | set(DIRECT)
    assert {name for name, method in methods.items() if method.server_streaming} == set(STREAMS)
    for name, method in methods.items():
        wanted = RpcDoor._stream if method.server_streaming else RpcDoor._call
        assert getattr(RpcDoor, method.name) is wanted, name


# -- events


def completed() -> facts.ReplyCompleted:
    return facts.ReplyCompleted(
        turn="t_1",
        text="The Gold Card costs $95. 日本語",
        model="m@1",
        citations=(
            facts.Citation(document="gold", passage="gold#0", quote="$95", start=20, end=23, title="G"),
        ),
        usage=Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=3),
        timing=facts.Timing(
            queued=0.5, retrieval=1.25, first_token=3.5, generation=9.0, total=15.0, overhead=1.25
        ),
        confidence=0.75,
        offers_person=True,
    )


@pytest.mark.parametrize(
    "fact",
    [
        completed(),
        facts.MessageAccepted(turn="t_1", id="m-1", text="Hello 👩‍👩‍👧"),
        facts.HandoffRequested(reason="asked"),
        facts.SessionOpened(agent="bank", metadata={"plan": {"seats": 3}}, customer=None),
        facts.SessionClosed(),
    ],
)
def test_a_durable_event_comes_back_as_http_has_it(fact: Any) -> None:
    told = views.event(Recorded(seq=4, at=AT, fact=fact))
    sent = events.packed(msgspec.json.encode(told)).SerializeToString()
    assert events.as_dict(pb.Event.FromString(sent)) == msgspec.json.decode(msgspec.json.encode(told))


def test_all_that_a_reply_tells_is_in_the_contract() -> None:
    assert set(events.REPLY_FIELDS) == set(pb.Reply.DESCRIPTOR.fields_by_name)
    for struct, message in ((facts.Citation, pb.Citation), (Usage, pb.Usage), (facts.Timing, pb.Timing)):
        assert set(struct.__struct_fields__) == set(message.DESCRIPTOR.fields_by_name)


def test_text_on_its_way_keeps_its_place() -> None:
    frame = views.parse_frame(views.delta_frame(2, "t_1", 5, "wörds"))
    event = events.event_of(msgspec.structs.replace(frame, id="3:10"))
    assert (event.seq, event.after, event.offset) == (2, 3, 10)
    assert events.as_dict(event) == msgspec.json.decode(frame.json)
    assert events.place(event) == "3:10"
    cut = views.rewound(2, "t_1", 0)
    assert events.as_dict(events.event_of(cut)) == msgspec.json.decode(cut.json)


# -- errors


class Ended(grpc.RpcError, grpc.Call):
    """A call of grpc's synchronous client that has ended."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        self._code, self._details, self._trailers = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailers

    def _unused(self, *_: Any) -> Any:
        raise AssertionError

    initial_metadata = is_active = time_remaining = cancel = add_callback = _unused


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LimitReached("Too much.", retry_after_s=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Overloaded("Shedding.", retry_after_s=0.25), grpc.StatusCode.UNAVAILABLE),
        (Rejected("Still talking.", next="Wait."), grpc.StatusCode.FAILED_PRECONDITION),
        (NotFound("Nothing here.", field="session"), grpc.StatusCode.NOT_FOUND),
        (FlotillaError("Broke."), grpc.StatusCode.INTERNAL),
    ],
)
def test_an_error_comes_back_as_what_it_was(error: FlotillaError, code: grpc.StatusCode) -> None:
    problem = error.problem()
    assert errors.code_of(problem.status) is code
    trailers = (("request_id", "r"), (errors.DETAILS, errors.details_of(problem)))
    back = errors.from_rpc(Ended(code, errors.message_of(problem), trailers))
    assert (type(back), back.problem()) == (type(error), problem)


def test_standard_clients_find_when_to_try_again() -> None:
    status = Status.FromString(errors.details_of(LimitReached("Too much.", retry_after_s=2.5).problem()))
    retry = RetryInfo()
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert status.details[1].Unpack(retry) and retry.retry_delay.ToTimedelta().total_seconds() == 2.5


def test_a_long_story_fits_into_trailers() -> None:
    problem = FlotillaError("長" * 9_000, next="続" * 9_000, field="\ud83d" * 9_000).problem()
    assert len(errors.details_of(problem)) * 4 / 3 + 9 * len(errors.message_of(problem)) < 8 * 1024


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", Unavailable),
        (grpc.StatusCode.UNKNOWN, "Received http2 header with status: 500", Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (5 vs. 4)", TooLarge),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", NotFound),
    ],
)
def test_a_status_without_a_problem_stands_for_the_nearest_error(
    code: grpc.StatusCode, message: str, kind: type[FlotillaError]
) -> None:
    for trailers in ((), ((errors.DETAILS, b"\xff\xff"),)):
        assert type(errors.from_rpc(Ended(code, message, trailers))) is kind


# -- ports


async def test_a_port_that_another_gateway_has_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve says `so_reuseport` in text, and gRPC doesn't read that."""
    monkeypatch.setattr(gRPCGenericServer, "__init__", gRPCGenericServer.__init__)  # put back behind the test
    own_ports()
    alone = [("grpc.so_reuseport", "0")]
    first, second = [gRPCGenericServer(lambda **_: None, extra_options=alone) for _ in range(2)]
    port = first.add_insecure_port("127.0.0.1:0")
    with pytest.raises(RuntimeError):
        second.add_insecure_port(f"127.0.0.1:{port}")
    await first.stop(None)
    await second.stop(None)


@pytest.mark.parametrize(
    ("environ", "port"),
    [({}, 8081), ({"FLOTILLA_PORT": "9000"}, 9001), ({"FLOTILLA_GRPC_PORT": "0"}, 0)],
)
def test_grpc_has_the_next_port_unless_it_is_told_otherwise(environ: dict[str, str], port: int) -> None:
    assert read_settings(environ).grpc_port == port


@pytest.mark.parametrize("environ", [{"FLOTILLA_PORT": "65535"}, {"FLOTILLA_GRPC_PORT": "8080"}])
def test_a_port_that_grpc_can_not_have_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(Misconfigured) as raised:
        read_settings(environ)
    assert raised.value.field == "FLOTILLA_GRPC_PORT"
