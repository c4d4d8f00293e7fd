"""slime's dumps: token-exact, loaded without running code unless the user allows more."""

import math

import numpy as np
import pytest
import torch

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import PICKLE_REFUSED, find_recorded, read_recorded

from .written import RolloutsError, refusal, slime, slime_sample


def test_a_rollout(tmp_path):
    path = slime(tmp_path / "rollout_data" / "7.pt", slime_sample(), slime_sample(status="truncated", loss_mask=None))
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness, file.pickled) == ("slime", 7, "ids", True)
    first, second = read_recorded(file)
    assert first == Recorded(
        place=f"{path}, sample 1",
        step=7,
        updates=7,
        exactness="ids",
        prompt_ids=(1, 2, 3),
        response_ids=(10, 11, 12),
        generated=(True, False, True),
        sampled_logprobs=first.sampled_logprobs,
        stop_reason="stop",
        reward=1.0,
        answer="4",
    )
    assert first.sampled_logprobs[::2] == (-0.5, -0.25)
    assert math.isnan(first.sampled_logprobs[1])
    assert (second.stop_reason, second.generated) == ("length", None)
    assert second.sampled_logprobs == (-0.5, 0.0, -0.25)


@pytest.mark.parametrize("status", ["aborted", "failed", "pending"])
def test_other_ends_are_unknown_and_other_rewards_too(tmp_path, status):
    path = slime(tmp_path / "rollout_data" / "7.pt", slime_sample(status=status, reward={"accuracy": 1.0}))
    assert [(r.stop_reason, r.reward) for r in read_recorded(path)] == [("unknown", None)]


def test_the_dump_of_the_training_has_tensors_and_plural_names(tmp_path):
    sample = {
        "tokens": torch.tensor([1, 2, 10, 11]),
        "response_lengths": 2,
        "total_lengths": 4,
        "loss_masks": torch.tensor([1, 1], dtype=torch.int32),
        "rewards": 0.7,
        "truncated": 1,
        "rollout_log_probs": torch.tensor([-0.5, -0.25]),
        "advantages": torch.zeros(2),
    }
    (recorded,) = read_recorded(slime(tmp_path / "train_data" / "7.pt", sample))
    assert (recorded.prompt_ids, recorded.response_ids) == ((1, 2), (10, 11))
    assert (recorded.sampled_logprobs, recorded.reward, recorded.stop_reason) == ((-0.5, -0.25), None, "length")


def test_the_training_dump_is_a_copy_where_the_rollouts_are_there(tmp_path):
    for name in ("rollout_data/7.pt", "train_data/7.pt", "train_data/8.pt", "rollout_data/eval_7.pt"):
        slime(tmp_path / name, slime_sample())
    assert [f.path.relative_to(tmp_path).as_posix() for f in find_recorded(tmp_path)] == [
        "rollout_data/7.pt",
        "train_data/8.pt",
    ]


def test_a_dump_that_needs_more_than_tensors_is_refused_unless_allowed(tmp_path):
    path = slime(tmp_path / "rollout_data" / "7.pt", slime_sample(metadata={"kind": np.str_("x"), "path": tmp_path}))
    with pytest.raises(RolloutsError) as caught:
        read_recorded(path)
    assert caught.value.code == PICKLE_REFUSED
    assert str(caught.value) == (
        f"Reading {path} would run code that is in the file. If the run is yours, allow it with --allow-pickle; else "
        "leave the file out."
    )
    assert len(read_recorded(path, allow_pickle=True)) == 1


def test_responses_that_are_masked_whole_are_left_out(tmp_path):
    path = slime(tmp_path / "rollout_data" / "7.pt", slime_sample(loss_mask=[0, 0, 0]), slime_sample())
    notes = []
    assert len(read_recorded(path, notes=notes)) == 1
    assert notes == [f"{path}: 1 of 2 records left out, as no token of them is marked as generated."]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"response_length": 9},
            "7.pt, sample 1: expected 'response_length' as a whole number up to 6, the number of "
            "tokens, found int (9). "
            "Mend it or leave the file out.",
        ),
        (
            {"loss_mask": [1]},
            "7.pt, sample 1: response_length is 3, but loss_mask has 1 entries. Leave the file out.",
        ),
        (
            {"rollout_log_probs": [0.5]},
            "7.pt, sample 1: response_length is 3, but rollout_log_probs has 1 entries. Leave the file out.",
        ),
    ],
)
def test_samples_that_do_not_fit_are_named(tmp_path, changes, message):
    assert refusal(slime(tmp_path / "rollout_data" / "7.pt", slime_sample(**changes))) == message


@pytest.mark.parametrize(
    ("content", "found"),
    [({"rollout_data": {}}, "a dict with rollout_data"), ([1], "list"), ({"samples": ["a"]}, "a dict with samples")],
)
def test_other_files_of_torch_are_refused(tmp_path, content, found):
    torch.save(content, tmp_path / "7.pt")
    assert (
        refusal(tmp_path / "7.pt") == f"7.pt: expected slime's dict with 'samples', found {found}. Leave the file out."
    )
