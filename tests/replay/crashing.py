"""Reports in forked processes that are really killed: nothing is cleaned up, no lock is given back."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd

OPTIONS = {"checkpoints": "30", "max_prompts": 3, "max_new_tokens": 6}
"""Two checkpoints, three state sets, six responses to each."""

NOT_COMPARED = {".lock"}


def begun(work: Callable[[], object]) -> int:
    """Run `work` in a forked process, which has all modules that are loaded here; give its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs on one thread, so that forking is safe
        child = os.fork()
    if child == 0:
        status = 70
        try:
            import torch

            torch.set_num_threads(1)
            work()
            status = 0
        except SystemExit as error:
            status = error.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child


def ended(child: int) -> int:
    """Wait for a process, and give its exit status: 0, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_a_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process, and give its exit status."""
    return ended(begun(work))


def cut_small(patch):
    """Make a few tokens enough for several shards."""
    from opd_diag.inference.packing import TOKENS_PER_PACK

    patch.setitem(TOKENS_PER_PACK, "cpu", 30)
    patch.setattr("opd_diag.inference.shards.TOKENS_PER_SHARD", 60)
    patch.setattr("opd_diag.inference.sampling.ROWS_PER_SHARD", 3)


def without_measuring(patch):
    """Let the cost be foretold from no measurement: it is compared nowhere here, and takes longer than much else."""
    from opd_diag.inference.pace import Pace

    patch.setattr("opd_diag.replay.cost.measured_pace", lambda *sizes, **how: Pace(0, 0, 0, 0, 0, 0))


def without_drawing(patch):
    """Let two pictures and a page be written that cost no time: drawing is a function of the tables alone."""
    from opd_diag.report.figures import Figures, Panel

    panels = [Panel(name, name, "reverse_kl", "", "<svg/>") for name in ("one", "two")]
    patch.setattr("opd_diag.report.figures.draw_figures", lambda tables, k: Figures({}, {}, {}, panels))
    patch.setattr("opd_diag.report.page.report_page", lambda report, figures: "<!DOCTYPE html>")


def with_tables_kept(patch, folder: Path):
    """Let tables be made once of each content: they are a function of what was replayed, to the last bit.

    What was read back by who came later, and differs in anything from what was made, has tables of its own.
    """
    from opd_diag.tables import assemble

    replace = os.replace  # not the one that a test spies on

    def kept(scored, **others):
        given = [list(scored), others]
        path = folder / fingerprint(given)
        if not path.is_file():
            part = folder / f"{path.name}.{os.getpid()}"
            part.write_bytes(pickle.dumps(assemble(given[0], **others)))
            replace(part, path)
        return pickle.loads(path.read_bytes())

    patch.setattr(importlib.import_module("opd_diag.replay.measured"), "assemble", kept)


def fingerprint(value: object) -> str:
    """Give a hash of types and values, of all that goes into tables."""
    return hashlib.sha256(repr(_plain(value)).encode()).hexdigest()


def _plain(value):
    if isinstance(value, pd.DataFrame):
        return [(name, str(value[name].dtype), value[name].tolist()) for name in value]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, value.tobytes()]
    if is_dataclass(value):
        return [type(value).__name__, *(_plain(getattr(value, f.name)) for f in fields(value))]
    if isinstance(value, Mapping):
        return [(name, _plain(of)) for name, of in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(of) for of in value]
    return value


class Reports:
    """Makes the report of a run in `out`, each time in a process of its own."""

    def __init__(self, run_dir: Path, out: Path):
        self.run_dir, self.out = run_dir, out

    def __call__(self, before=lambda path: None, after=lambda path: None, **options) -> int:
        """Give the exit status; `before` and `after` are called with every path that is written to."""
        from opd_diag.diagnosis import diagnose

        replace = os.replace

        def spied(source, target):
            before(target)
            replace(source, target)
            after(target)

        def work():
            os.replace = spied
            diagnose(self.run_dir, out=self.out, **(OPTIONS | options))

        return in_a_child(work)

    def writes(self, **options) -> list[str]:
        """Give what was written, in order, by its path within OUT_DIR."""
        log = self.out.parent / "log"
        log.write_text("")
        assert self(after=lambda path: log.open("a").write(f"{path}\n") and None, **options) == 0
        return [str(Path(line).relative_to(self.out)) for line in log.read_text().splitlines()]


def command(run, out, prepare=lambda: None, *words) -> int:
    """Give the exit code of the terminal program, run in a forked process after `prepare`."""
    from opd_diag import cli

    small = ["--checkpoints", "30", "--max-prompts", "3", "--max-new-tokens", "6"]

    def work():
        sys.argv = [str(w) for w in ("opd-diag", "report", run.run_dir, "--out", out, "--quiet", *small, *words)]
        prepare()
        cli.main()

    return in_a_child(work)


def content(out: Path) -> dict[str, bytes]:
    """Everything in OUT_DIR, without what a clock says and what the last process had to do."""
    found = {}
    report = json.loads((out / "report.json").read_text())
    created = report["created"].encode()
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name not in NOT_COMPARED):
        found[str(path.relative_to(out))] = path.read_bytes().replace(created, b"")
    assert report["provenance"].pop("cost")["actual"]
    found["report.json"] = json.dumps(report, indent=1).encode().replace(created, b"")
    return found


def written(report: Reports, **options) -> tuple[dict[str, bytes], list[str]]:
    """Make the report undisturbed; give its content and every write. OUT_DIR is gone again."""
    writes = report.writes(**options)
    whole = content(report.out)
    shutil.rmtree(report.out)
    return whole, writes


def killed_at(n: int) -> Callable[[str], None]:
    """Give what kills the process the n-th time it is called."""
    return at(n, lambda: os.kill(os.getpid(), signal.SIGKILL))


def at(n: int, act: Callable[[], object]) -> Callable[[str], None]:
    """Give what acts the n-th time it is called."""
    calls = []

    def called(path):
        calls.append(path)
        if len(calls) == n:
            act()

    return called
