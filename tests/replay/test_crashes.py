"""A replay that is killed, at any write or any moment, and started again ends in the report of one that was not."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
from pathlib import Path

import pytest

from .crashing import at, command, content, killed_at


def test_an_undisturbed_run_writes_what_the_crashes_need(undisturbed):
    """Shards of sampling and of scoring, every part, every file of the report; and no shard is left."""
    whole, writes = undisturbed
    assert not [name for name in whole if ".shards" in name]
    for kind in (".shards/", "rollouts/", "scores/", ".checks/", "coverage/", "states/", "fits/", "figures/"):
        assert sum(name.startswith(kind) for name in writes) > 1, kind
    shards = [Path(name).suffix for name in writes if name.startswith(".shards/")]
    assert shards.count(".jsonl") >= 6
    assert shards.count(".safetensors") >= 8
    assert {"report.json", "report.html", "report.md", "summary.csv", "summary.parquet", "selftest.json"} <= set(whole)
    assert {"vocabulary.json", "rollouts/start.jsonl", "rollouts/teacher.jsonl"} <= set(whole)


MARKER = ".opd-diag.json"


def kinds_of(writes: list[str]) -> list[str]:
    """Give the kind of each write: folder and suffix of one of many files, the name of one alone, or what was noted."""
    kinds: list[str] = []
    for name in writes:
        path = Path(name)
        if name == MARKER:
            kinds.append(f"noted: {kinds[-1]}" if kinds else name)
        elif name.startswith(".shards/"):
            kinds.append(f".shards/*{path.suffix}")
        else:
            kinds.append(name if path.parent == Path() else f"{path.parent}/*{path.suffix}")
    return kinds


def chosen(writes: list[str], moment: str) -> list[int]:
    """Give the writes, from 1, at which to be killed: of each kind the first, the middle and the last.

    Before a write is as after the one before it, and a half-written file besides: there the first of each kind that is
    a file of its own.
    """
    at: dict[str, list[int]] = {}
    for n, kind in enumerate(kinds_of(writes), start=1):
        at.setdefault(kind, []).append(n)
    if moment == "before":
        return sorted(of[0] for kind, of in at.items() if not kind.startswith("noted: "))
    return sorted({n for of in at.values() for n in (of[0], of[len(of) // 2], of[-1])})


@pytest.fixture(scope="module")
def left_behind(small_runs, undisturbed, tmp_path_factory):
    """Give what stood in OUT_DIR (before or after, the n-th write), as one undisturbed process went by."""
    report, out = small_runs
    folder, writes = tmp_path_factory.mktemp("left"), undisturbed[1]

    def copying(moment):
        acts = {n: lambda n=n: shutil.copytree(out, folder / f"{moment}-{n}") for n in chosen(writes, moment)}
        calls = [at(n, act) for n, act in acts.items()]
        return lambda path: [call(path) for call in calls]

    assert report(before=copying("before"), after=copying("after")) == 0
    shutil.rmtree(out)
    return {(moment, n): folder / f"{moment}-{n}" for moment in ("before", "after") for n in chosen(writes, moment)}


def files_of(out):
    """Every file by its name, those under way without the random part of theirs."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {re.sub(r"\.\w+\.part$", ".part", str(path.relative_to(out))): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_leaves_what_stood_there(small_run, undisturbed, left_behind, moment):
    """So that the other kills need not be made: nothing is done on the way out, and nothing was held back."""
    report, out = small_run
    points = chosen(undisturbed[1], moment)
    points = [n for n in points if n < undisturbed[1].index("report.json")]  # from there on a clock is in the files
    for n in points[:: len(points) // 3]:
        assert report(**{moment: killed_at(n)}) == -signal.SIGKILL
        assert files_of(out) == files_of(left_behind[moment, n]), f"killed {moment} write {n}"
        assert any(name.endswith(".part") for name in files_of(out)) is (moment == "before")
        shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_writes_of_every_kind(small_run, undisturbed, left_behind, moment):
    """A process that finds what a kill there leaves ends in the same; before a write, half of the file is there."""
    report, out = small_run
    whole, writes = undisturbed
    points = chosen(writes, moment)
    assert len(points) > 20
    for n in points:
        shutil.copytree(left_behind[moment, n], out)
        for part in out.rglob("*.part"):
            os.truncate(part, part.stat().st_size // 2)
        assert report() == 0, f"killed {moment} write {n}, {writes[n - 1]}"
        again = content(out)
        assert list(again) == list(whole), f"killed {moment} write {n}, {writes[n - 1]}"
        differ = [path for path in whole if again[path] != whole[path]]
        assert differ == [], f"killed {moment} write {n}, {writes[n - 1]}"
        shutil.rmtree(out)


def work_of_children():
    """Give the seconds of processor time of all processes that ended, which are the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dying(n, seconds):
    """Give what has the system kill the process so much work after the n-th write, whatever it is doing then."""
    return at(n, lambda: signal.setitimer(signal.ITIMER_PROF, seconds))


@pytest.mark.slow
def test_killed_at_ten_random_moments(small_run, undisturbed):
    """One process after the other, each killed at a moment between two writes or in the midst of one."""
    report, out = small_run
    whole, total = undisturbed[0], len(undisturbed[1])
    before = work_of_children()
    assert report() == 0
    between = (work_of_children() - before) / total
    shutil.rmtree(out)
    moments = random.Random(7)
    targets = [round((i + moments.random()) / 10 * (total - 20)) for i in range(10)]
    for already, target in zip([0, *targets], targets, strict=False):
        after = max(1, target - already)
        assert report(after=dying(after, moments.uniform(1e-3, 2 * between))) == -signal.SIGPROF
    left = len(report.writes())
    assert left < total - targets[-1] / 2, "it went on where the others were"
    assert content(out) == whole


@pytest.mark.slow
def test_interrupted_at_random_moments(small_run, tiny_run, capfd, monkeypatch):
    """Ctrl-C: exit code 130 and one line, whatever is under way, the timing of this machine included."""
    from opd_diag.inference.pace import measured_pace

    _, out = small_run
    monkeypatch.setattr("opd_diag.replay.cost.measured_pace", measured_pace)

    def report(after=None):
        def interrupt_later():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
            if after is not None:
                signal.setitimer(signal.ITIMER_PROF, after)

        before = work_of_children()
        return command(tiny_run, out, interrupt_later), work_of_children() - before

    assert report()[0] == 0
    whole = content(out)
    shutil.rmtree(out)
    capfd.readouterr()
    moments, work, interrupted = random.Random(11), 0.9 * report()[1], 0
    shutil.rmtree(out)
    capfd.readouterr()
    for i in range(8):
        status, _ = report(after=(i + moments.random()) / 8 * work)
        shown = capfd.readouterr().err
        assert status in (0, 130), shown  # 0: it was faster than the first
        assert shown in ("", "Interrupted. Run the same command again: what was finished is kept.\n"), shown
        interrupted += bool(shown)
        shutil.rmtree(out, ignore_errors=True)
    assert interrupted >= 5
    for i in range(4):
        report(after=(i + moments.random()) / 8 * work)
    assert report()[0] == 0
    assert content(out) == whole


def test_nothing_finished_is_made_again(small_run, undisturbed):
    """A process that is killed after its twentieth write leaves what the next one does not write again."""
    report, _ = small_run
    _, writes = undisturbed
    assert report(after=killed_at(20)) == -signal.SIGKILL
    again = report.writes()
    once = {name for name in writes[:20] if name.startswith((".shards/", "rollouts/", "scores/", ".checks/"))}
    assert len(once) >= 5
    made_twice = once & set(again)
    assert made_twice <= {writes[19]}, "the write after which it died may not have been noted"


def test_killed_while_it_shares(small_run, whole, tmp_path):
    """What a killed process left in the shared store neither harms nor hinders the next."""
    report, out = small_run
    shared = tmp_path / "shared"
    for moment in ("before", "after"):
        for n in (9, 24, 33):
            shutil.rmtree(out, ignore_errors=True)
            assert report(**{moment: killed_at(n)}, store=str(shared)) == -signal.SIGKILL
    assert report(store=str(shared)) == 0
    assert report() == 0
    assert content(out) == whole
