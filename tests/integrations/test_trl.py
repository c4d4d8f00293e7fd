"""Real runs of TRL, recorded: nothing of training changes, every id is kept, and a report needs no other argument."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from opd_diag import load_rollouts
from opd_diag.cli import app
from opd_diag.errors import InputError
from opd_diag.integrations import Probe, Recorder, record
from opd_diag.integrations.trl import _Recording
from opd_diag.report import load_report_json
from opd_diag.runs import read_manifest

from . import training

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(text) for text in training.WARNINGS)]


def trained(trainer):
    """Train, and give the losses by step."""
    with contextlib.redirect_stdout(io.StringIO()):  # samples of responses, where they are logged
        trainer.train()
    return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}


def seen_by(trainer):
    """Give the list that gets the ids of every batch that the trainer computes a loss of."""
    seen, original = [], trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        if model.training:
            seen.append((trainer.state.global_step, rows_of(inputs)))
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return seen


def rows_of(inputs):
    """Give (prompt, response) of each row, padding left out."""
    if "completion_ids" in inputs:
        prompts = kept(inputs["prompt_ids"], inputs["prompt_mask"])
        return list(zip(prompts, kept(inputs["completion_ids"], inputs["completion_mask"]), strict=True))
    own, start = inputs["labels"] != -100, inputs["prompts"].shape[1]
    prompts = kept(inputs["input_ids"][:, :start], inputs["attention_mask"][:, :start])
    return list(zip(prompts, kept(inputs["input_ids"], own), strict=True))


def kept(ids, mask):
    return [tuple(row[of.bool()].tolist()) for row, of in zip(ids, mask, strict=True)]


def recorded_in(recorder):
    """Give (prompt, response) of everything recorded, by the step of the weights."""
    files = sorted(recorder.rollouts_dir.glob("*.jsonl"))
    return {int(f.stem[5:]): [(r.prompt_ids, r.response_ids) for r in load_rollouts(f)] for f in files}


def report(run_dir, out, *words):
    """Give what ``opd-diag report`` says of a run."""
    result = CliRunner().invoke(app, ["report", str(run_dir), "--out", str(out), "--quiet", *map(str, words)])
    assert result.exit_code == 0, result.output
    return load_report_json(out / "report.json")


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """(run folder, recorder, batches that were learned from, losses) of a distillation with a probe."""
    out = tmp_path_factory.mktemp("distilled") / "run"
    trainer = training.distillation(out)
    recorder = record(trainer, probe=Probe(every=2, n_prompts=3, max_new_tokens=8))
    seen = seen_by(trainer)
    return out, recorder, seen, trained(trainer)


class TestDistillation:
    def test_training_goes_on_as_without_it(self, distilled, tmp_path):
        alone = training.distillation(tmp_path)
        assert trained(alone) == distilled[3]
        theirs = torch.load(distilled[0] / "checkpoint-4" / "rng_state.pth", weights_only=False)
        ours = torch.load(tmp_path / "checkpoint-4" / "rng_state.pth", weights_only=False)
        assert torch.equal(theirs["cpu"], ours["cpu"])
        assert theirs["python"] == ours["python"]

    def test_every_response_is_recorded_as_it_was_learned_from(self, distilled):
        learned: dict = {}
        for step, rows in distilled[2]:
            learned.setdefault(step, []).extend(rows)
        found = recorded_in(distilled[1])
        assert list(found) == [0, 1, 2, 3]
        assert {step: len(rows) for step, rows in found.items()} == dict.fromkeys(range(4), 8)
        assert {step: sorted(rows) for step, rows in found.items()} == {s: sorted(rows) for s, rows in learned.items()}

    def test_how_responses_ended_and_were_sampled(self, distilled):
        rollouts = load_rollouts(distilled[1].rollouts_dir / "step-000002.jsonl")
        stop = training.loaded(training.STUDENT).generation_config.eos_token_id
        assert {r.stop_reason for r in rollouts} <= {"stop", "length"}
        assert all((r.response_ids[-1] == stop) == (r.stop_reason == "stop") for r in rollouts)
        assert all(len(r.response_ids) == 12 for r in rollouts if r.stop_reason == "length")
        (source,) = {r.provenance for r in rollouts}
        assert (source.origin, source.weights, source.step) == ("recorded", "training at step 2", 2)
        assert source.plain

    def test_the_weights_before_the_first_update(self, distilled):
        from safetensors.torch import load_file

        saved = load_file(distilled[0] / "recorded" / "student" / "model.safetensors")
        truth = load_file(training.STUDENT / "model.safetensors")
        assert saved
        assert all(torch.equal(tensor, truth[name].float()) for name, tensor in saved.items())

    def test_the_manifest_names_everything(self, distilled):
        run = distilled[0]
        assert read_manifest(run).settings == {
            "student": str(run / "recorded" / "student"),
            "teacher": str(training.TEACHER),
            "prompts": str(run / "recorded" / "prompts.jsonl"),
            "rollouts": str(run / "recorded" / "rollouts"),
            "beta": 1.0,
            "temperature": 1.0,
            "top_p": 1.0,
            "max_new_tokens": 12,
        }
        prompts = [json.loads(line) for line in (run / "recorded" / "prompts.jsonl").read_text().splitlines()]
        known = {p.content[0]["content"]: p.answer for p in training.PROMPTS}
        assert {p["prompt"][0]["content"]: p["answer"] for p in prompts} == known

    def test_a_report_needs_no_other_argument(self, distilled, tmp_path):
        made = report(distilled[0], tmp_path / "out")
        assert made["provenance"]["step_zero"]
        sets = {(row["step"], row["states"]) for row in made["summary"]}
        assert sets == {(s, of) for s in (0, 2, 4) for of in ("on-policy", "start", "teacher")} | {
            (s, "near-on-policy") for s in (0, 2)
        }
        rows = made["reconciliation"]
        assert [(r["step"], r["logged_step"], r["outcome"], r["n_rollouts"]) for r in rows] == [
            (0, 1, "agree", 8),
            (2, 3, "agree", 8),
        ]
        assert [r["logged"] for r in rows] == [distilled[3][1], distilled[3][3]]
        assert max(abs(r["value"] - r["logged"]) for r in rows) < 1e-5
        page = (tmp_path / "out" / "report.html").read_text()
        assert "Reverse KL on the trainer&#39;s own 2 batches is the loss that it logged, to 0.001 nats" in page
        assert "No verdict rests on them" in page

    def test_the_probe_says_what_a_report_says(self, distilled):
        history = json.loads((distilled[0] / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
        probed = {row["step"]: row for row in history if "opd_diag/reverse_kl" in row}
        assert list(probed) == [0, 2, 4]
        assert {name for name in probed[0] if "/" in name} == {
            f"opd_diag/{name}"
            for name in ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "entropy_gap", "reverse_kl")
        }
        for step in (2, 4):
            for name in ("overlap_ratio", "reverse_kl"):
                now, first = probed[step], probed[0]
                changed = now[f"opd_diag/policy_change/{name}"] + now[f"opd_diag/state_change/{name}"]
                assert changed == pytest.approx(now[f"opd_diag/{name}"] - first[f"opd_diag/{name}"])
        assert {row["step"] for row in history if "loss" in row} == {1, 2, 3, 4}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """(run folder, losses) of the distillation of an adapter, with the texts that TRL logs."""
    out = tmp_path_factory.mktemp("adapted") / "run"
    trainer = training.distillation(out, lora=True, log_completions=True, learning_rate=3e-3)
    record(trainer, n_prompts=4)
    return out, trained(trainer)


class TestAdapter:
    """Of a LoRA the adapter is saved, also before the first update; its base is named by it."""

    @pytest.mark.usefixtures("without_pictures")
    def test_its_report(self, adapted, tmp_path):
        run, losses = adapted
        made = report(run, tmp_path / "out")
        kinds = {path.name: path.is_file() for path in (run / "recorded" / "student").iterdir()}
        assert kinds["adapter_model.safetensors"]
        assert "model.safetensors" not in kinds
        assert made["provenance"]["step_zero"]
        assert [(r["step"], r["outcome"]) for r in made["reconciliation"]] == [(0, "agree"), (2, "agree")]
        assert [r["logged"] for r in made["reconciliation"]] == [losses[1], losses[3]]

    @pytest.mark.usefixtures("without_pictures")
    def test_the_texts_that_trl_itself_logs_are_not_as_exact(self, adapted, tmp_path):
        words = ["--rollouts", str(adapted[0] / "completions"), "--prompts", str(training.DATA / "prompts.jsonl")]
        made = report(adapted[0], tmp_path / "out", *words, "--states", "on-policy", "--max-prompts", "8")
        near = [row for row in made["summary"] if row["states"] == "near-on-policy"]
        assert {row["step"] for row in near} == {0, 2}
        assert made["reconciliation"] == []
        assert "text-stripped" in (tmp_path / "out" / "report.html").read_text()


class TestGkd:
    @pytest.mark.usefixtures("without_pictures")
    def test_on_policy(self, tmp_path):
        trainer = training.gkd(tmp_path / "run")
        recorder, seen = record(trainer, n_prompts=6), seen_by(trainer)
        losses = trained(trainer)
        learned: dict = {}
        for step, rows in seen:
            learned.setdefault(step, []).extend(rows)
        assert recorded_in(recorder) == learned
        assert "beta" not in read_manifest(tmp_path / "run").settings
        made = report(tmp_path / "run", tmp_path / "out", "--beta", "1")
        rows = made["reconciliation"]
        assert [(r["step"], r["logged"], r["outcome"]) for r in rows] == [
            (0, losses[1], "differ"),
            (2, losses[3], "differ"),
        ]
        tokenizer = trainer.processing_class
        (answer,) = {len(tokenizer(f"It is {p.answer}.")["input_ids"]) for p in training.PROMPTS}
        for row in rows:  # the sum over the sampled tokens, divided by the number of tokens in the data set
            assert row["logged"] == pytest.approx(row["value"] * row["n_states"] / (8 * (answer + 1)), rel=1e-5)
        assert "(that of TRL&#39;s GKDTrainer is) can be the cause" in (tmp_path / "out" / "report.html").read_text()
        answered = {p.content[0]["content"] for p in training.PROMPTS}
        prompts = [json.loads(line) for line in (recorder.folder / "prompts.jsonl").read_text().splitlines()]
        assert len(prompts) == 6
        assert {p["prompt"][0]["content"] for p in prompts} <= answered

    def test_the_teachers_responses_and_the_data_sets_are_not_the_students(self, tmp_path):
        trainer = training.gkd(tmp_path / "run", lmbda=0.0, seq_kd=True, max_steps=1)
        recorder = record(trainer)
        with pytest.warns(
            UserWarning, match="opd-diag: Nothing was recorded: the student sampled no response, or in a way"
        ):
            trained(trainer)
        assert recorded_in(recorder) == {}
        assert "beta" not in read_manifest(tmp_path / "run").settings


class TestGrpo:
    @pytest.mark.usefixtures("without_pictures")
    def test_a_teacher_is_named_where_the_trainer_has_none(self, tmp_path):
        trainer = training.grpo(tmp_path / "run")
        recorder = record(trainer, teacher=training.TEACHER, every=2, n_prompts=6)
        trained(trainer)
        assert list(recorded_in(recorder)) == [0, 2]
        made = report(tmp_path / "run", tmp_path / "out")
        assert {r["step"] for r in made["summary"] if r["states"] == "near-on-policy"} == {0, 2}
        assert made["reconciliation"] == []

    @pytest.mark.usefixtures("without_pictures")
    def test_its_own_parquet(self, tmp_path):
        """Not recorded: TRL's messages and rewards are read as they are, their prompts found among those named."""
        trained(training.grpo(tmp_path / "run"))
        words = ["--student", training.STUDENT, "--teacher", training.TEACHER, "--states", "start"]
        words += ["--prompts", training.DATA / "prompts.jsonl", "--max-prompts", "8", "--max-new-tokens", "12"]
        made = report(tmp_path / "run", tmp_path / "out", "--rollouts", tmp_path / "run" / "completions", *words)
        near = [row for row in made["summary"] if row["states"] == "near-on-policy"]
        assert {(row["step"], row["n_rollouts"]) for row in near if row["metric"] == "reverse_kl"} == {(0, 16), (2, 16)}
        assert "exactness: 32 text-stripped" in (tmp_path / "out" / "report.md").read_text()

    def test_a_batch_that_serves_several_updates_is_of_the_weights_that_wrote_it(self, tmp_path):
        trainer = training.grpo(tmp_path / "run", num_iterations=2)
        recorder, seen = record(trainer), seen_by(trainer)
        trained(trainer)
        learned: dict = {}
        for step, rows in seen:
            learned.setdefault(step, []).extend(rows)
        found = recorded_in(recorder)
        assert list(found) == [0, 2]
        assert all(sorted(found[s]) == sorted(learned[s]) == sorted(learned[s + 1]) for s in found)

    def test_rloo_samples_in_the_same_way(self, tmp_path):
        trainer = training.rloo(tmp_path / "run", max_steps=2)
        recorder, seen = record(trainer), seen_by(trainer)
        trained(trainer)
        learned: dict = {}
        for step, rows in seen:
            learned.setdefault(step, []).extend(rows)
        assert {s: sorted(of) for s, of in recorded_in(recorder).items()} == {s: sorted(r) for s, r in learned.items()}
        assert "teacher" not in read_manifest(tmp_path / "run").settings

    def test_truncated_responses_that_are_not_learned_from_are_recorded(self, tmp_path):
        trainer = training.grpo(tmp_path / "run", mask_truncated_completions=True, max_steps=1)
        recorder = record(trainer)
        trained(trainer)
        (rollouts,) = (load_rollouts(file) for file in recorder.rollouts_dir.glob("*.jsonl"))
        assert len(rollouts) == 8
        assert {len(r.response_ids) for r in rollouts if r.stop_reason == "length"} == {12}


class TestGoingOn:
    def test_from_a_checkpoint(self, tmp_path):
        run = tmp_path / "run"
        first = record(training.distillation(run, max_steps=2), save_student=False)
        trainer = training.distillation(run, max_steps=3)
        recorder = record(trainer)
        trained(first_trainer := training.distillation(run, max_steps=2))
        assert first_trainer.state.global_step == 2
        assert recorded_in(first) == {}  # that trainer never trained
        stale = recorder.rollouts_dir / "step-000002.jsonl"
        stale.parent.mkdir(parents=True)
        stale.write_text("of a training that was given up\n")
        with pytest.warns(
            UserWarning, match="The weights before the first update are not in .*: training goes on from"
        ):
            trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))
        assert list(recorded_in(recorder)) == [2]
        assert "student" not in read_manifest(run).settings

    def test_an_evaluation_is_not_training(self, tmp_path):
        rows = training.of_prompts().select(range(4))
        trainer = training.distillation(tmp_path, evaluated=rows, max_steps=2, eval_strategy="steps", eval_steps=1)
        recorder = record(trainer)
        trained(trainer)
        assert {step: len(rows) for step, rows in recorded_in(recorder).items()} == {0: 8, 1: 8}

    def test_weights_of_saved_checkpoints_are_recorded_always(self, tmp_path):
        trainer = training.distillation(tmp_path, save_steps=3, max_steps=5)
        recorder = record(trainer, every=100)
        trained(trainer)
        assert list(recorded_in(recorder)) == [0, 3]

    def test_the_weights_it_goes_on_from_are_those_of_a_saved_checkpoint(self, tmp_path):
        trained(training.distillation(tmp_path, max_steps=3, save_steps=3))
        trainer = training.distillation(tmp_path, max_steps=5, save_strategy="no")
        recorder = record(trainer, every=100, save_student=False)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        assert list(recorded_in(recorder)) == [3]

    def test_the_student_of_an_earlier_run_goes(self, tmp_path):
        trainer = training.distillation(tmp_path, max_steps=1, save_strategy="no")
        recorder = record(trainer)
        earlier = recorder.folder / "student" / "adapter_model.safetensors"
        earlier.parent.mkdir(parents=True)
        earlier.write_text("of a run that trained an adapter\n")
        trained(trainer)
        assert [file.name for file in earlier.parent.glob("*.safetensors")] == ["model.safetensors"]

    def test_where_the_student_cannot_be_saved_training_goes_on(self, tmp_path):
        trainer = training.distillation(tmp_path, max_steps=2, save_strategy="no")
        recorder = record(trainer)
        recorder.folder.write_text("no folder")
        with pytest.warns(UserWarning, match="opd-diag: ") as warned:
            losses = trained(trainer)
        assert list(losses) == [1, 2]
        told = [str(w.message) for w in warned if str(w.message).startswith("opd-diag: ")]
        assert "The weights before the first update are not in" in told[0]
        assert "Not a directory" in told[0]
        assert "Nothing is recorded" in told[1]
        assert len(told) == 2

    def test_where_nothing_can_be_written_training_goes_on(self, tmp_path):
        trainer = training.distillation(tmp_path, max_steps=2, save_strategy="no")
        recorder = record(trainer)
        recorder.folder.mkdir()
        recorder.rollouts_dir.write_text("no folder")
        with pytest.warns(UserWarning, match="opd-diag: .* Nothing more is recorded"):
            losses = trained(trainer)
        assert list(losses) == [1, 2]

    def test_a_manifest_of_the_users_is_left_as_it_is(self, tmp_path):
        (tmp_path / "opd-diag.toml").write_text('teacher = "mine"\n')
        trainer = training.distillation(tmp_path, max_steps=1, save_strategy="no")
        record(trainer)
        with pytest.warns(UserWarning, match=r"opd-diag.toml is there already and was left as it is"):
            trained(trainer)
        assert (tmp_path / "opd-diag.toml").read_text() == 'teacher = "mine"\n'


class TestRefusals:
    def test_twice(self, tmp_path):
        trainer = training.distillation(tmp_path)
        record(trainer)
        with pytest.raises(InputError) as error:
            record(trainer)
        assert str(error.value) == "This trainer is recorded already. Call record(trainer) once, before train()."

    def test_a_teacher_without_a_name(self, tmp_path):
        trainer = training.distillation(tmp_path)
        trainer.teacher_model.config.name_or_path = ""
        with pytest.raises(InputError) as error:
            record(trainer)
        assert str(error.value) == (
            "The teacher does not say where it was loaded from. Name its folder or hub id: "
            'record(trainer, teacher="org/name").'
        )

    def test_a_trainer_that_samples_in_another_way(self, tmp_path):
        import transformers

        trainer = transformers.Trainer(
            training.loaded(training.STUDENT),
            transformers.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True),
            **training.together(training.of_prompts()),
        )
        with pytest.raises(InputError) as error:
            record(trainer)
        assert str(error.value) == (
            "Trainer samples in no way that is known here. Expected DistillationTrainer, GKDTrainer, GRPOTrainer or "
            "RLOOTrainer of TRL, or one built on them; for another trainer, hand its responses to "
            "opd_diag.integrations.Recorder."
        )

    def test_prompts_that_are_no_text(self, tmp_path):
        trainer = training.distillation(tmp_path)
        trainer.train_dataset = trainer.train_dataset.remove_columns("prompt")
        with pytest.raises(InputError) as error:
            record(trainer)
        assert str(error.value) == (
            "No prompt of the training set can be written: expected a column 'prompt' (text, or messages of text) or "
            "'messages'. Call record(trainer, n_prompts=0) to report on the prompts that are recorded."
        )

    @pytest.mark.parametrize("wrong", [{"every": 0}, {"n_prompts": -1}])
    def test_numbers_out_of_range(self, tmp_path, wrong):
        with pytest.raises(InputError, match="every must be at least 1 and n_prompts at least 0, found"):
            record(training.distillation(tmp_path), **wrong)


class TestProcesses:
    """Two processes as two threads, that meet where every process gathers and nowhere else."""

    @pytest.fixture
    def ranks(self, tmp_path, monkeypatch):
        """(recording, trainer) of either process; one that waits for the other in vain fails."""
        met, here, said = threading.Barrier(2, timeout=20), threading.local(), [None, None]

        def gather_object(mine):
            said[here.rank] = mine
            met.wait()
            everyone = said[0] + said[1]
            met.wait()
            return everyone

        monkeypatch.setattr("accelerate.utils.gather_object", gather_object)
        made = []
        for rank in (0, 1):
            trainer = SimpleNamespace(
                state=SimpleNamespace(global_step=0),
                accelerator=SimpleNamespace(num_processes=2, is_main_process=rank == 0),
                model=SimpleNamespace(training=True),
                _generate_and_score_completions=lambda batch: batch,
            )
            recording = _Recording(trainer, Recorder(tmp_path), 1)
            recording.tap()
            made.append((recording, trainer))

        def run(*batches):
            """Train for an update with the batches that each process samples."""

            def update(rank):
                here.rank = rank
                recording, trainer = made[rank]
                for batch in batches[rank]:
                    assert trainer._generate_and_score_completions(batch) is batch
                trainer.state.global_step += 1
                recording.write()

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(update, (0, 1)))

        return made, run

    @staticmethod
    def batch(*response, **more):
        ids = torch.tensor([response])
        one = torch.ones(1, 1, dtype=torch.long)
        mask = torch.ones_like(ids)
        return {"prompt_ids": one, "prompt_mask": one, "completion_ids": ids, "completion_mask": mask, **more}

    def test_they_need_not_sample_alike(self, ranks):
        made, run = ranks
        run([self.batch(5)], [])
        run([], [self.batch(6), self.batch(7, 7)])
        found = recorded_in(made[0][0].recorder)
        assert {step: [ids for _, ids in rows] for step, rows in found.items()} == {0: [(5,)], 1: [(6,), (7, 7)]}

    def test_where_the_main_one_cannot_write_all_stop(self, ranks, tmp_path):
        made, run = ranks
        (tmp_path / "recorded").write_text("no folder")
        with pytest.warns(UserWarning, match="Nothing more is recorded"):
            run([self.batch(5)], [self.batch(6)])
        for _ in range(2):
            run([self.batch(5)], [self.batch(6)])
        assert [recording.stopped for recording, _ in made] == [True, True]

    def test_where_one_of_them_has_an_image_all_stop(self, ranks):
        made, run = ranks
        with pytest.warns(UserWarning, match="The prompts hold images, which are no ids: nothing more is recorded"):
            run([self.batch(5)], [self.batch(6, pixel_values=torch.ones(1))])
        run([self.batch(5)], [self.batch(6)])
        assert [recording.stopped for recording, _ in made] == [True, True]
        assert recorded_in(made[0][0].recorder) == {}


def test_two_processes_are_one_batch(tmp_path):
    """Each has its part of a batch; the main one writes both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(training.__file__).with_name("two_processes.py")
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    together |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][-3000:] + said[1][-3000:]
    learned: dict[int, list[int]] = {0: [], 1: []}
    for rank in (0, 1):
        for step, ids in json.loads((tmp_path / f"seen-{rank}.json").read_text()):
            learned[step] += ids
    files = sorted((tmp_path / "run" / "recorded" / "rollouts").iterdir())
    assert [f.name for f in files] == ["step-000000.jsonl", "step-000001.jsonl"]
    for step, file in enumerate(files):
        rollouts = load_rollouts(file)
        assert len(rollouts) == 16
        assert sorted(i for r in rollouts for i in r.response_ids) == sorted(learned[step])
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert [row["step"] for row in state["log_history"] if "opd_diag/reverse_kl" in row] == [0, 1, 2]
