"""What TRL's DistillationTrainer itself leaves: its state and its TensorBoard say the same, and whose loss it is."""

import pytest
from lab.tiny_llama import tiny_llama, tiny_tokenizer

from opd_diag.runs.logged import entry_for, find_logs, logs_of_run

# TRL 1.16 still says gradient where transformers 5.23 says activation checkpointing (trl/models/utils.py, its config).
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    import datasets
    import trl

    out, tokenizer = tmp_path_factory.mktemp("run"), tiny_tokenizer()
    options = {"max_steps": 4, "logging_steps": 2, "save_steps": 2, "per_device_train_batch_size": 2, "seed": 0}
    options |= {"max_completion_length": 8, "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    trainer = trl.DistillationTrainer(
        model=tiny_llama(tokenizer, layers=1),
        teacher_model=tiny_llama(tokenizer, layers=2),
        args=trl.DistillationConfig(
            output_dir=str(out), beta=0.0, report_to="tensorboard", disable_tqdm=True, **options
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": [[{"role": "user", "content": "Do it."}]] * 8}),
        processing_class=tokenizer,
    )
    trainer.train()
    return out


def test_both_logs_are_found_and_say_the_same(run_dir):
    assert {file.format for file in find_logs(run_dir)} == {"trainer_state", "tensorboard"}
    found = logs_of_run(run_dir)
    assert found.notes == ()
    assert {row.trainer.name for row in found.rows} == {"Hugging Face"}
    state = {(row.step, row.key): row.value for row in found.rows if row.form == "trainer_state"}
    board = {(row.step, row.trainer.plain(row.key)): row.value for row in found.rows if row.form == "tensorboard"}
    assert {step for step, _ in state} == {2, 4}
    assert {"loss", "entropy", "completions/mean_length", "completions/clipped_ratio"} <= {key for _, key in state}
    assert set(state) <= set(board)
    assert all(board[place] == pytest.approx(value, rel=1e-6, nan_ok=True) for place, value in state.items())


def test_its_arguments_tell_which_divergence_the_loss_is(run_dir):
    found = logs_of_run(run_dir)
    assert found.options == {"beta": 0.0}
    keys = {row.key for row in found.rows}
    (loss,) = {row.trainer for row in found.rows if row.key == "loss"}
    assert entry_for(loss, "loss", keys, found.options).metric == "forward_kl"
    assert entry_for(loss, "loss", keys, {}).metric is None
