"""OUT_DIR: whose it is, who writes to it, and what is left of it."""

from __future__ import annotations

import json
import subprocess
import sys

import filelock
import pytest

from opd_diag.errors import StoreError
from opd_diag.replay import Store, open_store
from opd_diag.replay.store import LOCK, MARKER, refuse_unfit


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoint-1").mkdir(parents=True)
    return folder


def made(out_dir, run_dir, name="rollouts/a.jsonl", key="k1"):
    with open_store(out_dir, run_dir) as store:
        store.path(name).parent.mkdir(exist_ok=True)
        store.path(name).write_text("x")
        store.finished(name, key)
    return store


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


def test_beside_the_run_is_fine(run_dir, tmp_path):
    assert refuse_unfit(tmp_path / "run-report", run_dir) == {}
    assert refuse_unfit(tmp_path / "new" / "out", run_dir) == {}
    assert not (tmp_path / "new").exists()


def test_files_of_others_are_refused(run_dir, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"not of opd-diag.*--out"), open_store(out, run_dir):
        pass
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(run_dir, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match=r"is a file.*--out"):
        refuse_unfit(tmp_path / "out", run_dir)
    with pytest.raises(StoreError, match=r"Cannot make.*--out"), open_store(tmp_path / "out" / "below", run_dir):
        pass


def test_another_run_is_refused(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(StoreError) as error, open_store(tmp_path / "out", other):
        pass
    assert f"holds a report of {run_dir}, not of {other}" in str(error.value)


def test_parts_are_known_by_their_key_and_file(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    with open_store(tmp_path / "out", run_dir) as store:
        assert store.has("rollouts/a.jsonl", "k1")
        assert not store.has("rollouts/a.jsonl", "k2")
        assert not store.has("rollouts/b.jsonl", "k1")
        store.path("rollouts/a.jsonl").unlink()
        assert not store.has("rollouts/a.jsonl", "k1")


def test_the_same_run_by_another_path_is_the_same(run_dir, tmp_path, monkeypatch):
    made(tmp_path / "out", run_dir)
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with open_store(Path("out"), Path("run")) as store:
        assert store.has("rollouts/a.jsonl", "k1")


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
    opened = open_store(tmp_path / "out", run_dir)
    store = opened.__enter__()
    store.path("a.txt").write_text("x")
    store.finished("a.txt", "k")
    assert not opened.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with open_store(tmp_path / "out", run_dir) as store:
        assert store.has("a.txt", "k")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"run_dir": 3, "parts": []}', '{"parts": "x"}', "\x00", '{"run_dir": "RUN", "parts": null}'],
)
def test_a_damaged_marker_is_refused(run_dir, tmp_path, text):
    made(tmp_path / "out", run_dir)
    (tmp_path / "out" / MARKER).write_text(text.replace("RUN", str(run_dir)))
    with pytest.raises(StoreError, match=r"--out"), open_store(tmp_path / "out", run_dir):
        pass


def test_the_marker_says_what_it_is(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    marker = json.loads((tmp_path / "out" / MARKER).read_text())
    assert marker == {"run_dir": str(run_dir), "parts": {"rollouts/a.jsonl": "k1"}}


def test_another_process_is_kept_out(run_dir, tmp_path):
    made(tmp_path / "out", run_dir)
    hold = (
        "import sys, filelock\n"
        "lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "out" / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError) as error, open_store(tmp_path / "out", run_dir):
            pass
        holder.stdin.close()
        holder.wait()
    assert str(error.value).startswith(f"Another process writes to {tmp_path / 'out'}.")
    assert "--out" in str(error.value)
    with open_store(tmp_path / "out", run_dir) as store:
        assert isinstance(store, Store)


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
