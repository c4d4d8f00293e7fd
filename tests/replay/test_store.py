"""OUT_DIR: whose it is, who writes to it, and what is left of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from opd_diag.errors import StoreError
from opd_diag.inference import Shard
from opd_diag.records.files import write_text
from opd_diag.replay import open_store
from opd_diag.replay import store as store_module
from opd_diag.replay.marker import MARKER
from opd_diag.replay.store import LOCK, SHARDS, refuse_inside, refuse_unfit


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoint-1").mkdir(parents=True)
    return folder


def part(store, name="rollouts/a.jsonl", key="k1", text="x", **options):
    """Ask for a part whose text is `text` when it must be made; give (its text, whether it was made)."""
    calls = []

    def make():
        calls.append(name)
        return text

    found = store.part(name, key, make=make, save=write_text, load=lambda path: path.read_text(), **options)
    return found, bool(calls)


def made(out_dir, run_dir, **options):
    with open_store(out_dir, run_dir) as store:
        assert part(store, **options)[1]
    return store


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("inside", [".", "out", "checkpoint-1", "checkpoint-1/deep/out", "../run", "../run/out"])
def test_inside_the_run_is_refused(run_dir, inside):
    for call in (refuse_unfit, lambda out, run: open_store(out, run).__enter__()):
        with pytest.raises(StoreError, match=r"inside the run folder.*--out"):
            call(run_dir / inside, run_dir)
    assert [p.name for p in run_dir.iterdir()] == ["checkpoint-1"]


def test_a_link_into_the_run_is_refused(run_dir, tmp_path):
    (tmp_path / "link").symlink_to(run_dir, target_is_directory=True)
    with pytest.raises(StoreError, match="inside the run folder"):
        refuse_unfit(tmp_path / "link" / "out", run_dir)


@pytest.mark.parametrize("out", ["teacher", "teacher/deep/out", "other/../teacher/out", "link/out"])
def test_inside_a_model_is_refused(tmp_path, out):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "teacher", target_is_directory=True)
    with pytest.raises(StoreError) as error:
        refuse_inside(tmp_path / out, "org/student", None, tmp_path / "teacher")
    assert str(error.value) == (
        f"The output folder {tmp_path / out} lies inside the model folder {tmp_path / 'teacher'}, which opd-diag never "
        "writes to. Choose another with --out."
    )
    assert not any((tmp_path / "teacher").iterdir())


def test_beside_and_around_a_model_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/teacher").mkdir(parents=True)
    for out in (".", "models", "models/teacher-out", "org/student/out"):
        refuse_inside(Path(out), "models/teacher", "org/student")


def test_beside_the_run_is_fine(run_dir, tmp_path):
    assert refuse_unfit(tmp_path / "run-report", run_dir).parts == {}
    assert refuse_unfit(tmp_path / "new" / "out", run_dir).parts == {}
    assert not (tmp_path / "new").exists()


def test_files_of_others_are_refused(run_dir, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"not of opd-diag.*--out"), open_store(out, run_dir):
        pass
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_below_a_folder_that_may_not_be_read(run_dir, tmp_path, monkeypatch):
    """Root may read all, so the system's answer to another user is given here."""

    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("exists", "is_file", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(StoreError, match=r"out: Permission denied\. Choose another folder with --out"):
        open_store(tmp_path / "secret/out", run_dir).__enter__()


def test_shards_that_are_a_link_lead_nowhere(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    (tmp_path / "home/empty").mkdir(parents=True)
    (tmp_path / "home/thesis.tex").write_text("years of work")
    for name in (SHARDS, "rollouts/.shards"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "home", target_is_directory=True)
    with open_store(tmp_path / "out", run_dir):
        pass
    assert files(tmp_path / "home") == ["thesis.tex"]
    assert (tmp_path / "home/empty").is_dir()
    assert not (tmp_path / "out" / SHARDS).exists()
    (tmp_path / "out" / SHARDS).mkdir()
    (tmp_path / "out" / SHARDS / "key").symlink_to(tmp_path / "home/empty", target_is_directory=True)
    with open_store(tmp_path / "out", run_dir):
        pass
    assert (tmp_path / "home/empty").is_dir()
    assert not any((tmp_path / "out" / SHARDS).iterdir())


def test_a_file_is_refused(run_dir, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match=r"is a file.*--out"):
        refuse_unfit(tmp_path / "out", run_dir)
    with pytest.raises(StoreError, match=r"Cannot write.*--out"), open_store(tmp_path / "out" / "below", run_dir):
        pass


def test_another_run_is_refused(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(StoreError) as error, open_store(tmp_path / "out", other):
        pass
    assert f"holds a report of {run_dir}, not of {other}" in str(error.value)


def test_parts_are_known_by_name_key_and_file(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    with open_store(tmp_path / "out", run_dir) as store:
        assert part(store, text="y") == ("x", False)
        assert part(store, name="rollouts/b.jsonl", text="y") == ("y", True)
        assert part(store, key="k2", text="z") == ("z", True)
        assert part(store, key="k1", text="w") == ("w", True), "one file holds one part"
        store.path("rollouts/a.jsonl").unlink()
        assert part(store, text="v") == ("v", True)
        assert store.notes == []


@pytest.mark.parametrize("text", ["y", "", "x" * 9, "\x00"])
def test_a_part_with_other_bytes_is_made_again_and_said(run_dir, tmp_path, text):
    made(tmp_path / "out", run_dir)
    file = tmp_path / "out/rollouts/a.jsonl"
    file.write_text(text)
    with open_store(tmp_path / "out", run_dir) as store:
        assert part(store) == ("x", True)
        assert store.notes == [f"{file} was damaged (its checksum differs). It was made again."]
    with open_store(tmp_path / "out", run_dir) as store:
        assert part(store) == ("x", False)
        assert store.notes == []


def test_a_part_that_says_nothing_of_ours_is_one_sentence(run_dir, tmp_path):
    """Its bytes are those that were noted: who forged it in a shared folder may have noted them too."""
    made(tmp_path / "out", run_dir)

    def nonsense(path):
        raise TypeError("missing 5 required positional arguments")

    with open_store(tmp_path / "out", run_dir) as store, pytest.raises(StoreError) as caught:
        store.part("rollouts/a.jsonl", "k1", make=pytest.fail, save=write_text, load=nonsense)
    assert "a.jsonl cannot be read: TypeError('missing 5 required" in str(caught.value)
    assert "Delete it, and leave --store out" in str(caught.value)


def test_a_part_that_cannot_be_made_leaves_nothing(run_dir, tmp_path):
    with pytest.raises(ZeroDivisionError), open_store(tmp_path / "out", run_dir) as store:
        store.part("a", "k", make=lambda: 1 / 0, save=write_text, load=Path.read_text)
    assert not (tmp_path / "out").exists()


def test_the_folder_is_marked_before_the_first_part_stands_in_it(run_dir, tmp_path):
    def die(path, text):
        write_text(path, text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_store(tmp_path / "out", run_dir) as store:
        store.part("a.txt", "k", make=lambda: "x", save=die, load=Path.read_text)
    assert files(tmp_path / "out") == [LOCK, MARKER, "a.txt"]
    with open_store(tmp_path / "out", run_dir) as store:
        assert part(store, "a.txt", "k") == ("x", True), "it was not noted, so nothing vouches for it"


def test_the_same_run_by_another_path_is_the_same(run_dir, tmp_path, monkeypatch):
    made(tmp_path / "out", run_dir)
    monkeypatch.chdir(tmp_path)
    with open_store(Path("out"), Path("run")) as store:
        assert part(store) == ("x", False)


def test_files_that_are_written_anew_are_noted(run_dir, tmp_path):
    with open_store(tmp_path / "out", run_dir) as store:
        write_text(store.path("states/a"), "x")
        store.note("states/a")
    with open_store(tmp_path / "out", run_dir) as store:
        assert store.parts["states/a"].fits(store.path("states/a"))


# Shards.


def shard(store, number, count=3, key="k1", text="s", rows=(0, 1)):
    calls = []
    keep = store.shards(key, ".txt", save=write_text, load=lambda path: path.read_text())
    return keep(Shard(number, count, [*rows]), lambda: calls.append(number) or f"{text}{number}"), bool(calls)


def test_shards_are_found_again_until_their_part_is_finished(run_dir, tmp_path):
    out = tmp_path / "out"
    with open_store(out, run_dir) as store:
        assert [shard(store, n) for n in (0, 1)] == [("s0", True), ("s1", True)]
        assert shard(store, 0, key="k2") == ("s0", True)
    with open_store(out, run_dir) as store:
        assert [shard(store, n, text="t") for n in range(3)] == [("s0", False), ("s1", False), ("t2", True)]
        for cut in ({"count": 4}, {"rows": (0, 2)}):
            assert shard(store, 0, **cut, text="t") == ("t0", True), "cut otherwise, it is another shard"
        part(store)
        assert [name for name in files(out) if SHARDS in name] == [f"{SHARDS}/k2/0000.txt"], "of another part"
        store.drop_shards()
    assert files(out) == [LOCK, MARKER, "rollouts/a.jsonl"]
    assert not (out / SHARDS).exists()


def test_a_part_of_one_shard_is_not_kept_twice(run_dir, tmp_path):
    with open_store(tmp_path / "out", run_dir) as store:
        assert shard(store, 0, count=1) == ("s0", True)
        assert files(tmp_path / "out") == [LOCK]


def test_a_damaged_shard_is_made_again(run_dir, tmp_path):
    with open_store(tmp_path / "out", run_dir) as store:
        shard(store, 0)
        (tmp_path / "out" / SHARDS / "k1" / "0000.txt").write_text("s1")
        assert shard(store, 0) == ("s0", True)
        assert len(store.notes) == 1


def test_what_a_killed_process_left_is_taken_away(run_dir, tmp_path):
    out = tmp_path / "out"
    with open_store(out, run_dir) as store:
        part(store)
        shard(store, 0)
    leftovers = [".report.json.abc123.part", "rollouts/.a.jsonl.x_y.part", f"{SHARDS}/k1/.0001.txt.q.part"]
    orphans = [f"{SHARDS}/k1/0001.txt", f"{SHARDS}/k9/0000.txt"]
    for name in (*leftovers, *orphans):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("half")
    before = files(out)
    refuse_unfit(out, run_dir)
    assert files(out) == before, "who only looks changes nothing"
    with open_store(out, run_dir) as store:
        assert files(out) == [LOCK, MARKER, f"{SHARDS}/k1/0000.txt", "rollouts/a.jsonl"]
        assert not (out / SHARDS / "k9").exists()
        assert shard(store, 0) == ("s0", False)


def test_a_scratch_folder_goes_with_its_block(run_dir, tmp_path):
    with open_store(tmp_path / "out", run_dir) as store:
        with store.scratch() as folder, store.scratch() as another:
            assert folder.parent == another.parent == tmp_path / "out/.shards"
            assert (tmp_path / "out/.opd-diag.json").is_file()
            (folder / "large").write_bytes(b"x")
        assert not (tmp_path / "out/.shards").exists()
    assert not (tmp_path / "out").exists()


def test_killed_before_the_folder_was_marked(run_dir, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{MARKER}.abc.part").write_text("{")
    (out / LOCK).write_text("")
    made(out, run_dir)
    assert files(out) == [LOCK, MARKER, "rollouts/a.jsonl"]


def test_nothing_is_left_when_nothing_was_finished(run_dir, tmp_path):
    with pytest.raises(RuntimeError), open_store(tmp_path / "new" / "out", run_dir):
        raise RuntimeError
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_of_the_user_stays(run_dir, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError), open_store(tmp_path / "out", run_dir):
        raise RuntimeError
    assert (tmp_path / "out").is_dir()
    with open_store(tmp_path / "out", run_dir) as store:
        assert store.parts == {}


def test_what_was_finished_stays_after_an_error(run_dir, tmp_path):
    def interrupted():
        with open_store(tmp_path / "out", run_dir) as store:
            part(store)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_store(tmp_path / "out", run_dir) as store:
        assert part(store) == ("x", False)


@pytest.fixture
def holder(run_dir, tmp_path):
    """Another process that has OUT_DIR open."""
    script = (
        "import pathlib, sys, time\n"
        "from opd_diag.replay import open_store\n"
        "with open_store(*map(pathlib.Path, sys.argv[1:])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out"), str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_another_process_is_kept_out(run_dir, tmp_path, holder):
    with pytest.raises(StoreError) as error, open_store(tmp_path / "out", run_dir):
        pass
    assert str(error.value) == (
        f"Another process writes to {tmp_path / 'out'}. Wait for it, or choose another folder with --out."
    )
    holder.stdin.close()
    assert holder.wait() == 0
    made(tmp_path / "out", run_dir)


def test_the_lock_of_a_killed_process_holds_nobody_up(run_dir, tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    assert (tmp_path / "out" / LOCK).is_file()
    made(tmp_path / "out", run_dir)


def test_the_lock_is_held_while_open_and_released_after(run_dir, tmp_path):
    lock = filelock.FileLock(tmp_path / "out" / LOCK, is_singleton=False)
    with open_store(tmp_path / "out", run_dir), pytest.raises(filelock.Timeout):
        lock.acquire(timeout=0)
    made(tmp_path / "out", run_dir)
    lock.acquire(timeout=0)
    lock.release()


def test_a_process_that_lost_the_race_leaves_the_winners_folder_alone(run_dir, tmp_path):
    with open_store(tmp_path / "out", run_dir):
        with pytest.raises(StoreError, match="Another process"), open_store(tmp_path / "out", run_dir):
            pass
        assert (tmp_path / "out").is_dir()


def test_a_folder_made_for_nothing_goes_while_it_is_locked(run_dir, tmp_path, monkeypatch):
    """Else the next process may have begun in it."""
    locked = []
    remove = store_module._remove_if_empty

    def spy(made):
        with pytest.raises(StoreError, match="Another process"), open_store(tmp_path / "new/out", run_dir):
            pass
        locked.append(True)
        remove(made)

    monkeypatch.setattr(store_module, "_remove_if_empty", spy)
    with open_store(tmp_path / "new/out", run_dir):
        pass
    assert locked == [True]
    assert not (tmp_path / "new").exists()
