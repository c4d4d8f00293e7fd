"""A probe measures what a report does, leaves the trainer as it was, and refuses what it cannot see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from opd_diag.errors import InputError
from opd_diag.inference import sample_rollouts, score, wrap_model
from opd_diag.integrations import Probe
from opd_diag.integrations.probe import PROBED
from opd_diag.records.sampling import Sampling
from opd_diag.tables import measure, summarize
from opd_diag.tokenization import Tokenizer, encode_prompts

from . import training

pytestmark = [pytest.mark.filterwarnings(text) for text in training.WARNINGS]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return training.distillation(tmp_path_factory.mktemp("probed"))


def logged(trainer, probing, step=0):
    """Give what a probe logs at a step."""
    trainer.state.global_step = step
    before = len(trainer.state.log_history)
    probing.measure()
    rows = trainer.state.log_history[before:]
    return {name: value for row in rows for name, value in row.items() if name.startswith("opd_diag/")}


def test_the_numbers_are_those_of_a_report(trainer):
    probing = Probe(n_prompts=3, max_new_tokens=6, seed=5, prompts=training.DATA / "prompts.jsonl").prepared(trainer)
    found = logged(trainer, probing)
    tokenizer = Tokenizer(trainer.processing_class, "")
    student, teacher = (
        wrap_model(training.loaded(f), name=n)
        for f, n in ((training.STUDENT, "student"), (training.TEACHER, "teacher"))
    )
    student = wrap_model(student.hf, name="student", label="step 0", step=0)
    prompts = encode_prompts(training.PROMPTS[:3], tokenizer)
    rollouts = sample_rollouts(student, tokenizer, prompts, sampling=Sampling(1, 6, seed=5), vocabulary=tokenizer.size)
    rows = summarize(measure(score(student, teacher, rollouts), rollouts)).set_index("metric")["value"]
    assert found == {f"opd_diag/{name}": pytest.approx(rows[name], rel=1e-6) for name in PROBED}


def test_what_changed_splits_into_policy_and_states(trainer):
    probing = Probe(n_prompts=3, max_new_tokens=6).prepared(trainer)
    first = logged(trainer, probing)
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.mul_(1.5)
        later = logged(trainer, probing, 50)
    finally:
        trainer.model.load_state_dict(weights)
    assert later["opd_diag/policy_change/reverse_kl"] == pytest.approx(
        later["opd_diag/start/reverse_kl"] - first["opd_diag/reverse_kl"]
    )
    assert later["opd_diag/state_change/reverse_kl"] == pytest.approx(
        later["opd_diag/reverse_kl"] - later["opd_diag/start/reverse_kl"]
    )
    assert abs(later["opd_diag/policy_change/reverse_kl"]) > 0.01


def test_the_same_weights_change_nothing(trainer):
    probing = Probe(n_prompts=3, max_new_tokens=6).prepared(trainer)
    first, later = logged(trainer, probing), logged(trainer, probing, 50)
    assert later["opd_diag/policy_change/reverse_kl"] == 0.0
    assert later["opd_diag/start/overlap_ratio"] == first["opd_diag/overlap_ratio"]


def test_only_every_so_many_steps(trainer):
    probing = Probe(every=3, n_prompts=1, max_new_tokens=2).prepared(trainer)
    assert [bool(logged(trainer, probing, step)) for step in range(7)] == [True, False, False, True, False, False, True]


def test_the_trainer_is_left_as_it_was(trainer):
    probing = Probe(n_prompts=2, max_new_tokens=4).prepared(trainer)
    trainer.model.train()
    odd = next(module for module in trainer.model.modules() if not list(module.children()))
    odd.eval()
    trainer.control.should_log = True
    trainer._metrics["train"]["entropy"].append(1.5)
    modes = [module.training for module in trainer.model.modules()]
    numbers, grads = torch.get_rng_state(), [p.requires_grad for p in trainer.model.parameters()]
    try:
        logged(trainer, probing)
        assert [module.training for module in trainer.model.modules()] == modes
        assert trainer.control.should_log
        assert trainer._metrics["train"]["entropy"] == [1.5]
        assert torch.equal(torch.get_rng_state(), numbers)
        assert [p.requires_grad for p in trainer.model.parameters()] == grads
        assert all(p.grad is None for p in trainer.model.parameters())
    finally:
        trainer.model.eval()
        trainer._metrics["train"].clear()


def test_weights_that_training_broke_end_the_probe_alone(trainer):
    probing = Probe(n_prompts=1, max_new_tokens=2).prepared(trainer)
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    try:
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(torch.nan)
        with pytest.warns(UserWarning, match=r"opd-diag: student gives NaN .* Nothing more is probed\."):
            assert logged(trainer, probing) == {}
    finally:
        trainer.model.load_state_dict(weights)
    assert logged(trainer, probing, 50) == {}


class TestRefusals:
    @pytest.mark.parametrize("wrong", [{"every": 0}, {"n_prompts": 0}])
    def test_numbers_out_of_range(self, wrong):
        with pytest.raises(InputError, match="every and n_prompts of a probe must be at least 1, found"):
            Probe(**wrong)

    def test_no_teacher_in_memory(self, trainer):
        alone = SimpleNamespace(args=trainer.args, processing_class=trainer.processing_class)
        with pytest.raises(InputError) as error:
            Probe().prepared(alone)
        assert str(error.value) == (
            "A probe needs a trainer that holds its teacher. Leave probe out of record(trainer)."
        )

    def test_weights_spread_over_processes(self, trainer, monkeypatch):
        monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
        with pytest.raises(InputError) as error:
            Probe().prepared(trainer)
        assert str(error.value) == (
            "A probe needs whole weights, and FSDP and DeepSpeed spread them over processes. Leave probe out of "
            "record(trainer)."
        )
