"""Finding, choosing and naming checkpoints: the right ones in the right order, and errors that show the way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opd_diag.errors import CheckpointError, InputError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs import find_checkpoints, find_run, fingerprint, read_manifest, select_checkpoints, step_zero

from . import trainers
from .folders import TENSORS, adapter, full_model, trainer_run, write


class TestFind:
    def test_steps_sort_as_numbers(self, tmp_path):
        found = find_checkpoints(str(trainer_run(tmp_path, steps=(100, 20, 3))))
        assert [(c.step, c.label) for c in found] == [(3, "step 3"), (20, "step 20"), (100, "step 100")]
        assert [c.path for c in found] == [tmp_path / f"checkpoint-{n}" for n in (3, 20, 100)]
        assert all(c.loadable and c.complete for c in found)

    def test_one_broken_checkpoint_is_named_and_the_others_stay(self, tmp_path):
        trainer_run(tmp_path)
        (tmp_path / "checkpoint-40" / "model.safetensors").write_bytes(TENSORS[:-1])
        assert [(c.step, c.loadable) for c in find_checkpoints(tmp_path)] == [(20, True), (40, False), (100, True)]

    def test_base_model_comes_from_the_argument_then_the_manifest_then_the_adapter(self, tmp_path):
        adapter(tmp_path / "checkpoint-1", "org/own")
        assert find_checkpoints(tmp_path)[0].base_model == "org/own"
        write(tmp_path, {"opd-diag.toml": "base_model = 'org/manifest'"})
        assert find_checkpoints(tmp_path)[0].base_model == "org/manifest"
        assert find_checkpoints(tmp_path, base_model="org/given")[0].base_model == "org/given"

    def test_they_are_those_of_the_run_that_is_found(self, tmp_path):
        trainers.verl_fsdp(tmp_path / "run")
        options = {"step_base": 0, "student": "org/start", "layout": "verl_fsdp"}
        assert find_checkpoints(tmp_path, **options) == find_run(tmp_path, **options).checkpoints
        assert [c.step for c in find_checkpoints(tmp_path, steps=f"3={tmp_path}/run/global_step_20")] == [3]

    def test_the_home_folder_is_known(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        trainer_run(tmp_path / "run", steps=(1,))
        assert find_checkpoints("~/run")[0].path == tmp_path / "run" / "checkpoint-1"


class TestSelect:
    @pytest.fixture
    def checkpoints(self, tmp_path):
        return find_checkpoints(full_model(trainer_run(tmp_path)))

    def test_nothing_wanted_is_all(self, checkpoints):
        assert select_checkpoints(checkpoints, ()) == checkpoints
        assert len(checkpoints) == 4

    def test_by_step_and_by_label_in_the_order_of_the_run(self, checkpoints):
        found = select_checkpoints(checkpoints, ("final", "100", "step 20", "20"))
        assert [c.label for c in found] == ["step 20", "step 100", "final"]

    def test_unknown_names(self, checkpoints):
        message = "--checkpoints names 2, best, which the run does not have. Choose among: 20, 40, 100, final."
        with pytest.raises(InputError, match=re.escape(message)):
            select_checkpoints(checkpoints, ("20", "2", "best"))


class TestStepZero:
    def test_local_folder(self, tmp_path):
        student = write(full_model(tmp_path / "student"), {"tokenizer.json": "{}"})
        found = step_zero(str(student), [])
        assert (found.step, found.label, found.kind, found.path) == (0, "step 0", "full", student)
        assert (found.tokenizer, found.loadable, found.slug) == (str(student), True, "step-000000")

    def test_local_folder_without_a_model_is_blocked(self, tmp_path):
        found = step_zero(str(write(tmp_path, {"readme": ""})), [])
        assert found.blocker == "It holds no Hugging Face weights; found readme."
        assert found.way_out == "Save the model into it with save_pretrained, or remove the folder."

    def test_adapter_takes_the_base_model_given(self, tmp_path):
        found = step_zero(str(adapter(tmp_path, "/models/gone")), [], base_model="org/base")
        assert (found.kind, found.base_model, found.loadable) == ("adapter", "org/base", True)

    @pytest.mark.parametrize("student", ["gpt2", "org/student", "org/student@v1.0"])
    def test_hub_id(self, student):
        found = step_zero(student, [])
        assert found == Checkpoint("step 0", 0, Path(student), "full", tokenizer=student)

    @pytest.mark.parametrize("student", ["./gone", "../gone", "/models/gone", "a/b/c"])
    def test_missing_path(self, student):
        message = f"The student must be a folder or a hub id; {student} does not exist. Correct --student."
        with pytest.raises(CheckpointError, match=re.escape(message)):
            step_zero(student, [])

    def test_file(self, tmp_path):
        file = write(tmp_path, {"model.safetensors": TENSORS}) / "model.safetensors"
        message = f"The student must be a folder or a hub id; {file} is a file. Correct --student."
        with pytest.raises(CheckpointError, match=re.escape(message)):
            step_zero(str(file), [])

    def test_a_run_that_saved_step_zero(self, tmp_path):
        checkpoints = find_checkpoints(trainer_run(tmp_path, steps=(0, 20)))
        assert step_zero(str(tmp_path / "checkpoint-0"), checkpoints) is checkpoints[0]
        with pytest.raises(
            CheckpointError, match=r"^Step 0 stands twice: .*checkpoint-0 and the student is org/s. Leave"
        ):
            step_zero("org/s", checkpoints)


def test_finding_loads_no_heavy_library(tmp_path):
    run_dir = full_model(trainer_run(tmp_path))
    write(run_dir, {"opd-diag.toml": "teacher = 'org/t'"})
    code = (
        "import sys, json\n"
        "from opd_diag.runs import find_checkpoints, fingerprint, inspection_rows, named_inputs, read_manifest\n"
        f"found = find_checkpoints({str(run_dir)!r})\n"
        f"rows = inspection_rows(found), named_inputs(read_manifest({str(run_dir)!r}).settings)\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'pyarrow', 'safetensors', 'peft'} & set(sys.modules)\n"
        "print(json.dumps([len(found), len(fingerprint(found[0])), sorted(heavy)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [4, 64, []]


def test_reading_never_writes_into_the_run(tmp_path):
    run_dir = full_model(trainer_run(tmp_path))
    before = sorted((str(p), p.stat().st_mtime_ns) for p in run_dir.rglob("*"))
    fingerprint(find_checkpoints(run_dir, manifest=read_manifest(run_dir))[0])
    assert sorted((str(p), p.stat().st_mtime_ns) for p in run_dir.rglob("*")) == before
