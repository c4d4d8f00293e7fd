"""What a report costs: said beforehand, counted while it is made, and shown beside each other.

Tokens and operations follow from the plan but for one thing: how long responses become. Recorded ones tell; others are
taken to fill `ASSUMED_FILL` of the room, which is within a factor of 1.7 for anything between a third of the room and
all of it; that all fill it is the upper bound. Seconds follow from the pace of this machine
(:mod:`opd_diag.inference.pace`); what does not depend on the models was measured once, on the bundled runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opd_diag.errors import CheckpointError, ModelError, ServerError
from opd_diag.inference import resolve_device
from opd_diag.inference.libraries import errors_of
from opd_diag.inference.loading import DTYPES
from opd_diag.inference.pace import Pace, measured_pace
from opd_diag.inference.sampling import PLACES, TOKENS_IN_PLACES
from opd_diag.inference.size import ModelSize, model_size
from opd_diag.records.files import readable_size
from opd_diag.replay.account import Account, Work
from opd_diag.replay.memory import Needed, memory_lines, needed_memory
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.sampled import by_vllm
from opd_diag.replay.spread.engine import runs_elsewhere
from opd_diag.replay.store import Store
from opd_diag.replay.subsample import MOST_STATES
from opd_diag.replay.wire import WirePace, measured_wire, planned_wire
from opd_diag.replay.work import Lengths, listed_sets, planned_work, sampled_here, shared_states, writers_of
from opd_diag.servers.vllm_engine import CPU_CACHE

ASSUMED_FILL = 0.6
"""Part of ``--max-new-tokens`` that responses are taken to fill."""

LOOP_SECONDS = 0.0039
"""What :func:`_loop_seconds` gave where the next five were measured: on a machine where it is more, they are more."""
LOOPS = 5
PAGE_SECONDS = 7.0
"""Verdicts, figures and page."""
MODEL_SECONDS = 0.2
"""Reading and checking a model, and coverage by its states, whatever its size."""
WEIGHT_SECONDS = 6e-9
"""A weight that is read, hashed and put in its place."""
PART_SECONDS = 0.02
"""Writing a part and its table, whatever its size."""
ROW_SECONDS = 25e-6
"""A state in the tables, and all that is made of them."""

ANSWER_BYTES = 16
"""An id and its log-probability, as a server's answers are kept for the next checkpoint."""

PAGE_BYTES = 8_000_000
"""Figures, page and ``report.json``."""
ROW_BYTES = 300
"""A state in the tables."""
FIT_BYTES = 300
"""A state of the second pass, with its share of the sums by pairs of prompts."""
ID_BYTES, IDS_A_ROW = 16, 8
"""An id in the vocabulary that occurs, and how many new ones a state brings until all occur."""
RESPONSE_BYTES, PROMPT_TOKEN_BYTES, RESPONSE_TOKEN_BYTES = 450, 15, 30
"""A record of a response, and each token in it."""


TITLES = ("tokens sampled", "tokens through bodies", "GFLOP", "minutes", "written")
"""How the fields of a cost are called where they are shown."""

WIRE_TITLES = ("requests to the teacher", "over the wire")
"""How those of a teacher that is not loaded here are."""


@dataclass(frozen=True)
class Cost:
    """What a report costs."""

    sampled: int
    """Tokens sampled, by student and teacher."""
    tokens: int
    """Tokens through bodies, sampled ones included."""
    gflop: float
    """Operations of bodies and heads, in thousands of millions."""
    minutes: float
    bytes: int
    """In OUT_DIR."""
    requests: int = 0
    """To the teacher's server."""
    received: int = 0
    """Bytes of its answers."""

    def texts(self, *, served: bool = False) -> list[str]:
        """Give each as text, in the order of `TITLES`, and of `WIRE_TITLES` if the teacher is served."""
        gflop = f"{self.gflop:,.0f}" if self.gflop >= 100 else f"{self.gflop:.2g}"  # nan says what it is
        wire = [f"{self.requests:,}", readable_size(self.received)] if served else []
        here = [f"{self.sampled:,}", f"{self.tokens:,}", gflop, f"{self.minutes:.1f}", readable_size(self.bytes)]
        return [*here, *wire]

    def rough(self) -> Cost:
        """Give it to two digits: more would say that a guess is known."""
        here = (_two(self.sampled), _two(self.tokens), float(f"{self.gflop:.2g}"), self.minutes, _two(self.bytes))
        return Cost(*here, _two(self.requests), _two(self.received))


@dataclass(frozen=True)
class Prediction:
    """What a report will cost if nothing of it is stored yet."""

    likely: Cost
    at_most: Cost
    """If every response that is sampled fills its room. Tokens and GFLOP are a bound; minutes are a guess even so."""
    response: float | None
    """Tokens that sampled responses are taken to have; None where all are recorded."""
    sizes: tuple[ModelSize, ModelSize | None]
    """Of student and teacher; None of one that runs elsewhere."""
    memory: tuple[Needed, ...]
    """What is needed of each device, and what there is."""
    meanwhile: int
    """Bytes of the teacher's hidden states that lie in OUT_DIR until it is finished, at most."""
    beside: tuple[str, ...] = ()
    """What is known of the cost of vLLM in processes of its own; empty where it samples nothing."""

    def lines(self) -> list[str]:
        """Say it: a table as :func:`cost_lines` gives it, and what it rests on."""
        served = self.sizes[1] is None
        columns = {"predicted": self.likely.rough().texts(served=served)}
        how = "lengths are as recorded"
        if self.response is not None:
            columns["at most"] = self.at_most.texts(served=served)
            how = f"a response has {self.response:.0f} tokens; at most: if each fills its room"
        return [
            *_side_by_side(columns),
            f"predicted    if nothing is stored yet and {how}",
            *self.beside,
            *memory_lines(self.memory),
            f"meanwhile    at most {readable_size(self.meanwhile)} of the teacher's "
            f"{'answers' if served else 'states'} on disk",
        ]


def predicted(plan: ReplayPlan) -> Prediction:
    """Say what a report will cost, from its plan and a second or two of timing; no weights are read.

    Raises
    ------
    CheckpointError, ModelError
        The config of a model cannot be read, or a model like it cannot be run.
    ServerError
        The teacher's server does not answer.
    """
    settings = plan.settings
    trusted = {"trust_remote_code": settings.trust_remote_code}
    student = model_size(plan.first, **trusted)
    teacher = None if plan.served else model_size(plan.teacher, **trusted)
    sizes = student, teacher
    lengths = Lengths(plan, ASSUMED_FILL)
    room = max(len(p.ids) for p in plan.prompts) + settings.max_new_tokens
    rows = len(plan.prompts) * settings.rollouts_per_prompt
    with errors_of(plan.first):  # what a model like it, but smaller, may end in
        pace = measured_pace(
            student,
            teacher or student,
            dtype=DTYPES[settings.dtype],
            device=resolve_device("auto" if runs_elsewhere(settings) else settings.device),
            places=max(1, min(rows, PLACES, TOKENS_IN_PLACES // room)),
            seen=round(lengths.seen()),
        )
    loop = _loop_seconds() / LOOP_SECONDS
    wire = measured_wire(plan, lengths) if plan.served else None
    likely, at_most = (_cost(plan, Lengths(plan, fill), sizes, pace, loop, wire) for fill in (ASSUMED_FILL, 1.0))
    known = {*writers_of(plan)} <= {*plan.recorded}
    response = None if known else lengths.assumed
    width = DTYPES[settings.dtype].itemsize
    each = teacher.width * width if teacher is not None else ANSWER_BYTES * _returned(plan, student)
    meanwhile = shared_states(plan, Lengths(plan, 1.0)) * each
    return Prediction(
        likely, at_most, response, sizes, needed_memory(plan, sizes), round(meanwhile), _beside(plan, sizes)
    )


def total_line(costs: Sequence[Cost]) -> str:
    """Say what several replays of one study cost, in a line; what they share is made once and counted in each."""
    requests, received = sum(cost.requests for cost in costs), _two(sum(cost.received for cost in costs))
    wire = f", {_two(requests):,} requests to servers, {readable_size(received)} over the wire" if requests else ""
    minutes = sum(cost.minutes for cost in costs)
    return f"in all       {minutes:.1f} minutes{wire}; what the replays share is made once, and counted in each"


def predicted_or_none(plan: ReplayPlan) -> Prediction | None:
    """Give the prediction; None where there is none, for reasons that the replay itself will give if they matter."""
    try:
        return predicted(plan)
    except (CheckpointError, ModelError, ServerError):
        return None


def actual_cost(plan: ReplayPlan, prediction: Prediction | None, store: Store) -> Cost:
    """Say what a report did cost, once everything is written; GFLOP are NaN where sizes are not known."""
    account = store.account
    seen = Lengths(plan, account.mean_response / plan.settings.max_new_tokens).seen()
    return Cost(
        sampled=round(account.work.sampled),
        tokens=round(account.work.tokens),
        gflop=math.nan if prediction is None else _gflop(account.work, seen, prediction.sizes),
        minutes=account.seconds / 60,
        requests=round(account.work.requests),
        received=round(account.work.received),
        bytes=sum(path.stat().st_size for path in store.out_dir.rglob("*") if path.is_file()),
    )


def cost_record(prediction: Prediction | None, actual: Cost, account: Account) -> dict[str, Any]:
    """Give what ``report.json`` says of the cost."""
    return {
        "predicted": None if prediction is None else asdict(prediction.likely),
        "predicted_at_most": None if prediction is None else asdict(prediction.at_most),
        "actual": asdict(actual),
        "parts_made": account.made,
        "parts_found": account.found,
    }


def cost_lines(record: dict[str, Any]) -> list[str]:
    """Say what was predicted and what it was, side by side; `record` is that of :func:`cost_record`."""
    known, guess = Cost(**record["actual"]), record["predicted"]
    served = bool(known.requests or (guess and guess.get("requests")))
    actual = known.texts(served=served)
    predicted = ["unknown"] * len(actual) if guess is None else Cost(**guess).rough().texts(served=served)
    lines = _side_by_side({"predicted": predicted, "actual": actual})
    made, found = record["parts_made"], record["parts_found"]
    if found:
        lines.append(
            f"{found} of {made + found} parts were stored already and cost nothing; the prediction has them all"
        )
    return lines


def _two(count: int) -> int:
    return round(float(f"{count:.2g}"))


def _side_by_side(columns: dict[str, list[str]]) -> list[str]:
    """Give costs as the lines of a table; each column is that of :meth:`Cost.texts`."""
    titles = (*TITLES, *WIRE_TITLES)[: len(next(iter(columns.values())))]
    rows = [("cost", *columns), *zip(titles, *columns.values(), strict=True)]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([f"{row[0]:<{first}}", *(f"{t:>{width}}" for t, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def _returned(plan: ReplayPlan, student: ModelSize) -> int:
    """Give how many ids a served teacher returns of a state, to be kept for the next checkpoint."""
    assert plan.served is not None
    return student.vocabulary if plan.served.whole else plan.served.top


def _cost(
    plan: ReplayPlan,
    lengths: Lengths,
    sizes: tuple[ModelSize, ModelSize | None],
    pace: Pace,
    slower: float,
    wire: WirePace | None,
) -> Cost:
    asked = planned_wire(plan, lengths) if plan.served else None
    work = planned_work(plan, lengths)
    sets = [writer for _, _, writer in listed_sets(plan)]
    rows = sum(map(lengths.response, sets))
    students = len(plan.checkpoints)
    fixed = PAGE_SECONDS + MODEL_SECONDS * (students + 1) + PART_SECONDS * len(sets) + ROW_SECONDS * rows
    weights = students * sizes[0].parameters + (sizes[1].parameters if sizes[1] is not None else 0)
    fixed += WEIGHT_SECONDS * weights
    seconds = (
        work.student_sampled * pace.student_drawn
        + work.teacher_sampled * pace.teacher_drawn
        + (work.student_tokens - work.student_sampled) * pace.student_token
        + (work.teacher_tokens - work.teacher_sampled) * pace.teacher_token
        + work.states * pace.state
    )
    if asked is not None and wire is not None:  # while the server is at it, what runs here runs beside it
        seconds = max(seconds, asked.seconds(wire))
    ids = min(sizes[0].vocabulary, IDS_A_ROW * rows)
    responses = sum(_response_bytes(lengths, writer) for writer in writers_of(plan))
    fits = FIT_BYTES * sum(min(MOST_STATES, lengths.response(of)) for of in sets)
    return Cost(
        requests=0 if asked is None else round(asked.requests),
        received=0 if asked is None or wire is None else round(asked.received(wire)),
        sampled=round(work.sampled + (0 if asked is None else asked.sampled)),
        tokens=round(work.tokens),
        gflop=_gflop(work, lengths.seen(), sizes),
        minutes=(seconds + fixed * slower) / 60,
        bytes=round(PAGE_BYTES + rows * (pace.state_bytes + ROW_BYTES) + responses + fits + ids * ID_BYTES),
    )


def _beside(plan: ReplayPlan, sizes: tuple[ModelSize, ModelSize | None]) -> tuple[str, ...]:
    """Say what is known of the cost of vLLM in processes of its own."""
    models = sampled_here(plan) if by_vllm(plan.settings) else []
    if not models:
        return ()
    weights = max(size.parameters for size in sizes if size is not None) * DTYPES[plan.settings.dtype].itemsize
    return (
        f"vLLM         samples {len(models)} models, one after another; how long that takes is not known, and not in "
        "these minutes",
        f"             beside what is in memory it holds up to {readable_size(weights)} of weights, and on a CPU "
        f"{readable_size(CPU_CACHE)} of keys and values; on a GPU it takes nine tenths of what is free",
    )


def _gflop(work: Work, seen: float, sizes: tuple[ModelSize, ModelSize | None]) -> float:
    """Give the operations of what runs here, in thousands of millions."""
    student, teacher = sizes
    if teacher is None:
        heads = (work.student_sampled + work.states) * student.head_flop
        return (student.body_flop(work.student_tokens, seen) + heads) / 1e9
    bodies = student.body_flop(work.student_tokens, seen) + teacher.body_flop(work.teacher_tokens, seen)
    heads = (work.student_sampled + work.states) * student.head_flop
    return (bodies + heads + (work.teacher_sampled + work.states) * teacher.head_flop) / 1e9


def _response_bytes(lengths: Lengths, writer: str) -> float:
    prompt = (lengths.student_prompts + lengths.teacher_prompts) / (2 * lengths.prompts)
    return (
        lengths.rows(writer) * (RESPONSE_BYTES + prompt * PROMPT_TOKEN_BYTES)
        + lengths.response(writer) * RESPONSE_TOKEN_BYTES
    )


def _loop_seconds() -> float:
    """Give how long this machine takes for a small job in plain Python, as busy as it is."""
    begin = time.perf_counter()
    for _ in range(LOOPS):
        sum(i * i % 7 for i in range(100_000))
    return (time.perf_counter() - begin) / LOOPS
