"""What the numbers mean: each verdict is a rule one can read in ten lines; thresholds stand in one file.

================== ==========================================================================
`thresholds.py`    every number that rules hold values against, with where it comes from
`evidence.py`      reading tables: a change, a row, a baseline
`established.py`   what of it is established: beyond δ and in order, equivalent, or neither yet
`inputs.py`        self-tests: which verdict rests on which
`alignment.py`     own states, the start's, the teacher's
`false_success.py` whether own states deceive
`pair.py`          the pair: before training, masses, entropies, any difference at all
`task.py`          the task: the student's gain, the teacher's lead
`responses.py`     loops and length, stopping
`signal.py`        sharpness, few tokens, depth
`horizon.py`       how deep the dense signal reaches, where instability starts and goes
`continuing.py`    what the teacher can still do after what the student wrote
`comparison.py`    whether two runs end differently
`teachers.py`      teachers side by side: one to the student or not, and a way back
`healthy.py`       the conjunction
`unanswered.py`    what is missing where a question stays open
`cold_start.py`    a cold start: needed, what it did, data for it
`prompts.py`       chosen prompts: beyond chance, entropy, something to learn
`prompt_sets.py`   two sets of prompts, or two templates: which is closer to agreement
`titles.py`        what people read where machines read names
`headline.py`      one sentence for a tired reader
================== ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Verdict, VerdictList
from opd_diag.tables import Tables
from opd_diag.verdicts import pair, responses, signal, task
from opd_diag.verdicts.alignment import alignment_at_start, alignment_at_teacher, alignment_on_policy
from opd_diag.verdicts.false_success import false_success
from opd_diag.verdicts.headline import Headline, headline
from opd_diag.verdicts.healthy import healthy
from opd_diag.verdicts.inputs import RESTS_ON, aligned_inputs, believed
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds, load_thresholds
from opd_diag.verdicts.titles import TITLES, title_of

__all__ = [
    "DEFAULTS",
    "RESTS_ON",
    "TITLES",
    "Headline",
    "Thresholds",
    "Verdict",
    "headline",
    "judge",
    "load_thresholds",
    "title_of",
]


def judge(
    tables: Tables,
    *,
    step_zero_known: bool,
    thresholds: Thresholds = DEFAULTS,
    selftests: Sequence[SelfTest] = (),
) -> VerdictList:
    """Answer every question the tables can answer.

    Parameters
    ----------
    tables
        Of one run.
    step_zero_known
        Whether the first checkpoint is the initial student.
    thresholds
        What the rules hold values against.
    selftests
        What the measurement said of itself; a verdict that rests on a failed one is ``unknown``.
    """
    known = step_zero_known
    given = [
        false_success(tables, thresholds, known),
        responses.degeneration(tables, thresholds),
        alignment_on_policy(tables, thresholds),
        alignment_at_start(tables, thresholds, known),
        alignment_at_teacher(tables, thresholds),
        task.accuracy(tables, thresholds),
        pair.patterns_compatible(tables, thresholds, known),
        pair.indistinguishable_teacher(tables, thresholds, known),
        task.new_capability(tables, thresholds, known),
        signal.sharpness(tables, thresholds),
        responses.termination(tables, thresholds),
        signal.concentrated_signal(tables, thresholds),
        signal.depth_decay(tables, thresholds),
        pair.shared_mass(tables, thresholds),
        pair.entropy_gap(tables, thresholds),
    ]
    told = [aligned_inputs(selftests), *(believed(verdict, selftests) for verdict in given)]
    return VerdictList([healthy(told), *told])
