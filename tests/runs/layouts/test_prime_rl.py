"""prime-rl, new and old: whole weights where there are some, shards with the config that the run names elsewhere."""

import pytest

from opd_diag.runs import find_run
from opd_diag.runs.layouts.prime_rl import prime_rl
from opd_diag.runs.layouts.run import Run

from .. import trainers
from ..folders import write
from .reading import rows


def test_shards_alone(tmp_path):
    assert rows(prime_rl, trainers.prime_rl(tmp_path)) == [
        (f"step {n}", n, "distributed", f"checkpoints/step_{n}/trainer", None) for n in (10, 20)
    ]
    first = prime_rl(Run(tmp_path))[0]
    assert (str(first.config), first.tokenizer, first.complete) == ("org/student", "org/student", True)


def test_whole_weights_go_before_shards_and_need_their_mark(tmp_path):
    assert rows(prime_rl, trainers.prime_rl_old(tmp_path)) == [
        (f"step {n}", n, "full", f"weights/step_{n}", None) for n in (10, 20)
    ]
    found = prime_rl(Run(tmp_path))
    assert [c.complete for c in found] == [True, None]
    assert found[1].note == "STABLE is not there yet: the save may not have finished."


@pytest.mark.parametrize("inside", ["checkpoints", "weights"])
def test_a_folder_inside_may_be_given(tmp_path, inside):
    found = find_run(trainers.prime_rl_old(tmp_path) / inside)
    assert found.layout == "prime_rl"
    kind = "full" if inside == "weights" else "distributed"
    assert [(c.step, c.kind, c.loadable) for c in found.checkpoints] == [(10, kind, True), (20, kind, True)]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": {"name": 7}}', '{"model": NaN}', "[" * 99999])
def test_a_configuration_that_does_not_name_the_model(tmp_path, text):
    write(trainers.prime_rl(tmp_path) / "configs", {"trainer.json": text})
    found = prime_rl(Run(tmp_path))
    trainer = tmp_path / "checkpoints/step_10/trainer"
    assert [c.code for c in found] == ["CONFIG_MISSING"] * 2
    assert found[0].blocker == "It has a torch distributed checkpoint but no config.json."
    assert found[0].path == trainer


def test_a_cut_checkpoint_is_not_complete(tmp_path):
    (trainers.prime_rl(tmp_path) / "checkpoints" / "step_20" / "trainer" / ".metadata").unlink()
    assert [(c.complete, c.code) for c in prime_rl(Run(tmp_path))] == [(True, None), (False, "INCOMPLETE_WEIGHTS")]
