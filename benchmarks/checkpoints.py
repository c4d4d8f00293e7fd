"""Many checkpoints on one fixed set of states: the teacher's body runs once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import opd_diag
from benchmarks.models import Shape, models, rollouts, states
from opd_diag.inference import HiddenStates, Shard

CHECKPOINTS = 8


def report_checkpoints(shape: Shape, prompts: int) -> None:
    """Print time and body passes of eight scorings that share the teacher's states, against eight that do not."""
    hf_student, hf_teacher = models(shape)
    drawn = rollouts(shape, prompts)
    student, teacher = (opd_diag.wrap_model(m, name="m", stop_ids=()) for m in (hf_student, hf_teacher))
    opd_diag.score(student, teacher, drawn[:2])
    with tempfile.TemporaryDirectory() as folder:

        def keep(shard: Shard, make: Callable[[], HiddenStates]) -> HiddenStates:
            path = Path(folder) / f"{shard.number}.safetensors"
            if not path.exists():
                make().save(path)
            return HiddenStates(path)

        def together() -> None:
            for _ in range(CHECKPOINTS):
                opd_diag.score(student, teacher, drawn, keep_teacher=keep)

        def apart() -> None:
            for _ in range(CHECKPOINTS):
                opd_diag.score(student, teacher, drawn)

        def run(what: Callable[[], None]) -> tuple[float, float, int]:
            tokens, wall, cpu = (
                student.forwarded.tokens + teacher.forwarded.tokens,
                time.perf_counter(),
                time.process_time(),
            )
            what()
            after = student.forwarded.tokens + teacher.forwarded.tokens
            return time.perf_counter() - wall, time.process_time() - cpu, after - tokens

        shared, alone = run(together), run(apart)
        kept = sum(path.stat().st_size for path in Path(folder).iterdir())
    one = alone[2] // (2 * CHECKPOINTS)
    print(
        f"{CHECKPOINTS} checkpoints at {states(drawn)} fixed states: {shared[2] / one:.2f} body passes of {one} tokens "
        f"(apart: {alone[2] / one:.2f}), {shared[0] / alone[0]:.2f} × the time of {CHECKPOINTS} scorings apart "
        f"({shared[0]:.1f} against {alone[0]:.1f} s; {shared[1] / alone[1]:.2f} × by CPU seconds); "
        f"teacher's states kept: {kept / 2**20:.1f} MiB"
    )
