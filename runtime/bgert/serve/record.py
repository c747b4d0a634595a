"""What became of a request: for the headers of its reply, the metrics and the log. No text of a user is in it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Record"]

_REQUEST_ID = re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII)
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
MOST_INDICES = 100


@dataclass(slots=True)
class Record:
    """Filled while the request is worked on."""

    request_id: str = ""
    trace_id: str | None = None
    model: str | None = None
    kind: str = ""
    """Kind of that model."""
    lane: int | None = None
    bulk: bool = False
    """Whether the client said that it is in no hurry."""
    texts: int = 0
    """Texts, or pairs, that the request asks for."""
    tokens: int = 0
    """Tokens computed, special tokens counted."""
    characters: int = 0
    truncated: tuple[int, ...] = ()
    """Which inputs were longer than the model takes and were cut."""
    ignored: tuple[str, ...] = ()
    """Fields of the body that mean nothing here."""
    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    """Mean over the rows."""
    run_seconds: float = 0.0
    """Mean over the rows."""
    failure: str | None = None
    """Kind of the refusal, if it was refused."""
    detail: str | None = None
    """What an operator should know of a failure and a client should not."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Record:
        """Take the ids that a client or a proxy gave, or make one."""
        given = headers.get("x-request-id", "")
        trace = _TRACE_PARENT.fullmatch(headers.get("traceparent", ""))
        return cls(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8), trace and trace[1])

    def headers(self) -> list[tuple[str, str]]:
        """The headers that every reply has."""
        found = [("x-request-id", self.request_id)]
        if self.truncated:
            found.append(("x-bgert-truncated", str(len(self.truncated))))
            indices = ",".join(map(str, self.truncated[:MOST_INDICES]))
            more = ",..." if len(self.truncated) > MOST_INDICES else ""
            found.append(("x-bgert-truncated-indices", indices + more))
        if self.ignored:
            found.append(("x-bgert-ignored", ",".join(dict.fromkeys(self.ignored))))
        return found
