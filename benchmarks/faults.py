"""Faults planted in grown runs, draw by draw, and how many of them are detected.

``python -m benchmarks.faults grow --runs DIR`` grows the runs; ``... draw --runs DIR --results FILE`` plants every
fault, writes one line a report, and can be stopped and started again; ``... table`` counts those in `MEASURED`, or in
the files named. See the README here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pickle
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from opd_diag.diagnosis import measured, plan_report
from opd_diag.errors import OpdDiagError
from opd_diag.lab.collapse import KINDS, Kind, grow_runs
from opd_diag.lab.faults import FAULTS, Case, Fault, copied_case, record_rollouts
from opd_diag.records.selftest import SelfTest
from opd_diag.replay import open_store
from opd_diag.stats import wilson
from opd_diag.tables import Tables
from opd_diag.verdicts import Verdict, judge

DATA = Path(__file__).parents[1] / "data"
SEEDS = {"development": [100, 101, 102], "held-out": [200, 201, 202, 203, 204, 205]}
"""Of the grown runs; thresholds were chosen on the first alone."""
SAVED = {"healthy": (40, 160), "collapsing": (20, 80), "idle": (40, 160)}
"""Kinds of runs that are grown, and the checkpoints that each keeps."""
MEASURED = Path(__file__).with_name("faults.jsonl")
"""The held-out draws behind the table of the README here."""
N_PROMPTS = 32
HELD_OUT_PER_OPERATION = 64
READ_OF_STATES = ["label", "step", "states", "prompt_index", "rollout_index", "position", "reverse_kl"]
"""Columns of the state table that verdicts read."""
HEALTHY = ("healthy", "healthy_recorded")
"""Reports without a fault: as it is, and with its own rollouts brought along as recorded ones."""


@dataclass(frozen=True)
class Draw:
    """One draw: the runs of a seed, which prompts, and the seed of the sampling."""

    runs: Path
    seed: int
    number: int

    def chosen(self, lines: Sequence[str]) -> list[str]:
        """Draw prompts; the same ones from every file that has them in the same places."""
        places = random.Random(f"prompts {self.seed} {self.number}").sample(range(len(lines)), N_PROMPTS)
        return [lines[place] for place in places]

    def case(self, run: Path, root: Path) -> Case:
        """Copy a run with some of its prompts."""
        lines = copied_case(run, root / "whole").prompts.read_text(encoding="utf-8").splitlines()
        return copied_case(run, root / "part", self.chosen(lines))


@dataclass(frozen=True)
class Bench:
    """Where things lie while a seed is worked on."""

    draw: Draw
    scratch: Path
    planted: Path
    """Faults of models and files, planted once a seed."""
    keep: Path | None
    """Folder for tables and self-tests, to be judged again."""

    def healthy(self) -> tuple[Case, Path]:
        """Give the case without a fault, and where its report lies."""
        return self.draw.case(self.draw.runs / f"healthy-{self.draw.seed}", self.scratch / "h"), self.scratch / "h/out"

    def case(self, name: str, sampled: Path) -> Case:
        """Make the case of a fault, or of one of `HEALTHY`."""
        fault = {f.name: f for f in FAULTS}.get(name)
        root = self.scratch / name
        if fault is None or fault.is_recorded:
            case = self.draw.case(self.draw.runs / f"healthy-{self.draw.seed}", root)
            if name != "healthy":
                record_rollouts(case, sampled)
            if fault is not None:
                fault.plant(case, self.draw.number)
            return case
        return self.draw.case(self._planted(fault).run_dir, root)

    def _planted(self, fault: Fault) -> Case:
        root = self.planted / fault.name
        if root.exists():
            return Case(root)
        case = copied_case(self.draw.runs / f"{fault.on}-{self.draw.seed}", root)
        fault.plant(case, self.draw.seed)
        return case

    def report(self, name: str, case: Case, out: Path) -> dict[str, Any]:
        """Measure and judge, and say what gave an alarm."""
        begun = time.perf_counter()
        about = {"fault": name, "seed": self.draw.seed, "draw": self.draw.number}
        try:
            tables, selftests = reported(case, out, self.draw.number, self.scratch / "store")
        except OpdDiagError as error:
            alarms = [{"by": "refused", "of": str(error), "status": "fail"}]
            return about | {"alarms": alarms, "seconds": round(time.perf_counter() - begun, 2)}
        if self.keep is not None:
            path = self.keep / f"{name}-{self.draw.seed}-{self.draw.number}.pickle"
            path.write_bytes(pickle.dumps((replace(tables, states=tables.states[READ_OF_STATES]), selftests)))
        verdicts = judge(tables, step_zero_known=True, selftests=selftests)
        return about | judged(verdicts, selftests) | {"seconds": round(time.perf_counter() - begun, 2)}


def reported(case: Case, out: Path, seed: int, store: Path) -> tuple[Tables, tuple[SelfTest, ...]]:
    """Do all of a report but the page."""
    options = {"rollouts_per_prompt": 2, "max_new_tokens": 48, "max_prompts": N_PROMPTS, "seed": seed, "store": store}
    plan = plan_report(case.run_dir, out=out, **options)
    with open_store(out, plan.run_dir, store) as opened:
        replayed, tables = measured(plan, opened)
    return tables, replayed.selftests


def judged(verdicts: Sequence[Verdict], selftests: Sequence[SelfTest]) -> dict[str, Any]:
    """Give what a line of the results says of verdicts and self-tests."""
    asked = [(t.name, t.model, t) for t in selftests] + [(v.name, "", v) for v in verdicts]
    alarms = [
        {"by": name, "of": model, "status": answer.status}
        for name, model, answer in asked
        if answer.status in ("warn", "fail") and name != "healthy"  # which is no more than the others together
    ]
    return {"alarms": alarms, "healthy": next(v.status for v in verdicts if v.name == "healthy")}


def draw_all(
    runs: Path,
    results: Path,
    seeds: Sequence[int],
    numbers: Sequence[int],
    names: Sequence[str],
    keep: Path | None = None,
) -> None:
    """Report every fault on every draw that is not in `results` yet, and write each there as it is done."""
    done = {(r["fault"], r["seed"], r["draw"]) for r in records([results] if results.exists() else [])}
    with tempfile.TemporaryDirectory() as planted:
        for number, seed in itertools.product(numbers, seeds):  # so that what is stopped has some of every seed
            left = [name for name in names if (name, seed, number) not in done]
            for record in drawn(Draw(runs, seed, number), left, Path(planted) / str(seed), keep):
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                by = ", ".join(sorted({alarm["by"] for alarm in record["alarms"]}))
                print(f"{seed} {number:3d} {record['seconds']:5.1f} s {record['fault']}: {by}", flush=True)


def drawn(draw: Draw, names: Sequence[str], planted: Path, keep: Path | None) -> Iterator[dict[str, Any]]:
    """Report the faults of these names on one draw; the healthy report comes first, as others share its parts."""
    if not names:
        return
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(draw, Path(scratch), planted, keep)
        case, out = bench.healthy()
        first = bench.report("healthy", case, out)
        if "healthy" in names:
            yield first
        for name in names:
            if name != "healthy":
                yield bench.report(name, bench.case(name, out / "rollouts"), Path(scratch) / name / "out")


def records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read lines of results."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def judged_again(folder: Path) -> list[dict[str, Any]]:
    """Judge kept tables with the rules and thresholds of now."""
    lines = []
    for path in sorted(folder.glob("*.pickle")):
        name, seed, number = path.stem.rsplit("-", 2)
        tables, selftests = pickle.loads(path.read_bytes())  # our own, written by this program
        verdicts = judge(tables, step_zero_known=True, selftests=selftests)
        lines.append({"fault": name, "seed": int(seed), "draw": int(number)} | judged(verdicts, selftests))
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Count, fault by fault, as a Markdown table."""
    by_name = {fault.name: fault for fault in FAULTS}
    rows = ["| fault | expected alarm | detected | 95 % | what else gave an alarm |", "|---|---|---:|---:|---|"]
    for name in dict.fromkeys([*HEALTHY, *by_name]):
        of = [{alarm["by"] for alarm in line["alarms"]} for line in lines if line["fault"] == name]
        if not of:
            continue
        expected = set(by_name[name].detectors) | {"refused"} if name in by_name else None
        hits = sum(bool(fired & expected) if expected is not None else bool(fired) for fired in of)
        low, high = wilson(hits, len(of))
        fired = Counter(by for one in of for by in one)
        most_first = sorted(fired.items(), key=lambda pair: (-pair[1], pair[0]))
        said = ", ".join(f"{by} {n}" for by, n in most_first if expected is None or by not in expected)
        counted = ", ".join(f"{by} {fired[by]}" for by in by_name[name].detectors) if name in by_name else "none"
        about = by_name[name].about if name in by_name else "no fault: reports with any alarm"
        rows.append(f"| `{name}`: {about} | {counted} | {hits}/{len(of)} | {low:.2f}–{high:.2f} | {said} |")
    told = Counter(line["healthy"] for line in lines if line["fault"] in HEALTHY)
    said = ", ".join(f"{status} in {n}" for status, n in told.most_common())
    return "\n".join([*rows, "", f"Of the reports without a fault the verdict `healthy` is {said}."])


def main() -> None:
    """Grow, draw or count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=["grow", "draw", "table", "judge"])
    parser.add_argument(
        "files", nargs="*", type=Path, help="of table: results, default MEASURED; of judge: the folder of --keep"
    )
    parser.add_argument("--runs", type=Path, help="folder of the grown runs")
    parser.add_argument("--results", type=Path, help="JSON lines, one a report")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS["development"], *SEEDS["held-out"]])
    parser.add_argument("--draws", type=int, default=10, help="of each seed")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--only", nargs="+", default=[*HEALTHY, *(fault.name for fault in FAULTS)])
    parser.add_argument("--keep", type=Path, help="folder for tables, to be judged again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if options.do == "grow":
        kinds = {
            name: Kind(KINDS[name].teacher, replace(KINDS[name].distillation, save_at=saved))
            for name, saved in SAVED.items()
        }
        grow_runs(DATA, options.runs, options.seeds, print, kinds=kinds, held_out_per_operation=HELD_OUT_PER_OPERATION)
    elif options.do == "draw":
        if options.keep is not None:
            options.keep.mkdir(exist_ok=True)
        numbers = range(options.first, options.first + options.draws)
        draw_all(options.runs, options.results, options.seeds, numbers, options.only, options.keep)
    else:
        print(table(records(options.files or [MEASURED]) if options.do == "table" else judged_again(options.files[0])))


if __name__ == "__main__":
    main()
