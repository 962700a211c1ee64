"""Spans to a collector that speaks OTLP over HTTP, in batches from a thread of their own."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from flotilla.core.tracing import Span

QUEUED_MAX = 8192  # spans that wait for the collector; what is beyond them is lost
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpTracer:
    """Implements `Tracer`. The endpoint and its headers are read from the environment, as OpenTelemetry
    has them (`OTEL_EXPORTER_OTLP_…`), unless an `exporter` is given."""

    def __init__(self, role: str, endpoint: str = "", exporter: SpanExporter | None = None) -> None:
        url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
        self._batches = BatchSpanProcessor(exporter or OTLPSpanExporter(url), max_queue_size=QUEUED_MAX)
        self._resource = Resource.create({"service.name": f"flotilla-{role}"})

    def write(self, span: Span) -> None:
        self._batches.on_end(self._readable(span))

    def _readable(self, span: Span) -> ReadableSpan:
        began = int(span.began * 1e9)
        ok = span.outcome == "ok"
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.id),
            parent=_context(span.trace, span.parent) if span.parent else None,
            resource=self._resource,
            attributes={_attribute(name): value for name, value in span.about.items()},
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET) if ok else Status(StatusCode.ERROR, span.outcome),
            start_time=began,
            end_time=began + int(span.took_ms * 1e6),
        )

    def close(self) -> None:
        self._batches.shutdown()


def _attribute(name: str) -> str:
    """Names of OpenTelemetry's own conventions stay as they are."""
    return name if name.startswith("gen_ai.") else f"flotilla.{name}"


def _context(trace: str, span: str) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=_SAMPLED)
