"""A report with a teacher behind a server: the local numbers where they are known, bounds around them elsewhere."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from model_server import ModelServer
from servers.stand_in import stand_in
from tiny_run import change_weights
from typer.testing import CliRunner

import opd_diag
from opd_diag.cli import app
from opd_diag.errors import InputError, ServerError, TokenizerMismatchError
from opd_diag.inference import load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.records.settings import Settings
from opd_diag.replay import served as served_module
from opd_diag.replay.planning import plan_run
from opd_diag.report.json_file import report_schema
from opd_diag.report.served import of_server
from opd_diag.runs.digests import Digests
from opd_diag.runs.fingerprint import fingerprint
from opd_diag.servers import About

from .crashing import without_drawing

ADDRESS = "vllm=http://127.0.0.1:8000"
OPTIONS = {"max_prompts": 6, "max_new_tokens": 6, "checkpoints": "30"}
BEHIND = {"teacher": ADDRESS, "teacher_top": 20}
EXACT = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "overlap_token_advantage", "top1_agreement",
         "student_entropy", "sampled_reverse_kl", "verl_topk_forward_kl")  # fmt: skip
OPEN = ("forward_kl", "reverse_kl", "jensen_shannon", "common_mass", "teacher_entropy", "entropy_gap", "teachable_mass")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def put_behind(teacher):
    """(patch, …) → a server of the tiny run's teacher, or of another model, that is there from now on."""

    def put(patch, model=None, **about):
        server = ModelServer(model or teacher.model, **({"tokenizer": teacher.tokenizer} | about))
        patch.setattr(served_module, "connect", lambda address, *, model, top, dtype, weights_key: server)
        return server

    return put


@pytest.fixture(scope="module")
def local(tiny_run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        without_drawing(patch)
        out = tmp_path_factory.mktemp("local") / "out"
        return opd_diag.diagnose(tiny_run.run_dir, out=out, states="on-policy,start", **OPTIONS)


@pytest.fixture(scope="module")
def made(tiny_run, put_behind, tmp_path_factory):
    """The report of a server's top 20, and what the server was asked."""
    with pytest.MonkeyPatch.context() as patch:
        server = put_behind(patch)
        report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path_factory.mktemp("top") / "out", **BEHIND, **OPTIONS)
        return SimpleNamespace(report=report, asked=server.asked)


def summary_of(report):
    return report.tables.summary.set_index(["label", "states", "metric"])


class TestTheTopK:
    def test_the_local_numbers_are_equal_or_inside(self, made, local):
        found, truth = summary_of(made.report), summary_of(local)
        for (label, states, metric), row in truth.iterrows():
            if metric in EXACT:
                value = found.loc[(label, states, metric), "value"]
                assert value == pytest.approx(row["value"], abs=1e-5, nan_ok=True), metric
            elif metric in OPEN:
                here = found.loc[(label, states, metric)]
                assert math.isnan(here["value"]), metric
                assert here["bound_low"] - 1e-5 <= row["value"] <= here["bound_high"] + 1e-5, metric
                assert not here["ci_low"] > row["ci_low"] + 1e-5
                assert not here["ci_high"] < row["ci_high"] - 1e-5

    def test_the_mean_of_reverse_kl_is_estimated_on_own_states(self, made, local):
        found, truth = summary_of(made.report), summary_of(local)
        for label in ("step 0", "step 30"):
            row = found.loc[(label, "on-policy", "tail_sampled_reverse_kl")]
            error = (row["ci_high"] - row["ci_low"]) / 2
            assert 0 < abs(row["value"] - truth.loc[(label, "on-policy", "reverse_kl"), "value"]) < 2 * error
        assert math.isnan(found.loc[("step 30", "start", "tail_sampled_reverse_kl"), "value"])

    def test_verdicts_that_the_bounds_decide_stay_open(self, made):
        verdicts = {v.name: v for v in made.report.verdicts}
        assert "tail-sampled reverse KL" in verdicts["alignment_on_policy"].evidence
        for name in ("alignment_at_start", "false_success", "sharpness"):
            assert verdicts[name].status == "unknown", name
            assert ("--teacher-top -1" in verdicts[name].advice) == (name != "sharpness"), "which no server tells"
        assert made.report.headline.title == (
            "More alike on own states; whether that is progress at equal states is not known"
        )
        assert verdicts["patterns_compatible"].status in ("pass", "warn")

    def test_report_json_says_who_answered_what_it_cost_and_which_k_would_do(self, made):
        stored = json.loads((made.report.out_dir / "report.json").read_text())
        jsonschema.validate(stored, report_schema())
        assert stored["provenance"]["models"][-1]["path"] == "served/teacher"
        cost = stored["provenance"]["cost"]
        # 12 responses of step 0, of step 30 and of the teacher, 6 prompts to sample from, 6 probes twice, the first few
        assert cost["actual"]["requests"] == 12 + 12 + 12 + 6 + 2 * 6
        assert cost["predicted"]["requests"] == 54
        assert cost["actual"]["received"] > 1000
        assert {row["top"] for row in stored["k_sweep"]} == {1, 2, 4, 8, 16, 20}
        assert any("vllm 0.32.0" in note and "top 20" in note for note in made.report.notes)

    def test_a_response_is_asked_about_once_whatever_the_number_of_checkpoints(self, made):
        start = opd_diag.load_rollouts(made.report.out_dir / "rollouts" / "start.jsonl")
        for rollout in start:
            ids = (*rollout.teacher_prompt_ids, *rollout.response_ids)
            same = [q for q in made.asked if q.ids == ids and q.start == len(rollout.teacher_prompt_ids)]
            twice = sum(r.prompt_ids == rollout.prompt_ids and r.response_ids == rollout.response_ids for r in start)
            # and once more for each of two passes of the self-tests, of the first response to each prompt
            assert len(same) in (twice, twice + 2)

    def test_the_teachers_responses_come_from_the_server(self, made):
        rollouts = opd_diag.load_rollouts(made.report.out_dir / "rollouts" / "teacher.jsonl")
        assert len(rollouts) == 12
        assert {r.provenance.weights for r in rollouts} == {"teacher"}
        assert all(1 <= len(r.response_ids) <= 6 for r in rollouts)
        assert all(r.sampled_logprobs is not None for r in rollouts)
        replayed = {t.model: t for t in made.report.selftests if t.name == "logprobs"}
        assert replayed["teacher"].status == "pass"

    def test_the_page_has_what_is_left_open_and_no_picture_of_nothing(self, made):
        page = (made.report.out_dir / "report.html").read_text()
        assert "What the teacher's top 20 leave open" in page
        assert 'href="#entropies"' not in page
        drawn = {path.name for path in (made.report.out_dir / "figures").iterdir()}
        assert {"bounds-forward_kl.svg", "bounds-jensen_shannon.svg", "alignment-forward_kl.svg"} <= drawn
        assert not {"gradient-on-policy.svg", "tails-on-policy.svg"} & drawn

    def test_check_gives_the_same_verdicts_without_a_server(self, made, monkeypatch):
        monkeypatch.setattr(served_module, "connect", None)
        again = opd_diag.check(made.report.out_dir)
        assert [v.as_record() for v in again] == [v.as_record() for v in made.report.verdicts]


def test_chosen_ids_make_an_estimate_on_every_set_and_verdicts_rest_on_it(
    tiny_run, put_behind, tmp_path, local, monkeypatch
):
    put_behind(monkeypatch, exact_ids=True, sees_all=False, top_limit=20)
    without_drawing(monkeypatch)
    options = {"states": "on-policy,start", **BEHIND} | OPTIONS
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", **options)
    found, truth = summary_of(report), summary_of(local)
    for label, states in ((label, states) for label in ("step 0", "step 30") for states in ("on-policy", "start")):
        row = found.loc[(label, states, "tail_sampled_reverse_kl")]
        error = (row["ci_high"] - row["ci_low"]) / 2
        assert 0 < abs(row["value"] - truth.loc[(label, states, "reverse_kl"), "value"]) < 2 * error
    verdicts = {v.name: v for v in report.verdicts}
    for name in ("alignment_on_policy", "alignment_at_start"):
        assert "tail-sampled reverse KL" in verdicts[name].evidence
        assert "--teacher-top -1" not in verdicts[name].advice
    assert "is estimated without bias on own states and the start's states" in of_server(report).sentence


def test_the_whole_vocabulary_gives_the_local_report(tiny_run, put_behind, tmp_path, local, monkeypatch):
    put_behind(monkeypatch)
    without_drawing(monkeypatch)
    options = {"states": "on-policy,start", "teacher": ADDRESS, "teacher_top": -1} | OPTIONS
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", **options)
    found, truth = summary_of(report), summary_of(local)
    assert report.tables.sweep.empty
    shared = found.index.intersection(truth.index)
    assert {*truth.index} - {*shared} == {
        (label, states, metric)
        for label in ("step 0", "step 30")
        for states in ("on-policy", "start")
        for metric in ("fitted_temperature", "reverse_kl_after_temperature", "gradient_coherence")
    }
    for end in ("value", "ci_low", "ci_high"):
        np.testing.assert_allclose(found.loc[shared, end], truth.loc[shared, end], atol=1e-4, rtol=1e-4)


class TestGoingOn:
    @pytest.fixture
    def out(self, made, tmp_path, monkeypatch):
        without_drawing(monkeypatch)
        shutil.copytree(made.report.out_dir, tmp_path / "out")
        return tmp_path / "out"

    def test_nothing_is_asked_again_but_a_few_tokens(self, tiny_run, put_behind, out, made, monkeypatch):
        again = put_behind(monkeypatch)
        monkeypatch.setattr("opd_diag.diagnosis.predicted_or_none", lambda plan: None)
        report = opd_diag.diagnose(tiny_run.run_dir, out=out, **BEHIND, **OPTIONS)
        assert [q.top for q in again.asked] == [1] * 4
        assert summary_of(report).equals(summary_of(made.report))

    def test_another_model_under_the_same_name_is_refused(self, tiny_run, put_behind, out, teacher, monkeypatch):
        where = Checkpoint("teacher", None, tiny_run.student, "full")
        put_behind(monkeypatch, load_model(where, name="other", stop_ids=teacher.tokenizer.stop_ids))
        with pytest.raises(ServerError) as error:
            opd_diag.diagnose(tiny_run.run_dir, out=out, **BEHIND, **OPTIONS)
        said = "it has other weights under the name served/teacher. Choose another folder with --out, or load the"
        assert said in str(error.value)


@pytest.mark.parametrize(("engine", "options"), [("vllm", {"exact": False}), ("vllm", {}), ("sglang", {})])
def test_over_the_wire(tiny_run, teacher, tmp_path, local, monkeypatch, engine, options):
    """From an address alone: what servers answer as documented gives the local numbers."""
    without_drawing(monkeypatch)
    plain = ModelServer(teacher.model)
    text = teacher.tokenizer.text
    stop = teacher.model.stop_ids[0]
    with stand_in(engine, plain.logprobs, context=96, text=text, stop_id=stop, names=["big"], **options) as url:
        report = opd_diag.diagnose(
            tiny_run.run_dir,
            out=tmp_path / "out",
            states="on-policy",
            teacher=f"{engine}={url}",
            teacher_top=20,
            **OPTIONS,
        )
    found, truth = summary_of(report), summary_of(local)
    for label in ("step 0", "step 30"):
        for metric in EXACT:
            where = (label, "on-policy", metric)
            assert found.loc[where, "value"] == pytest.approx(truth.loc[where, "value"], abs=1e-5, nan_ok=True), metric
        for metric in OPEN:
            where = (label, "on-policy", metric)
            row, value = found.loc[where], truth.loc[where, "value"]
            low, high = (row["value"],) * 2 if math.isnan(row["bound_low"]) else (row["bound_low"], row["bound_high"])
            assert low - 1e-5 <= value <= high + 1e-5, metric
    asks = engine == "sglang" or options == {}
    known = not math.isnan(found.loc[("step 0", "on-policy", "topk_reverse_kl"), "value"])
    assert known == asks, "the student's own ids are asked for where the server can say them"
    of_pair = {t.name: t.status for t in report.selftests if t.model == "student and teacher"}
    assert (of_pair["vocabulary"], of_pair["repeatability"]) == ("pass", "pass")


class TestBadInput:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"teacher_temperature": 0.5}, "Option teacher_temperature must be 1 for a teacher behind a server"),
            ({"k": 30}, "Option k is 30, but only the 20 most probable ids of the teacher are asked for"),
            ({"teacher_top": 0}, "Option teacher_top must be at least 1, or -1 for the whole vocabulary, found 0."),
            ({"requests": 0}, "Option requests must be at least 1, found 0."),
        ],
    )
    def test_of_options(self, tiny_run, put_behind, monkeypatch, option, message):
        put_behind(monkeypatch, top_limit=20, sees_all=False)
        with pytest.raises(InputError) as error:
            plan_run(tiny_run.run_dir, teacher=ADDRESS, **option)
        assert message in str(error.value)

    def test_what_an_address_says_goes_before_options(self, tiny_run, monkeypatch, teacher):
        asked = []

        def connect(address, *, model, top, dtype, weights_key):
            asked.append((address, model, top))
            return ModelServer(teacher.model, tokenizer=teacher.tokenizer)

        monkeypatch.setattr(served_module, "connect", connect)
        options = {"teacher_model": "small", "teacher_top": 30}
        for address, top in ((f"{ADDRESS}#big,top=24,tokenizer={tiny_run.teacher}", 24), (ADDRESS, 30)):
            plan = plan_run(tiny_run.run_dir, teacher=address, **options)
            assert (plan.served.top, plan.served.address) == (top, ADDRESS)
            assert plan.settings.teacher_tokenizer == (str(tiny_run.teacher) if top == 24 else None)
        assert asked == [(ADDRESS, "big", 24), (ADDRESS, "small", 30)]

    @pytest.mark.parametrize("option", [{"teacher_model": "x"}, {"teacher_top": 5}, {"teacher_tokenizer": "x"}])
    def test_options_of_servers_without_one(self, tiny_run, option):
        with pytest.raises(InputError) as error:
            plan_run(tiny_run.run_dir, **option)
        flag = "--" + next(iter(option)).replace("_", "-")
        assert str(error.value).startswith(f"{flag} is for a teacher behind a server, found teacher")

    def test_a_server_of_another_tokenizer(self, tiny_run, put_behind, teacher, monkeypatch):
        put_behind(monkeypatch)
        other = plan_run(tiny_run.run_dir, teacher=ADDRESS).prompts[3].ids[-2]
        text = teacher.tokenizer.text
        wrong = SimpleNamespace(text=lambda ids: "".join("x" if i == other else text([i]) for i in ids))
        put_behind(monkeypatch, tokenizer=wrong)
        with pytest.raises(TokenizerMismatchError) as error:
            plan_run(tiny_run.run_dir, teacher=ADDRESS)
        assert str(error.value) == (
            f"Token id {other} is {text([other])!r} to the student's tokenizer and 'x' to the server of teacher. "
            "Student and teacher must share a tokenizer: name another teacher, or the run's own tokenizer with "
            "--tokenizer."
        )

    def test_without_a_text_of_the_servers_that_is_said(self, tiny_run, put_behind, monkeypatch):
        put_behind(monkeypatch, tokenizer=None)
        plan = plan_run(tiny_run.run_dir, teacher=ADDRESS)
        assert any(note.startswith("The teacher gives no text of ids;") for note in plan.notes)


def test_the_plan_says_what_the_server_gives_and_what_it_will_be_asked(tiny_run, put_behind, monkeypatch):
    put_behind(monkeypatch, top_limit=20, sees_all=False)
    result = CliRunner().invoke(app, ["report", str(tiny_run.run_dir), "--teacher", ADDRESS, "--plan"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "teacher served/teacher behind vllm=http://127.0.0.1:8000 (vllm 0.32.0), its top 20 at each state" in said
    assert "requests to the teacher" in said
    assert "over the wire" in said


class TestInVLLMHere:
    """Loaded into vLLM in this process, of which a stand-in says no more than its name."""

    @pytest.fixture
    def known(self, monkeypatch):
        about = About("vllm", "0.32.0", "big", "big", 512, None, True, None, True, vocab_size=300)
        meanwhile, self.told = [], []

        def connect(address, *, model, top, dtype, weights_key):
            self.told.append(weights_key)
            for change in meanwhile:
                change()
            return SimpleNamespace(about=about)

        monkeypatch.setattr(served_module, "connect", connect)
        key = lambda folder: served_module.served_teacher(Settings(teacher=f"vllm={folder}"), Digests()).key  # noqa: E731
        return key, meanwhile

    def test_it_is_known_by_its_bytes_and_not_by_its_name(self, own_run, known, tmp_path):
        key, _ = known
        first = key(own_run.teacher)
        shutil.copytree(own_run.teacher, tmp_path / "moved")
        assert key(tmp_path / "moved") == first
        change_weights(own_run.teacher, lambda name, tensor: tensor + 1)
        assert key(own_run.teacher) != first

    def test_what_it_loads_is_told_by_its_bytes(self, own_run, known):
        key, _ = known
        key(own_run.teacher)
        key("org/big")
        assert self.told == [fingerprint(Checkpoint("a", None, own_run.teacher, "full")), None]

    def test_of_a_hub_id_the_name_is_all(self, known):
        key, _ = known
        assert key("org/big") == content_key(["served", "vllm", "0.32.0", "big", "big"])

    def test_a_folder_that_is_written_to_while_it_is_loaded(self, own_run, known):
        key, meanwhile = known
        meanwhile.append(lambda: change_weights(own_run.teacher, lambda name, tensor: tensor + 1))
        with pytest.raises(InputError, match=r"^The teacher cannot be read\. .*model\.safetensors changed while"):
            key(own_run.teacher)

    @pytest.mark.parametrize("beside", ["value_head.safetensors", "hf_quant_config.json"])
    def test_a_folder_with_more_than_it_is_known_by(self, own_run, known, beside):
        key, _ = known
        shutil.copy(own_run.teacher / "model.safetensors", own_run.teacher / beside)
        with pytest.raises(InputError) as caught:
            key(own_run.teacher)
        assert str(caught.value) == (
            f"Teacher {own_run.teacher} in vLLM: expected full weights in safetensors with their config, and no other "
            f"file that vLLM would read with them; found {beside} beside them. Save it so, or load it without vLLM: "
            "--teacher DIR."
        )
        assert self.told == []

    def test_what_it_does_not_go_with(self, own_run, known):
        here = f"vllm={own_run.teacher}"
        with pytest.raises(InputError) as caught:
            served_module.served_teacher(Settings(teacher=here, teacher_temperature=0.5), Digests())
        assert str(caught.value) == (
            "Option teacher_temperature must be 1 for a teacher in vLLM, which gives log-probabilities at 1; found "
            "0.5. Leave --teacher-temperature out, or name a folder or hub id with --teacher."
        )
