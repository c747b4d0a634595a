"""Why a request is not served. A dialect turns it into the status and the words that its clients know."""

from __future__ import annotations

import math

__all__ = ["KINDS", "Refusal"]

KINDS = {
    "malformed": 400,
    "empty": 400,
    "validation": 422,
    "unauthorized": 401,
    "not_found": 404,
    "method": 405,
    "model_not_found": 404,
    "wrong_model": 424,
    "too_slow": 408,
    "too_large": 413,
    "encoding": 415,
    "overloaded": 429,
    "backend": 500,
    "unavailable": 503,
    "timeout": 504,
}
"""Kinds of refusal with the status each has where a dialect has no other."""


class Refusal(Exception):  # noqa: N818 - it is no error of the server
    """Ends the work on a request.

    Attributes:
        kind: one of `KINDS`.
        message: what happened and what to do, for the client's user.
        param: the field of the body it is about, if one.
        retry_after: whole seconds after which another try may succeed.
        headers: more headers for the reply.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        self.headers = headers
