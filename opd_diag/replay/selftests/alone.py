"""The self-tests alone, with what they need of a report: one model's responses, heads, floors."""

from __future__ import annotations

from opd_diag.records.selftest import SelfTest
from opd_diag.replay.parts import Parts, Progress
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.selftests.battery import Battery
from opd_diag.replay.selftests.stored import SELFTESTS, write_selftests
from opd_diag.replay.spread.engine import parts_of
from opd_diag.replay.store import Store


def selftests_alone(plan: ReplayPlan, store: Store, progress: Progress | None = None) -> tuple[SelfTest, ...]:
    """Run the self-tests of the first checkpoint and the teacher; a report finds again all that was made for them.

    What every checkpoint is asked about its own responses is asked of the first one alone, on a few of them.

    Parameters
    ----------
    plan
        Of the report.
    store
        Where it would go. Its ``selftest.json`` is left as it is where nothing had to be made: it then is of these
        very parts, and may be a finished report's, which says more.
    progress
        As :func:`opd_diag.replay.replay`.

    Raises
    ------
    CheckpointError, ModelError, InputError
        The first checkpoint or the teacher cannot be used.
    """
    with parts_of(plan, store, progress) as parts:
        return _of_parts(plan, store, parts)


def _of_parts(plan: ReplayPlan, store: Store, parts: Parts) -> tuple[SelfTest, ...]:
    before = dict(store.parts)
    student = parts.student(plan.first)
    writes = {"on-policy", "start", "back"} & {*plan.settings.states}
    rollouts = parts.rollouts(student if writes else parts.teacher)
    here = parts.here(student)
    heads = [parts.head_check(model, rollouts) for model in here]
    battery = Battery.begun(parts, student, rollouts)
    tests = battery.of_few([parts.floor(model, rollouts) for model in here])
    store.keep_digests(plan.digests)
    if store.parts != before or not store.path(SELFTESTS).is_file():
        write_selftests(store.path(SELFTESTS), heads, (), tests)
        store.note(SELFTESTS)
    return tests
