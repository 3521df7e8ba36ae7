"""Every metric's name, and the set-up of the log lines. Neither holds ids of visitors, queries or anything personal."""

import asyncio
import contextlib
import logging
import sys
import time
from typing import Final, TextIO, cast

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from server.settings import Settings

_SECONDS: Final = (1e-4, 2e-4, 4e-4, 7e-4, 1e-3, 2e-3, 4e-3, 7e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

RPC_SECONDS: Final = Histogram(
    "shopkeeper_rpc_duration_seconds", "Time in the handler; its count is the rate.", ["method"], buckets=_SECONDS
)
RPC_ERRORS: Final = Counter("shopkeeper_rpc_errors", "Calls that failed.", ["method", "status"])
RPC_ACTIVE: Final = Gauge("shopkeeper_rpc_active", "Calls in a handler now.")
STAGE_SECONDS: Final = Histogram(
    "shopkeeper_stage_duration_seconds",
    "Time of one stage of a decision; one decision in sixteen is measured.",
    ["stage"],
    buckets=(2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.1),
)
DEGRADED: Final = Counter("shopkeeper_degraded", "Decisions that could not be made as configured.", ["reason"])
DECISIONS_DROPPED: Final = Gauge(
    "shopkeeper_decisions_dropped", "Decisions, and consents taken over, that did not get into the log since the start."
)
EVENTS: Final = Counter("shopkeeper_events", "Events by outcome.", ["outcome"])
SHADOW_REQUESTS: Final = Counter("shopkeeper_shadow_requests", "Requests of a shadow trial by outcome.", ["outcome"])
SHADOW_AGREEMENT: Final = Histogram(
    "shopkeeper_shadow_agreement",
    "Share of the items of a slate that the bundle on trial would have shown too.",
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
SHADOW_SECONDS: Final = Histogram(
    "shopkeeper_shadow_duration_seconds", "Time the bundle on trial took to answer.", buckets=_SECONDS
)
ENCODER_WAITING: Final = Gauge("shopkeeper_encoder_waiting", "Visitors whose sequence vector is missing or behind.")
ENCODER_BATCH: Final = Histogram(
    "shopkeeper_encoder_batch_visitors", "Visitors that were encoded at once.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
ENCODER_SECONDS: Final = Histogram("shopkeeper_encoder_duration_seconds", "Time to encode one batch.", buckets=_SECONDS)
ENCODER_FAILURES: Final = Counter("shopkeeper_encoder_failures", "Batches that got no vectors.")
ENGINE_ENTRIES: Final = Gauge(
    "shopkeeper_engine_entries", "Visitors, items, placements and controls that the engine knows.", ["kind"]
)
CONSENT_DEFAULT: Final = Gauge(
    "shopkeeper_consent_default", "1 where visitors who have not answered are taken to consent, else 0."
)
LOG_LAG_RECORDS: Final = Gauge("shopkeeper_log_lag_records", "Records of the log not yet applied by this replica.")
SINK_LAG_RECORDS: Final = Gauge("shopkeeper_sink_lag_records", "Records of the log not yet in the tables.")
SINK_BATCH_RECORDS: Final = Histogram(
    "shopkeeper_sink_batch_records", "Records of one batch.", buckets=(1, 10, 100, 1e3, 1e4, 2e4, 5e4, 1e5, 1e6)
)
SINK_SECONDS: Final = Histogram(
    "shopkeeper_sink_batch_duration_seconds",
    "Time the tables took for one batch.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0),
)
SINK_RETRIES: Final = Counter(
    "shopkeeper_sink_retries", "Times that a try of the sink failed, by what failed: tables, kafka or log.", ["cause"]
)
BAD_RECORDS: Final = Counter("shopkeeper_bad_records", "Records set aside in `bad_events`.", ["kind", "reason"])
OUTBOX_RECORDS: Final = Gauge("shopkeeper_outbox_records", "Records of this log that Kafka does not have.")
OUTBOX_BYTES: Final = Gauge("shopkeeper_outbox_bytes", "Bytes of their payloads.")
OUTBOX_AGE_SECONDS: Final = Gauge("shopkeeper_outbox_age_seconds", "Age of the oldest of them; 0: there is none.")
SHIPPED_RECORDS: Final = Counter("shopkeeper_shipped_records", "Records that Kafka acknowledged.")
SHIP_RETRIES: Final = Counter("shopkeeper_ship_retries", "Times that Kafka did not take a round.")
PARTITION_LAG_RECORDS: Final = Gauge(
    "shopkeeper_partition_lag_records",
    "Records of a partition that its reader, the sink or the follower, has not read.",
    ["reader", "topic", "partition"],
)
FOREIGN_RECORDS: Final = Counter("shopkeeper_foreign_records", "Records of other machines that came into this log.")
REPEATED_RECORDS: Final = Counter("shopkeeper_repeated_records", "Records that came twice from Kafka and count once.")
CONFLICTING_EVENTS: Final = Counter(
    "shopkeeper_conflicting_events", "Events of other machines whose id this log has with another content."
)
LOST_OFFSETS: Final = Counter(
    "shopkeeper_lost_offsets", "Offsets of Kafka or of a trimmed log that were gone before they were read."
)
LOOP_LAG_SECONDS: Final = Gauge("shopkeeper_loop_lag_seconds", "How late the event loop last woke.")
BUNDLE_AGE_SECONDS: Final = Gauge(
    "shopkeeper_bundle_age_seconds", "Time since the data of the active bundle end; 0: none."
)


_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Without the values of variables, for those are events and visitors."""
_CONSOLE: Final = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
"""Without them too."""


class _Lines:
    """Standard error, of which a line is lost, and nothing else, when it cannot be written: its disk may be full."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure_logging(level: str = "info") -> None:
    """Write log lines to standard error: coloured on a terminal, else one JSON object a line."""
    for library in ("aiokafka", "clickhouse_driver"):  # what they would tell by traceback, our own lines say
        logging.getLogger(library).setLevel(logging.CRITICAL)
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [_TRACEBACKS]),
            _CONSOLE if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lines())),
    )


def serve_metrics(settings: Settings, index: int) -> None:
    """Let Prometheus read the metrics of this process: replicas come first, then the sink, then the exchange.

    Raises
    ------
    OSError : the port is taken; the text names it and its setting
    """
    metrics = settings.metrics
    if not metrics.port:
        return
    port = metrics.port + index
    try:
        start_http_server(port, metrics.address)
    except OSError as error:
        raise OSError(
            f"cannot serve metrics on {metrics.address}:{port} (metrics.port + {index}): {error.strerror}; "
            "free it or set metrics.port"
        ) from error


async def watch_loop(period_s: float = 0.5) -> None:
    """Measure for ever how late the event loop wakes."""
    while True:
        due = time.monotonic() + period_s
        await asyncio.sleep(period_s)
        LOOP_LAG_SECONDS.set(max(0.0, time.monotonic() - due))
