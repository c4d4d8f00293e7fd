"""A worker: holds one student after another, and the teacher or a line to it; makes parts as one process does."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from opd_diag.errors import InputError, OpdDiagError, ServerError, WorkerError
from opd_diag.inference import Cut, Drawing, Outline, Scoring, Shard
from opd_diag.inference.served import ServedScoring
from opd_diag.records.arrays import Arrays
from opd_diag.records.rollout import Rollout
from opd_diag.replay.account import Account, Work, n_states
from opd_diag.replay.lazy import LazyModel
from opd_diag.replay.parts import Parts
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.replay.selftests import Battery
from opd_diag.replay.served_parts import ServedParts
from opd_diag.replay.spread.calls import Answer, Call, Known, Refusal, Told
from opd_diag.replay.spread.node import Folder, Scratch, scratch_folder, unseen
from opd_diag.replay.spread.server import KnownServer, connected

OUT_OF_MEMORY = (
    "Give each worker more of a machine (fewer --workers, or a whole GPU with --gpus-per-worker 1), or score in "
    "--dtype bfloat16; what was finished is kept."
)


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself when it is there."""

    node: str
    """Name of its machine."""
    pid: int
    problem: Refusal | None
    """Why it cannot work, one sentence and what to do; None where it can."""


@dataclass(frozen=True)
class Needs:
    """What a worker must find where it is."""

    folders: Sequence[Folder]
    version: str
    """Of opd-diag."""
    home: str
    """Name of the machine of the replay."""


class PartsOfWorker(Parts):
    """Parts as a worker makes them: whole ones by the methods of every replay, long ones shard by shard."""

    store: Scratch

    def made(self, call: Call) -> Any:
        """Make what was asked for."""
        of: tuple[Any, ...] = call.of
        model = self.teacher if call.label == TEACHER_LABEL else self._by_label[call.label]
        if call.what in ("outline", "shard", "answers", "sampled"):
            return getattr(self, f"make_{call.what}")(model, *of)
        if call.what == "selftests":
            Battery.begun(self, model, *of)
        elif call.what == "fits":
            self.fits(model, model.checkpoint, of[0], of[1], None)
        elif call.what == "coverage":
            self.coverage(model.checkpoint, *of)
        else:
            getattr(self, call.what)(model, *of)
        handed, self.store.handed = self.store.handed, None
        return handed

    def know(self, known: Mapping[str, Known]) -> None:
        """Take over what the files of models held when the replay first saw them."""
        for label, of in known.items():
            if label != TEACHER_LABEL:
                self._by_label[label].content = of.content

    @cached_property
    def _by_label(self) -> dict[str, LazyModel]:
        return {checkpoint.label: self.student(checkpoint) for checkpoint in self.plan.checkpoints}

    def make_outline(self, student: LazyModel, states: str, rollouts: Sequence[Rollout]) -> Outline:
        """Say how a state set is cut, without the responses, which who asks has."""
        return self._scoring(student).outline(rollouts, states).of(())

    def make_shard(self, student: LazyModel, states: str, cut: Cut) -> Arrays:
        """Score one shard, cut as a set of its own."""
        rollouts = tuple(cut.rollouts)
        self._check_here(student, rollouts)
        again = self._used_again(states, rollouts)
        keep = self.hidden.states_of(self.teacher, rollouts, as_teacher=True) if again else None
        scoring, tokens = self._scoring(student), sum(cut.lengths)
        with self._runs(student), self._runs(self.teacher):
            arrays = scoring.shard(cut, 0, None, keep, lambda done: self.progress("", done, tokens))
        self.store.account.measured(0, n_states(arrays), as_teacher=False)
        return arrays

    def make_sampled(self, writer: LazyModel, shard: Shard) -> list[Rollout]:
        """Draw the responses of one shard."""
        plan, as_teacher = self.plan, writer is self.teacher
        self._check_teacher_takes_them()
        drawing = Drawing(
            self.loaded_teacher() if as_teacher else writer.model,
            writer.tokenizer,
            plan.prompts,
            plan.settings.sampling,
            plan.tokenizer.size,
            as_teacher,
        )
        drawing.refuse_unfit()
        with self._runs(writer):
            rollouts = drawing.shard(shard, lambda done: self.progress("", done, len(shard.rows)))
        tokens = sum(len(r.response_ids) for r in rollouts)
        self.store.account.add(Work(**{"teacher_sampled" if as_teacher else "student_sampled": tokens}))
        return rollouts

    def _scoring(self, student: LazyModel) -> Scoring:
        settings, teacher = self.plan.settings, self.loaded_teacher()
        return Scoring(student.model, teacher, settings.student_temperature, settings.teacher_temperature)


class ServedPartsOfWorker(PartsOfWorker, ServedParts):
    """The same where the teacher is behind a server: a worker holds a student alone, and asks."""

    def make_outline(self, student: LazyModel, states: str, rollouts: Sequence[Rollout]) -> Outline:
        """Say how a state set is cut, without the responses."""
        return self._asking(student).outline(rollouts, states).of(())

    def make_answers(self, student: LazyModel, cut: Cut) -> Arrays:
        """Give what the server says of one shard, cut as a set of its own."""
        with self._runs(self.teacher):
            return self._asking(student).answers(cut, 0, self._tells(cut))

    def make_shard(self, student: LazyModel, states: str, cut: Cut, said: Arrays | None = None) -> Arrays:
        """Score one shard, cut as a set of its own; `said` is what the server said of it, None where it is asked."""
        self._check_here(student, tuple(cut.rollouts))
        if said is not None:  # those in a cluster's memory could not be written to, which torch warns of
            said = {name: of.copy() for name, of in said.items()}
        with self._runs(student), self._runs(self.teacher):
            arrays = self._asking(student).shard(cut, 0, said, self._tells(cut))
        self.store.account.measured(0, n_states(arrays), as_teacher=False)
        return arrays

    def _asking(self, student: LazyModel) -> ServedScoring:
        return ServedScoring(student.model, self.server, self.plan.settings.student_temperature)

    def _tells(self, cut: Cut) -> Callable[[int], None]:
        tokens = sum(cut.lengths)
        return lambda done: self.progress("", done, tokens)


class Worker:
    """What runs in a process of its own; every argument and answer crosses between processes."""

    def __init__(self, plan: bytes, out_dir: Path, threads: int) -> None:
        self.plan: ReplayPlan = pickle.loads(plan)
        self.out_dir = out_dir
        self.parts: PartsOfWorker | None = None
        self._told: Told = {}
        self._node = socket.gethostname()
        self._home = self._node
        torch.set_num_threads(threads)

    def hello(self, needs: Needs, server: KnownServer | None) -> Hello:
        """Say where this is, and whether it can work here; connect to the teacher's server, if it is behind one."""
        self._home, problem = needs.home, None
        try:
            self._look(needs)
            if server is not None:
                self.plan = replace(self.plan, served=connected(server, self.plan.settings, self._node, self._home))
        except OpdDiagError as error:
            problem = Refusal.of(error)
        return Hello(self._node, os.getpid(), problem)

    def do(self, call: Call) -> Answer:
        """Make what is asked for; an error of ours is sent as such."""
        self._told = {}
        work, made, refusal = Work(), b"", None
        try:
            parts = self._ready(call)
            parts.store.account = Account(work)
            made = pickle.dumps(parts.made(call), protocol=5)
        except ServerError as error:
            refusal = Refusal.of(error if self._node == self._home else ServerError(f"Node {self._node}: {error}"))
        except OpdDiagError as error:
            refusal = Refusal.of(error)
        except (MemoryError, torch.OutOfMemoryError):
            where = f"A worker on node {self._node} ran out of memory at {call.name}."
            refusal = Refusal.of(WorkerError(f"{where} {OUT_OF_MEMORY}"))
        return Answer(made, work, self.told(), refusal)

    def told(self) -> Told:
        """Give what is new of the progress."""
        told, self._told = self._told, {}
        return told

    def leave(self) -> None:
        """Take away what was kept on this machine."""
        if self.parts is not None:
            self.parts.store.leave()

    def _look(self, needs: Needs) -> None:
        node, own, missing = self._node, metadata.version("opd-diag"), unseen(needs.folders)
        if own != needs.version:
            raise InputError(
                f"Node {node} has opd-diag {own}, this machine has {needs.version}. Install the same version on every "
                "node."
            )
        if missing is not None:
            raise InputError(
                f"Node {node} does not see {missing.path} ({missing.whose}). Put the run and its models in a folder "
                "that every node has under the same path, or start the report on that one node with RAY_ADDRESS unset."
            )

    def _ready(self, call: Call) -> PartsOfWorker:
        for known in call.known.values():
            self.plan.digests.learn(known.digests)
        if self.parts is None:
            scratch = Scratch(scratch_folder(self.out_dir), self.plan.run_dir)
            kind = PartsOfWorker if self.plan.served is None else ServedPartsOfWorker
            parts = kind(self.plan, scratch, self._tell)
            if self.plan.served is None and parts.teacher_key != call.known[TEACHER_LABEL].content.key:
                raise InputError(
                    f"Node {self._node} has another teacher in {self.plan.teacher.path} than this machine. "
                    "Put it in a folder that every node shares."
                )
            self.parts = parts
        self.parts.know(call.known)
        return self.parts

    def _tell(self, what: str, done: int, total: int) -> None:
        self._told[what] = done, total
