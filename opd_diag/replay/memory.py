"""What a report needs of the memory of each device, held against what is there, before anything is loaded.

Weights are known to the byte: a student and the teacher are in memory together. What is needed beside them follows from
sizes and from how this package works: float32 heads of 16-bit bodies, the logits of a block of states, the key–value
cache of responses that grow side by side, one pack of tokens within a layer and its hidden states, and the largest
tensor once more in the precision that a floor is measured in. It is a sum of what seldom comes together, and a guess.

That weights exceed all the memory that a device has is certain, and refused when the first of them would be read: where
every part is stored already, none is. That they exceed what is free now is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from opd_diag.errors import CheckpointError, InputError
from opd_diag.inference.device_maps import Sharded, Spread, wanted_places
from opd_diag.inference.loading import DTYPES
from opd_diag.inference.onepass import BUFFER_BYTES, ROWS, TILE_ELEMENTS
from opd_diag.inference.packing import TOKENS_PER_PACK
from opd_diag.inference.places import SPARE
from opd_diag.inference.placing import settled, skeleton, weights_by_device
from opd_diag.inference.precision import cpu_computes, reference_dtype
from opd_diag.inference.room import Room, room_of
from opd_diag.inference.sampling import PLACES, TOKENS_IN_PLACES
from opd_diag.inference.sharding import shard_bytes
from opd_diag.inference.size import ModelSize, model_size
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import readable_size
from opd_diag.replay.plan import ReplayPlan

STATES_WITHIN = 6
"""Vectors as wide as a hidden state that a token has at a time within a layer, beside the `INNER` widest ones."""
INNER = 3

Sizes = tuple[ModelSize, ModelSize | None]
"""Of student and teacher; None of one that runs elsewhere."""


@dataclass(frozen=True)
class Needed:
    """What a report needs of the memory of one device, in bytes."""

    device: torch.device
    weights: int
    """Of a student, and of the teacher unless it runs elsewhere."""
    beside: int
    """What else is needed, about."""
    room: Room | None
    """What the device has; None where it does not say."""

    @property
    def called(self) -> str:
        """How a line calls the device."""
        return "the CPU" if self.device.type == "cpu" else str(self.device)

    @property
    def cannot_fit(self) -> bool:
        """Whether weights alone are more than the device ever has."""
        return self.room is not None and self.weights > self.room.total

    @property
    def may_not_fit(self) -> bool:
        """Whether all that is needed is more than is free now."""
        return self.room is not None and self.weights + self.beside > self.room.free

    def text(self) -> str:
        """Say it, without a line's beginning and end."""
        there = "" if self.room is None else f", {readable_size(self.room.free)} free"
        weights = f"{readable_size(self.weights)} of weights"
        return f"{self.called}: {weights}, about {readable_size(self.beside)} beside them{there}"


def needed_memory(plan: ReplayPlan, sizes: Sizes) -> tuple[Needed, ...]:
    """Say what a report needs, device by device; no weights are read.

    Raises
    ------
    InputError, CheckpointError, MissingExtra
        As of :func:`~opd_diag.inference.placing.settled`.
    """
    settings, dtype = plan.settings, DTYPES[plan.settings.dtype]
    maps = wanted_places(settings.device_map, settings.tensor_parallel)
    weights: dict[int | str, int] = {}
    beside: dict[int | str, int] = {}
    of_models: tuple[tuple[str, Checkpoint, ModelSize | None], ...] = (
        ("teacher", plan.teacher, sizes[1]),  # it is loaded first, and stays
        ("student", plan.first, sizes[0]),
    )
    for role, checkpoint, size in of_models:
        if size is None:
            continue
        where = settled(
            checkpoint,
            settings.device,
            maps.get(role),
            dtype=dtype,
            trust_remote_code=size.trust_remote_code,
            taken=dict(weights),
        )
        held = _held(checkpoint, size, where, dtype)
        runs = [device for device in held if device != "cpu"] or ["cpu"]  # what is kept on the CPU runs on a GPU
        kind = "cpu" if runs == ["cpu"] else "cuda"
        for device, count in held.items():
            weights[device] = weights.get(device, 0) + count
        for device in runs:  # no model runs while the other one does, but for the heads
            most = _beside(plan, size, where, dtype, kind)
            beside[device] = max(beside.get(device, 0), most)
    return tuple(_needed(device, weights[device], beside.get(device, 0)) for device in sorted(weights, key=str))


def memory_lines(needed: tuple[Needed, ...]) -> list[str]:
    """Say it for a plan: a line a device, and one more where it may not be enough."""
    lines = [f"{'in memory' if n == 0 else '':<13}{each.text()}" for n, each in enumerate(needed)]
    scarce = [each.called for each in needed if each.may_not_fit]
    if scarce:
        lines.append(f"{'memory':<13}this may not fit on {' and '.join(scarce)}")
    return lines


def refuse_too_large(plan: ReplayPlan) -> None:
    """Refuse models whose weights can never be in memory together.

    Raises
    ------
    InputError
        What is needed, what there is, and the ways out.
    """
    settings, trusted = plan.settings, {"trust_remote_code": plan.settings.trust_remote_code}
    try:
        teacher = None if plan.served else model_size(plan.teacher, **trusted)
        needed = needed_memory(plan, (model_size(plan.first, **trusted), teacher))
    except CheckpointError:  # why it cannot be read is said when it is
        return
    in_place = "" if settings.tensor_parallel is None else " in place of --tensor-parallel"
    for each, total in ((n, n.room.total) for n in needed if n.room is not None and n.cannot_fit):
        narrow = settings.dtype == "float32" and (each.device.type == "cuda" or cpu_computes(torch.bfloat16))
        ways = [
            *([f"use --dtype bfloat16 ({readable_size(each.weights // 2)})"] if narrow else []),
            *([f"spread them over the GPUs with --device-map auto{in_place}"] if torch.cuda.is_available() else []),
            *([] if plan.served else [f"put the teacher behind a server (--teacher vllm=URL{in_place})"]),
        ]
        who = "A student needs" if plan.served else "A student and the teacher need"
        raise InputError(
            f"{who} {readable_size(each.weights)} for their weights in {settings.dtype}; {each.called} has "
            f"{readable_size(total)}. {_listed(ways)}."
        )


def _listed(ways: list[str]) -> str:
    ways = ways or ["use a machine with more memory"]
    text = ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])}, or {ways[-1]}"
    return text[0].upper() + text[1:]


def _needed(device: int | str, weights: int, beside: int) -> Needed:
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return Needed(found, weights, beside, room_of(found))


def _held(
    checkpoint: Checkpoint, size: ModelSize, where: torch.device | Spread | Sharded, dtype: torch.dtype
) -> dict[int | str, int]:
    """Give the bytes of a model's weights by device."""
    if isinstance(where, Sharded):
        each = shard_bytes(skeleton(checkpoint, dtype, trust_remote_code=size.trust_remote_code), where)
        return dict.fromkeys(range(where.ranks), each) if torch.cuda.is_available() else {"cpu": where.ranks * each}
    if not isinstance(where, torch.device):
        return weights_by_device(skeleton(checkpoint, dtype, trust_remote_code=size.trust_remote_code), where)
    device: int | str = "cpu" if where.type == "cpu" else (where.index or 0)
    return {device: size.parameters * dtype.itemsize}


def _beside(
    plan: ReplayPlan, size: ModelSize, where: torch.device | Spread | Sharded, dtype: torch.dtype, kind: str
) -> int:
    """Give the bytes that a device needs for one model beside its weights."""
    if not isinstance(where, Sharded):
        return _running(plan, size, dtype, kind) + _head(size, dtype, kind)
    share = replace(
        size,
        cached=size.cached // where.ranks,
        inner=-(-size.inner // where.ranks),
        largest=-(-size.largest // where.ranks),
    )
    whole = 4 * size.vocabulary * size.width if dtype == torch.float32 else 0  # every rank makes it, rank 0 keeps it
    each = _running(plan, share, dtype, kind) + _head(size, dtype, kind) + whole
    return each if kind == "cuda" else each * where.ranks


def _head(size: ModelSize, dtype: torch.dtype, kind: str) -> int:
    """Give the bytes of both models' float32 heads and logits, taken to be alike."""
    copy = 0 if dtype == torch.float32 else 4 * size.vocabulary * size.width
    rows = max(1, min(ROWS[kind], BUFFER_BYTES // (4 * size.vocabulary)))
    return 2 * copy + 2 * 4 * rows * size.vocabulary + 3 * 4 * min(TILE_ELEMENTS, rows * size.vocabulary)


def _running(plan: ReplayPlan, size: ModelSize, dtype: torch.dtype, kind: str) -> int:
    """Give the bytes that the body of one model needs while it runs: the larger of sampling and scoring."""
    longest = max(max(len(p.ids), len(p.teacher_ids)) for p in plan.prompts) + plan.settings.max_new_tokens + SPARE
    rows = len(plan.prompts) * plan.settings.rollouts_per_prompt
    places = max(1, min(rows, PLACES, TOKENS_IN_PLACES // longest))
    sampling = places * (longest * size.cached * dtype.itemsize + 3 * 4 * size.vocabulary)
    within = STATES_WITHIN * size.width + INNER * size.inner
    scoring = TOKENS_PER_PACK[kind] * within * dtype.itemsize + 2 * TOKENS_PER_PACK[kind] * size.width * 4
    return max(sampling, scoring, size.largest * reference_dtype(dtype).itemsize)
