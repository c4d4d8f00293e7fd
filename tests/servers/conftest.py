"""A stand-in for the package vllm in place of the real one."""

import os

import pytest

from opd_diag.servers import vllm_engine

from .fake_vllm import Fake
from .stand_in import TinyModel


@pytest.fixture
def fake(monkeypatch):
    """Give a function that puts the package in place, by default with the model of arithmetic that tests compare with.

    What it changes of the process, variables and loaded engines, is put back.
    """
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    vllm_engine.ENGINES.clear()
    yield lambda model=TinyModel(48), **options: Fake(model, **options).install(monkeypatch)  # noqa: B008
    vllm_engine.ENGINES.clear()
