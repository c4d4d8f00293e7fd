"""A file of weights is read once; what is remembered of it never outlives a change of it."""

from __future__ import annotations

import json
import os
import pickle
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from opd_diag.runs import contents, digests
from opd_diag.runs.digests import DIGESTS, Digests


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let a file of 20 bytes be large."""
    monkeypatch.setattr(digests, "_SAMPLES", 2)
    monkeypatch.setattr(digests, "_SAMPLE", 10)


@pytest.fixture
def reads(monkeypatch):
    """The files that were read from end to end."""
    done = []
    monkeypatch.setattr(
        digests, "read_content", lambda file, stop: done.append(file) or contents.read_content(file, stop)
    )
    return done


@pytest.fixture
def file(tmp_path):
    save_file({"a": np.arange(100, dtype=np.float32), "b": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_file_is_read_once(file, reads):
    known = Digests()
    assert not known.unsaved
    first = known.of(file)
    assert known.unsaved
    assert known.of(file) == first == contents.read_content(file)
    assert reads == [file]


def test_a_link_to_it_is_the_same_file(file, reads, tmp_path):
    (tmp_path / "link").symlink_to(file)
    known = Digests()
    assert known.of(tmp_path / "link") == known.of(file)
    assert len(reads) == 1


def test_a_small_file_is_read_each_time(tmp_path, reads):
    known, config = Digests(), tmp_path / "config.json"
    for text in ("{}", "[]"):
        config.write_text(text)
        os.utime(config, ns=(1, 1))
        assert known.of(config) == contents.read_content(config)
    assert len(reads) == 2
    assert not known.unsaved


@pytest.mark.parametrize("how", ["touched", "rewritten", "replaced"])
def test_a_change_is_seen(file, reads, how, tmp_path):
    known = Digests()
    before = known.of(file)
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    if how == "touched":
        os.utime(file, ns=(1, 1))
    elif how == "rewritten":
        file.write_bytes(data)
    else:
        (tmp_path / "new").write_bytes(data)
        os.replace(tmp_path / "new", file)
    assert (known.of(file).digest == before.digest) == (how == "touched")
    assert len(reads) == 2


def test_a_change_that_the_stamps_hide_is_seen_in_the_samples(file, reads, monkeypatch):
    known = Digests()
    before, stamp = known.of(file), contents.Stamp.of(file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr(contents.Stamp, "of", lambda path: stamp)
    assert known.of(file).digest != before.digest


class TestSaved:
    def test_what_was_saved_need_not_be_read(self, file, reads, tmp_path):
        known = Digests()
        first = known.of(file)
        known.save(tmp_path / DIGESTS)
        assert not known.unsaved
        again = Digests.saved(tmp_path / DIGESTS)
        assert again.of(file) == first
        assert not again.unsaved
        assert reads == [file]

    def test_a_change_since_then_is_seen(self, file, reads, tmp_path):
        known = Digests()
        known.of(file)
        known.save(tmp_path / DIGESTS)
        save_file({"a": np.arange(100, dtype=np.float32), "b": np.zeros(3, np.float32)}, file)
        assert Digests.saved(tmp_path / DIGESTS).of(file) == contents.read_content(file)
        assert len(reads) == 2

    def test_files_that_are_gone_are_forgotten(self, file, tmp_path):
        known = Digests()
        known.of(file)
        file.unlink()
        known.save(tmp_path / DIGESTS)
        assert json.loads((tmp_path / DIGESTS).read_text())["files"] == {}

    @pytest.mark.parametrize(
        "harm",
        [
            lambda text: None,
            lambda text: "",
            lambda text: "[]",
            lambda text: "{}",
            lambda text: text[: len(text) // 2],
            lambda text: text.replace('"version": 1', '"version": 99'),
            lambda text: text.replace('"dtype": "F32"', '"dtype": "F16"'),
            lambda text: text.replace('"sample"', '"simple"'),
            lambda text: "\x00" * len(text),
        ],
        ids=["missing", "empty", "list", "object", "cut", "newer", "changed", "other fields", "zeros"],
    )
    def test_a_damaged_or_foreign_file_is_ignored(self, file, reads, tmp_path, harm):
        known = Digests()
        first = known.of(file)
        known.save(tmp_path / DIGESTS)
        text = harm((tmp_path / DIGESTS).read_text())
        (tmp_path / DIGESTS).unlink()
        if text is not None:
            (tmp_path / DIGESTS).write_text(text)
        assert Digests.saved(tmp_path / DIGESTS).of(file) == first
        assert len(reads) == 2


class TestElsewhere:
    def test_what_is_sent_need_not_be_read(self, file, reads):
        ours = Digests()
        content = ours.of(file)
        assert pickle.loads(pickle.dumps(ours)).of(file) == content
        theirs = Digests()
        theirs.learn(ours.excerpt([file]))
        assert theirs.of(file) == content
        assert len(reads) == 1
        assert ours.excerpt([file.parent / "other"]) == {}

    def test_a_file_that_is_another_one_there_is_read(self, file, reads):
        ours = Digests()
        ours.of(file)
        sent = ours.excerpt([file])
        save_file({"a": np.zeros(100, np.float32), "b": np.ones(3, np.float32)}, file)
        theirs = Digests()
        theirs.learn(sent)
        assert theirs.of(file) == contents.read_content(file, lambda: False)
        assert len(reads) == 2


def test_two_threads_read_a_file_once(file, reads):
    known, found = Digests(), []
    threads = [threading.Thread(target=lambda: found.append(known.of(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert found == [found[0]] * 8


def test_an_error_leaves_it_free_for_the_next(file):
    known = Digests()
    with pytest.raises(contents.Stopped):
        known.of(file, lambda: True)
    assert known.of(file) == contents.read_content(file)
