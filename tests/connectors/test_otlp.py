"""Spans as OpenTelemetry has them."""

from __future__ import annotations

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flotilla.connectors.otlp import OtlpTracer
from flotilla.core.tracing import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_span_keeps_its_ids_its_times_and_its_end() -> None:
    kept = InMemorySpanExporter()
    tracer = OtlpTracer("host", exporter=kept)
    tracer.write(
        Span(
            trace=TRACE,
            id="b7ad6b7169203331",
            parent="00000000000000aa",
            name="record",
            began=1000.5,
            took_ms=2.5,
            outcome="conflict",
            about={"actor": "t/session/s", "facts": 2, "gen_ai.usage.output_tokens": 9},
        )
    )
    tracer.write(Span(trace=TRACE, id="00000000000000aa", name="Post", began=1000.0, took_ms=4.0))
    tracer.close()
    record, post = kept.get_finished_spans()
    assert record.context is not None and record.parent is not None and record.attributes is not None
    assert (
        f"{record.context.trace_id:032x}" == TRACE and f"{record.context.span_id:016x}" == "b7ad6b7169203331"
    )
    assert record.parent.span_id == 0xAA and post.parent is None
    assert record.start_time == 1_000_500_000_000
    assert record.end_time == record.start_time + 2_500_000
    assert record.attributes["flotilla.actor"] == "t/session/s" and record.attributes["flotilla.facts"] == 2
    assert record.attributes["gen_ai.usage.output_tokens"] == 9
    assert (record.status.status_code, record.status.description) == (StatusCode.ERROR, "conflict")
    assert post.status.status_code is StatusCode.UNSET
    assert post.resource.attributes["service.name"] == "flotilla-host"
