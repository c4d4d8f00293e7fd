"""Which engine makes the parts of a replay."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from opd_diag.errors import InputError, MissingExtra
from opd_diag.records.settings import Settings
from opd_diag.replay.parts import Parts, Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.served import where
from opd_diag.replay.served_parts import ServedParts
from opd_diag.replay.store import Store
from opd_diag.servers import is_address


@contextmanager
def parts_of(
    plan: ReplayPlan, store: Store, progress: Progress | None = None, hidden: Store | None = None
) -> Iterator[Parts]:
    """Give the parts of a replay, made here or by workers that are there as long as the block lasts.

    Parameters
    ----------
    plan, store, progress, hidden
        As of :func:`opd_diag.replay.replay.replay`.

    Raises
    ------
    MissingExtra, InputError, WorkerError
        The engine cannot be used, or its workers cannot.
    """
    tell = progress or (lambda what, done, total: None)
    if plan.served is not None:
        yield ServedParts(plan, store, tell, plan.served)
        return
    if plan.settings.engine == "local":
        yield Parts(plan, store, tell, hidden)
        return
    refuse_engine(plan.settings)
    if hidden is not None:
        raise InputError(
            "What compares several pairs of models runs in one process: it keeps their hidden states in one folder. "
            "Leave --engine out."
        )
    from opd_diag.replay.spread.cluster import workers_of
    from opd_diag.replay.spread.parts import SpreadParts

    with workers_of(plan, store.out_dir, tell) as (pool, device):
        settings = replace(plan.settings, device=device)
        parts = SpreadParts(replace(plan, settings=settings), store, tell, pool)
        try:
            yield parts
        finally:  # in this order: threads wait for workers
            pool.close()
            parts.close()


def refuse_engine(settings: Settings) -> None:
    """Refuse an engine that is not installed, or a device that its workers cannot have; start nothing.

    Raises
    ------
    MissingExtra, InputError
        As said.
    """
    if settings.engine == "local":
        return
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "ray")
    if settings.teacher is not None and is_address(settings.teacher):
        raise InputError(
            f"A teacher {where(settings.teacher)} is asked from one process, found {settings.teacher} with --engine "
            "ray. Leave --engine out, or name a teacher that workers load."
        )
    if settings.device_map is not None:
        raise InputError(
            "--device-map spreads a model over the devices of one process, and workers are given theirs. With --engine "
            "ray, leave it out."
        )
    if settings.device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"Device '{settings.device}' is one of a machine, and workers are given theirs. With --engine ray, use "
            "--device auto, cpu or cuda."
        )


def runs_elsewhere(settings: Settings) -> bool:
    """Whether models may run on machines that this one knows nothing of."""
    return settings.engine == "ray" and bool(os.environ.get("RAY_ADDRESS")) and settings.device != "cpu"
