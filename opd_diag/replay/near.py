"""Responses that a trainer recorded, given to the nearest checkpoint at or before the weights that wrote them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from opd_diag.errors import RolloutsError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import NEAR_ON_POLICY, Settings
from opd_diag.replay.known_prompts import KnownPrompts
from opd_diag.replay.pairing import EARLIER, ENOUGH, NO_UPDATES, STALER, Pairing
from opd_diag.replay.recorded import OURS
from opd_diag.replay.retokenized import NO_PROMPTS, OTHER_PROMPT, Room, completed, numbered, retokenized
from opd_diag.runs.recorded import PICKLE_REFUSED, RecordedFile, read_recorded

_WAYS_OUT = {
    NO_PROMPTS: "Name the prompts that training used with --prompts.",
    OTHER_PROMPT: "Name the prompts that training used with --prompts, and the chat template's options with "
    "--chat-template-kwargs.",
    EARLIER: "Name the model that training started from with --student.",
    STALER: "Raise --max-staleness, or give checkpoints nearer to these responses.",
}
_OTHERWISE = "Leave --rollouts out to sample new ones."


@dataclass(frozen=True)
class Near:
    """What a trainer recorded near the checkpoints of a run."""

    rollouts: dict[str, tuple[Rollout, ...]] = field(default_factory=dict)
    """By the label of the checkpoint that scores them, in the order of the checkpoints."""
    fresh: dict[str, int] = field(default_factory=dict)
    """How many responses were recorded of each checkpoint's very weights, those that are not scored too."""
    notes: tuple[str, ...] = ()
    """What a reader of the report must know."""


def near_rollouts(
    settings: Settings,
    files: Sequence[RecordedFile],
    ours: Sequence[Rollout],
    checkpoints: Sequence[Checkpoint],
    known: KnownPrompts,
    room: Room,
) -> Near:
    """Read what a trainer recorded, make it into ids and give it to checkpoints.

    Each checkpoint gets at most ``max_prompts`` times ``rollouts_per_prompt`` responses: those of the freshest weights
    first and, of equally fresh ones, a first response to every prompt before a second one.

    Parameters
    ----------
    settings
        Of the report.
    files
        Files of trainers.
    ours
        Responses of such weights that are rollouts already.
    checkpoints
        Those that are scored.
    known
        Prompts of the prompts file.
    room
        What ids must keep to.

    Raises
    ------
    RolloutsError
        No response can be used; or a file is a pickle that is not allowed, or the only one and cannot be read.
    """
    work = _Work(settings, Pairing.of(checkpoints, settings.max_staleness), known, room)
    for rollout in ours:
        work.take_ours(rollout)
    files, notes = _training_first(files)
    for file in files:
        work.read(file, alone=len(files) == 1 and not ours)
    labels = {c.step: c.label for c in checkpoints if c.step is not None and c.step in work.found}
    rollouts = {label: chosen for step, label in labels.items() if (chosen := work.chosen(step))}
    if not rollouts:
        raise RolloutsError(work.nothing_usable())
    told = sorted({file.format for file in files} | ({OURS} if ours else set()))
    stale = [of for step, label in labels.items() for of in staleness_of(rollouts.get(label, ()), step)]
    fresh = {label: work.fresh[step] for step, label in labels.items() if label in rollouts}
    return Near(rollouts, fresh, (_told(rollouts, told, stale), *notes, *work.notes()))


def _training_first(files: Sequence[RecordedFile]) -> tuple[Sequence[RecordedFile], list[str]]:
    """Leave evaluations out where there are responses of training."""
    training = [file for file in files if not file.evaluation]
    if not training or len(training) == len(files):
        return files, []
    return training, [
        f"{len(files) - len(training)} files of recorded evaluations were left out beside those of training. Name "
        "their folder with --rollouts to score them instead."
    ]


def staleness_of(rollouts: Sequence[Rollout], step: int) -> list[int]:
    """Give by how many updates the weights that wrote each response were ahead of a checkpoint."""
    return [r.provenance.step - step for r in rollouts if r.provenance.step is not None]


def _told(rollouts: dict[str, tuple[Rollout, ...]], formats: Sequence[str], stale: Sequence[int]) -> str:
    everything = [r for of in rollouts.values() for r in of]
    grades = ", ".join(f"{n} {grade}" for grade, n in sorted(Counter(r.exactness for r in everything).items()))
    text = (
        f"{len(everything)} responses that the trainer recorded ({', '.join(formats)}; exactness: {grades}) are scored "
        f"as {NEAR_ON_POLICY}, by the nearest checkpoint at or before the weights that wrote them: {min(stale)} to "
        f"{max(stale)} updates stale, {sum(stale) / len(stale):.3g} on average. No verdict rests on them."
    )
    if any(r.exactness == "text-stripped" for r in everything):
        text += (
            " Of stripped text the prompt is that of --prompts which reads the same under the chat template, the "
            "tokens are those that the tokenizer gives it, which need not be those that were sampled, and how a "
            "response ended is not known."
        )
    return text


class _Work:
    """Responses as they are read, by the step of the checkpoint that scores them."""

    def __init__(self, settings: Settings, pairing: Pairing, known: KnownPrompts, room: Room) -> None:
        self.settings, self.pairing, self.known, self.room = settings, pairing, known, room
        self.quota = settings.max_prompts * settings.rollouts_per_prompt
        self.found: dict[int, list[tuple[str, Rollout]]] = defaultdict(list)
        """(what the trainer calls the prompt, response), by the step of the checkpoint."""
        self.indices: dict[str | tuple[int, ...], int] = {}
        """Of prompts that are none of the file, by what the trainer calls them, else by their ids."""
        self.fresh: Counter[int] = Counter()
        """Responses of a checkpoint's very weights, by its step."""
        self.total = 0
        self.left_out: Counter[str] = Counter()
        self.files: Counter[str] = Counter()
        """Files that were not read, by reason."""
        self.readers: list[str] = []
        """What reading had to say."""

    def take_ours(self, rollout: Rollout) -> None:
        """Take a response that is ids already."""
        self._take(rollout.provenance.step, "", lambda _: completed(rollout, self.known, self.room))

    def read(self, file: RecordedFile, *, alone: bool) -> None:
        """Read one file, unless its name tells that nothing in it is needed."""
        full = {step for step, found in self.found.items() if len(found) >= self.quota}
        reason = self.pairing.of_no_use(file, full)
        if reason is not None:
            self.files[reason] += 1
            return
        try:
            everything = read_recorded(file, allow_pickle=self.settings.allow_pickle, notes=self.readers)
        except RolloutsError as error:
            if alone or error.code == PICKLE_REFUSED:
                raise
            self.readers.append(f"Left out: {error}")
            return
        for recorded in everything:
            made = partial(retokenized, recorded, known=self.known, room=self.room)
            self._take(recorded.updates, recorded.prompt_name or "", made)

    def _take(self, updates: int | None, name: str, made: Callable[[int], Rollout | str]) -> None:
        """Give a response to the checkpoint that scores it, or count why there is none; it is made only where there is.

        `name` is what the trainer calls its prompt.
        """
        self.total += 1
        step = NO_UPDATES if updates is None else self.pairing.step_of(updates)
        if updates is None or isinstance(step, str):
            self.left_out[str(step)] += 1
            return
        self.fresh[step] += step == updates
        rollout = made(updates)
        if isinstance(rollout, str):
            self.left_out[rollout] += 1
        else:
            self.found[step].append((name, rollout))

    def chosen(self, step: int) -> tuple[Rollout, ...]:
        """Give those that a checkpoint scores, numbered, by prompt."""
        times: Counter[tuple[int, int]] = Counter()
        ranked = []
        staleness = staleness_of([rollout for _, rollout in self.found[step]], step)
        for order, (stale, (name, rollout)) in enumerate(zip(staleness, self.found[step], strict=True)):
            index = self._index(rollout, name)
            times[stale, index] += 1
            ranked.append((stale, times[stale, index], order, index, rollout))
        ranked.sort(key=lambda of: of[:3])
        self.left_out[ENOUGH] += max(0, len(ranked) - self.quota)
        responses: Counter[int] = Counter()
        made = []
        for *_, index, rollout in ranked[: self.quota]:
            made.append(numbered(rollout, index, responses[index]))
            responses[index] += 1
        return tuple(sorted(made, key=lambda r: (r.prompt_index, r.rollout_index)))

    def _index(self, rollout: Rollout, name: str) -> int:
        """Give the index of a prompt: that of the file, or the next one that is free."""
        same = self.known.with_ids(rollout.prompt_ids)
        if same is not None:
            return same.index
        return self.indices.setdefault(name or rollout.prompt_ids, self.known.end + len(self.indices))

    def notes(self) -> list[str]:
        """Say what was left out, and what the readers had to say."""
        notes = list(dict.fromkeys(self.readers))
        if +self.left_out:
            notes.append(f"Of {self.total} recorded responses these were left out: {self._counts(self.left_out)}.")
        if self.files:
            notes.append(f"Files that were not read, as all they hold is left out: {self._counts(self.files)}.")
        return notes

    def nothing_usable(self) -> str:
        """Say why no response can be used, and what to do about the commonest reason, or why no file can be read."""
        counted = self.left_out or self.files
        if not counted:
            return " ".join(self.readers)
        what = "responses" if self.left_out else "files"
        most = max(counted, key=lambda reason: counted[reason])
        return (
            f"None of the {sum(counted.values())} {what} that a trainer recorded in {self.settings.rollouts} can be "
            f"used: {self._counts(counted)}. {_WAYS_OUT.get(most, _OTHERWISE)}"
        )

    def _counts(self, counted: Counter[str]) -> str:
        limit = {STALER: f"{STALER} {self.pairing.most}"}
        return ", ".join(f"{n} {limit.get(reason, reason)}" for reason, n in counted.most_common() if n)
