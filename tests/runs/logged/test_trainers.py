"""Who wrote a log, and what its steps count."""

import pytest

from opd_diag.runs.logged.trainers import TRAINERS, UNKNOWN, trainer_of


@pytest.mark.parametrize(
    ("form", "keys", "name"),
    [
        ("trainer_state", ["loss"], "Hugging Face"),
        ("logging", ["loss", "teacher_kl"], "ms-swift"),
        ("trainer_log", ["loss"], "LLaMA-Factory"),
        ("metrics", ["teacher_kl", "progress/batch"], "tinker"),
        ("metrics", ["ref_kl/mean"], "prime-rl"),
        ("verl", ["actor/entropy"], "verl"),
        ("verl", ["actor/entropy", "val-topk/overlap_ratio"], "thunlp/OPD"),
        ("worker_state", ["critic/kl"], "ROLL"),
        ("torchtune", ["kd_loss"], "torchtune"),
        ("tensorboard", ["train/loss", "train/epoch"], "Hugging Face"),
        ("tensorboard", ["train/loss", "train/step_time", "train/epoch"], "Hugging Face"),
        ("tensorboard", ["train/loss", "train/step"], "slime"),
        ("tensorboard", ["rollout/opd_reverse_kl", "rollout/step"], "slime"),
        ("tensorboard", ["train/loss", "train/global_valid_toks"], "NeMo-RL"),
        ("tensorboard", ["actor/entropy", "training/global_step"], "verl"),
        ("tensorboard", ["val-topk/overlap_ratio", "training/global_step"], "thunlp/OPD"),
        ("tensorboard", ["critic/kl", "system/step"], "ROLL"),
        ("tensorboard", ["loss/avg_kl", "trainer/global_step"], "SkyRL"),
        ("tensorboard", ["ppo_actor/update/rkl_loss/avg"], "AReaL"),
        ("tensorboard", ["loss"], "an unknown trainer"),
        ("tensorboard", [], "an unknown trainer"),
    ],
)
def test_names_tell_whose_a_log_is(form, keys, name):
    assert trainer_of(form, keys).name == name


@pytest.mark.parametrize(
    ("form", "keys", "step", "key", "updates"),
    [
        ("trainer_state", [], 20, "loss", 20),
        ("verl", [], 20, "actor/entropy", 20),
        ("metrics", ["ref_kl/mean"], 20, "ref_kl/mean", 20),
        ("metrics", ["progress/batch"], 20, "teacher_kl", 21),
        ("metrics", ["progress/batch"], 20, "test/env/all/reward", 20),
        ("worker_state", [], 20, "critic/kl", 21),
        ("worker_state", [], 20, "val_correct/all/mean", 20),
        ("tensorboard", ["rollout/step"], 20, "rollout/opd_reverse_kl", 21),
        ("tensorboard", ["ppo_actor/a"], 20, "ppo_actor/a", 21),
        ("tensorboard", ["unknown"], 20, "unknown", 20),
    ],
)
def test_steps_are_counted_in_finished_updates(form, keys, step, key, updates):
    assert trainer_of(form, keys).updates(step, key) == updates


def test_what_tensorboard_puts_before_a_name_is_taken_off():
    assert trainer_of("tensorboard", ["train/epoch"]).plain("train/entropy") == "entropy"
    assert trainer_of("tensorboard", ["train/epoch"]).plain("eval/entropy") == "eval/entropy"
    assert trainer_of("trainer_state", []).plain("train/entropy") == "train/entropy"


def test_every_trainer_can_be_told():
    for trainer in TRAINERS:
        for form in trainer.formats:
            assert trainer_of(form, [*trainer.signs[:1], "x"]).name == trainer.name
    assert UNKNOWN not in TRAINERS
