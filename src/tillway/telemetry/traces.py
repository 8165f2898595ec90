"""Traces through OpenTelemetry, if the extra `tillway[otel]` is installed and the setting `traces` is on.

OpenTelemetry's usual variables configure the export: OTEL_TRACES_EXPORTER (otlp or console),
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME. A span has the names, ids and numbers of a log line
and, for an exception, only its type.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from tillway.engine.telemetry import NO_HEADERS, Fact, Span, SpanKind

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan

TraceContext = Literal["ignore", "accept", "pass"]

SERVICE = "tillway"
CLOSE_SECONDS = 3.0


class TracesUnavailable(Exception):
    """Traces are on but not available. The text gives the remedy."""


class Traces:
    """`context`: whether to join a caller's `traceparent`, and whether to pass ours to providers and webhooks."""

    def __init__(self, provider: "TracerProvider", context: TraceContext = "accept") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE)
        self._propagator = TraceContextTextMapPropagator()
        self._accepts = context != "ignore"
        self._passes = context == "pass"
        self._kinds = {
            "request": trace.SpanKind.SERVER,
            "task": trace.SpanKind.CONSUMER,
            "call": trace.SpanKind.CLIENT,
            "step": trace.SpanKind.INTERNAL,
        }

    @classmethod
    def from_environment(cls, context: TraceContext, environment: Mapping[str, str] | None = None) -> "Traces":
        """Configure the export by the OTEL_* variables. Raises `TracesUnavailable`."""
        environment = os.environ if environment is None else environment
        try:
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise TracesUnavailable("traces need an extra: pip install 'tillway[otel]', or set traces=off") from None
        named = {} if "OTEL_SERVICE_NAME" in environment else {SERVICE_NAME: SERVICE}
        provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        exporter = _exporter(environment.get("OTEL_TRACES_EXPORTER", "otlp"))
        if exporter is not None:
            provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, context)

    def span(self, name: str, kind: SpanKind, caller: Mapping[str, str] | None = None) -> Span:
        parent = None
        if caller is not None and self._accepts:
            found = caller.get("traceparent")
            if found is not None:
                # Other systems wrote the `tracestate` beside it; it is not passed on.
                parent = self._propagator.extract({"traceparent": found})
        return _Span(
            self._tracer.start_as_current_span(
                name, parent, self._kinds[kind], record_exception=False, set_status_on_exception=False
            )
        )

    def headers(self) -> Mapping[str, str]:
        if not self._passes:
            return NO_HEADERS
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        """Send the remaining spans, for at most CLOSE_SECONDS: the server ends even if no collector answers."""
        sending = threading.Thread(target=self._provider.shutdown, name="tillway-traces", daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)


class _Span:
    def __init__(self, context: "AbstractContextManager[OtelSpan]") -> None:
        self._context = context

    def __enter__(self) -> Span:
        self._span: OtelSpan = self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            from opentelemetry.trace import StatusCode

            # The exception's text may quote a caller or a provider.
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(StatusCode.ERROR)
        self._context.__exit__(None, None, None)

    def tell(self, **facts: Fact) -> None:
        for name, value in facts.items():
            self._span.set_attribute(_ATTRIBUTES.get(name) or f"{SERVICE}.{name}", value)
        if "route" in facts:
            self._span.update_name(f"{facts['method']} {facts['route']}")


_ATTRIBUTES = {"method": "http.request.method", "route": "http.route", "status": "http.response.status_code"}
"""Fields that have a name in OpenTelemetry's semantic conventions."""


def _exporter(name: str) -> "SpanExporter | None":
    match name:
        case "none":
            return None
        case "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return ConsoleSpanExporter()
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter()
        case _:
            raise TracesUnavailable(f"OTEL_TRACES_EXPORTER is {name!r}; it must be otlp, console or none")
