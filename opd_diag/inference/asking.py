"""Questions to a teacher's server about one state set, and fields of its shards from what comes back.

Questions are in flight over the borders of batches and shards: while the server computes, the student's body runs over
what is asked next.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opd_diag.errors import ModelError, ServerError
from opd_diag.inference.cut import Cut, hidden_at_states, positions_of
from opd_diag.inference.drawing import draw
from opd_diag.inference.model import Model
from opd_diag.inference.outline import Filling
from opd_diag.inference.partial import PartialPlan, Rows, partial_fields, repeated, whole_fields
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.shards import Keep
from opd_diag.metrics.topk import block_maxima, topk_of_blocks
from opd_diag.records.arrays import Arrays
from opd_diag.records.rollout import Rollout
from opd_diag.servers import Answer, Question, answered

BLOCK_ELEMENTS = 2**21
"""Log-probabilities of one block of states in float64: 16 MiB, of which bounds take a few."""


class Asking:
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
