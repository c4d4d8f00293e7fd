"""A rank that holds a shard of a model and does what rank 0 says: the program of those processes.

It reads no store and writes nothing: what rank 0 decides, it is told (:mod:`opd_diag.inference.leading`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from opd_diag.errors import OpdDiagError
from opd_diag.inference.attention import Span, Unpackable, span_attention
from opd_diag.inference.head import Head, read_head
from opd_diag.inference.leading import join
from opd_diag.inference.loading import load_shard
from opd_diag.inference.model import Model
from opd_diag.inference.places import Opened, open_places
from opd_diag.inference.precision import OtherPrecision

_FAILURES = (
    *(OpdDiagError, Unpackable, OSError, ImportError, RuntimeError),
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
)
"""What rank 0 may meet too, and go on after; whatever else is raised ends the process."""


@dataclass
class Follower:
    """One rank, and what it holds."""

    rank: int
    hf: Any = None
    model: Model | None = None
    opened: Opened | None = None

    def join(self, store: str, ranks: int, threads: int) -> None:
        """Meet the other ranks."""
        torch.set_num_threads(threads)
        join(store, self.rank, ranks)

    def load(self, *args: Any) -> None:
        """Load the shard of this rank, as :func:`~opd_diag.inference.loading.load_shard` does."""
        self.hf = load_shard(*args)

    def wrap(self) -> None:
        """Help to make the head of rank 0 whole, and keep none."""
        head = read_head(self.hf)
        if isinstance(head, Head):  # its shape in the memory of one number, which is none
            weight = torch.full((), torch.nan, device=head.device).expand(head.weight.shape)
            head = replace(head, weight=weight, bias=None)
        self.model = Model(name="shard", hf=self.hf.eval(), head=head, stop_ids=(), context=None)

    def hidden(
        self,
        tokens: np.ndarray,
        inputs: Mapping[str, Any],
        other_dtype: torch.dtype | None,
        spans: tuple[Span, ...] | None,
    ) -> None:
        """Run the body."""
        model = self._view(other_dtype)
        tensors = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        with nullcontext() if spans is None else span_attention(model.hf, spans):
            model.hidden(torch.from_numpy(tokens), **tensors)

    def own_logits(self, tokens: np.ndarray) -> None:
        """Run body and head."""
        self._view(None).own_logits(torch.from_numpy(tokens))

    def open(self, places: int, longest: int, other_dtype: torch.dtype | None) -> None:
        """Open a key–value cache."""
        self.opened = open_places(self._view(other_dtype), places, longest)

    def places(self, what: str, *args: Any) -> None:
        """Change the cache that was opened last, as a method of :class:`~opd_diag.inference.places.Places` does."""
        getattr(self.opened, what)(*args)

    def _view(self, other_dtype: torch.dtype | None) -> Model:
        assert self.model is not None
        return self.model if other_dtype is None else OtherPrecision.of(self.model, packs=False, body_dtype=other_dtype)


def follow(connection: Connection[Any, Any], rank: int) -> None:
    """Do what rank 0 says until it says that this is the end."""
    follower = Follower(rank)
    connection.send((True, ""))
    while True:
        what, args = connection.recv()
        if what == "end":
            return
        try:
            with torch.inference_mode():
                getattr(follower, what)(*args)
        except _FAILURES as error:
            told = (False, " ".join(f"{error}".split())[:300] or type(error).__name__)
        else:
            told = (True, "")
        connection.send(told)


def _end_with(leader: int) -> None:
    """End this process when rank 0 is gone, whatever it is at: a sum over ranks cannot be interrupted."""
    while os.getppid() == leader:
        time.sleep(0.2)
    os._exit(1)


def main(handle: int, rank: int, leader: int) -> None:
    """Follow rank 0, a process, over a socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for rank 0, which ends this one
    threading.Thread(target=_end_with, args=(leader,), daemon=True).start()
    try:
        follow(Connection(handle), rank)
    except (EOFError, ConnectionError):  # rank 0 is gone
        os._exit(1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
