"""The tables of :mod:`opd_diag.runs.logged.canonical`, one a trainer, read from these sources, by commit or version.

verl 1dda039b9, thunlp/OPD 0a44395, slime 624b824a8, NeMo-RL 7ea279abf, prime-rl 559b44772, tinker-cookbook 9dfcc3a2,
AReaL 4aef98d8d, SkyRL a9564572e, ROLL 8eb27cc2, ms-swift 3602360a5, TRL 1.16.0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """What one name of one trainer's is in ours."""

    trainer: str
    key: str
    metric: str | None
    """Our name; None: no metric of ours is the same, and `note` says why."""
    note: str = ""
    """How the definition differs, a sentence or two; empty where it does not."""
    factor: float = 1.0
    """What a value is multiplied by to be ours: -1 where the sign is opposite."""
    beside: str = ""
    """Beginning of a name that must be in the same log; empty: none must."""
    without: str = ""
    """Beginning of a name that must not be in it; empty: any may."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Training arguments that must be known and have these values."""

    def holds(self, keys: Collection[str], options: Mapping[str, Any]) -> bool:
        """Whether it is true of a log with these names, of a run with these training arguments."""
        return (
            (not self.beside or any(key.startswith(self.beside) for key in keys))
            and (not self.without or not any(key.startswith(self.without) for key in keys))
            and all(options.get(name) == value for name, value in self.options.items())
        )


_HEATED = "At the temperature of sampling."
_OWN_K = "At the trainer's own k."
_SHARED = f"{_OWN_K} Over states with a shared token alone."
_OPPOSITE = "Opposite sign: logged is log q - log p at the sampled token."
_PER_RESPONSE = "A mean over responses of their own means, so that short ones count more."
_NOT_EQ_7 = "Not Eq. 7 of the paper:"


def _trl() -> list[Entry]:
    return [
        Entry("TRL", "loss", "reverse_kl", _HEATED, options={"beta": 1.0}),
        Entry("TRL", "loss", "forward_kl", _HEATED, options={"beta": 0.0}),
        Entry("TRL", "loss", "jensen_shannon", _HEATED, options={"beta": 0.5}),
        Entry(
            "TRL",
            "loss",
            None,
            "Which divergence it is hangs on beta (1: reverse KL), which is in training_args.bin, a pickle that is not "
            "read. Name it with --beta.",
        ),
        Entry("TRL", "entropy", "student_entropy", _HEATED),
        Entry("TRL", "completions/mean_length", "response_length"),
        Entry("TRL", "completions/clipped_ratio", "truncation_rate"),
        Entry("TRL", "jsd", None, "Of the teacher's top-k alone, at a beta that is not in the log."),
        Entry("TRL", "teacher_entropy", None, "Of the teacher's top-k alone."),
        Entry(
            "ms-swift",
            "teacher_kl",
            "sampled_reverse_kl",
            "The k3 estimate, exp(-d) + d - 1, d = log p - log q at the sampled token: the same mean, never below 0.",
        ),
        Entry("ms-swift", "entropy/mean", "student_entropy", _HEATED),
    ]


def _verl() -> list[Entry]:
    distillation = "actor/distillation/"
    return [
        Entry(
            "verl",
            f"{distillation}overlap_ratio",
            "overlap_ratio",
            f"{_OWN_K} A mean over micro-batches of their means.",
        ),
        Entry(
            "verl",
            f"{distillation}overlap_token_advantage",
            "verl_overlap_token_advantage",
            f"{_NOT_EQ_7} weighed by the teacher, not renormalised. Of micro-batches, 0 for one without overlap.",
        ),
        Entry("verl", f"{distillation}teacher_mass", "teacher_topk_mass", _OWN_K),
        Entry(
            "verl",
            f"{distillation}student_mass",
            None,
            "What the student puts on the teacher's top-k; reports have what each model puts on its own.",
        ),
        Entry(
            "verl",
            f"{distillation}loss",
            "verl_topk_forward_kl",
            "At the trainer's own k and clamps; before verl 0.9 micro-batches were weighed in another way.",
            beside=f"{distillation}student_mass",
            without=f"{distillation}pg_",
        ),
        Entry(
            "verl",
            f"{distillation}loss",
            None,
            "Which estimate of the divergence it is (loss_mode), or a policy-gradient loss, is not in the log.",
        ),
        Entry(
            "verl",
            f"{distillation}abs_loss",
            None,
            "Mean size of an estimate of the reverse KL; which one (loss_mode) is not in the log.",
        ),
        Entry("verl", "actor/entropy", "student_entropy", _HEATED),
        Entry("verl", "response_length/mean", "response_length"),
        Entry(
            "verl",
            "response_length/clip_ratio",
            "truncation_rate",
            "Responses that ended exactly at the limit count as cut.",
        ),
        Entry(
            "thunlp/OPD",
            "val-topk/overlap_ratio",
            "overlap_ratio",
            f"{_OWN_K} Of training responses, whatever the name says.",
        ),
        Entry(
            "thunlp/OPD",
            "val-topk/adv_intersection",
            "thunlp_overlap_token_advantage",
            f"{_NOT_EQ_7} above 0 where the teacher has more. Weights are as reward_weight_mode has them; student_p is "
            "meant here.",
        ),
        Entry("thunlp/OPD", "val-topk/student_p_sum_intersection", "student_overlap_mass", _SHARED),
        Entry("thunlp/OPD", "val-topk/teacher_p_sum_intersection", "teacher_overlap_mass", _SHARED),
        Entry("thunlp/OPD", "teacher/entropy", "teacher_entropy", "At the trainer's teacher_temperature."),
    ]


def _others() -> list[Entry]:
    gap = "train/on_policy_distillation/teacher_student_logprob_gap_mean"
    return [
        Entry("slime", "rollout/opd_reverse_kl", "sampled_reverse_kl", _PER_RESPONSE),
        Entry("slime", "rollout/entropy", "student_entropy", _HEATED),
        Entry("slime", "rollout/response_len/mean", "response_length"),
        Entry("slime", "rollout/truncated_ratio", "truncation_rate"),
        Entry("NeMo-RL", gap, "sampled_reverse_kl", _OPPOSITE, factor=-1.0),
        Entry("NeMo-RL", "train/loss", None, "Which divergence it is (kl_type) is not in the log."),
        Entry("NeMo-RL", "train/mean_gen_tokens_per_sample", "response_length"),
        Entry("NeMo-RL", "train/truncation_rate", "truncation_rate"),
        Entry("prime-rl", "ref_kl/mean", "sampled_reverse_kl", f"{_OPPOSITE} {_PER_RESPONSE}", factor=-1.0),
        Entry("prime-rl", "entropy/all/mean", "student_entropy", _HEATED),
        Entry("tinker", "teacher_kl", "sampled_reverse_kl"),
        Entry("tinker", "optim/entropy", "student_entropy", "One sample a token: -log p of the sampled token."),
        Entry("tinker", "sdft/mean_teacher_entropy", None, "Of the teacher's top-k alone, renormalised."),
        Entry(
            "AReaL",
            "ppo_actor/update/rkl_loss/avg",
            "sampled_reverse_kl",
            "With rl_loss_weight 0 each token is weighed by its importance ratio.",
        ),
        Entry(
            "SkyRL",
            "loss/avg_kl",
            "sampled_reverse_kl",
            "To the reference model, the teacher in SkyRL's own recipe; by default the k3 estimate, never below 0. "
            f"{_PER_RESPONSE}",
        ),
        Entry("SkyRL", "policy/policy_entropy", "student_entropy", _HEATED),
        Entry("SkyRL", "generate/avg_num_tokens", "response_length"),
        Entry(
            "ROLL", "critic/kl", None, "To ROLL's reference model, by an estimate (kl_penalty) that is not in the log."
        ),
    ]


ENTRIES: tuple[Entry, ...] = (*_trl(), *_verl(), *_others())
"""In order: of those with one trainer and name, the first that holds is true."""
