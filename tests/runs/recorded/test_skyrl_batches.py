"""SkyRL's batches: pickles, read only where the user allows it, without SkyRL."""

import math
import pickle
import sys
from pathlib import Path

import pytest

from opd_diag.runs.recorded import PICKLE_REFUSED, find_recorded, read_recorded

from .written import SKYRL, RolloutsError, refusal, skyrl_batch

NAME = "global_step_3_training_input.pkl"


def batch(tmp_path, package="skyrl", metadata=None, **changes):
    tensors = {k: v for k, v in (SKYRL | changes).items() if v != "absent"}
    path = tmp_path / "dumped_data" / NAME
    return skyrl_batch(path, tensors, {"pad_size": 1, "response_length": 3} if metadata is None else metadata, package)


@pytest.mark.parametrize("package", ["skyrl", "skyrl_train"])
def test_a_batch(tmp_path, package):
    path = batch(tmp_path, package)
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness, file.pickled) == ("skyrl-batches", 3, "ids", True)
    notes = []
    (recorded,) = read_recorded(file, allow_pickle=True, notes=notes)
    assert (recorded.place, recorded.step, recorded.updates) == (f"{path}, row 1", 3, 2)
    assert (recorded.prompt_ids, recorded.response_ids) == ((1, 2), (10, 11, 12))
    assert recorded.generated == (True, False, True)
    assert recorded.sampled_logprobs[::2] == (-0.5, -0.25)
    assert math.isnan(recorded.sampled_logprobs[1])
    assert notes == [f"{path}: 1 of 2 records left out, as no token of them is marked as generated."]
    assert not [name for name in sys.modules if name.startswith("skyrl")]


def test_the_older_layout_pads_responses_on_the_right(tmp_path):
    old = {
        "sequences": [[0, 1, 2, 10, 11, 0]],
        "attention_mask": [[0, 1, 1, 1, 1, 0]],
        "response_mask": [[1, 1, 0]],
        "loss_mask": [[1, 1, 0]],
        "rollout_logprobs": [[-0.5, -0.25, 0.0]],
        "rewards": [[0.0, 0.5, 0.0]],
    }
    path = batch(tmp_path, metadata={}, **old)
    (recorded,) = read_recorded(path, allow_pickle=True)
    assert (recorded.prompt_ids, recorded.response_ids) == ((1, 2), (10, 11))
    assert (recorded.generated, recorded.sampled_logprobs, recorded.reward) == (None, (-0.5, -0.25), 0.5)


def test_it_is_refused_unless_allowed(tmp_path):
    path = batch(tmp_path)
    with pytest.raises(RolloutsError) as caught:
        read_recorded(path)
    assert caught.value.code == PICKLE_REFUSED == "PICKLE_REFUSED"
    assert str(caught.value) == (
        f"Reading {path} would run code that is in the file. If the run is yours, allow it with --allow-pickle; else "
        "leave the file out."
    )


class Touching:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_code_in_it_does_not_run_unless_allowed(tmp_path):
    path, touched = tmp_path / NAME, tmp_path / "touched"
    path.write_bytes(pickle.dumps(Touching(str(touched))))
    assert refusal(path).startswith(f"Reading {NAME} would run code")
    assert not touched.exists()
    assert refusal(path, allow_pickle=True) == (
        f"{NAME}: expected SkyRL's batch with sequences, attention_mask, response_mask, loss_mask, "
        "found NoneType. Leave "
        "the file out."
    )
    assert touched.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"\x80\x04cnowhere.to_be\nFound\n.", "No module named 'nowhere'"),
        (b"\xffhello", "invalid load key, '\\xff'"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / NAME
    path.write_bytes(content)
    assert refusal(path, allow_pickle=True) == (
        f"{NAME} cannot be loaded ({message}). If the trainer is writing it, run the command again later; else leave "
        "the file out."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss_mask": "absent"},
            f"{NAME}: expected SkyRL's batch with sequences, attention_mask, response_mask, "
            "loss_mask, found sequences, "
            "attention_mask, response_mask, rollout_logprobs, kl. Leave the file out.",
        ),
        (
            {"attention_mask": [[1, 1]] * 3},
            f"{NAME}, row 1: sequences has 6 columns, its mask 2. Leave the file out.",
        ),
        (
            {"loss_mask": [1.0, 1.0, 1.0]},
            f"{NAME}: expected 'loss_mask' as a table of numbers",
        ),
        (
            {"sequences": [[0.5] * 6] * 3},
            f"{NAME}, row 1: expected 'sequences' as a list of token ids (whole numbers from 0), found list ([0.5, ",
        ),
    ],
)
def test_other_batches_are_refused(tmp_path, changes, message):
    assert refusal(batch(tmp_path, **changes), allow_pickle=True).startswith(message)


def test_tables_of_other_lengths_are_refused_and_not_cut(tmp_path):
    assert refusal(batch(tmp_path, rewards=[[0.0, 0.5, 0.0]]), allow_pickle=True) == (
        f"{NAME}: expected tables of one length, found sequences 3, attention_mask 3, response_mask 3, loss_mask 3, "
        "rollout_logprobs 3, rewards 1. Leave the file out."
    )


@pytest.mark.parametrize("padding", [-1, 99, "1"])
def test_a_number_of_padding_rows_that_cannot_be(tmp_path, padding):
    path = batch(tmp_path, metadata={"pad_size": padding})
    assert refusal(path, allow_pickle=True) == (
        f"{NAME}: pad_size must be 0 to 3, found {padding!r}. Leave the file out."
    )
