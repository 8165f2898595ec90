"""Traces of a real request, gathered in memory; and none where they are not asked for."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tillway_server import ENVIRONMENT

from tillway.crash.free_port import free_port
from tillway.engine.attempts import Connection
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.telemetry.traces import TraceContext, Traces, TracesUnavailable
from tillway.testing.in_process import InProcessApp, MovedClock
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
PAYMENT = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": "true",
    "return_url": "https://example.com/back",
}


class Traced(InProcessApp):
    """An installation whose spans are gathered, and whose webhooks and connector requests are kept."""

    spans: InMemorySpanExporter

    @classmethod
    async def with_context(cls, data_dir: Path, context: TraceContext) -> "Traced":
        Keyring.create(data_dir / KEY_FILE)
        store, clock, spans = MemoryStore(), MovedClock(), InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(spans))
        recorder = Recorder(Metrics(), None, Traces(provider, context))
        made = cls(await assemble(Settings(data_dir=data_dir), store, clock, recorder), store, clock)
        made.spans = spans
        return made

    def by_name(self) -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.spans.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


@pytest.fixture
async def hook() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A merchant's server: its URL, and the headers of what came."""
    came: list[dict[str, str]] = []

    async def keep(request: web.Request) -> web.Response:
        came.append(dict(request.headers))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", keep)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/hook", came
    await runner.cleanup()


async def pay(app: Traced, url: str, **headers: str) -> Any:
    """A payment, and the delivery of its events to `url`."""
    merchant = await app.merchant()
    await app.ok(merchant, "POST", "/v1/webhook_endpoints", {"url": url, "enabled_events": ["charge.succeeded"]})
    app.spans.clear()
    app.running.runner.start()
    paid = await app.ok(merchant, "POST", "/v1/payment_intents", PAYMENT, **headers)
    for _ in range(100):
        if any(span.name == "task deliveries" for span in app.spans.get_finished_spans()):
            return paid
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was delivered")


def hexadecimal(number: int, digits: int) -> str:
    return f"{number:0{digits}x}"


async def test_a_payment_is_one_trace_from_the_caller_to_the_bank(tmp_path: Path, hook: Any) -> None:
    app = await Traced.with_context(tmp_path, "accept")
    try:
        paid = await pay(app, hook[0], traceparent=CALLER)
    finally:
        await app.close()
    found = app.by_name()
    [request] = found["POST /v1/payment_intents"]
    assert request.parent is not None and hexadecimal(request.parent.span_id, 16) == "b7ad6b7169203331"
    within = [
        span
        for name in ("decision", "commit", "simulator authorize")
        for span in found[name]
        if span.parent is not None and span.parent.span_id == request.context.span_id
    ]
    assert sorted(span.name for span in within) == ["commit", "commit", "decision", "decision", "simulator authorize"]
    assert {hexadecimal(span.context.trace_id, 32) for span in [request, *within]} == {TRACE}
    told = dict(request.attributes or {})
    assert told["http.route"] == "/v1/payment_intents" and told["http.response.status_code"] == 200
    assert told["tillway.payment"] == paid["id"] and told["tillway.connector"] == "simulator"
    [task] = found["task deliveries"]
    [webhook] = found["webhook"]
    assert webhook.parent is not None and webhook.parent.span_id == task.context.span_id
    assert dict(task.attributes or {})["tillway.answer"] == 200
    assert "traceparent" not in {name.lower() for name in hook[1][0]}, "nobody asked for it to be passed"


@pytest.mark.parametrize("context", ["pass", "ignore"])
async def test_whether_traces_cross_our_borders(tmp_path: Path, hook: Any, context: TraceContext) -> None:
    app = await Traced.with_context(tmp_path, context)
    sent: list[dict[str, str]] = []
    merchant = await app.merchant()
    simulator = await app.simulator(merchant)
    connections = app.running.connections

    class Listening:
        async def send(self, request: Any) -> Any:
            sent.append(dict(request.headers))
            return await inner.send(request)

        async def close(self) -> None:
            """Nothing to close."""

    named = await connections.named("simulator", _scope(merchant.account))
    assert named is not None
    inner = named.transport
    connections._open["test", "simulator"] = (
        connections._open["test", "simulator"][0],
        Connection("simulator", simulator, Listening(), named.health),
    )
    connections._current.clear()
    try:
        await pay(app, hook[0], traceparent=CALLER)
    finally:
        await app.close()
    [request] = app.by_name()["POST /v1/payment_intents"]
    of_webhook = {name.lower(): value for name, value in hook[1][0].items()}.get("traceparent")
    if context == "ignore":
        assert hexadecimal(request.context.trace_id, 32) != TRACE and request.parent is None
        assert of_webhook is None and not any("traceparent" in headers for headers in sent)
        return
    [call] = app.by_name()["simulator authorize"]
    assert sent[0]["traceparent"] == f"00-{TRACE}-{hexadecimal(call.context.span_id, 16)}-01"
    [webhook] = app.by_name()["webhook"]
    assert of_webhook is not None and of_webhook.split("-")[2] == hexadecimal(webhook.context.span_id, 16)


def _scope(account: str) -> Any:
    from tillway.domain.account import Scope

    return Scope(account=account, mode="test")


async def test_a_failure_shows_its_kind_and_none_of_its_words(tmp_path: Path) -> None:
    app = await Traced.with_context(tmp_path, "accept")
    try:
        with pytest.raises(ValueError), app.running.platform.engine.telemetry.span("x", "step"):
            raise ValueError("card 4242424242424242")
        answer = await app.send("GET", "/v1/charges/4242424242424242", headers={"traceparent": "4242424242424242"})
        assert answer.status == 401
    finally:
        await app.close()
    shown = " ".join(span.to_json() for span in app.spans.get_finished_spans())
    assert '"error.type": "ValueError"' in shown and "GET /v1/charges/{id}" in shown
    # Ids and times of spans may hold four of the digits.
    assert "42424242" not in shown


def test_exporters_are_named_in_the_environment() -> None:
    for name in ("none", "console", "otlp"):
        Traces.from_environment("accept", {"OTEL_TRACES_EXPORTER": name}).close()
    with pytest.raises(TracesUnavailable, match="must be otlp, console or none"):
        Traces.from_environment("accept", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_without_the_setting_nothing_of_it_is_loaded_and_without_the_extra_the_setting_says_so() -> None:
    program = (
        "import sys, tillway.serve, tillway.wiring\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "sys.modules['opentelemetry'] = None\n"
        "from tillway.telemetry.traces import Traces, TracesUnavailable\n"
        "try: Traces.from_environment('accept')\n"
        "except TracesUnavailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "pip install 'tillway[otel]'" in done.stdout
