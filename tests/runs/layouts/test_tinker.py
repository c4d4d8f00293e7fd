"""tinker: what is on the service is listed with the command that brings it here."""

import json

import pytest

from opd_diag.runs import find_run
from opd_diag.runs.layouts.run import Run
from opd_diag.runs.layouts.tinker import tinker

from .. import trainers
from ..folders import write


def test_steps_names_and_commands(tmp_path):
    found = tinker(Run(trainers.tinker(tmp_path)))
    assert [(c.label, c.step, c.code) for c in found] == [
        ("step 20", 20, "REMOTE_ONLY"),
        ("step 40", 40, "REMOTE_ONLY"),
        ("final", None, "REMOTE_ONLY"),
    ]
    assert found[0].blocker == ("Its weights are on the service (tinker://run-1/weights/000020), not on this machine.")
    assert found[0].way_out == (
        "Run: tinker checkpoint download tinker://run-1/weights/000020 --output adapters/step-20; make a PEFT adapter "
        "of it in Python with tinker_cookbook.weights.build_lora_adapter(base_model=..., adapter_path="
        "'adapters/step-20', output_path='adapters/step-20-peft'); then list it with --steps "
        "'20=adapters/step-20-peft'."
    )
    assert find_run(tmp_path).layout == "tinker"


def test_the_later_record_of_a_step_counts_and_weights_for_sampling_go_first(tmp_path):
    records = [
        {"name": "000020", "batch": 20, "state_path": "tinker://a/weights/x"},
        {"name": "again", "batch": 20, "state_path": "tinker://a/weights/y", "sampler_path": "tinker://a/sampler/y"},
    ]
    write(tmp_path, {"checkpoints.jsonl": "\n".join(map(json.dumps, records))})
    (found,) = tinker(Run(tmp_path))
    assert "(tinker://a/sampler/y)" in found.blocker


@pytest.mark.parametrize(
    ("name", "batch", "step"),
    [
        ("000030", None, 30),
        ("000030", True, 30),
        ("000030", -1, 30),
        ("000030", 31, 31),
        ("best", None, None),
        ("9" * 5000, 10**20, None),
    ],
)
def test_the_step(tmp_path, name, batch, step):
    record = {"name": name, "batch": batch, "sampler_path": "tinker://a/b"}
    write(tmp_path, {"checkpoints.jsonl": json.dumps(record)})
    assert [c.step for c in tinker(Run(tmp_path))] == [step]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"name": 3}', '{"name": "a", "state_path": "weights/a"}', "{", "[" * 99999, b"\xff"]
)
def test_lines_that_name_no_weights(tmp_path, text):
    assert tinker(Run(write(tmp_path, {"checkpoints.jsonl": text}))) == []
