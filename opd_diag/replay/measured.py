"""A plan, carried out: the store filled, and what it holds in tables; all of a report but verdicts and page."""

from __future__ import annotations

from opd_diag.records.vocabulary import load_vocabulary
from opd_diag.replay.parts import Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.precision import larger
from opd_diag.replay.replay import Replay, replay
from opd_diag.replay.store import Store
from opd_diag.tables import Tables, assemble, logged_table


def measured(
    plan: ReplayPlan, store: Store, progress: Progress | None = None, hidden: Store | None = None
) -> tuple[Replay, Tables]:
    """Fill the store and put what it holds into tables.

    Parameters and errors as :func:`~opd_diag.replay.replay.replay`.
    """
    replayed = replay(plan, store, progress, hidden)
    tables = assemble(
        ((s.scores, s.rollouts) for s in replayed.scored),
        k=plan.settings.k,
        coverage=replayed.coverage,
        floors=larger(replayed.floors),
        fits=[s.fits for s in replayed.scored if s.fits is not None],
        tokens=load_vocabulary(store.path("vocabulary.json")),
        logged=logged_table(plan.logged, plan.run_dir),
        recorded=plan.fresh,
    )
    return replayed, tables
