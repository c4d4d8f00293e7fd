"""A teacher behind a server: what scoring and sampling know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from opd_diag.inference.model import Forwarded
from opd_diag.servers import ALL, Server

ADDED = 2
"""Tokens that a request adds to a sequence: one behind its last, for the row there, and one that engines generate."""


@dataclass
class ServedTeacher:
    """A teacher behind a server, as scoring and sampling take it."""

    name: str
    """As tables and messages call it."""
    key: str
    """Of what it is: equal teachers, equal key."""
    server: Server
    top: int
    """K, the most probable ids that are asked for at each state; `ALL`: the whole vocabulary."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end a response, as its generation settings name them."""
    at_once: int = 16
    """Requests in flight."""
    forwarded: Forwarded = field(default_factory=Forwarded)
    """Requests that were answered, and the tokens in them."""
    slack: float = 1e-5
    """How far the sum of returned probabilities may be off by rounding."""

    @property
    def whole(self) -> bool:
        """Whether whole distributions come back."""
        return self.top == ALL

    @property
    def asks(self) -> bool:
        """Whether the server says log-probabilities at ids that it is asked for, and not all come back anyway."""
        return self.server.about.exact_ids and not self.whole

    @property
    def context(self) -> int | None:
        """Most tokens of a sequence that it scores, with room for what engines add; None where it does not say."""
        return None if self.server.about.context is None else self.server.about.context - ADDED
