"""The whole flow on one screen: run folder → plan → replay → tables → verdicts → report. Read this first."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from opd_diag.errors import InputError
from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Verdict
from opd_diag.records.vocabulary import load_vocabulary
from opd_diag.replay import Replay, ReplayPlan, Store, measured, open_store
from opd_diag.replay.cost import Prediction, actual_cost, cost_record, predicted_or_none
from opd_diag.replay.marker import refuse_damaged
from opd_diag.replay.planning import default_out, plan_run
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.replay import Progress
from opd_diag.replay.selftests import load_selftests
from opd_diag.replay.selftests.alone import selftests_alone
from opd_diag.report import Report, load_report_json
from opd_diag.report.json_file import write_report_json
from opd_diag.report.provenance import provenance, reader_notes
from opd_diag.report.tokens import token_view
from opd_diag.runs import MANIFEST_NAME
from opd_diag.tables import Tables, load_tables, save_baselines, save_states, save_stops
from opd_diag.verdicts import DEFAULTS, Thresholds, headline, judge

EXCERPTS = 6
"""Rollouts of the first and of the last checkpoint, and of the teacher, that can be read on the page."""


def diagnose(
    run_dir: str | Path, *, out: str | Path | None = None, progress: Progress | None = None, **options: Any
) -> Report:
    """Replay the checkpoints of a run and report how student and teacher agree, step by step.

    Parameters
    ----------
    run_dir
        Folder of the run; nothing is ever written into it.
    out
        Folder for the report and everything it rests on; default ``opd-diag/<run name>`` under the working directory.
    progress
        Called with (what is being done, units done, units in all).
    options
        Any field of :class:`~opd_diag.records.settings.Settings`; they win over ``opd-diag.toml`` of the run.

    Returns
    -------
    Report
        Already written to `out`.

    Raises
    ------
    OpdDiagError
        The run, an option or a model cannot be used; the message says what to do.
    """
    return carry_out(plan_report(run_dir, out=out, **options), out=out, progress=progress)


def carry_out(
    plan: ReplayPlan,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    prediction: Prediction | None = None,
) -> Report:
    """Do what a plan says: fill the store, judge, and write the report.

    Parameters
    ----------
    plan
        From :func:`plan_report`, with the same `out`.
    out, progress
        As :func:`diagnose`.
    prediction
        What it is expected to cost; default: asked for now, which takes a second or two.
    """
    prediction = prediction or predicted_or_none(plan)
    out_dir = default_out(plan.run_dir, out)
    with open_store(out_dir, plan.run_dir, plan.settings.store) as store:
        replayed, tables = measured(plan, store, progress)
        store.note(*save_states(out_dir, tables.states), *save_stops(out_dir, tables.stops))
        store.note(save_baselines(out_dir, tables.baselines))
        report = _report(plan, replayed, tables, store)
        report.write()
        report = _with_cost(report, plan, prediction, store)
        store.note_report()
    return report


def doctor(
    run_dir: str | Path, *, out: str | Path | None = None, progress: Progress | None = None, **options: Any
) -> list[SelfTest]:
    """Ask the measurement itself before anyone believes it: the self-tests of a report, alone.

    They look at the first checkpoint and the teacher on a few responses of the first checkpoint. All that is made for
    them lies in `out`, where a report with the same options finds it again; the report then asks the same of every
    checkpoint's own responses.

    Parameters
    ----------
    run_dir, out, progress, options
        As :func:`diagnose`.

    Returns
    -------
    list of SelfTest
        Also written to ``selftest.json`` in `out`. A failed test is no error.

    Raises
    ------
    OpdDiagError
        The run, an option or a model cannot be used; the message says what to do.
    """
    return ask(plan_report(run_dir, out=out, **options), out=out, progress=progress)


def ask(plan: ReplayPlan, *, out: str | Path | None = None, progress: Progress | None = None) -> list[SelfTest]:
    """Run the self-tests of a plan from :func:`plan_report`; parameters as :func:`doctor`."""
    with open_store(default_out(plan.run_dir, out), plan.run_dir, plan.settings.store) as store:
        return list(selftests_alone(plan, store, progress))


def plan_report(run_dir: str | Path, *, out: str | Path | None = None, **options: Any) -> ReplayPlan:
    """Check all that a report needs and say what it would do; load no weights, write nothing.

    Parameters and errors as :func:`diagnose`.
    """
    return plan_run(run_dir, out=out, **options)


def check(
    source: str | Path | Tables,
    *,
    thresholds: Thresholds | Mapping[str, float] = DEFAULTS,
    step_zero_known: bool | None = None,
    selftests: Sequence[SelfTest] = (),
) -> list[Verdict]:
    """Judge again what a report left, or tables made by hand; no model is needed.

    Parameters
    ----------
    source
        Folder of a finished report, or :class:`~opd_diag.tables.Tables`.
    thresholds
        What the rules hold values against; a mapping overrides single fields.
    step_zero_known
        Whether the first checkpoint is the initial student; default: as the report says, or, of tables, whether its
        step is 0.
    selftests
        What the measurement said of itself; default: of a report, what it found; of tables, nothing.

    Returns
    -------
    list of Verdict

    Raises
    ------
    StoreError
        The folder holds no report, or a file in it is damaged.
    InputError
        A threshold that does not exist.
    """
    limits = Thresholds.of(thresholds)
    if isinstance(source, Tables):
        tables, known = source, bool((source.summary["step"].iloc[:1] == 0).any())  # missing is not 0
        asked = tuple(selftests)
    else:
        stored = load_report_json(Path(source) / "report.json")
        refuse_damaged(Path(source))
        concentration = pd.DataFrame(stored["concentration"]).astype({"step": "Int64"})
        floors = {row["metric"]: row["floor"] for row in stored["summary"] if row.get("floor") is not None}
        tables, known = load_tables(Path(source), concentration, floors), bool(stored["provenance"]["step_zero"])
        asked = tuple(selftests) or load_selftests(Path(source))
    known = known if step_zero_known is None else step_zero_known
    return judge(tables, step_zero_known=known, thresholds=limits, selftests=asked)


def _report(plan: ReplayPlan, replayed: Replay, tables: Tables, store: Store) -> Report:
    verdicts = judge(tables, step_zero_known=plan.step_zero_known, selftests=replayed.selftests)
    return Report(
        run=plan.run,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        out_dir=store.out_dir,
        provenance=provenance(plan, replayed),
        headline=headline(verdicts),
        verdicts=verdicts,
        checkpoints=[*replayed.checkpoints, *replayed.broken, *plan.blocked],
        tables=tables,
        excerpts=_excerpts(replayed),
        notes=[*plan.notes, *reader_notes(plan, replayed), *store.notes],
        selftests=replayed.selftests,
        tokens=token_view(
            ((s.scores, s.rollouts) for s in replayed.scored),
            load_vocabulary(store.path("vocabulary.json")),
            k=plan.settings.k,
            depth=tables.depth,
        ),
    )


def _with_cost(report: Report, plan: ReplayPlan, prediction: Prediction | None, store: Store) -> Report:
    """Add to ``report.json`` what the report cost, now that everything else is written."""
    cost = cost_record(prediction, actual_cost(plan, prediction, store), store.account)
    report = replace(report, provenance=report.provenance | {"cost": cost})
    write_report_json(store.path("report.json"), report)
    return report


def _excerpts(replayed: Replay) -> dict[str, list[Rollout]]:
    """Take the first response to each of the first prompts, so that all show the same ones: both ends, the teacher."""
    writers = dict.fromkeys([replayed.checkpoints[0].label, replayed.checkpoints[-1].label, TEACHER_LABEL])
    written = {s.rollouts[0].provenance.weights: s.rollouts for s in replayed.scored}
    return {w: [r for r in written[w] if r.rollout_index == 0][:EXCERPTS] for w in writers if w in written}


def demo_runs() -> list[Path]:
    """Give the folders of the bundled runs.

    Raises
    ------
    InputError
        They are not there: the installation is incomplete.
    """
    package = Path(__file__).parent
    for data in (package / "data", package.parent / "data"):
        found = sorted(manifest.parent for manifest in data.glob(f"*/{MANIFEST_NAME}"))
        if found:
            return found
    raise InputError("The bundled runs are missing from this installation. Install opd-diag again.")
