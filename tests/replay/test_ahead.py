"""The next checkpoint is read in the background: once, without an error of its own, and no longer than it may."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from opd_diag.errors import CheckpointError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay import ahead
from opd_diag.replay.ahead import read_ahead
from opd_diag.runs import contents, digests, fingerprint
from opd_diag.runs.digests import Digests

DEADLINE = 60
"""Seconds after which a test that waits has failed; it never waits for as long."""


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint of one file of ten pieces, which is remembered."""
    monkeypatch.setattr(contents, "PIECE", 100)
    monkeypatch.setattr(digests, "_SAMPLES", 2)
    monkeypatch.setattr(digests, "_SAMPLE", 10)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))  # no header: one digest of all of it
    return Checkpoint("step 1", 1, tmp_path, "full")


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read from end to end, and by which thread."""
    done, read = [], contents.read_content

    def spy(file, stop):
        content = read(file, stop)
        done.append((Path(file).name, threading.current_thread().name))
        return content

    monkeypatch.setattr(digests, "read_content", spy)
    return done


def running():
    return [t for t in threading.enumerate() if t.name == "read-ahead"]


def test_what_was_read_ahead_is_not_read_again(checkpoint, reads):
    known = Digests()
    with read_ahead(checkpoint, known):
        pass
    assert ("model.safetensors", "read-ahead") in reads
    assert not running()
    key = fingerprint(checkpoint, known)
    assert [name for name, _ in reads].count("model.safetensors") == 1
    assert key == fingerprint(checkpoint)


def test_whoever_needs_it_meanwhile_waits_for_it(checkpoint, reads):
    known = Digests()
    with read_ahead(checkpoint, known):
        fingerprint(checkpoint, known)
    assert [name for name, _ in reads].count("model.safetensors") == 1


def test_without_a_next_one_nothing_happens():
    with read_ahead(None, Digests()):
        assert not running()


@pytest.mark.parametrize("harm", ["gone", "unreadable", "changing"])
def test_an_error_shows_where_the_file_is_needed_and_not_before(checkpoint, harm, monkeypatch):
    read = digests.read_content

    def harmed(file, stop):
        if harm == "gone":
            raise FileNotFoundError(2, "No such file or directory", str(file))
        if harm == "unreadable":
            raise OSError(5, "Input/output error", str(file))
        os.utime(file, ns=(1, 1))
        contents.refuse_changed(file, contents.Stamp(0, 0, 0, 0))

    known = Digests()
    monkeypatch.setattr(digests, "read_content", harmed)
    with read_ahead(checkpoint, known):
        pass
    assert not running()
    with pytest.raises(CheckpointError, match=r"cannot be read|changed while"):
        fingerprint(checkpoint, known)
    monkeypatch.setattr(digests, "read_content", read)
    assert fingerprint(checkpoint, known) == fingerprint(checkpoint)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_block_waits_for_one_piece_at_most(checkpoint, monkeypatch, error):
    reading, asked, given = threading.Event(), [], []
    pieces, content = contents.pieces, ahead.checkpoint_content

    def slowly(handle, size):
        for piece in pieces(handle, size):
            given.append(size)
            if size == 1000:
                reading.set()
                ends = time.monotonic() + DEADLINE
                while not asked[0]() and time.monotonic() < ends:  # a piece takes until the block asks to stop
                    time.sleep(0.001)
            yield piece

    monkeypatch.setattr(contents, "pieces", slowly)
    monkeypatch.setattr(ahead, "checkpoint_content", lambda *args: asked.append(args[-1]) or content(*args))
    with pytest.raises(error), read_ahead(checkpoint, Digests()):
        raise error if reading.wait(DEADLINE) else AssertionError
    assert not running()
    assert given.count(1000) == 1
