"""The command that looks after a shared folder: what it says, and that it deletes only when it is told to."""

from __future__ import annotations

import os
import time

import pytest
from typer.testing import CliRunner

from opd_diag.cli import app
from opd_diag.records.files import checksum, write_text

DAY = 86_400
SIZES = {"jsonl": 2_000, "safetensors": 3_000_000, "parquet": 500, "json": 40}


def invoke(*words):
    return CliRunner().invoke(app, ["store", *map(str, words)])


def said(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [line.split() for line in result.stdout.splitlines()]


@pytest.fixture
def shared(tmp_path):
    """A shared folder: one part of each kind, each a day older than the one before."""
    now = time.time()
    for age, (ending, size) in enumerate(SIZES.items()):
        key = f"{age:02x}" + "0" * 62
        draft = tmp_path / "draft"
        write_text(draft, str(age) * size)
        place = tmp_path / "shared" / key[:2] / key / f"{checksum(draft)}.{ending}"
        place.parent.mkdir(parents=True)
        draft.rename(place)
        os.utime(place, (now, now - age * DAY - 60))
    return tmp_path / "shared"


def files(folder):
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


EVERYTHING = [".json", ".jsonl", ".parquet", ".safetensors"]


def test_size_and_kinds(shared):
    (shared / "README").write_text("mine")
    lines = said(shared)
    assert " ".join(lines[0]) == f"{shared}: 4 parts, 3.0 MB (0 B of it also in output folders)"
    assert lines[1] == ["kind", "parts", "size", "oldest", "use", "newest", "use"]
    assert [line[:4] for line in lines[2:6]] == [
        ["checks", "1", "40", "B"], ["coverage", "1", "500", "B"], ["rollouts", "1", "2.0", "kB"],
        ["scores", "1", "3.0", "MB"],
    ]  # fmt: skip
    today = time.strftime("%Y-%m-%d", time.localtime(time.time() - 60))
    assert lines[4][4] == today
    assert lines[5][4] < today
    assert " ".join(lines[6]) == "not ours 1 file, never touched"
    assert len(lines) == 7
    assert files(shared) == ["", *EVERYTHING]


def test_the_list_names_every_part(shared):
    lines = said(shared, "--list")[6:]
    assert lines[0] == ["last", "use", "kind", "bytes", "key"]
    assert [line[2:] for line in lines[1:]] == [
        ["checks", "40", "03" + "0" * 62], ["coverage", "500", "02" + "0" * 62],
        ["scores", "3000000", "01" + "0" * 62], ["rollouts", "2000", "00" + "0" * 62],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "what", "stays"),
    [
        (["--older-than", "2"], "2 files, 540 B; 540 B", [".jsonl", ".safetensors"]),
        (["--max-size", "0.003002"], "2 files, 540 B; 540 B", [".jsonl", ".safetensors"]),
        (["--max-size", "0.003001"], "3 files, 3.0 MB; 3.0 MB", [".jsonl"]),
        (["--max-size", "1"], "0 files, 0 B; 0 B", EVERYTHING),
        (["--leftovers"], "0 files, 0 B; 0 B", EVERYTHING),
        (["--all"], "4 files, 3.0 MB; 3.0 MB", []),
    ],
)
def test_nothing_is_deleted_without_yes(shared, rule, what, stays):
    last = " ".join(said(shared, *rule)[-1])
    counted, freed = what.split("; ")
    assert last == f"would delete {counted}; this would free {freed}. Add --yes to do it."
    assert files(shared) == EVERYTHING
    last = " ".join(said(shared, *rule, "--yes")[-1])
    assert last == f"deleted {counted}; this freed {freed}"
    assert files(shared) == stays


def test_the_list_marks_what_would_go(shared):
    lines = said(shared, "--list", "--older-than", "2")[7:-1]
    assert [line[-2:] == ["to", "delete"] for line in lines] == [True, True, False, False]


def test_parts_that_output_folders_hold_too(shared, tmp_path):
    part = next(shared.rglob("*.safetensors"))
    os.link(part, tmp_path / "linked")
    lines = said(shared, "--all", "--yes")
    assert "(3.0 MB of it also in output folders)" in " ".join(lines[0])
    assert " ".join(lines[-1]) == "deleted 4 files, 3.0 MB; this freed 2.5 kB (output folders hold the rest)"
    assert (tmp_path / "linked").stat().st_size == 3_000_000


def test_what_was_never_finished(shared):
    part = next(shared.rglob("*.json"))
    (part.parent / f".{part.name}.x1.part").write_text("half")
    assert not [line for line in said(shared) if line[:2] == ["half", "written"]], "it may be under way"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent"], "does not exist. Give the folder that reports name with --store"),
        (["."], "no folder of shared parts"),
        ([None, "--older-than", "-1"], "--older-than must be at least 0, found -1"),
        ([None, "--max-size", "nan", "--yes"], "--max-size must be at least 0, found nan"),
        ([None, "--max-size", "-1"], "--max-size must be at least 0, found -1."),
        ([None, "--yes"], "--yes alone deletes nothing. Add --older-than"),
        ([None, "--all", "--older-than", "30", "--yes"], "--all deletes every part. Leave it out"),
    ],
)
def test_bad_input_is_one_sentence(shared, tmp_path, monkeypatch, words, message):
    (tmp_path / "model.safetensors").write_text("")
    monkeypatch.chdir(tmp_path)
    result = invoke(*(shared if word is None else word for word in words))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert files(shared) == EVERYTHING
