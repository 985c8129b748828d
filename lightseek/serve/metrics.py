"""What `GET /metrics` tells, for Prometheus: requests, seconds by stage, tokens, queue, batches, memory and errors."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The figures of one service. Two services in one process do not share them."""

    def __init__(self) -> None:
        kept: dict[str, Any] = {"registry": CollectorRegistry(), "namespace": "lightseek"}
        self.registry = kept["registry"]
        self.requests = Counter("requests_total", "Requests by route and status.", ["route", "status"], **kept)
        self.errors = Counter("errors_total", "Refused or failed requests by kind.", ["kind"], **kept)
        self.took = Histogram("request_seconds", "Seconds of a request.", ["route"], buckets=SECONDS, **kept)
        self.stages = Histogram("stage_seconds", "Seconds of a prompt by stage.", ["stage"], buckets=SECONDS, **kept)
        self.tokens = Counter("tokens_total", "Tokens: of prompts (positions) and written.", ["kind"], **kept)
        self.rows = Histogram("batch_rows", "Prompts in a batch, at a join.", buckets=(1, 2, 4, 8, 16, 32, 64), **kept)
        self.queue = Gauge("queue_length", "Prompts that wait.", **kept)
        self.memory = Gauge("memory_bytes", "Memory of the process, and of the weights.", ["what"], **kept)

    def batch(self, rows: int) -> None:
        self.rows.observe(rows)

    def answer(self, answer: Any) -> None:
        for stage, seconds in answer.seconds.items():
            self.stages.labels(stage).observe(seconds)
        self.tokens.labels("prompt").inc(answer.prompt_tokens)
        self.tokens.labels("written").inc(answer.tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
