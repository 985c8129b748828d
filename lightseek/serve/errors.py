"""Every error of the service in one JSON shape: {"error": {"type", "message", "param"}} with the fitting status."""

from dataclasses import dataclass


@dataclass
class Refused(Exception):
    """A request that cannot be answered. `message` says what was wrong, and what to do about it."""

    status: int
    kind: str  # a stable name for programs, such as "too_large"
    message: str
    param: str | None = None  # the field of the request that was wrong
    retry_after: int | None = None  # seconds

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict:
        return {"error": {"type": self.kind, "message": self.message, "param": self.param, "code": self.status}}


def bad(message: str, param: str | None = None) -> Refused:
    return Refused(400, "invalid_request", message, param)


def too_large(message: str, param: str | None = None) -> Refused:
    return Refused(413, "too_large", message, param)


def unknown_model(name: str, known: list[str]) -> Refused:
    return Refused(404, "unknown_model", f"no model {name!r}: choose one of {', '.join(known)}", "model")


def busy(seconds: int) -> Refused:
    message = f"too many requests wait: try again in {seconds} s"
    return Refused(429, "busy", message, retry_after=seconds)


def stopping() -> Refused:
    return Refused(503, "stopping", "the service is stopping: try again in a moment", retry_after=5)


def too_late(seconds: int | float) -> Refused:
    return Refused(504, "deadline", f"the answer took longer than {seconds:g} s: ask for less, or raise the deadline")
