"""All self-tests of a report, each when what it needs is there; and what is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opd_diag.inference import device_type, stored_stop_ids
from opd_diag.records.files import content_key
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import SCORES_VERSION, Scores
from opd_diag.records.selftest import SelfTest
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.replay.lazy import LazyModel, longest_ids
from opd_diag.replay.precision import Floor
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.selftests.batches import batches
from opd_diag.replay.selftests.ends import ends_of_responses
from opd_diag.replay.selftests.inputs import tests_of_inputs
from opd_diag.replay.selftests.kept import Who
from opd_diag.replay.selftests.pair import PairTests, tests_of_pair
from opd_diag.replay.selftests.written import tests_of_all, tests_of_scores, tests_of_written

if TYPE_CHECKING:
    from opd_diag.replay.parts import Parts
    from opd_diag.replay.replay import ScoredSet

SELFTESTS_VERSION = 3
"""Raised whenever the same models and responses would give other results."""


@dataclass(frozen=True)
class Battery:
    """The self-tests of one student and the teacher, those with models done."""

    parts: Parts
    rollouts: Sequence[Rollout]
    """All responses of the writer that was looked at."""
    pair: PairTests

    @classmethod
    def begun(cls, parts: Parts, student: LazyModel, rollouts: Sequence[Rollout]) -> Battery:
        """Run the tests that need models on a few responses, before anything is scored; or read what they gave."""
        settings = parts.plan.settings
        key = [
            ["selftests", SELFTESTS_VERSION, SCORES_VERSION, settings.dtype],
            [device_type(settings.device), student.checkpoint.label, student.key, parts.teacher_key],
            [student.tokenizer.stop_ids, parts.teacher.tokenizer.stop_ids],
            [_decides(r) for r in rollouts],
            *parts.decides_answers,
        ]
        pair = parts.store.part(
            f".checks/selftests/{student.checkpoint.slug}.json",
            content_key(key),
            make=parts.making(lambda: _made(parts, student, rollouts), "selftests", student, rollouts),
            save=_save,
            load=PairTests.load,
        )
        return cls(parts, rollouts, pair)

    def of_few(self, floors: Iterable[Floor]) -> tuple[SelfTest, ...]:
        """Give what is known before anything is scored."""
        recorded = self.parts.plan.recorded
        others = [label for label in recorded if label != _written_by(self.rollouts)]
        ends = [self._ends(label, recorded[label]) for label in others]
        return (*self._common(floors, self.rollouts), *self._of_writer(), *ends)

    def of_everything(self, floors: Iterable[Floor], scored: Sequence[ScoredSet]) -> tuple[SelfTest, ...]:
        """Give what is known once everything is scored: each writer is asked on all of its responses."""
        tests: list[SelfTest] = []
        asked: set[str] = set()
        written: list[tuple[Who, Sequence[Rollout], Scores]] = []
        for part in scored:
            writer = _written_by(part.rollouts)
            who: Who = "teacher" if writer == TEACHER_LABEL else "student"
            if part.states not in ("on-policy", "teacher") or writer in asked:
                continue
            asked.add(writer)
            written.append((who, part.rollouts, part.scores))
            tests.append(self._ends(writer, part.rollouts))
            if writer == _written_by(self.rollouts):
                tests += tests_of_scores(part.checkpoint.label, part.rollouts, part.scores)
            else:
                tests += tests_of_written(writer, who, part.rollouts, part.scores)
        everything = [r for part in scored if part.states != NEAR_ON_POLICY for r in part.rollouts]
        of_few = [] if _written_by(self.rollouts) in asked else self._of_writer()
        return (*self._common(floors, everything), *of_few, *tests, *tests_of_all(written))

    def _of_writer(self) -> list[SelfTest]:
        return [self._ends(_written_by(self.rollouts), self.rollouts), *self.pair.written]

    def _common(self, floors: Iterable[Floor], rollouts: Sequence[Rollout]) -> list[SelfTest]:
        return [*tests_of_inputs(self.parts.plan, rollouts), *self.pair.tests, *map(batches, floors)]

    def _ends(self, writer: str, rollouts: Sequence[Rollout]) -> SelfTest:
        stops = self.pair.teacher_stop_ids if writer == TEACHER_LABEL else self._stops_of_student(writer)
        return ends_of_responses(writer, rollouts, stops, self.parts.plan.tokenizer)

    def _stops_of_student(self, label: str) -> tuple[int, ...]:
        """Give what its own settings and the tokenizer name, as its sampling does; else what the first student's do."""
        plan = self.parts.plan
        checkpoint = next((c for c in plan.checkpoints if c.label == label), plan.first)
        own = stored_stop_ids(checkpoint, trust_remote_code=plan.settings.trust_remote_code)
        return self.pair.student_stop_ids if own is None else tuple(sorted({*own, *plan.tokenizer.stop_ids}))


def _made(parts: Parts, student: LazyModel, rollouts: Sequence[Rollout]) -> PairTests:
    ours, theirs = student.model, parts.usable_teacher()
    for model in (student, parts.teacher):
        if not model.checked:  # in an earlier process perhaps, on another machine
            model.checked_on(longest_ids(rollouts))

    def told(what: str) -> Callable[[int, int], None]:
        named = f"{student.checkpoint.label}: self-tests, {what}, tokens"
        return lambda done, total: parts.progress(named, done, total)

    account = parts.store.account
    with ExitStack() as counted:
        counted.enter_context(account.running(ours.forwarded, as_teacher=False))
        counted.enter_context(account.running(theirs.forwarded, as_teacher=True))
        made = tests_of_pair(ours, theirs, rollouts, tokenizer=parts.plan.tokenizer, told=told)
    account.measured(0, made.n_states, as_teacher=False)
    return made


def _decides(rollout: Rollout) -> list[object]:
    """Give what of a response decides what is found of it."""
    r, source = rollout, rollout.provenance
    ids = [r.prompt_index, r.prompt_ids, r.teacher_prompt_ids, r.response_ids, r.generated, r.sampled_logprobs]
    return [*ids, source.weights, source.origin, source.temperature, source.top_p]


def _save(path: Path, tests: PairTests) -> None:
    tests.save(path)


def _written_by(rollouts: Sequence[Rollout]) -> str:
    return rollouts[0].provenance.weights
