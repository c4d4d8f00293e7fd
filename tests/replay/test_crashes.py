"""A replay that is killed, at any write or any moment, and started again ends in the report of one that was not.

Runs go on in forked processes that are really killed: nothing is cleaned up, no lock is given back.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import tiny_run as tiny

from opd_diag.errors import StoreError

OPTIONS = {"checkpoints": "30", "max_prompts": 3, "max_new_tokens": 6}
"""Two checkpoints, three state sets, six responses to each."""

TIMES = {"created"}
NOT_COMPARED = {".lock"}


def in_a_child(work):
    """Run `work` in a forked process, and give its exit status: 0, or minus the signal that killed it."""
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
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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


@pytest.fixture(scope="module")
def small_runs(tiny_run, tmp_path_factory):
    """As `small_run`, for fixtures that make a report for the whole module."""
    from opd_diag.diagnosis import diagnose

    out = tmp_path_factory.mktemp("small") / "out"

    def report(before=lambda path: None, after=lambda path: None, **options):
        replace = os.replace

        def spied(source, target):
            before(target)
            replace(source, target)
            after(target)

        def work():
            os.replace = spied
            diagnose(tiny_run.run_dir, out=out, **(OPTIONS | options))

        return in_a_child(work)

    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch)
        without_drawing(patch)
        without_measuring(patch)
        yield report, out


@pytest.fixture
def small_run(small_runs):
    """(report, out): makes the report in `out`, and calls a spy with every path that was written to."""
    yield small_runs
    shutil.rmtree(small_runs[1], ignore_errors=True)


def content(out):
    """Everything in OUT_DIR, without what a clock says and what the last process had to do."""
    found = {}
    report = json.loads((out / "report.json").read_text())
    created = report["created"].encode()
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name not in NOT_COMPARED):
        found[str(path.relative_to(out))] = path.read_bytes().replace(created, b"")
    assert report["provenance"].pop("cost")["actual"]
    found["report.json"] = json.dumps(report, indent=1).encode().replace(created, b"")
    return found


def written(report, out):
    """Make the report undisturbed; give its content and every write."""
    log = out.parent / "log"
    log.unlink(missing_ok=True)
    assert report(after=lambda path: log.open("a").write(f"{path}\n") and None) == 0
    writes = [str(Path(line).relative_to(out)) for line in log.read_text().splitlines()]
    whole = content(out)
    shutil.rmtree(out)
    return whole, writes


@pytest.fixture(scope="module")
def undisturbed(small_runs):
    """Content and writes of the undisturbed report; OUT_DIR is gone again."""
    return written(*small_runs)


@pytest.fixture
def whole(undisturbed):
    """Content of the undisturbed report."""
    return undisturbed[0]


def killed_at(n):
    """Give what kills the process the n-th time it is called."""
    calls = []

    def kill(path):
        calls.append(path)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


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


def kind_of(name):
    """Give the folder and suffix of a file that is one of many, and the name of one that stands alone."""
    path = Path(name)
    return name if path.parent == Path() else f"{path.parent}/*{path.suffix}"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_writes_of_every_kind(small_run, undisturbed, moment, part):
    """At the first write of each kind, and at every third or, before it, ninth of all; in parts, to run side by side.

    Before a write is as after the one before it, and a half-written file besides.
    """
    report, out = small_run
    whole, writes = undisturbed
    kinds = [kind_of(name) for name in writes]
    every = 9 if moment == "before" else 3
    chosen = [n for n, kind in enumerate(kinds, start=1) if n % every == 0 or kind not in kinds[: n - 1]]
    assert len(chosen) > len(set(kinds)) > 10
    for n in chosen[part::4]:
        name = writes[n - 1]
        assert report(**{moment: killed_at(n)}) == -signal.SIGKILL, name
        assert report() == 0, name
        again = content(out)
        assert list(again) == list(whole), f"killed {moment} write {n}, {name}"
        assert [path for path in whole if again[path] != whole[path]] == [], f"killed {moment} write {n}, {name}"
        shutil.rmtree(out)


def command(run, out, prepare=lambda: None, *words):
    """Give the exit code of the terminal program, run in a forked process after `prepare`."""
    from opd_diag import cli

    small = ["--checkpoints", "30", "--max-prompts", "3", "--max-new-tokens", "6"]

    def work():
        sys.argv = [str(w) for w in ("opd-diag", "report", run.run_dir, "--out", out, "--quiet", *small, *words)]
        prepare()
        cli.main()

    return in_a_child(work)


PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
import pytest
from test_crashes import cut_small, without_drawing
from opd_diag import cli

with pytest.MonkeyPatch.context() as patch:
    cut_small(patch)
    without_drawing(patch)
    real = os.replace
    patch.setattr(os, "replace", lambda source, target: real(source, target) or print("wrote", target, flush=True))
    cli.main()
"""
"""The terminal program, telling of each write."""


def program(run, out):
    command = [sys.executable, "-c", PROGRAM, Path(__file__).parent, "report", run.run_dir, "--out", out, "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tiny.__file__).parent)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def writes_of(process):
    return (line for line in process.stdout if line.startswith("wrote "))


@pytest.mark.slow
def test_killed_at_ten_random_moments(tiny_run, tmp_path):
    """One process after the other, each killed at a moment between two writes or in the midst of one."""
    out = tmp_path / "out"
    with program(tiny_run, out) as process:
        times = [time.monotonic() for _ in writes_of(process)]
    assert process.returncode == 0
    whole = content(out)
    shutil.rmtree(out)
    total, between = len(times), (times[-1] - times[0]) / len(times)
    assert total > 150
    moments = random.Random(7)
    targets = [round((i + moments.random()) / 10 * (total - 20)) for i in range(10)]
    for already, target in zip([0, *targets], targets, strict=False):
        with program(tiny_run, out) as process:
            seen = writes_of(process)
            for _ in range(max(1, target - already)):
                next(seen)
            time.sleep(moments.uniform(0, 2 * between))
            process.kill()
        assert process.returncode == -signal.SIGKILL
    with program(tiny_run, out) as process:
        left = len(list(writes_of(process)))
    assert process.returncode == 0
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
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
            if after is not None:
                signal.setitimer(signal.ITIMER_REAL, after)

        began = time.monotonic()
        return command(tiny_run, out, interrupt_later), time.monotonic() - began

    assert report()[0] == 0
    whole = content(out)
    shutil.rmtree(out)
    capfd.readouterr()
    moments, duration, interrupted = random.Random(11), 0.9 * report()[1], 0
    shutil.rmtree(out)
    capfd.readouterr()
    for i in range(12):
        status, _ = report(after=(i + moments.random()) / 12 * duration)
        shown = capfd.readouterr().err
        assert status in (0, 130), shown  # 0: it was faster than the first
        assert shown in ("", "Interrupted. Run the same command again: what was finished is kept.\n"), shown
        interrupted += bool(shown)
        shutil.rmtree(out, ignore_errors=True)
    assert interrupted >= 6
    for i in range(6):
        report(after=(i + moments.random()) / 12 * duration)
    assert report()[0] == 0
    assert content(out) == whole


def test_nothing_finished_is_made_again(small_run, undisturbed):
    """A process that is killed after its twentieth write leaves what the next one does not write again."""
    report, out = small_run
    _, writes = undisturbed
    assert report(after=killed_at(20)) == -signal.SIGKILL
    log = out.parent / "log"
    log.unlink(missing_ok=True)
    assert report(after=lambda path: log.open("a").write(f"{path}\n") and None) == 0
    again = [str(Path(line).relative_to(out)) for line in log.read_text().splitlines()]
    once = {name for name in writes[:20] if name.startswith((".shards/", "rollouts/", "scores/", ".checks/"))}
    assert len(once) >= 5
    made_twice = once & set(again)
    assert made_twice <= {writes[19]}, "the write after which it died may not have been noted"


# Disks that are full or cannot be written to, and others at the same folder.


def refusal(capfd):
    """The one sentence on stderr."""
    shown = capfd.readouterr().err
    assert shown.startswith("error: "), shown
    assert shown.count("\n") == 1, shown
    return shown.removeprefix("error: ").strip()


@pytest.mark.usefixtures("small_run")
@pytest.mark.parametrize("kilobytes", [40, 250, 500])
def test_a_full_disk_keeps_what_was_finished(tiny_run, small_disk, capfd, kilobytes):
    """A real one; given room, the same command goes on and ends in the same."""
    out = small_disk / "out"
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", small_disk], check=True)
    capfd.readouterr()
    assert command(tiny_run, out) == 2
    message = refusal(capfd)
    assert message.startswith(f"Cannot write {out}")
    assert message.endswith(
        "No space left on device. Free some space and run the same command again: what was finished is kept."
    )
    assert not list(out.rglob("*.part"))
    kept = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert command(tiny_run, out) == 0
    assert {path: path.read_bytes() for path in kept if ".shards" not in path.parts} == {
        path: data for path, data in kept.items() if ".shards" not in path.parts
    }
    again = content(out)
    shutil.rmtree(out)
    assert command(tiny_run, out) == 0
    assert again == content(out)


@pytest.mark.parametrize("size", [250, 3000, 30_000])
def test_files_that_may_not_grow_are_one_sentence(small_run, tiny_run, whole, capfd, size):
    """The system refuses every write past a size: of the marker, of rollouts, of scores."""
    import resource

    _, out = small_run
    capfd.readouterr()
    assert command(tiny_run, out, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))) == 2
    message = refusal(capfd)
    assert message.startswith(f"Cannot write {out}")
    assert message.endswith("File too large. Choose another folder with --out.")
    assert not list(out.rglob("*.part"))
    assert command(tiny_run, out) == 0
    assert content(out) == whole


def test_two_reports_at_once_on_one_folder(small_run, tiny_run, whole, capfd):
    """The second is told so at once; the first does not notice."""
    report, out = small_run
    capfd.readouterr()

    def start_another(path):
        if Path(path).name == "teacher.jsonl":
            sys.stdout.write(f"second: {command(tiny_run, out)}\n")

    assert report(after=start_another) == 0
    told = capfd.readouterr()
    assert told.out == "second: 2\n"
    expected = f"error: Another process writes to {out}. Wait for it, or choose another folder with --out.\n"
    assert told.err == expected
    assert content(out) == whole


def test_a_run_folder_on_a_read_only_disk(small_run, own_run, whole, tmp_path):
    """Nothing is ever written there, so it need not be possible."""
    _, out = small_run
    mounting = ["mount", "--bind", "-o", "ro", own_run.root, own_run.root]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("no folder can be mounted read-only here")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (own_run.run_dir / "a").write_text("")
        assert command(own_run, out) == 0
    finally:
        subprocess.run(["umount", own_run.root], check=True)
    report = json.loads((out / "report.json").read_text())
    assert report["summary"] == json.loads(whole["report.json"])["summary"]


def test_a_folder_of_a_newer_version_is_left_alone(small_run, tiny_run, capfd):
    from opd_diag.records.files import content_key
    from opd_diag.replay.marker import MARKER

    report, out = small_run
    assert report() == 0
    marker = json.loads((out / MARKER).read_text()) | {"store_version": 3}
    del marker["checksum"]
    (out / MARKER).write_text(json.dumps(marker | {"checksum": content_key(marker)}))
    before = tiny.listing(out)
    capfd.readouterr()
    assert command(tiny_run, out) == 2
    assert "was written by a newer opd-diag (store version 3, this one reads 2)" in refusal(capfd)
    assert tiny.listing(out) == before


@pytest.mark.parametrize("kind", ["scores", "rollouts", "coverage", ".checks"])
def test_a_flipped_byte_is_found_made_again_and_said(small_run, whole, kind):
    report, out = small_run
    assert report() == 0
    for path in sorted(p for p in (out / kind).rglob("*") if p.is_file()):
        data = bytearray(path.read_bytes())
        data[len(data) * 2 // 3] ^= 4
        path.write_bytes(data)
    said = out / "report.md"
    assert "was damaged" not in said.read_text()
    assert report() == 0
    again = content(out)
    assert said.read_text().count("was damaged (its checksum differs). It was made again.") >= 3 - (kind == "coverage")
    assert {name for name in whole if again[name] != whole[name]} == {"report.md"}


def test_check_is_told_of_a_flipped_byte(small_run):
    import opd_diag

    report, out = small_run
    assert report() == 0
    sound = [v.as_record() for v in opd_diag.check(out)]
    for name in ("states/step-000030.start.parquet", "rollouts/start.jsonl", "coverage/step-000030.parquet"):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
        with pytest.raises(StoreError, match=rf"{name} was damaged \(its checksum differs\)\. Run report again\."):
            opd_diag.check(out)
        (out / name).write_bytes(data)
    assert [v.as_record() for v in opd_diag.check(out)] == sound


def test_a_damaged_marker_costs_at_most_the_work(small_run, whole):
    from opd_diag.replay.marker import MARKER

    report, out = small_run
    assert report() == 0
    good = (out / MARKER).read_bytes()
    for place in (0, len(good) // 3, len(good) // 2, len(good) - 10):
        (out / MARKER).write_bytes(good[:place] + b"\xff" + good[place + 1 :])
        assert report() == 0
        again = content(out)
        assert {name for name in whole if again[name] != whole[name]} <= {"report.md"}
        assert "The list of finished parts" in (out / "report.md").read_text()


# One folder for several reports.


def test_a_shared_store_gives_the_same_report_without_a_model(small_run, tiny_run, whole, tmp_path):
    report, out = small_run
    before = tiny.listing(tiny_run.root)
    shared = tmp_path / "shared"
    assert report(store=str(shared)) == 0
    numbers = {name: data for name, data in content(out).items() if not name.startswith("report.")}
    assert numbers == {name: data for name, data in whole.items() if not name.startswith("report.")}
    out.rename(tmp_path / "first")

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
        assert report(store=str(shared)) == 0
    assert {name: data for name, data in content(out).items() if not name.startswith("report.")} == numbers
    shutil.rmtree(shared)
    shutil.rmtree(tmp_path / "first")
    assert report() == 0
    assert content(out) == whole, "OUT_DIR stands alone"
    assert tiny.listing(tiny_run.root) == before


def test_another_store_changes_nothing_but_where_it_is_said(small_run, whole, tmp_path):
    report, out = small_run
    assert report(store=str(tmp_path / "shared")) == 0
    mine, plain = (json.loads(data["report.json"]) for data in (content(out), whole))
    assert mine["provenance"]["settings"].pop("store") == str(tmp_path / "shared")
    assert plain["provenance"]["settings"].pop("store") is None
    for stored in (mine, plain):
        del stored["provenance"]["command"], stored["created"]
    assert mine == plain


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
