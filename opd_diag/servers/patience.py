"""How long and how often a server is asked before it is given up."""

from __future__ import annotations

from dataclasses import dataclass, replace

BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses after which it is asked again: it has too much to do, starts, or stumbled. Others would come again."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a server is asked.

    The second try follows at once; before the later ones there are pauses that double, or what the server asks for in
    ``Retry-After``. The defaults ride out a minute and a half of a server that restarts.
    """

    tries: int = 9
    """How often in all, at least 1."""
    pause_s: float = 0.5
    """The pause before the third try is twice this, then each is twice the one before; seconds."""
    longest_pause_s: float = 30.0
    """No pause is longer, whatever the server asks for."""
    connect_s: float = 10.0
    """How long for a connection."""
    answer_s: float = 300.0
    """How long for a whole answer. A vLLM that is being shut down keeps the connection and answers no more."""

    def at_first(self) -> Patience:
        """For the very first request: an address with a slip in it is told soon."""
        return replace(self, tries=min(3, self.tries))
