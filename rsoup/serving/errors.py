"""What a request is refused for, as OpenAI's API says it."""

from __future__ import annotations

from rsoup.errors import RsoupError


class RequestError(RsoupError):
    """A request asks for what cannot be done; nothing was begun.

    ``param`` names the part of the body, ``code`` the kind of problem, ``status`` the HTTP status.
    """

    status = 400
    kind = "invalid_request_error"

    def __init__(self, message: str, hint: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, hint)
        self.param, self.code = param, code


class UnknownModelError(RequestError):
    """The model's name is none of those that are served."""

    status = 404

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, param="model", code="model_not_found")


class BusyError(RequestError):
    """The queue is full; after ``seconds`` there may be room."""

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, f"Try again in {seconds} s.", code="queue_full")
        self.seconds = seconds


class StoppingError(RequestError):
    """The server ends before the answer does."""

    status = 503
    kind = "server_error"

    def __init__(self) -> None:
        super().__init__("The server is stopping.", "Ask again when it is back.", code="stopping")


class FailedError(RequestError):
    """Computing the answer failed, through no fault of the request."""

    status = 500
    kind = "server_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, "The server's log says more; other requests go on.", code="failed")


class RefusedError(RequestError):
    """This client may not ask, or not here."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint, code="invalid_api_key" if status == 401 else "forbidden")
        self.status = status
