"""A replay on a full or read-only disk, beside another, over damaged files, with a shared folder.

It is refused in one sentence, or ends in the report of one that was left in peace.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run as tiny

from opd_diag.errors import StoreError

from .crashing import command, content

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
