"""Small reports in processes that may be killed, and the tiny run's teacher as servers have it."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from opd_diag.inference import load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.tokenization import load_tokenizer

from .crashing import Reports, cut_small, with_tables_kept, without_drawing, without_measuring, written


@pytest.fixture(scope="session")
def kept_tables(tmp_path_factory):
    """Folder of the tables that were made once."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def small_runs(tiny_run, tmp_path_factory, kept_tables):
    """As `small_run`, for fixtures that make a report for the whole module."""
    out = tmp_path_factory.mktemp("small") / "out"
    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch)
        without_drawing(patch)
        without_measuring(patch)
        with_tables_kept(patch, kept_tables)
        yield Reports(tiny_run.run_dir, out), out


@pytest.fixture
def small_run(small_runs):
    """(report, out): makes the report in `out`, and calls a spy with every path that was written to."""
    yield small_runs
    shutil.rmtree(small_runs[1], ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(small_runs):
    """Content and writes of the undisturbed report."""
    return written(small_runs[0])


@pytest.fixture
def whole(undisturbed):
    """Content of the undisturbed report."""
    return undisturbed[0]


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch, which small models are faster on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def teacher(tiny_run):
    """The tiny run's teacher, loaded, and its tokenizer."""
    tokenizer = load_tokenizer(str(tiny_run.teacher))
    where = Checkpoint("teacher", None, tiny_run.teacher, "full")
    return SimpleNamespace(model=load_model(where, name="teacher", stop_ids=tokenizer.stop_ids), tokenizer=tokenizer)
