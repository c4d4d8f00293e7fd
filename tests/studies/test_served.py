"""Studies of teachers behind servers: the local numbers where they are known, bounds around them elsewhere."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run as tiny
import torch
from model_server import ModelServer
from servers.stand_in import stand_in
from typer.testing import CliRunner

from opd_diag.cli import app
from opd_diag.errors import InputError
from opd_diag.inference import load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay import served as served_module
from opd_diag.report.study import write_study
from opd_diag.studies import cold_start, horizon, prompts, teachers
from opd_diag.studies.served import folder_in, of_server, refuse_top_k
from opd_diag.tokenization import load_tokenizer

ADDRESS = "vllm=http://127.0.0.1:8000"
EXACT = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "overlap_token_advantage", "top1_agreement",
         "student_entropy", "sampled_reverse_kl")  # fmt: skip
OPEN = ("forward_kl", "reverse_kl", "jensen_shannon", "common_mass", "teacher_entropy", "entropy_gap", "teachable_mass")
CUT = (
    "Ask for the teacher's whole vocabulary (--teacher-top -1, where its server allows that), or name its folder with "
    "--teacher."
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wrapped(folder):
    """A model as `ModelServer` takes it."""
    stop_ids = load_tokenizer(str(folder)).stop_ids
    return load_model(Checkpoint("teacher", None, folder, "full"), name="teacher", stop_ids=stop_ids)


@pytest.fixture(scope="module")
def server(tiny_run):
    """The tiny run's teacher, to be put behind any address."""
    return ModelServer(wrapped(tiny_run.teacher), tokenizer=load_tokenizer(str(tiny_run.teacher)))


@pytest.fixture
def behind(server, monkeypatch):
    monkeypatch.setattr(served_module, "connect", lambda address, *, model, top, dtype, weights_key: server)
    return server


@pytest.fixture(scope="module")
def made(tiny_run, tmp_path_factory):
    """One study of two teachers that are loaded, and of both again behind servers, over HTTP: one gives its top 20."""
    folder = tmp_path_factory.mktemp("served")
    tiny.save(tiny.model(seed=9), folder / "stranger", tiny.byte_tokenizer())
    tokenizer = load_tokenizer(str(tiny_run.teacher))
    about = {"context": 96, "text": tokenizer.text, "stop_id": tokenizer.stop_ids[0], "exact": False}
    known, other = (ModelServer(wrapped(of)).logprobs for of in (tiny_run.teacher, folder / "stranger"))
    with (
        stand_in("vllm", known, names=["org/big", "org/small"], **about) as one,
        stand_in("vllm", other, names=["far"], top_limit=300, **about) as two,
    ):
        chosen = [tiny_run.teacher, folder / "stranger", f"vllm={one}#org/big,top=20", f"vllm={two}"]
        asked = {"prompts": str(tiny_run.prompts), "max_new_tokens": 5, "max_prompts": 6, "teacher_top": -1}
        study = teachers(tiny_run.student, [*chosen, f"vllm={one}#none"], out=folder / "out", **asked)
    return SimpleNamespace(study=study, out=folder / "out", port=one[len("http://") :])


class TestTeachers:
    def test_the_local_numbers_are_equal_or_inside(self, made):
        summary = made.study.tables["summary"]
        own = summary[summary["states"] == "on-policy"].set_index(["teacher", "metric"])
        for metric in (*EXACT, *OPEN):
            whole, truth = own.loc[("far", metric)], own.loc[("stranger", metric)]
            assert whole["value"] == pytest.approx(truth["value"], abs=1e-5), metric
            part, truth = own.loc[("big", metric)], own.loc[("teacher", metric)]
            if metric in EXACT:
                assert part["value"] == pytest.approx(truth["value"], abs=1e-5), metric
            else:
                assert math.isnan(part["value"]), metric
                assert part["bound_low"] - 1e-5 <= truth["value"] <= part["bound_high"] + 1e-5, metric

    def test_distances_from_the_student(self, made):
        rows = made.study.tables["distances"]
        rows = rows[rows["first"] == "the student"].set_index("second")
        assert rows.loc["far", "symmetric_kl"] == pytest.approx(rows.loc["stranger", "symmetric_kl"], abs=1e-5)
        assert math.isnan(rows.loc["big", "symmetric_kl"])
        assert rows.loc["big", "bound_low"] < rows.loc["teacher", "symmetric_kl"]
        assert rows.loc["big", "bound_high"] == math.inf
        assert rows["bound_low"].notna().tolist() == [False, False, True, False]

    def test_of_two_teachers_what_both_answers_hold_is_there_and_the_rest_is_not(self, made):
        rows = made.study.tables["distances"].set_index(["first", "second"])
        assert rows.loc[("teacher", "stranger"), "relative"] > 0.5
        for pair in (("big", "far"), ("teacher", "far"), ("stranger", "big")):
            row, truth = rows.loc[pair], rows.loc[("teacher", "stranger")]
            assert math.isnan(row["symmetric_kl"])
            assert math.isnan(row["relative"])
            for name in ("overlap_ratio", "advantage_correlation", "tas"):
                assert row[name] == pytest.approx(truth[name], abs=1e-5), name
        same = rows.loc[("teacher", "big")]
        assert (same["overlap_ratio"], same["advantage_correlation"]) == pytest.approx((1, 1), abs=1e-5)

    def test_verdicts(self, made):
        found = {v.name: v for v in made.study.verdicts}
        for rule in ("patterns_compatible", "new_capability"):
            assert found[f"{rule}[big]"].status == found[f"{rule}[teacher]"].status, rule
        assert found["indistinguishable_teacher[big]"].status == "pass"
        assert "at step 0 tail-sampled reverse KL " in found["indistinguishable_teacher[big]"].evidence
        assert found["teachers_alike[teacher, stranger]"].status == "pass"
        alike = found["teachers_alike[teacher, big]"]
        assert alike.status == "unknown"
        assert alike.evidence == (
            "Not known: a teacher behind a server is not held against another one in full. At the student's states the "
            "top tokens of teacher and big overlap by 1.00, and what they would reward correlates by 1.0000 "
            "[1.0000, 1.0000] (60 states, 6 prompts)."
        )
        assert found["sharpness[big]"].status == "unknown"

    def test_a_model_that_a_server_does_not_have_is_left_out_by_its_address(self, made):
        found = next(v for v in made.study.verdicts if v.name.startswith("usable_teacher["))
        assert found.name == f"usable_teacher[{made.port}#none]"
        assert found.evidence == (
            f"It was left out. http://{made.port} serves org/big, org/small; none was asked for. Name a model that it "
            "serves."
        )

    def test_the_page_says_what_is_known_of_whom(self, made):
        page = write_study(made.study, made.out).read_text()
        for said in (
            "What is known of it",
            "all, loaded here",
            "top 20 of its server",
            "whole vocabulary of its server",
        ):
            assert said in page, said
        record = json.loads((made.out / "teachers.json").read_text())
        assert {row["teacher"] for row in record["tables"]["k_sweep"]} == {"big"}
        (of_big,) = (line for line in record["measured"] if line.startswith("big: "))
        assert of_big == (
            f"big: The teacher is org/big behind vllm=http://{made.port} (vllm 0.32.0), its top 20 at each state; its "
            "hidden states and weights are not here, so these are left out: fitted temperature, gradient coherence, "
            "coverage, its precision floor, and the KL to other teachers; the rest of its vocabulary is not known, so "
            "these are left out: gradient shares. What else hangs on the rest lies between bounds; nothing is filled "
            "in."
        )
        cells = {row[0]: row[1:] for row in made.study.shown[0].rows}
        assert cells["Reverse KL, nats"][2].startswith("at least ")
        assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", cells["Tail-sampled reverse KL, nats"][2])
        assert cells["Gradient on shared tokens"][2] == "not from its top K"
        assert cells["Fitted temperature"][2:4] == ["not from a server"] * 2


class TestColdStart:
    @pytest.fixture
    def study(self, tiny_run, behind, tmp_path):
        def made(top):
            asked = {"max_new_tokens": 4, "max_prompts": 6, "teacher_top": top, "responses": 9}
            out = tmp_path / str(top)
            return cold_start(
                tiny_run.student, ADDRESS, tiny_run.prompts, after=tiny_run.checkpoint(30), out=out, **asked
            )

        return made

    def test_need_is_told_from_the_top_k_and_the_distance_is_between_bounds(self, study, tmp_path):
        part, whole = study(20), study(-1)
        for metric, states in (("student_overlap_mass", "on-policy"), ("forward_kl", "teacher")):
            tables = [of.tables["summary"] for of in (part, whole)]
            rows = [of[(of["metric"] == metric) & (of["states"] == states)].set_index("label") for of in tables]
            for label in ("step 0", "cold start"):
                found, truth = (of.loc[label] for of in rows)
                if metric in EXACT:
                    assert found["value"] == pytest.approx(truth["value"], abs=1e-5)
                else:
                    assert found["bound_low"] - 1e-5 <= truth["value"] <= found["bound_high"] + 1e-5
        by_name = [{v.name: v for v in of.verdicts} for of in (part, whole)]
        assert by_name[0]["cold_start_needed"].status == by_name[1]["cold_start_needed"].status == "warn"
        assert (by_name[0]["cold_start_effect"].status, by_name[1]["cold_start_effect"].status) == ("unknown", "pass")
        assert by_name[0]["cold_start_effect"].advice == CUT
        assert [p.name for p in part.pictures] == ["shared_mass", "concentration"]
        assert [p.name for p in whole.pictures] == ["shared_mass", "distance", "distance_by_depth", "concentration"]
        shown = {row[0]: row[1:] for of in part.shown for row in of.rows}
        assert shown["Reverse KL"][0].startswith("at least ")
        assert re.match(r"[\d.]+ \[", shown["Tail-sampled reverse KL"][0])
        assert part.tables["distance"].empty
        assert (whole.tables["distance"]["value"].dropna() > 0).all()
        assert len(part.tables["sft_responses"]) == 9
        # the same server twice: of the prompts that are measured, and of those that are taught
        assert len(list((tmp_path / "20" / "replay" / ".checks").glob("served-*.safetensors"))) > 1


class TestHorizon:
    def test_the_dense_signal_needs_the_whole_vocabulary_and_the_rest_does_not(self, tiny_run, behind, tmp_path):
        asked = {"teacher": ADDRESS, "checkpoints": "30", "max_prompts": 6, "max_new_tokens": 6, "depths": [2]}
        part = horizon(tiny_run.run_dir, out=tmp_path / "part", teacher_top=20, continuations=1, **asked)
        whole = horizon(tiny_run.run_dir, out=tmp_path / "whole", teacher_top=-1, continuations=0, **asked)
        assert part.verdicts[0].evidence == (
            "Of the teacher only the most probable ids came back, and reverse KL by depth needs whole distributions."
        )
        assert part.verdicts[0].advice == CUT
        assert "whole distributions" not in whole.verdicts[0].evidence
        assert {*part.tables["excess"]["metric"]} == {"student_entropy"}
        assert {*whole.tables["excess"]["metric"]} == {"student_entropy", "reverse_kl"}
        for name in ("value", "ci_low", "ci_high"):
            mine, theirs = (of.tables["excess"].query("metric == 'student_entropy'")[name] for of in (part, whole))
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
        assert [p.name for p in part.pictures] == ["entropy_by_depth", "student_entropy_map", "continuations"]
        assert len(whole.pictures) == 5
        assert {*part.tables["continuations"]["depth"]} == {0, 2}
        lines = (tmp_path / "part" / "continuations" / "teacher.student.000002.jsonl").read_text().splitlines()
        assert len(lines) == 12
        assert all(2 < len(json.loads(line)["response_ids"]) <= 6 for line in lines)


class TestPrompts:
    def test_chosen_by_mass_as_with_a_teacher_that_is_loaded(self, tiny_run, behind, tmp_path):
        asked = {"select": 3, "by": "student_overlap_mass", "max_new_tokens": 4, "rollouts_per_prompt": 2}
        found, truth = (
            prompts(tiny_run.student, teacher, tiny_run.prompts, out=tmp_path / name, **asked | more)
            for name, teacher, more in (("s", ADDRESS, {"teacher_top": 20}), ("l", tiny_run.teacher, {}))
        )
        table, local = found.tables["prompts"], truth.tables["prompts"]
        for name in ("student_overlap_mass", "teacher_overlap_mass", "student_entropy", "overlap_ratio"):
            np.testing.assert_allclose(table[name], local[name], atol=1e-5)
        assert table["is_chosen"].equals(local["is_chosen"])
        assert table[["reverse_kl", "reverse_kl_of_response", "teacher_entropy"]].isna().all(axis=None)
        assert any("of the teacher" in line or "top 20" in line for line in found.measured)
        assert "Reverse KL, nats a token" not in [row[0] for row in found.shown[0].rows]

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            (
                {"select": 3, "by": "reverse_kl_of_response"},
                "--by reverse_kl_of_response needs reverse KL, and the teacher's top 20 gives a lower bound of it "
                "alone. Rank by student_overlap_mass (--by), or a" + CUT[1:],
            ),
            (
                {"against": "other.jsonl"},
                "--template and --against need reverse KL beside the shared mass, and the teacher's top 20 gives a "
                "lower bound of it alone. " + CUT,
            ),
        ],
    )
    def test_what_reverse_kl_decides_is_refused(self, tiny_run, behind, tmp_path, monkeypatch, option, message):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "other.jsonl").write_bytes(tiny_run.prompts.read_bytes())
        with pytest.raises(InputError) as error:
            prompts(tiny_run.student, f"{ADDRESS}#top=20", tiny_run.prompts, out=tmp_path / "out", **option)
        assert str(error.value) == message
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompts", "--select", "2"], []),
        (["cold-start", "--responses", "5"], ["beyond it 5 more responses of the teacher, as data"]),
        (
            ["horizon", "--depths", "2,3"],
            # of 6 prompts 2 responses each, 3 kinds of prefixes, 2 depths; by 2 models, 2 times
            ["beyond it at most 288 continuations of prefixes; 72 more requests to the teacher"],
        ),
        (
            ["teachers", "--teacher", "TEACHER"],
            ["/teacher run ", "== served/teacher run ", "requests to servers, ", "made once, and counted in each"],
        ),
    ],
    ids=["prompts", "cold-start", "horizon", "teachers"],
)
def test_a_plan_says_what_a_server_will_be_asked(tiny_run, behind, tmp_path, words, said):
    words = [str(tiny_run.teacher) if word == "TEACHER" else word for word in words]
    models = ["--student", tiny_run.student, "--prompts", tiny_run.prompts]
    about = [tiny_run.run_dir, "--checkpoints", "30"] if words[0] == "horizon" else models
    asked = [*words, *about, "--teacher", ADDRESS, "--max-new-tokens", 6, "--max-prompts", 6, "--teacher-top", 20]
    result = CliRunner().invoke(app, [*map(str, asked), "--out", str(tmp_path / "out"), "--plan"])
    shown = " ".join(result.output.split())
    assert result.exit_code == 0, shown
    for part in ("requests to the teacher", "over the wire", *said):
        assert part in shown, shown
    assert not (tmp_path / "out").exists()


def test_where_whole_distributions_come_back_nothing_is_refused():
    for plan in (SimpleNamespace(served=None), SimpleNamespace(served=SimpleNamespace(whole=True, top=-1))):
        refuse_top_k(plan, "x needs y")


def test_of_the_whole_vocabulary_only_what_takes_hidden_states_is_left_out():
    whole = SimpleNamespace(whole=True, said=lambda: "m behind a")
    assert of_server(whole, hidden="h", whole="w", bounds=True) == (
        "The teacher is m behind a; its hidden states and weights are not here, so these are left out: h."
    )


def test_the_folder_of_a_model_that_vllm_loads_is_a_models_folder(tmp_path):
    assert folder_in(f"vllm={tmp_path}#top=5") == str(tmp_path)
    assert folder_in(f"{ADDRESS}#big") == f"{ADDRESS}#big"
    assert folder_in(tmp_path) == tmp_path
