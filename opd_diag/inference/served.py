"""Rollouts → scores, with a teacher behind a server: ids are sent, log-probabilities come back.

The student runs here and is known in full. Of the teacher a server returns the most probable ids, perhaps the
log-probabilities at ids it is asked for, or the whole vocabulary. Whole distributions give the very fields that
:func:`~opd_diag.inference.scoring.score` gives. Otherwise overlaps, and masses on what both top-k share, are exact, and
what hangs on the rest of the vocabulary is NaN and has bounds (:mod:`opd_diag.metrics.bounds`); nothing is filled in.

Requests are kept in flight over the borders of batches and shards: while the server computes, the student's body runs
over what is asked next.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag.errors import ModelError, ServerError
from opd_diag.inference.cut import Cut, hidden_at_states, positions_of
from opd_diag.inference.drawing import draw
from opd_diag.inference.model import Forwarded, Model
from opd_diag.inference.outline import Filling, Outline
from opd_diag.inference.partial import PartialPlan, Rows, partial_fields, repeated, whole_fields
from opd_diag.inference.scoring import of_model, score, validate
from opd_diag.inference.shards import Keep, Progress, Told, keep_nothing
from opd_diag.metrics.topk import block_maxima, topk_of_blocks
from opd_diag.records.arrays import Arrays
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.settings import CURVE_GRID, K_KEPT
from opd_diag.servers import ALL, Answer, Question, Server, answered

ADDED = 2
"""Tokens that a request adds to a sequence: one behind its last, for the row there, and one that engines generate."""

BLOCK_ELEMENTS = 2**21
"""Log-probabilities of one block of states in float64: 16 MiB, of which bounds take a few."""


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


def score_with(
    student: Model, teacher: Model | ServedTeacher, rollouts: Sequence[Rollout], *, progress: Progress | None = None
) -> Scores:
    """Score at temperature 1 with a teacher that is loaded, or served; nothing is kept."""
    if isinstance(teacher, ServedTeacher):
        return score_served(student, teacher, rollouts, progress=progress)
    return score(student, teacher, rollouts, progress=progress)


@torch.inference_mode()
def score_served(
    student: Model,
    teacher: ServedTeacher,
    rollouts: Sequence[Rollout],
    *,
    states: str = "on-policy",
    student_temperature: float = 1.0,
    progress: Progress | None = None,
    keep: Keep[Arrays] = keep_nothing,
    keep_answers: Keep[Arrays] = keep_nothing,
) -> Scores:
    """Score a student here and a teacher behind a server on every state of `rollouts`.

    Parameters
    ----------
    student
        The model.
    teacher
        The teacher; its distributions are those at temperature 1.
    rollouts, states, student_temperature, progress, keep
        As :func:`~opd_diag.inference.scoring.score`.
    keep_answers
        The same for what the server says of each shard, which other students at the same states can use again.

    Returns
    -------
    Scores
        With `bounds` unless whole distributions came back. K, and the grid of the curve, end where the server's top K
        does. Both distributions are taken over the common ids: the student's, or as many as the server says it has.

    Raises
    ------
    RolloutsError
        No rollout has a state, an id lies outside the common vocabulary, or a sequence exceeds a context.
    ModelError
        The student gives NaN or infinite logits.
    ServerError
        The server cannot be reached, or answers what it must not.
    """
    scoring = ServedScoring(student, teacher, student_temperature)
    outline = scoring.outline(rollouts, states)
    cut = outline.cut
    told = Told(progress, sum(cut.lengths))
    asking = scoring.asking(cut, keep_answers)

    def shards() -> Iterator[tuple[int, Arrays]]:
        for number in range(len(cut.parts)):
            yield number, keep(cut.shard(number), partial(asking.shard, number, told.within))
            told.shard(sum(cut.tokens(number)))

    return outline.together(shards())


class ServedScoring:
    """A student here and a teacher behind a server, ready to score: as :class:`~opd_diag.inference.scoring.Scoring`.

    Whoever scores one shard at a time has in flight no more than the questions of that one.
    """

    def __init__(self, student: Model, teacher: ServedTeacher, student_temperature: float) -> None:
        self.student, self.teacher = student, teacher
        self.plan = _plan(student, teacher, student_temperature)

    def outline(self, rollouts: Sequence[Rollout], states: str) -> Outline:
        """Cut a state set; parameters and errors as :func:`score_served`."""
        validate(rollouts, self.student, self.teacher, self.plan.vocabulary)
        about = _provenance(self.student, self.teacher, states, self.plan)
        return Outline(Cut.of(self.student, self.student, rollouts), self.plan.grid, about, self.plan.ks)

    def asking(self, cut: Cut, keep_answers: Keep[Arrays] = keep_nothing) -> _Asking:
        """Give what scores a state set shard by shard, in order; nothing is asked yet."""
        return _Asking(self.student, self.teacher, cut, self.plan, keep_answers)

    @torch.inference_mode()
    def shard(self, cut: Cut, number: int, said: Arrays | None, tell: Callable[[int], None]) -> Arrays:
        """Give the fields of one shard, its rows in the order of its batches.

        Parameters
        ----------
        cut, number
            Of which set which shard.
        said
            What :meth:`answers` gave for it; None: the server is asked.
        tell
            Called with the tokens that are done after each answer.

        Raises
        ------
        ModelError
            The student gives NaN or infinite logits.
        ServerError
            The server cannot be reached, or answers what it must not.
        """
        return self.asking(cut, keep_nothing if said is None else lambda shard, make: said).shard(number, tell)

    def answers(self, cut: Cut, number: int, tell: Callable[[int], None]) -> Arrays:
        """Give what the server says of the states of one shard, whichever the student; as :meth:`shard`."""
        return self.asking(cut).said(number, tell)


def _plan(student: Model, teacher: ServedTeacher, student_temperature: float) -> PartialPlan:
    vocabulary = min(student.vocabulary, teacher.server.about.vocab_size or student.vocabulary)
    top = vocabulary if teacher.whole else min(teacher.top, vocabulary)
    return PartialPlan(
        vocabulary=vocabulary,
        student_temperature=student_temperature,
        teacher_temperature=1.0,
        stop_ids=tuple(sorted(i for i in {*student.stop_ids, *teacher.stop_ids} if i < vocabulary)),
        grid=tuple(k for k in CURVE_GRID if k <= top),
        k_kept=min(K_KEPT, top),
        ks=() if teacher.whole else tuple(sorted({top, *(k for k in CURVE_GRID if k < top)})),
        slack=teacher.slack,
    )


class _Asking:
    """Questions in flight from the first shard on that has to be asked, and what comes back, shard by shard."""

    def __init__(self, student: Model, teacher: ServedTeacher, cut: Cut, plan: PartialPlan, keep: Keep[Arrays]) -> None:
        self.student, self.teacher, self.cut, self.plan, self.keep = student, teacher, cut, plan, keep
        self._waiting: deque[tuple[int, Rollout]] = deque()
        self._answers: Iterator[Answer] | None = None
        self._hidden: dict[int, Tensor] = {}

    def shard(self, number: int, tell: Callable[[int], None]) -> Arrays:
        """Make the fields of one shard."""
        said = self.keep(self.cut.shard(number), partial(self.said, number, tell))
        hidden, rollouts = self._students(number), self._scored(number)
        self._hidden.pop(number)
        sampled = np.array([(*r.response_ids, -1)[p] for r in rollouts for p in positions_of(r)], dtype=np.int64)
        filling, done = Filling(len(hidden)), 0
        for p, cut_mass in self._logprobs(hidden):
            block = slice(done, done + len(p))
            self._refuse_nan(p, number, done)
            rows = Rows(sampled=sampled[block], **{name: of[block] for name, of in said.items()})
            fields = (whole_fields if self.teacher.whole else partial_fields)(p.cpu(), rows, self.plan)
            fields["student_cut_mass"] = cut_mass.cpu()
            filling.put(block, {name: value.numpy() for name, value in fields.items()})
            done += len(p)
        return filling.arrays

    def _scored(self, number: int) -> list[Rollout]:
        return [r for batch in self.cut.inside(number) for r in batch if positions_of(r)]

    def said(self, number: int, tell: Callable[[int], None]) -> Arrays:
        """Give what the server says of the states of one shard."""
        if self._answers is None:
            self._answers = answered(self.teacher.server, self._questions(number), at_once=self.teacher.at_once)
        parts: list[Arrays] = []
        tokens = 0
        for rollout, answer in self._of_shard(number):
            rows = np.array(positions_of(rollout)) - positions_of(rollout)[0]
            part = {
                "topk_ids": answer.topk_ids[rows],
                "topk_logprobs": answer.topk_logprobs[rows],
                "sampled_logprobs": np.append(answer.sampled_logprobs, np.nan)[rows],
            }
            if answer.at_logprobs is not None:
                part["at_logprobs"] = answer.at_logprobs[rows]
            parts.append(part)
            tokens += len(rollout.teacher_prompt_ids) + len(rollout.response_ids)
            tell(tokens)
        said = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        if self.teacher.asks:
            said["at_ids"], said["drawn_ids"] = self._asked_ids(number)
        self._refuse_other_ids(said)
        return said

    def _of_shard(self, number: int) -> Iterator[tuple[Rollout, Answer]]:
        """Give the answers of a shard; those of shards that were found after all are left."""
        assert self._answers is not None
        left = len(self._scored(number))
        while left:
            answer = next(self._answers)
            shard, rollout = self._waiting.popleft()
            forwarded = self.teacher.forwarded
            forwarded.received += answer.received_bytes
            forwarded.requests += 1
            forwarded.tokens += len(rollout.teacher_prompt_ids) + len(rollout.response_ids)
            if shard == number:
                left -= 1
                yield rollout, answer
            else:
                self._hidden.pop(shard, None)

    def _questions(self, first: int) -> Iterator[Question]:
        for number in range(first, len(self.cut.parts)):
            at, done = self._asked_ids(number)[0] if self.teacher.asks else None, 0
            for r in self._scored(number):
                places = np.array(positions_of(r))
                start, asked = len(r.teacher_prompt_ids) + int(places[0]), None
                if at is not None:
                    asked = np.full((int(places[-1] - places[0]) + 1, at.shape[1]), -1, dtype=np.int64)
                    asked[places - places[0]] = at[done : done + len(places)]
                    done += len(places)
                self._waiting.append((number, r))
                yield Question((*r.teacher_prompt_ids, *r.response_ids), start, self.teacher.top, r.truncated, asked)

    def _asked_ids(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Give what is asked for at each state, -1 for a second time, and the one of it that is drawn from the student.

        These are the student's most probable ids, the stop ids, and an id that is drawn.
        """
        uniforms = torch.from_numpy(np.concatenate([np.empty(0), *(_uniforms(r) for r in self._scored(number))]))
        width, done = self.plan.k_found, 0
        ids, drawn = [torch.empty(0, width, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]
        with torch.inference_mode():  # a generator leaves the mode of who began it
            for p, _ in self._logprobs(self._students(number)):
                ids.append(topk_of_blocks(p, block_maxima(p), self.plan.k_found)[1].cpu())
                drawn.append(draw(p.float(), uniforms[done : done + len(p)].to(p.device), 1.0, 1.0)[0].cpu())
                done += len(p)
        every = torch.cat(drawn).long()
        stops = torch.tensor(self.plan.stop_ids, dtype=torch.long).expand(len(every), -1)
        asked = torch.cat([torch.cat(ids), stops, every.unsqueeze(-1)], dim=-1).numpy()
        return np.where(repeated(asked), -1, asked), every.numpy()

    def _students(self, number: int) -> Tensor:
        """Give (states of the shard, d) the student's hidden states; run once."""
        if number not in self._hidden:
            with torch.inference_mode():
                parts = [hidden_at_states(self.student, batch) for batch in self.cut.inside(number)]
            self._hidden[number] = torch.cat(parts)
        return self._hidden[number]

    def _logprobs(self, hidden: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the student's log-probabilities of the common ids, (rows, V) in float64, and the mass of its others.

        Few states at a time.
        """
        rows = max(1, BLOCK_ELEMENTS // self.student.vocabulary)
        for start in range(0, len(hidden), rows):
            logits = self.student.head.tile(hidden[start : start + rows], 0, self.student.vocabulary).double()
            every = (logits / self.plan.student_temperature).log_softmax(-1)
            cut_mass = every[:, self.plan.vocabulary :].exp().sum(-1).float()
            yield every[:, : self.plan.vocabulary].log_softmax(-1), cut_mass

    def _refuse_nan(self, p: Tensor, number: int, done: int) -> None:
        bad = (~p.logsumexp(-1).isfinite()).nonzero()
        if len(bad):
            row, position = self.cut.places(number)[done + int(bad[0])]
            raise ModelError(
                f"{self.student.name} gives NaN or infinite logits at rollout {self.cut.rollouts[row].name}, position "
                f"{position}. Its weights are damaged or overflow in this precision; try --dtype float32."
            )

    def _refuse_other_ids(self, said: Arrays) -> None:
        highest = int(said["topk_ids"].max(initial=0)) if "topk_ids" in said else 0
        if highest >= self.plan.vocabulary and not self.teacher.whole:
            raise ServerError(
                f"{self.teacher.name} returned token id {highest}, but {self.student.name} has only "
                f"{self.plan.vocabulary} ids. It is another model, or has another tokenizer."
            )


def _uniforms(rollout: Rollout) -> npt.NDArray[np.float64]:
    """Give a random number in [0, 1) a state, the same whoever scores it: checkpoints are compared by equal draws."""
    positions = np.array(positions_of(rollout))
    stream = np.random.default_rng([zlib.crc32(b"drawn"), rollout.prompt_index, rollout.rollout_index])
    return stream.random(int(positions[-1]) + 1)[positions]


def _provenance(student: Model, teacher: ServedTeacher, states: str, plan: PartialPlan) -> dict[str, object]:
    about = teacher.server.about
    served = {
        "engine": " ".join(filter(None, (about.engine, about.version))),
        "model": about.model,
        "exact_ids": about.exact_ids,
    }
    return {
        "states": states,
        "student": of_model(student) | {"label": student.label, "step": student.step},
        "teacher": {"name": teacher.name, "key": teacher.key, "vocabulary": None, "parameters": None}
        | {"served": served | {"top": None if teacher.whole else teacher.top}},
        "student_temperature": plan.student_temperature,
        "teacher_temperature": plan.teacher_temperature,
        "common_vocabulary": plan.vocabulary,
        "stop_ids": list(plan.stop_ids),
        "dtype": str(student.dtype).removeprefix("torch."),
        "device": str(student.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sizes": {},
    }
