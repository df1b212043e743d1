"""Spans of messages for OpenTelemetry: a plugin, which needs ``gearshift[otel]``.

One trace goes with a message: from the code that sends it, through each attempt, retry, dead letter
and redrive, to what its handler sends. It travels in the message's own headers (``traceparent``),
which other programs on the broker read too.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

from gearshift.delivery import BaseDelivery, Delivery
from gearshift.errors import GearshiftError
from gearshift.extras import importing
from gearshift.hooks import Outgoing, hookimpl
from gearshift.message import Message, SendResult
from gearshift.telemetry.conventions import error_type, of_delivery, operation

with importing("otel"):
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.propagate import get_global_textmap
    from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode

__all__ = ["Tracing"]


class _FromHeaders(Getter[Message]):
    """Reads a propagator's fields from the headers of a message."""

    def get(self, carrier: Message, key: str) -> list[str] | None:
        values = [str(value) for name, value in carrier.headers.pairs if name.lower() == key]
        return values or None

    def keys(self, carrier: Message) -> list[str]:
        return [name for name, _ in carrier.headers.pairs]


class _ToHeaders(Setter[Outgoing]):
    """Writes them into a message that is about to be sent."""

    def set(self, carrier: Outgoing, key: str, value: str) -> None:
        carrier.set_header(key, value)


class Tracing:
    """A plugin: ``gearshift.open(plugins=[Tracing()])`` or ``App(plugins=[Tracing()])``.

    Any thread. What is left out is what OpenTelemetry has as global: nothing is recorded until the
    service has set up an SDK.

    Spans: ``send``, from the call to the broker's confirmation; ``receive``; ``process``, around a
    handler, which is the current span in it; ``ack``, ``retry`` or ``reject``; ``dead_letter``.
    Outside of any span (a redrive, say) a message that carries a trace goes on with that.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        propagator: TextMapPropagator | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("gearshift", tracer_provider=tracer_provider)
        self._propagator = propagator or get_global_textmap()
        self._read, self._write = _FromHeaders(), _ToHeaders()

    @hookimpl(trylast=True)
    def gearshift_send(self, outgoing: Outgoing) -> None:
        """A span until the result is there, whose context goes with the message."""
        attributes = operation(outgoing.backend, outgoing.channel, "send", "send")
        is_in_trace = trace.get_current_span().get_span_context().is_valid
        span = self._tracer.start_span(
            f"send {outgoing.channel}",
            None if is_in_trace else self._context_of(outgoing.message),
            SpanKind.PRODUCER,
            attributes | _message(outgoing.message),
        )
        self._propagator.inject(outgoing, trace.set_span_in_context(span), self._write)

        def end(result: SendResult) -> None:
            _note(span, result if isinstance(result, GearshiftError) else None)
            span.end()

        outgoing.on_result(end)

    @hookimpl
    def gearshift_received(self, delivery: BaseDelivery[Any]) -> None:
        """A span without length: the message has come to this process."""
        attributes = of_delivery(delivery, "receive", "receive")
        self._span(delivery, "receive", SpanKind.CLIENT, attributes).end()

    @hookimpl(wrapper=True, tryfirst=True)
    def gearshift_handle(self, deliveries: Sequence[Delivery[Any]]) -> Generator[None, Any, Any]:
        """The span of an attempt; current while the handler runs."""
        span = self._processing(deliveries)
        error: BaseException | None = None
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                return (yield)
        except BaseException as raised:
            error = raised
            span.record_exception(raised)
            raise
        finally:
            _note(span, error)
            span.end()

    @hookimpl
    def gearshift_settled(
        self, delivery: BaseDelivery[Any], outcome: str, reason: str | None, took_s: float
    ) -> None:
        """A span of the time that settling took."""
        attributes = of_delivery(delivery, outcome, "settle")
        if reason is not None:
            attributes["gearshift.reason"] = reason
        ended_ns = time.time_ns()
        span = self._span(
            delivery, outcome, SpanKind.CLIENT, attributes, ended_ns - int(took_s * 1e9)
        )
        span.end(ended_ns)

    @hookimpl
    def gearshift_dead_letter(
        self,
        backend: str,
        channel: str,
        group: str,
        message: Message,
        reason: str,
        error: GearshiftError | None,
    ) -> None:
        """A span without length: the message is a dead letter, or could not be made one."""
        attributes = operation(backend, channel, "dead_letter", "settle") | _message(message)
        attributes |= {"messaging.consumer.group.name": group, "gearshift.reason": reason}
        span = self._tracer.start_span(
            f"dead_letter {channel}", self._context_of(message), SpanKind.CLIENT, attributes
        )
        _note(span, error)
        span.end()

    def _context_of(self, message: Message) -> Context:
        return self._propagator.extract(message, Context(), self._read)

    def _processing(self, deliveries: Sequence[Delivery[Any]]) -> Span:
        """A span that goes on with the message's trace, or for a batch links to that of each."""
        first = deliveries[0]
        attributes = of_delivery(first, "process", "process")
        if len(deliveries) == 1:
            return self._span(first, "process", SpanKind.CONSUMER, attributes)
        contexts = [self._context_of(delivery.message) for delivery in deliveries]
        spans = [trace.get_current_span(context).get_span_context() for context in contexts]
        return self._tracer.start_span(
            f"process {first.channel}",
            kind=SpanKind.CONSUMER,
            attributes=attributes | {"messaging.batch.message_count": len(deliveries)},
            links=[trace.Link(one) for one in spans if one.is_valid],
        )

    def _span(
        self,
        delivery: BaseDelivery[Any],
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any],
        start_ns: int | None = None,
    ) -> Span:
        more = _message(delivery.message)
        more["gearshift.attempt"] = delivery.attempt
        if delivery.position is not None:
            more["messaging.destination.partition.id"] = str(delivery.position.partition)
            more["gearshift.offset"] = delivery.position.offset
        return self._tracer.start_span(
            f"{name} {delivery.channel}",
            self._context_of(delivery.message),
            kind,
            attributes | more,
            start_time=start_ns,
        )


def _message(message: Message) -> dict[str, Any]:
    """What is told of a message: neither its key nor its headers, which may be personal."""
    told: dict[str, Any] = {"messaging.message.body.size": len(message.body or b"")}
    if message.id is not None:
        told["messaging.message.id"] = message.id
    if message.correlation_id is not None:
        told["messaging.message.conversation_id"] = message.correlation_id
    return told


def _note(span: Span, error: BaseException | None) -> None:
    """Note ``error`` on the span, if there is one."""
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, str(error)))
        span.set_attributes(error_type(error))
