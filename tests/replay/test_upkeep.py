"""What a shared folder holds, what is taken away from it, and who must survive that."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from opd_diag.errors import InputError, StoreError
from opd_diag.records.files import write_text
from opd_diag.replay import open_store
from opd_diag.replay.shared import SharedFolder
from opd_diag.replay.upkeep import DAY, delete_parts, parts_to_delete, stored_parts

from .crashing import begun, ended

NOW = 2_000_000_000.0
NAMES = {"rollouts/a.jsonl": 10, "scores/a.safetensors": 3000, "coverage/a.parquet": 200, ".checks/a.json": 1}
"""Parts by name, and how many characters each has."""


def key(number):
    return f"{number:064x}"


def filled(out, run, shared, names=NAMES):
    """Make one part of each kind; the first is used last."""
    with open_store(out, run, shared) as store:
        for number, (name, size) in enumerate(names.items()):
            text = str(number) * size
            store.part(name, key(number), make=lambda t=text: t, save=write_text, load=lambda path: path.read_text())
    for number, name in enumerate(names):
        kept = SharedFolder(shared).find(key(number), os.path.splitext(name)[1])
        os.utime(kept, (NOW, NOW - number * DAY))
    return shared


@pytest.fixture
def places(tmp_path):
    """(run folder, shared folder, OUT_DIR)."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run", tmp_path / "shared", tmp_path / "out"


@pytest.fixture
def shared(places):
    run, shared, out = places
    return filled(out, run, shared)


def left(shared):
    return [part.kind for part in stored_parts(shared, NOW).parts]


def deleted(shared, **rules):
    contents = stored_parts(shared, NOW)
    chosen = parts_to_delete(contents, now=NOW, **rules)
    delete_parts(contents, chosen)
    return [part.kind for part in chosen]


def test_what_it_holds(shared):
    contents = stored_parts(shared, NOW)
    assert [p.kind for p in contents.parts] == ["checks", "coverage", "scores", "rollouts"]
    assert [p.size for p in contents.parts] == [1, 200, 3000, 10]
    assert contents.size == 3211
    assert [p.key for p in contents.parts] == [key(3), key(2), key(1), key(0)]
    assert [(NOW - p.used) / DAY for p in contents.parts] == [3, 2, 1, 0]
    assert all(p.linked for p in contents.parts)
    assert (contents.leftovers, contents.foreign) == ((), 0)


def test_a_part_that_is_found_is_used_now(shared, places):
    run, _, out = places
    before = {p.kind: p.used for p in stored_parts(shared, NOW).parts}
    for folder in (out, out.with_name("second")):  # where it stands already, and where it is taken from here
        os.utime(SharedFolder(shared).find(key(1), ".safetensors"), (NOW, NOW - DAY))
        with open_store(folder, run, shared) as store:
            store.part("scores/a.safetensors", key(1), make=pytest.fail, save=pytest.fail, load=lambda path: None)
        after = {p.kind: p.used for p in stored_parts(shared, NOW).parts}
        assert after["scores"] != before["scores"]
        assert {**after, "scores": 0} == {**before, "scores": 0}


def test_a_part_of_another_user_stays_as_old_as_it_is(shared, places, monkeypatch):
    run, _, out = places

    def refuse(*args, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    with open_store(out, run, shared) as store:
        store.part("scores/a.safetensors", key(1), make=pytest.fail, save=pytest.fail, load=lambda path: None)
    assert stored_parts(shared, NOW).parts[2].used == NOW - DAY


def test_nothing_is_chosen_without_a_rule(shared):
    assert parts_to_delete(stored_parts(shared)) == []


def test_what_nobody_used_for_long(shared):
    assert deleted(shared, older_than=1) == ["checks", "coverage"]
    assert left(shared) == ["scores", "rollouts"]
    assert deleted(shared, older_than=0.5) == ["scores"]


@pytest.mark.parametrize(
    ("most", "gone"),
    [(3211, 0), (3210, 1), (3209, 2), (3010, 2), (3009, 3), (10, 3), (9, 4), (0, 4)],
)
def test_the_least_recently_used_go_until_it_is_small_enough(shared, most, gone):
    assert deleted(shared, max_bytes=most) == ["checks", "coverage", "scores", "rollouts"][:gone]
    assert stored_parts(shared).size <= most


def test_rules_add_up(shared):
    assert deleted(shared, older_than=2.5, max_bytes=3010) == ["checks", "coverage"]


def test_everything(shared):
    assert len(deleted(shared, everything=True)) == 4
    assert list(shared.iterdir()) == []
    assert stored_parts(shared).parts == ()


def test_output_folders_keep_their_own(shared, places):
    run, _, out = places
    deleted(shared, everything=True)
    with open_store(out, run) as store:
        read = store.part(
            "scores/a.safetensors", key(1), make=pytest.fail, save=pytest.fail, load=lambda p: p.read_text()
        )
    assert read == "1" * 3000


def test_what_deleting_frees(shared, places):
    _, _, out = places
    (out / "scores/a.safetensors").unlink()
    contents = stored_parts(shared, NOW)
    assert [p.kind for p in contents.parts if not p.linked] == ["scores"]
    assert delete_parts(contents, contents.parts) == 3000


def test_half_written_files_go_when_they_are_old(shared):
    whole = SharedFolder(shared).find(key(1), ".safetensors")
    half = whole.with_name(f".{whole.name}.k3_x1.part")
    os.link(whole, half)
    now = half.stat().st_ctime
    os.utime(half, (NOW, 0))  # the link may be of a file that was old already: its own age counts
    for later, there in ((DAY - 1, 0), (DAY + 1, 1)):
        contents = stored_parts(shared, now + later)
        assert len(contents.leftovers) == there
        assert len(parts_to_delete(contents, leftovers=True)) == there
    assert half.is_file()
    delete_parts(contents, parts_to_delete(contents, leftovers=True))
    assert not half.exists()
    assert whole.is_file()


def foreign_files(shared):
    """Files that lie there and are none of ours."""
    home = shared / "00" / key(1)
    for name in ("notes.txt", "ab/README", f"00/{key(1)}/a.safetensors", f"00/{key(1)}x/{'0' * 64}.json", "zz/x"):
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_text("mine")
    (shared / "01").symlink_to(shared / "00")
    (home / f"{'e' * 64}.jsonl").symlink_to(shared / "notes.txt")
    return [p for p in shared.rglob("*") if p.is_symlink() or (p.is_file() and p.read_text() == "mine")]


def test_what_is_not_ours_is_left_alone(shared):
    mine = foreign_files(shared)
    assert len(mine) == 7
    contents = stored_parts(shared, NOW)
    assert len(contents.parts) == 4
    assert contents.foreign == 7
    deleted(shared, everything=True, leftovers=True, older_than=0, max_bytes=0)
    assert all(p.is_symlink() or p.read_text() == "mine" for p in mine)


def test_a_folder_of_something_else_is_refused(places, shared):
    run, _, out = places
    (run / "model.safetensors").write_text("")
    for folder in (run, out, shared / "00" / key(1)):
        with pytest.raises(StoreError, match=r"no folder of shared parts.*Give the folder that they name with --store"):
            stored_parts(folder)


def test_an_empty_folder_holds_nothing(tmp_path):
    assert stored_parts(tmp_path).parts == ()


def test_no_folder(tmp_path):
    with pytest.raises(StoreError, match=r"gone does not exist\. Give the folder that reports name with --store"):
        stored_parts(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        stored_parts(tmp_path / "file")


def test_a_tilde_is_the_home_folder(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(stored_parts("~/shared").parts) == 4


def test_numbers_below_zero_are_refused(shared):
    for rule in ("older_than", "max_bytes"):
        for value in (-1, float("nan")):
            with pytest.raises(InputError, match="must be at least 0"):
                parts_to_delete(stored_parts(shared), **{rule: value})


def test_what_may_not_be_deleted_is_one_sentence(shared, monkeypatch):
    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(StoreError, match=r"cannot be deleted: Permission denied\. Ask for the permission"):
        delete_parts(stored_parts(shared), stored_parts(shared).parts)


def test_two_that_clean_up_at_once(shared):
    contents = stored_parts(shared)
    assert delete_parts(contents, contents.parts) == 0
    assert delete_parts(contents, contents.parts) == 0


def test_a_part_taken_away_while_it_is_read_is_made_again(shared, places, monkeypatch):
    run, _, out = places
    link = os.link

    def too_late(source, target):
        os.unlink(source)
        monkeypatch.setattr(os, "link", link)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "link", too_late)
    with open_store(out.with_name("second"), run, shared) as store:
        made = store.part("a.jsonl", key(0), make=lambda: "new", save=write_text, load=lambda path: path.read_text())
    assert made == "new"
    assert SharedFolder(shared).find(key(0), ".jsonl").read_text() == "new"


def test_reports_survive_a_clean_up_under_their_hands(places):
    """Two processes ask for the same parts over and over while a third takes everything away."""
    run, shared, out = places

    def fill(out):
        for _ in range(12):
            with open_store(out, run, shared) as store:
                for n in range(12):
                    text = store.part(
                        f"{n}.txt", f"{n:064x}", make=lambda n=n: str(n) * 999, save=write_text, load=Path.read_text
                    )
                    assert text == str(n) * 999
            shutil.rmtree(out)

    shared.mkdir()
    children = [begun(partial(fill, out.with_name(f"out{i}"))) for i in range(2)]
    gone, at_work = 0, set(children)
    while at_work:
        contents = stored_parts(shared)
        gone += len(contents.parts)
        delete_parts(contents, parts_to_delete(contents, everything=True))
        at_work -= {child for child in at_work if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)}
    assert [ended(child) for child in children] == [0, 0]
    assert gone > 0


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_place_taken_away_while_it_is_made_is_made_again(places, monkeypatch, error):
    run, shared, out = places
    link, refused = os.link, []

    def too_soon(source, target):
        if len(refused) < 3:
            refused.append(target)
            raise error(2, "as pathlib has it")
        link(source, target)

    def no_copies(source, target):
        raise error(2, "as pathlib has it")

    monkeypatch.setattr(os, "link", too_soon)
    monkeypatch.setattr("shutil.copyfile", no_copies)
    filled(out, run, shared, {"a.jsonl": 5})
    assert len(refused) == 3
    refused.clear()
    monkeypatch.setattr(os, "link", no_copies)
    with pytest.raises(StoreError, match="Cannot write"):
        filled(out.with_name("second"), run, shared.with_name("other"), {"a.jsonl": 5})
