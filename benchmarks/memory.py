"""Peak memory of one way to score, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import torch

import opd_diag
from benchmarks.models import FLAT, SHAPES, models, rollouts, states
from benchmarks.straightforward import score_straightforwardly

METHODS = ("straightforward", "opd-diag")


def anonymous_bytes() -> int:
    """Resident memory of this process that no file backs."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class PeakMemory:
    """Samples anonymous resident memory every 5 ms while a block runs."""

    def __enter__(self) -> PeakMemory:
        self.peak = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def measure(shape_name: str, prompts: int, method: str) -> tuple[int, int]:
    """Give (bytes at the peak above what is resident after one warm-up forward of both models, states)."""
    shape = FLAT if shape_name == "flat" else SHAPES[shape_name]
    student, teacher = models(shape)
    drawn = rollouts(shape, prompts)
    pairs = [(r.prompt_ids, r.response_ids) for r in drawn]
    wrapped = [opd_diag.wrap_model(m, name="m", stop_ids=()) for m in (student, teacher)]
    with torch.inference_mode():
        for model in (student, teacher):
            model(torch.arange(8)[None])
    before = anonymous_bytes()
    with PeakMemory() as memory:
        if method == "opd-diag":
            opd_diag.score(*wrapped, drawn)
        else:
            score_straightforwardly(student, teacher, pairs)
    return memory.peak - before, states(drawn)


def in_own_process(shape_name: str, prompts: int, method: str) -> tuple[int, int]:
    """Do :func:`measure` in a fresh process, so that nothing finds what another left."""
    command = [sys.executable, "-m", "benchmarks.memory", shape_name, str(prompts), method]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, n = json.loads(output.stdout)
    return peak, n


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
