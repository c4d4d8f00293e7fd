"""A trainer's name, ours: looked up by whose log it is, what else is in it, and what is known of the training."""

import pytest

from opd_diag.runs.logged import entry_for
from opd_diag.runs.logged.canonical import known_options
from opd_diag.runs.logged.trainers import trainer_of


def entry(form, key, *beside, **options):
    keys = [key, *beside]
    return entry_for(trainer_of(form, keys), key, keys, options)


@pytest.mark.parametrize(
    ("form", "key", "beside", "metric", "factor"),
    [
        ("trainer_state", "entropy", [], "student_entropy", 1),
        ("trainer_state", "teacher_kl", [], "sampled_reverse_kl", 1),
        ("tensorboard", "train/entropy", ["train/epoch"], "student_entropy", 1),
        ("tensorboard", "train/completions/mean_length", ["train/epoch"], "response_length", 1),
        ("logging", "teacher_kl", [], "sampled_reverse_kl", 1),
        ("logging", "completions/clipped_ratio", [], "truncation_rate", 1),
        ("verl", "actor/distillation/overlap_ratio", [], "overlap_ratio", 1),
        ("verl", "actor/distillation/overlap_token_advantage", [], "verl_overlap_token_advantage", 1),
        ("tensorboard", "actor/entropy", ["training/global_step"], "student_entropy", 1),
        ("verl", "val-topk/adv_intersection", [], "thunlp_overlap_token_advantage", 1),
        ("verl", "actor/entropy", ["val-topk/overlap_ratio"], "student_entropy", 1),
        ("tensorboard", "rollout/opd_reverse_kl", ["rollout/step"], "sampled_reverse_kl", 1),
        ("metrics", "ref_kl/mean", [], "sampled_reverse_kl", -1),
        ("metrics", "teacher_kl", ["progress/batch"], "sampled_reverse_kl", 1),
        ("tensorboard", "loss/avg_kl", ["trainer/global_step"], "sampled_reverse_kl", 1),
        ("tensorboard", "ppo_actor/update/rkl_loss/avg", [], "sampled_reverse_kl", 1),
        (
            "tensorboard",
            "train/on_policy_distillation/teacher_student_logprob_gap_mean",
            ["train/global_valid_toks"],
            "sampled_reverse_kl",
            -1,
        ),
    ],
)
def test_names_that_mean_a_metric_of_ours(form, key, beside, metric, factor):
    found = entry(form, key, *beside)
    assert (found.metric, found.factor) == (metric, factor)


@pytest.mark.parametrize(
    ("form", "key", "beside"),
    [
        ("trainer_state", "grad_norm", []),
        ("trainer_state", "eval_entropy", []),
        ("trainer_state", "train/entropy", []),
        ("tensorboard", "eval/entropy", ["train/epoch"]),
        ("tensorboard", "entropy", ["train/epoch"][:0]),
        ("trainer_log", "entropy", []),
        ("metrics", "teacher_kl", []),  # prime-rl has no such name
        ("metrics", "ref_kl/mean", ["progress/batch"]),  # nor tinker this
        ("verl", "teacher/entropy", []),  # nor verl itself this
    ],
)
def test_names_that_mean_nothing_to_us(form, key, beside):
    assert entry(form, key, *beside) is None


@pytest.mark.parametrize(
    ("beta", "metric"), [(1.0, "reverse_kl"), (1, "reverse_kl"), (0.0, "forward_kl"), (0.5, "jensen_shannon")]
)
def test_the_loss_of_trl_where_its_beta_is_known(beta, metric):
    assert entry("trainer_state", "loss", beta=beta).metric == metric
    assert entry("tensorboard", "train/loss", "train/epoch", beta=beta).metric == metric


@pytest.mark.parametrize("options", [{}, {"beta": 0.3}, {"beta": None}])
def test_the_loss_of_trl_where_it_is_not(options):
    found = entry("trainer_state", "loss", **options)
    assert found.metric is None
    assert found.note == (
        "Which divergence it is hangs on beta (1: reverse KL), which is in training_args.bin, a pickle that is not "
        "read. Name it with --beta."
    )


def test_the_loss_of_verl_hangs_on_what_else_is_logged():
    loss, mass = "actor/distillation/loss", "actor/distillation/student_mass"
    assert entry("verl", loss, mass).metric == "verl_topk_forward_kl"
    assert entry("verl", loss, mass, "actor/distillation/pg_clipfrac").metric is None
    assert entry("verl", loss, "actor/distillation/abs_loss").metric is None


def test_arguments_of_other_trainers_tell_no_beta():
    distillation = {"beta": 0.5, "teacher_model_name_or_path": "t", "learning_rate": 0.1}
    assert known_options(distillation) == {"beta": 0.5}
    assert known_options({"beta": 0.5}) == {}  # GRPO: the weight of a KL
    assert known_options(distillation | {"lmbda": 0.5}) == {}  # GKD: part of the loss is off-policy
    assert known_options(distillation | {"loss_top_k": 1}) == {}  # a teacher on a server
    assert known_options({}) == {}
