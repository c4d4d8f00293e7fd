"""A folder that OUT_DIRs share: found by key, trusted by content."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from opd_diag.errors import StoreError
from opd_diag.records.files import checksum, write_text
from opd_diag.replay import open_store
from opd_diag.replay.shared import SharedFolder

from .crashing import begun, ended

KEY = "ab" + "0" * 62


@pytest.fixture
def places(tmp_path):
    """(run folder, shared folder, a first and a second OUT_DIR)."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run", tmp_path / "shared", tmp_path / "first", tmp_path / "second"


def part(out, run, shared, text="x", key=KEY):
    """Ask for a part; give (its text, whether it was made, notes)."""
    calls = []
    with open_store(out, run, shared) as store:
        found = store.part(
            "scores/a.txt",
            key,
            make=lambda: calls.append(key) or text,
            save=write_text,
            load=lambda path: path.read_text(),
        )
    return found, bool(calls), store.notes


def test_what_one_folder_made_another_finds(places):
    run, shared, first, second = places
    assert part(first, run, shared) == ("x", True, [])
    assert part(second, run, shared, text="y") == ("x", False, [])
    assert part(second, run, shared, text="y", key="cd" + "0" * 62) == ("y", True, [])
    [kept] = (shared / "ab" / KEY).iterdir()
    assert kept.name == f"{checksum(first / 'scores/a.txt')}.txt"
    assert len(list(shared.rglob("*.txt"))) == 2


def test_each_folder_stands_alone(places):
    run, shared, first, second = places
    part(first, run, shared)
    part(second, run, shared)
    for kept in shared.rglob("*.txt"):
        kept.unlink()
    for out in (first, second):
        assert part(out, run, None, text="y") == ("x", False, [])


def test_another_run_finds_it_too(places, tmp_path):
    run, shared, first, second = places
    part(first, run, shared)
    (tmp_path / "other").mkdir()
    assert part(second, tmp_path / "other", shared, text="y") == ("x", False, [])


def test_what_was_there_before_is_shared_when_asked_for(places):
    run, shared, first, second = places
    part(first, run, None)
    assert not shared.exists()
    part(first, run, shared)
    assert part(second, run, shared, text="y") == ("x", False, [])


def test_a_damaged_file_is_not_used_and_is_replaced(places):
    run, shared, first, second = places
    part(first, run, shared)
    [kept] = (shared / "ab" / KEY).iterdir()
    kept.unlink()
    kept.write_text("y")
    assert part(second, run, shared) == ("x", True, [])
    assert kept.read_text() == "x"
    assert (first / "scores/a.txt").read_text() == "x"


def test_a_symbolic_link_is_not_used_wherever_it_points(places, tmp_path):
    run, shared, first, second = places
    part(first, run, shared)
    [kept] = (shared / "ab" / KEY).iterdir()
    kept.rename(tmp_path / "elsewhere.txt")
    kept.symlink_to(tmp_path / "elsewhere.txt")
    (kept.parent / "0.txt").symlink_to(tmp_path / "nowhere.txt")
    assert part(second, run, shared) == ("x", True, [])
    assert not kept.is_symlink()
    assert SharedFolder(shared).find(KEY, ".txt") == kept


def test_a_damaged_part_is_taken_from_there(places):
    run, shared, first, _ = places
    part(first, run, shared)
    (first / "scores/a.txt").unlink()
    (first / "scores/a.txt").write_text("y")
    found, made, notes = part(first, run, shared)
    assert (found, made, len(notes)) == ("x", False, 1)


def test_a_byte_flipped_through_the_link_damages_both_and_mends_both(places):
    run, shared, first, second = places
    part(first, run, shared)
    (first / "scores/a.txt").write_text("y")
    found, made, notes = part(first, run, shared)
    assert (found, made, len(notes)) == ("x", True, 1)
    assert part(second, run, shared, text="z") == ("x", False, [])


def test_a_disk_without_links_gets_copies(places, monkeypatch):
    run, shared, first, second = places

    def refuse(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    part(first, run, shared)
    assert part(second, run, shared, text="y") == ("x", False, [])


def test_another_disk_gets_copies(places, small_disk):
    run, _, first, second = places
    part(first, run, small_disk / "shared")
    assert part(second, run, small_disk / "shared", text="y") == ("x", False, [])
    assert [p.read_text() for p in small_disk.rglob("*.txt")] == ["x"]


def test_a_full_disk_keeps_what_was_finished(places, small_disk):
    run, _, first, _ = places
    big = "x" * 3_000_000
    with pytest.raises(StoreError, match=r"No space left on device\. Free some space"):
        part(first, run, small_disk / "shared", text=big)
    assert not [p for p in small_disk.rglob("*") if p.is_file()]
    assert part(first, run, None) == (big, False, [])


@pytest.mark.parametrize("inside", [".", "store", "../run/deep/store"])
def test_inside_the_run_is_refused(places, inside):
    run, _, first, _ = places
    with pytest.raises(StoreError, match=r"lies inside .* the run folder.*Choose another with --store"):
        part(first, run, run / inside)
    assert list(run.iterdir()) == []
    assert not first.exists()


def test_a_tilde_is_the_home_folder(places, tmp_path, monkeypatch):
    run, _, first, _ = places
    monkeypatch.setenv("HOME", str(tmp_path))
    part(first, run, "~/mine")
    assert len(list((tmp_path / "mine").rglob("*.txt"))) == 1
    with pytest.raises(StoreError, match="the run folder"):
        part(first, run, "~/run/store")


def test_inside_the_output_folder_is_refused(places):
    run, _, first, _ = places
    for shared in (first, first / "store"):
        with pytest.raises(StoreError, match=r"the output folder\. Choose another with --store"):
            part(first, run, shared)
    assert not first.exists()


def test_a_file_is_refused(places):
    run, shared, first, _ = places
    shared.write_text("")
    for folder in (shared, shared / "below"):
        with pytest.raises(StoreError, match=r"is a file\. Choose another with --store"):
            part(first, run, folder)
    assert not first.exists()


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(places, monkeypatch):
    run, shared, first, _ = places
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(StoreError, match=r"cannot be written to\. Choose another folder with --store, or leave it out"):
        part(first, run, shared)
    assert not first.exists()


def test_many_processes_at_once(places):
    """Each makes the same parts from scratch, and all of them use one folder."""
    run, shared, first, _ = places

    def fill(out):
        with open_store(out, run, shared) as store:
            for n in range(40):
                found = store.part(
                    f"{n}.txt", f"{n:064}", make=lambda n=n: str(n) * 999, save=write_text, load=Path.read_text
                )
                assert found == str(n) * 999

    children = [begun(partial(fill, first.with_name(f"out{i}"))) for i in range(4)]
    assert [ended(child) for child in children] == [0] * 4
    assert len([p for p in shared.rglob("*") if p.is_file()]) == 40
    folder = SharedFolder(shared)
    assert all(folder.find(f"{n:064}", ".txt") for n in range(40))
    assert folder.damaged == []
