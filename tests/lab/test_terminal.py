"""The frame of the lab's commands."""

from __future__ import annotations

import argparse
import re

import pytest
import torch

from opd_diag.errors import InputError
from opd_diag.lab.terminal import run


@pytest.fixture(autouse=True)
def own_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def parser():
    made = argparse.ArgumentParser(prog="grow")
    made.add_argument("--seed", type=int, default=0)
    return made


def test_options_and_a_clock(capsys):
    seen = []

    def work(options, say):
        seen.append((options.seed, options.threads, torch.get_num_threads()))
        say("half of it")

    run(parser(), work, ["--seed", "7", "--threads", "2"])
    assert seen == [(7, 2, 2)]
    assert re.fullmatch(r"\[ +\d+ s\] half of it\n", capsys.readouterr().out)


def test_an_error_is_one_sentence(capsys):
    def work(options, say):
        raise InputError("There is no such folder. Correct --out.")

    with pytest.raises(SystemExit) as caught:
        run(parser(), work, [])
    assert caught.value.code == 2
    assert "There is no such folder. Correct --out." in capsys.readouterr().err
