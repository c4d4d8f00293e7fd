"""What the whole of a run tells: changed tokenizers, unknown steps, and a tokenizer that is nowhere."""

from opd_diag.runs import find_run
from opd_diag.runs.notes import missing_tokenizer

from . import trainers
from .folders import adapter, full_model, trainer_run, write


def test_tokenizers_that_changed_on_the_way(tmp_path):
    write(trainer_run(tmp_path, steps=(20, 40, 60)) / "checkpoint-40", {"tokenizer.json": '{"more": 1}'})
    assert find_run(tmp_path).notes == ("The tokenizer.json of step 40 is another than that of step 20.",)


def test_a_chat_template_that_changed(tmp_path):
    for step, template in ((20, "{{ a }}"), (40, "{{ a }}"), (60, "{{ b }}")):
        write(trainer_run(tmp_path, steps=(step,)) / f"checkpoint-{step}", {"chat_template.jinja": template})
    assert find_run(tmp_path).notes == ("The chat template of step 60 is another than that of step 20.",)


def test_one_checkpoint_of_unknown_step_needs_no_steps(tmp_path):
    assert find_run(full_model(tmp_path / "model")).notes == ()
    assert find_run(trainers.side_by_side(tmp_path / "run", ("best",))).notes == ()


def test_many_empty_folders_are_counted(tmp_path):
    trainer_run(tmp_path, steps=(1,))
    for step in range(2, 15):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (note,) = find_run(tmp_path).notes
    assert note.startswith("Nothing to load in: checkpoint-10 (empty), ")
    assert note.endswith(" and 3 more.")


def test_no_tokenizer_anywhere(tmp_path):
    found = find_run(trainer_run(tmp_path, tokenizer=False)).checkpoints
    assert missing_tokenizer(found) == (
        "No tokenizer lies in the checkpoints or beside them. Name one with --tokenizer."
    )
    write(tmp_path, {"tokenizer.json": "{}"})
    assert missing_tokenizer(find_run(tmp_path).checkpoints) is None
    assert missing_tokenizer(find_run(adapter(tmp_path / "adapter")).checkpoints) is None
    assert missing_tokenizer([]) is None
