"""The marker: whatever happens to it, no part is taken for another, and nothing that can be read is lost."""

from __future__ import annotations

import json

import pytest

from opd_diag.errors import StoreError
from opd_diag.records.files import content_key
from opd_diag.replay.marker import (
    MARKER,
    REPORT,
    VERSIONS,
    Finished,
    Marker,
    read_marker,
    refuse_damaged,
    report_of,
    write_marker,
)

PARTS = {"rollouts/a.jsonl": Finished("k1", "a" * 64, 5), "scores/ü.safetensors": Finished("k2", "b" * 64, 7)}


@pytest.fixture
def marked(tmp_path):
    """(OUT_DIR with a marker, run folder)."""
    out, run = tmp_path / "out", tmp_path / "run ü"
    run.mkdir()
    write_marker(out, run, PARTS)
    return out, run


def rewritten(out, **changes):
    """Change the marker as an honest writer would: with its checksum."""
    content = json.loads((out / MARKER).read_text(encoding="utf-8")) | changes
    del content["checksum"]
    content = {name: value for name, value in content.items() if value is not None}
    (out / MARKER).write_text(json.dumps({**content, "checksum": content_key(content)}), encoding="utf-8")


def test_what_was_written_is_read(marked):
    assert read_marker(*marked) == Marker(PARTS, [])
    content = json.loads((marked[0] / MARKER).read_text(encoding="utf-8"))
    assert content["run_dir"] == str(marked[1])
    assert VERSIONS.items() <= content.items()


def test_a_finished_part_fits_its_bytes_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    noted = Finished.of("k", tmp_path / "a")
    assert noted.fits(tmp_path / "a")
    for other in (b"abd", b"ab", b"abcd", b""):
        (tmp_path / "a").write_bytes(other)
        assert not noted.fits(tmp_path / "a")
    (tmp_path / "a").unlink()
    assert not noted.fits(tmp_path / "a")


@pytest.mark.parametrize("bit", [1, 2, 32, 128])
def test_one_flipped_bit_anywhere_is_found_and_loses_at_most_what_it_hit(marked, bit):
    out, run = marked
    good = (out / MARKER).read_bytes()
    kept = 0
    for place in range(len(good)):
        (out / MARKER).write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
        found = read_marker(out, run)
        assert len(found.notes) == 1 or found.parts == PARTS, place  # white space may change for nothing
        changed = {name: part for name, part in found.parts.items() if PARTS.get(name) != part}
        assert len(changed) <= 1
        for name, part in changed.items():  # fits no name, no key, or no file that there is
            assert name not in PARTS or part.key != PARTS[name].key or part != PARTS[name]
        kept += len(found.parts) - len(changed)
    assert kept > 1.5 * len(good), "of two parts both outlive most flips"


@pytest.mark.parametrize("name", VERSIONS)
def test_a_newer_version_is_left_alone(marked, name):
    out, run = marked
    rewritten(out, **{name: VERSIONS[name] + 1})
    with pytest.raises(StoreError) as error:
        read_marker(out, run)
    assert str(error.value) == (
        f"The output folder {out} was written by a newer opd-diag ({name.replace('_', ' ')} {VERSIONS[name] + 1}, "
        f"this one reads {VERSIONS[name]}). Choose another folder with --out, or install the newer version."
    )


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_that_only_a_flipped_byte_made_newer_is_damage(marked, name):
    out, run = marked
    text = (out / MARKER).read_text(encoding="utf-8")
    known = f'"{name}": {VERSIONS[name]}'
    assert known in text
    (out / MARKER).write_text(text.replace(known, f'"{name}": 9'), encoding="utf-8")
    assert read_marker(out, run).parts == PARTS


def test_the_first_version_is_read_and_its_parts_are_made_again(marked):
    out, run = marked
    (out / MARKER).write_text(json.dumps({"run_dir": str(run), "parts": {"a": "k"}}, ensure_ascii=False))
    found = read_marker(out, run)
    assert found.parts == {}
    assert found.notes == [f"An earlier opd-diag began {out} and kept no checksums. Everything in it was made again."]
    (out / MARKER).write_text(json.dumps({"run_dir": str(run), "parts": {}}, ensure_ascii=False))
    assert read_marker(out, run) == Marker()


def test_another_run_is_refused(marked, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    with pytest.raises(StoreError) as error:
        read_marker(marked[0], other)
    assert str(error.value).startswith(f"The output folder {marked[0]} holds a report of {marked[1]}, not of {other}.")
    assert "--out" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00", '{"parts": {}}', '"run"', '{"checksum": 3}'])
def test_a_marker_that_tells_no_run_is_refused(marked, text):
    (marked[0] / MARKER).write_text(text)
    with pytest.raises(StoreError, match="--out"):
        read_marker(*marked)


@pytest.mark.parametrize(
    "parts",
    [
        None, 3, [], "x", {"a": 3}, {"a": {}}, {"a": {"key": "k", "sha256": "s"}},
        {"a": {"key": "k", "sha256": "s", "size": "3"}}, {"a": {"key": "k", "sha256": "s", "size": 3, "x": 1}},
    ],
)  # fmt: skip
def test_entries_that_are_none_vouch_for_nothing(marked, parts):
    rewritten(marked[0], parts=parts)
    assert read_marker(*marked).parts == {}


def test_a_marker_that_cannot_be_read(marked):
    (marked[0] / MARKER).unlink()
    (marked[0] / MARKER).mkdir()
    with pytest.raises(StoreError, match=r"cannot be read: Is a directory\. Choose another folder with --out"):
        read_marker(*marked)


@pytest.fixture
def finished(tmp_path):
    """(OUT_DIR with four noted files, their names)."""
    out, names = (
        tmp_path / "out",
        ["rollouts/a.jsonl", "states/a.parquet", "coverage/a.parquet", "scores/a.safetensors"],
    )
    for name in names:
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(name)
    write_marker(out, tmp_path, {name: Finished.of("", out / name) for name in names})
    return out, names


def test_who_reads_without_models_is_told_of_damage(finished):
    out, names = finished
    refuse_damaged(out)
    for name in names[:3]:
        (out / name).write_text(name.upper())
        with pytest.raises(StoreError) as error:
            refuse_damaged(out)
        assert str(error.value) == f"{out / name} was damaged (its checksum differs). Run report again."
        (out / name).write_text(name)
    (out / names[3]).write_text("scores are not read again")
    refuse_damaged(out)
    (out / names[0]).unlink()
    refuse_damaged(out)


def test_a_report_is_not_judged_by_files_that_are_newer(finished):
    out, names = finished
    parts = {name: Finished.of("", out / name) for name in names}
    write_marker(out, out.parent, parts | {REPORT: report_of(parts)})
    refuse_damaged(out)
    for name in names:
        (out / name).write_text(name * 2)
        newer = parts | {name: Finished.of("", out / name), REPORT: report_of(parts)}
        write_marker(out, out.parent, newer)
        if name in names[:3]:
            with pytest.raises(StoreError, match=r"A later report in .* was begun and not finished\. Run report again"):
                refuse_damaged(out)
        else:  # scores are not read again
            refuse_damaged(out)
        (out / name).write_text(name)


def test_where_nothing_is_known_nothing_is_said(finished):
    out, names = finished
    (out / names[0]).write_text("x")
    text = (out / MARKER).read_text()
    (out / MARKER).write_text(text.replace('"size": 16', '"size": 17'))
    refuse_damaged(out)
    (out / MARKER).unlink()
    refuse_damaged(out)
