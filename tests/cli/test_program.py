"""The terminal door: exit codes, one sentence for each mistake, and what is printed where."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tiny_run as tiny
from rich.console import Console
from typer.testing import CliRunner

import opd_diag
from opd_diag import cli
from opd_diag.cli import terminal
from opd_diag.errors import ModelError, RankError
from opd_diag.replay.selftests import load_selftests

DATA = Path(__file__).parents[2] / "data"
PROGRAM = Path(sys.executable).with_name("opd-diag")
ESCAPE = "\x1b"


def invoke(*args):
    """Run the program in this process; give its result."""
    return CliRunner().invoke(cli.app, [str(a) for a in args])


def reported(*args):
    result = invoke("report", *args)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*args):
    """Run what must be refused; give the one sentence."""
    result = invoke(*args)
    assert result.exit_code == 2, (result.exit_code, result.output)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.removeprefix("error: ").strip()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made" / "out"


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """Folder of a report of the tiny run, without pages."""
    from opd_diag.report import Report
    from opd_diag.report.json_file import write_report_json

    folder = tmp_path_factory.mktemp("cli") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "write", lambda report: write_report_json(report.out_dir / "report.json", report))
        reported(tiny_run.run_dir, "--out", folder, "--quiet")
    return folder


# report


def test_report_prints_headline_verdicts_and_page(tiny_run, out, without_pages):
    result = reported(tiny_run.run_dir, "--out", out)
    lines = result.stdout.splitlines()
    stored = json.loads((out / "report.json").read_text())
    assert lines[0] == f"run: {stored['headline']['title']}"
    assert lines[1].startswith("self-tests: ")
    alarms_come_first = ["fail", "warn", "unknown", "pass"].index
    expected = sorted(stored["verdicts"], key=lambda verdict: alarms_come_first(verdict["status"]))
    for line, verdict in zip(lines[2:-1], expected, strict=True):
        status, name, evidence = line.split(maxsplit=2)
        assert (status, name) == (verdict["status"], verdict["name"])
        seen = verdict["evidence"].split("; ")[0] if status == "pass" else verdict["evidence"]
        assert evidence == seen
    assert lines[-1] == f"page: {out / 'report.html'}"


def test_the_plan_comes_before_the_work(tiny_run, out, without_pages):
    lines = reported(tiny_run.run_dir, "--out", out).stderr.splitlines()
    assert [line.split("  ")[0] for line in lines[:15]] == [
        "run",
        "teacher",
        "step 0",
        "prompts",
        "to sample",
        "to score",
        "cost",
        "tokens sampled",
        "tokens through bodies",
        "GFLOP",
        "minutes",
        "written",
        "predicted",
        "in memory",
        "meanwhile",
    ]
    assert re.split(r"  +", lines[6]) == ["cost", "predicted", "at most"]
    assert lines[15].startswith("teacher: sampling responses")
    assert max(map(len, lines[6:15])) < 100


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_another_precision_than_was_asked_for_is_said(tiny_run, out, without_pages, monkeypatch, quiet):
    monkeypatch.setattr("opd_diag.inference.precision.cpu_computes", lambda dtype: False)
    asked = ["--out", out, "--dtype", "bfloat16", "--checkpoints", "30", *quiet]
    first = reported(tiny_run.run_dir, *asked).stderr.splitlines()[0]
    assert first.startswith("precision: This CPU has no instructions for bfloat16")
    assert first.endswith("float32 was used.")


def test_what_it_cost_comes_after_the_work(tiny_run, out, without_pages):
    lines = reported(tiny_run.run_dir, "--out", out, "--checkpoints", "30").stderr.splitlines()[-6:]
    cost = json.loads((out / "report.json").read_text())["provenance"]["cost"]
    rows = [re.split(r"  +", line) for line in lines]
    assert rows[0] == ["cost", "predicted", "actual"]
    sampled = [cost[kind]["sampled"] for kind in ("predicted", "actual")]
    assert rows[1] == ["tokens sampled", f"{float(f'{sampled[0]:.2g}'):,.0f}", f"{sampled[1]:,}"]
    assert cost["actual"]["sampled"] > 100
    assert (cost["parts_found"], cost["parts_made"] > 10) == (0, True)
    again = reported(tiny_run.run_dir, "--out", out, "--checkpoints", "30").stderr.splitlines()[-7:]
    assert re.split(r"  +", again[1])[2] == "0"
    made = cost["parts_made"]
    assert again[-1] == f"{made} of {made} parts were stored already and cost nothing; the prediction has them all"


def test_a_model_whose_size_cannot_be_told_is_no_reason_to_stop(tiny_run, out, without_pages, monkeypatch):
    def refused(*args, **options):
        raise ModelError("Of no known shape.")

    monkeypatch.setattr("opd_diag.replay.cost.model_size", refused)
    lines = reported(tiny_run.run_dir, "--out", out, "--checkpoints", "30").stderr.splitlines()
    assert lines[6] == "cost         unknown: Of no known shape."
    cost = json.loads((out / "report.json").read_text())["provenance"]["cost"]
    assert (cost["predicted"], cost["actual"]["gflop"]) == (None, None)


def test_plan_alone_writes_nothing_and_loads_no_weights(tiny_run, out, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **o: pytest.fail("weights"))
    before = tiny.listing(tiny_run.root)
    result = reported(tiny_run.run_dir, "--out", out, "--plan")
    assert "5 models × 16 responses" in result.stderr
    assert result.stdout == ""
    assert not out.parent.exists()
    assert tiny.listing(tiny_run.root) == before
    quiet = reported(tiny_run.run_dir, "--out", out, "--plan", "--quiet")
    timeless = [re.sub(r"(?m)^minutes .*$|, [0-9,.]+ GB free$", "", said.stderr) for said in (result, quiet)]
    assert timeless[0] == timeless[1], "who asks for the plan gets it"


def test_quiet_prints_nothing_to_stderr(tiny_run, out, without_pages, capfd):
    result = reported(tiny_run.run_dir, "--out", out, "--quiet")
    assert result.stderr == ""
    assert "alignment_on_policy" in result.stdout
    assert capfd.readouterr() == ("", "")


def test_progress_off_a_terminal_is_plain_lines(tiny_run, out, without_pages):
    lines = reported(tiny_run.run_dir, "--out", out, "--checkpoints", "30").stderr.splitlines()
    assert ESCAPE not in "".join(lines)
    assert all("\r" not in line for line in lines)
    told = [
        re.sub(r"[\d.]+ s$", "T", line)
        for line in lines[15:]
        if ": " in line and line.startswith(("step", "teacher: "))
    ]
    tokens = next(re.search(r": ([\d,]+) in", line)[1] for line in told if "scoring on-policy" in line)
    assert told[0] == "teacher: sampling responses: 16 in T"
    tests = [f"self-tests, {what}, tokens" for what in ("first pass", "second pass", "as its own teacher")]
    floor = [f"precision floor, {what}, tokens" for what in ("batch shapes", "precisions")]
    scored = {s: [f"scoring {s} states, tokens", f"fits on {s} states"] for s in ("on-policy", "start", "teacher")}
    assert [": ".join(line.split(": ")[:2]) for line in told if "in T" in line] == [
        "teacher: sampling responses", "step 0: sampling responses",
        *(f"step 0: {what}" for what in (*tests, *floor)), *(f"teacher: {what}" for what in floor),
        *(f"step 0: {what}" for what in (*scored["on-policy"], *scored["teacher"])),
        "step 30: sampling responses", *(f"step 30: {what}" for s in scored for what in scored[s]),
    ]  # fmt: skip
    assert int(tokens.replace(",", "")) > 100


def test_progress_on_a_terminal_is_drawn_and_taken_away(tiny_run, out, without_pages, monkeypatch):
    screen = io.StringIO()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=True, width=120, emoji=False))
    reported(tiny_run.run_dir, "--out", out, "--checkpoints", "30")
    drawn = screen.getvalue()
    assert ESCAPE in drawn
    assert "step 30: scoring start states, tokens" in drawn
    assert re.search(r"(\d{3})/\1\b", drawn), "done of all"


def test_a_second_run_says_the_same(tiny_run, out, without_pages):
    first, second = (reported(tiny_run.run_dir, "--out", out) for _ in range(2))
    assert second.stdout == first.stdout
    assert "sampling" in first.stderr
    assert "sampling" not in second.stderr, "all of it was stored"


@pytest.mark.parametrize(
    ("fail_on", "code"), [(None, 0), ("never", 0), ("fail", 0), ("warn", 1), ("unknown", 1)], ids=str
)
def test_fail_on(tiny_run, finished, tmp_path, without_pages, fail_on, code):
    """The verdicts of the tiny run are pass, warn and unknown."""
    shutil.copytree(finished, tmp_path / "out")
    stored = json.loads((finished / "report.json").read_text())
    assert {v["status"] for v in stored["verdicts"]} == {"pass", "warn", "unknown"}
    words = [] if fail_on is None else ["--fail-on", fail_on]
    result = invoke("report", tiny_run.run_dir, "--out", tmp_path / "out", "--quiet", *words)
    assert result.exit_code == code
    assert "page: " in result.stdout


def test_a_run_that_gets_worse_fails(own_run, out, without_pages):
    """Student and last checkpoint exchanged: away from the teacher."""
    for a, b in ((own_run.student, own_run.checkpoint(30)), (own_run.checkpoint(10), own_run.checkpoint(20))):
        (a / "model.safetensors").rename(own_run.root / "kept")
        (b / "model.safetensors").rename(a / "model.safetensors")
        (own_run.root / "kept").rename(b / "model.safetensors")
    result = invoke("report", own_run.run_dir, "--out", out, "--fail-on", "fail", "--quiet")
    assert result.exit_code == 1
    assert "run: The student moves away from its teacher" in result.stdout
    assert invoke("check", out).exit_code == 1
    assert invoke("check", out, "--fail-on", "never").exit_code == 0


def test_a_broken_checkpoint_is_named_and_the_exit_code_is_0(own_run, out, without_pages):
    tiny.truncate(own_run.checkpoint(10))
    tiny.fill_with_nan(own_run.checkpoint(20))
    result = reported(own_run.run_dir, "--out", out)
    left_out = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2
    assert "step 20" in left_out[0]
    assert "NaN" in left_out[0]
    assert "step 10" in left_out[1]
    assert "truncated" in left_out[1]


def test_quiet_still_says_what_was_left_out(own_run, out, without_pages):
    """The exit code is 0 and the report lacks a checkpoint: whoever reads only the terminal must know."""
    tiny.truncate(own_run.checkpoint(10))
    lines = reported(own_run.run_dir, "--out", out, "--quiet").stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("left out: step 10: ")


def test_every_option_of_the_terminal_reaches_the_settings(tiny_run, tmp_path, monkeypatch):
    """Each of them, by its own name and type."""
    from opd_diag.records.settings import SETTING_NAMES

    given = {}

    class Stop(Exception):
        pass

    def planned(run_dir, *, out, **options):
        given.update(options)
        raise Stop

    monkeypatch.setattr("opd_diag.diagnosis.plan_report", planned)
    words = {
        "student": "s", "teacher": "t", "prompts": "p", "rollouts": "r", "base-model": "b", "tokenizer": "k",
        "states": "start", "k": "5", "rollouts-per-prompt": "3", "max-prompts": "4", "max-new-tokens": "6",
        "temperature": "0.5", "top-p": "0.4", "student-temperature": "2", "teacher-temperature": "3",
        "teacher-template": "f", "teacher-system-prompt": "y", "chat-template-kwargs": '{"a": 1}', "seed": "9",
        "device": "cpu", "device-map": "auto", "tensor-parallel": "2",
        "dtype": "float16", "checkpoints": "1,2", "layout": "single",
        "steps": "7=a", "step-base": "0",
        "logs": "l", "beta": "0.5", "store": "d", "max-staleness": "2",
        "teacher-model": "m", "teacher-top": "7", "teacher-tokenizer": "z", "requests": "8",
        "sampler": "vllm", "engine": "ray", "workers": "3", "cpus-per-worker": "2", "gpus-per-worker": "0.5",
    }  # fmt: skip
    line = [part for name, value in words.items() for part in (f"--{name}", value)]
    result = invoke("report", "RUN", *line, "--trust-remote-code", "--allow-pickle")
    assert isinstance(result.exception, Stop)
    expected = {name.replace("-", "_"): value for name, value in words.items()}
    expected |= {"k": 5, "step_base": 0, "rollouts_per_prompt": 3, "max_prompts": 4, "max_new_tokens": 6, "seed": 9}
    expected |= {"temperature": 0.5, "top_p": 0.4, "student_temperature": 2.0, "teacher_temperature": 3.0}
    expected |= {"chat_template_kwargs": {"a": 1}, "trust_remote_code": True, "beta": 0.5}
    expected |= {"teacher_top": 7, "requests": 8, "tensor_parallel": 2}
    expected |= {"max_staleness": 2, "allow_pickle": True, "workers": 3, "cpus_per_worker": 2, "gpus_per_worker": 0.5}
    assert given == expected
    assert set(SETTING_NAMES) == set(given)


def test_one_of_several_processes_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "launcher" not in invoke("check", tmp_path).stderr, "a cluster may say it of other processes"
    monkeypatch.setenv("LOCAL_RANK", "1")
    result = invoke("report", tmp_path, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert " ".join(result.stderr.split()) == (
        "error: A launcher started 2 processes of opd-diag, which is one process: start it without torchrun. "
        "--tensor-parallel N starts the processes of a teacher in shards itself, --device-map auto spreads large "
        "models over GPUs, and a teacher may run behind a server."
    )
    assert not (tmp_path / "out").exists()


def test_only_a_terminal_command_may_end_its_process():
    seen = []
    terminal.shows_errors(lambda: seen.append(RankError.ends_process))()
    assert seen == [True]
    assert not RankError.ends_process


# What is wrong is said in one sentence, and nothing is left behind.


def without(path):
    return lambda run: shutil.rmtree(path(run)) if path(run).is_dir() else path(run).unlink()


def only(folder_of, *names):
    """Leave nothing in a folder but `names`."""

    def change(run):
        for entry in folder_of(run).iterdir():
            if entry.name not in names:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    return change


def truncate_all(run):
    for step in tiny.STEPS:
        tiny.truncate(run.checkpoint(step))


def adapters_without_base(run):
    for step in tiny.STEPS:
        folder = run.checkpoint(step)
        shutil.rmtree(folder)
        folder.mkdir()
        shutil.copy(run.student / "model.safetensors", folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "base_model_name_or_path": "/models/gone/base"}
        (folder / "adapter_config.json").write_text(json.dumps(config))


def break_line(run):
    lines = run.prompts.read_text().splitlines()
    lines[4] = lines[4].replace('"prompt"', "prompt")
    run.prompts.write_text("\n".join(lines) + "\n")


def long_prompt(run):
    with run.prompts.open("a") as file:
        file.write(json.dumps({"id": "novel", "prompt": "x" * 200}) + "\n")


def other_tokenizer(run):
    tokenizer = json.loads((run.teacher / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["0"], vocabulary["x"] = vocabulary["x"], vocabulary["0"]
    (run.teacher / "tokenizer.json").write_text(json.dumps(tokenizer))


def manifest(text):
    return lambda run: (run.run_dir / "opd-diag.toml").write_text(text)


def nothing(run):
    pass


RUN = "RUN"
BAD_INPUT = [
    pytest.param(without(lambda r: r.run_dir), [], ["run does not exist"], id="missing folder"),
    pytest.param(
        only(lambda r: r.run_dir), [], ["No checkpoint found", "Found: nothing", "Pass the folder"], id="empty"
    ),
    pytest.param(
        only(lambda r: r.run_dir, "opd-diag.toml"), [], ["No checkpoint found", "opd-diag.toml"], id="no checkpoints"
    ),
    pytest.param(truncate_all, [], ["None of the 3 checkpoints", "truncated", "copy or save it again"], id="truncated"),
    pytest.param(
        lambda r: [(r.checkpoint(s) / "model.safetensors").unlink() for s in tiny.STEPS],
        [],
        ["It has config.json but no weights", "save_pretrained"],
        id="config without weights",
    ),
    pytest.param(
        adapters_without_base, [], ["/models/gone/base", "does not exist", "--base-model"], id="adapter without base"
    ),
    pytest.param(lambda r: tiny.write_manifest(r, teacher=""), [], ["No teacher", "--teacher"], id="no teacher"),
    pytest.param(without(lambda r: r.teacher), [], ["/teacher", "--teacher"], id="teacher missing"),
    pytest.param(without(lambda r: r.student), [], ["student", "--student"], id="student missing"),
    pytest.param(lambda r: tiny.write_manifest(r, prompts=""), [], ["No prompts", "--prompts"], id="no prompts"),
    pytest.param(lambda r: r.prompts.write_text(""), [], ["prompts.jsonl holds no prompt"], id="empty prompts"),
    pytest.param(break_line, [], ["prompts.jsonl, line 5: not JSON", "Mend or delete the line"], id="broken line"),
    pytest.param(
        long_prompt, [], ["Prompt novel has 200 tokens", "96 tokens", "--max-new-tokens"], id="prompt too long"
    ),
    pytest.param(nothing, ["--max-new-tokens", "95"], ["exceeds the 96 tokens", "--max-new-tokens"], id="too long"),
    pytest.param(
        other_tokenizer, [], ["'0' for the student, 'x' for the teacher", "Use a teacher with"], id="tokenizers"
    ),
    pytest.param(nothing, ["--k", "0"], ["k must be 1 to 32, found 0"], id="k of 0"),
    pytest.param(nothing, ["--k", "33"], ["k must be 1 to 32, found 33"], id="k of 33"),
    pytest.param(nothing, ["--states", "mine"], ["states must be of on-policy, start, teacher, back"], id="states"),
    pytest.param(nothing, ["--top-p", "0"], ["top_p must be above 0"], id="top-p"),
    pytest.param(nothing, ["--dtype", "int8"], ["dtype must be one of float32"], id="dtype"),
    pytest.param(nothing, ["--device", "abacus"], ["Device 'abacus'", "--device cpu"], id="device"),
    pytest.param(nothing, ["--checkpoints", "15"], ["--checkpoints names 15", "10, 20, 30"], id="checkpoints"),
    pytest.param(nothing, ["--layout", "zip"], ["--layout", "'zip'"], id="layout"),
    pytest.param(nothing, ["--rollouts", "absent.jsonl"], ["absent.jsonl does not exist", "--rollouts"], id="rollouts"),
    pytest.param(nothing, ["--chat-template-kwargs", "{"], ["--chat-template-kwargs must be JSON"], id="kwargs"),
    pytest.param(nothing, ["--chat-template-kwargs", "[1]"], ["must be a JSON object, found list"], id="kwargs list"),
    pytest.param(nothing, ["--tokenizer", "./absent"], ["absent", "--tokenizer"], id="tokenizer"),
    pytest.param(manifest("teacher = "), [], ["opd-diag.toml is not TOML"], id="manifest"),
    pytest.param(manifest("k = 'many'"), [], ["opd-diag.toml", "k must be a whole number"], id="manifest type"),
]


@pytest.mark.parametrize(("change", "words", "said"), BAD_INPUT)
def test_bad_input(own_run, out, change, words, said):
    change(own_run)
    before = tiny.listing(own_run.root)
    message = refused("report", own_run.run_dir, "--out", out, "--quiet", *words)
    for part in said:
        assert part in message
    assert message.endswith((".", "]", "'", ":"))
    assert not out.parent.exists()
    assert tiny.listing(own_run.root) == before


@pytest.mark.parametrize("inside", ["out", "checkpoint-10", "."])
def test_an_output_folder_inside_the_run(tiny_run, inside):
    before = tiny.listing(tiny_run.root)
    message = refused("report", tiny_run.run_dir, "--out", tiny_run.run_dir / inside)
    assert "lies inside the run folder" in message
    assert "--out" in message
    assert tiny.listing(tiny_run.root) == before


def test_an_output_folder_of_another_run(own_run, finished, tiny_run):
    message = refused("report", own_run.run_dir, "--out", finished)
    assert f"holds a report of {tiny_run.run_dir.resolve()}" in message


def test_bad_words_are_usage_errors(tiny_run):
    for words in (["report"], ["report", "--fail-on", "x"], ["reports"], ["report", tiny_run.run_dir, "--k", "many"]):
        result = invoke(*words)
        assert result.exit_code == 2
        assert "Usage:" in result.stderr


def test_no_word_shows_the_help():
    result = invoke()
    for name in ("report", "check", "inspect", "demo"):
        assert name in result.output


def test_the_help_names_every_state_set():
    shown = " ".join(invoke("report", "--help").output.split())
    assert all(states in shown for states in ("on-policy,start,teacher (default)", "back"))


@pytest.mark.parametrize("at", ["sampling", "scoring", "writing"])
def test_ctrl_c_keeps_what_was_finished(tiny_run, finished, out, monkeypatch, without_pages, at):
    room = importlib.import_module("opd_diag.replay.parts")
    place = {
        "sampling": (importlib.import_module("opd_diag.replay.sampled"), "sample_rollouts"),
        "scoring": (room, "score"),
        "writing": (sys.modules["opd_diag.report"].Report, "write"),
    }

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*place[at], interrupt)
        result = invoke("report", tiny_run.run_dir, "--out", out, "--quiet")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. Run the same command again: what was finished is kept.\n"
    assert out.exists() is (at != "sampling")
    assert not (out / "report.json").exists()
    reported(tiny_run.run_dir, "--out", out, "--quiet")
    again, whole = (json.loads((folder / "report.json").read_text()) for folder in (out, finished))
    assert again["summary"] == whole["summary"]


def test_a_signal_is_an_interrupt(tiny_run, tmp_path):
    """A real process, interrupted while it works."""
    command = [PROGRAM, "report", tiny_run.run_dir, "--out", tmp_path / "out"]

    def heed_interrupts():  # where the tests run in the background, the shell made them ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=heed_interrupts) as process:
        for line in process.stderr:
            if line.startswith("step 0: sampling"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("Interrupted.")


# check


def test_check_prints_the_verdicts_of_the_report(finished):
    result = invoke("check", finished)
    assert result.exit_code == 0
    assert result.stderr == ""
    stored = json.loads((finished / "report.json").read_text())
    asked, *lines = result.stdout.splitlines()
    assert asked.startswith("self-tests: ")
    assert sum(int(n) for n in re.findall(r"\d+", asked)) == len(stored["selftests"]) > 0
    urgency = ["fail", "warn", "unknown", "pass"]
    expected = sorted(stored["verdicts"], key=lambda v: urgency.index(v["status"]))
    assert [line.split(maxsplit=2)[:2] for line in lines] == [[v["status"], v["name"]] for v in expected]
    for line, verdict in zip(lines, expected, strict=True):
        seen = verdict["evidence"].split("; ")[0] if verdict["status"] == "pass" else verdict["evidence"]
        assert line.split(maxsplit=2)[2] == seen


FAILING = {
    "never": set(), "fail": {"fail"}, "warn": {"fail", "warn"}, "unknown": {"fail", "warn", "unknown"},
}  # fmt: skip
TIGHT = "shared_mass = 0.01\naccuracy_change = 0.5"


def answers(finished, limits):
    """What verdicts and self-tests say under other thresholds: status and evidence by the name of their test case."""
    verdicts = opd_diag.check(finished, thresholds=tomllib.loads(limits))
    tests = load_selftests(finished)
    return {v.name: (v.status, v.evidence) for v in verdicts} | {
        f"{t.name} ({t.model})": (t.status, t.evidence) for t in tests
    }


@pytest.mark.parametrize("limits", ["", "prompts = 9", TIGHT])
@pytest.mark.parametrize("fail_on", list(FAILING))
def test_check_holds_values_against_other_thresholds(finished, tmp_path, limits, fail_on):
    (tmp_path / "limits.toml").write_text(limits)
    result = invoke("check", finished, "--thresholds", tmp_path / "limits.toml", "--fail-on", fail_on)
    said = {status for status, _ in answers(finished, limits).values()}
    assert result.exit_code == bool(said & FAILING[fail_on]), result.stdout
    if "prompts" in limits:
        statuses = dict(line.split()[1::-1] for line in result.stdout.splitlines()[1:])
        assert {statuses[name] for name in ("alignment_on_policy", "accuracy", "shared_mass")} == {"unknown"}


def test_a_folder_that_may_not_be_read_is_one_sentence(tiny_run, out, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "/secret/prompts.jsonl")

    monkeypatch.setattr("opd_diag.replay.planning.make_plan", refused)
    result = invoke("report", tiny_run.run_dir, "--out", out)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["error: /secret/prompts.jsonl may not be read. Ask for the permission."]


@pytest.mark.parametrize("limits", ["", "prompts = 9"])
@pytest.mark.parametrize("fail_on", ["fail", "warn", "unknown"])
def test_check_writes_junit(finished, tmp_path, limits, fail_on):
    (tmp_path / "limits.toml").write_text(limits)
    words = ["--thresholds", tmp_path / "limits.toml", "--fail-on", fail_on, "--junit", tmp_path / "ci" / "junit.xml"]
    result = invoke("check", finished, *words)
    suite = ElementTree.parse(tmp_path / "ci" / "junit.xml").getroot()
    expected = answers(finished, limits)
    failed = [name for name, (status, _) in expected.items() if status in FAILING[fail_on]]
    skipped = [n for n, (status, _) in expected.items() if status == "unknown" and n not in failed]
    assert {n: suite.get(n) for n in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "out", "tests": str(len(expected)), "failures": str(len(failed)), "errors": "0",
        "skipped": str(len(skipped)),
    }  # fmt: skip
    assert {c.get("name"): c.find("system-out").text for c in suite} == {
        name: f"{status}: {evidence}" for name, (status, evidence) in expected.items()
    }
    assert [c.get("name") for c in suite if c.find("failure") is not None] == failed
    assert [c.get("name") for c in suite if c.find("skipped") is not None] == skipped
    assert result.exit_code == (1 if failed else 0)
    assert len(skipped if fail_on != "unknown" else failed) > 3 or not limits


def test_a_failed_self_test_fails_the_check(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / ".opd-diag.json").unlink()  # its checksums are of what was there
    stored = json.loads((out / "selftest.json").read_text())
    stored["tests"][0] |= {
        "status": "fail",
        "evidence": "It fits best shifted by 1.",
        "advice": "Look at the template.",
    }
    (out / "selftest.json").write_text(json.dumps(stored))
    result = invoke("check", out, "--junit", tmp_path / "junit.xml")
    assert result.exit_code == 1
    test = f"{stored['tests'][0]['name']} ({stored['tests'][0]['model']})"
    said = "It fits best shifted by 1. Look at the template."
    assert result.stdout.startswith(f"self-test failed: {test}: {said}\n")
    failed = [
        c.get("name") for c in ElementTree.parse(tmp_path / "junit.xml").getroot() if c.find("failure") is not None
    ]
    assert test in failed
    assert invoke("check", out, "--fail-on", "never").exit_code == 0


def test_check_changes_nothing_but_the_file_asked_for(finished, tmp_path):
    before = tiny.listing(finished)
    invoke("check", finished, "--junit", tmp_path / "junit.xml")
    assert tiny.listing(finished) == before


def test_check_of_nothing(tmp_path, finished):
    assert "Run opd-diag report first" in refused("check", tmp_path)
    assert "report.json" in refused("check", tmp_path / "absent")
    (tmp_path / "report.json").write_text("{")
    assert "no readable JSON" in refused("check", tmp_path)
    (tmp_path / "report.json").write_text('{"schema_version": 99}')
    assert "schema_version 99" in refused("check", tmp_path)
    (tmp_path / "limits.toml").write_text("mass = 1")
    assert "no threshold 'mass'" in refused("check", finished, "--thresholds", tmp_path / "limits.toml")
    assert "--thresholds" in refused("check", finished, "--thresholds", tmp_path / "absent.toml")
    (tmp_path / "file").write_text("")
    message = refused("check", finished, "--junit", tmp_path / "file" / "junit.xml")
    assert message.startswith("Cannot write")
    assert message.endswith("Name another file with --junit.")


# inspect


def test_inspect_shows_checkpoints_and_inputs(own_run):
    tiny.truncate(own_run.checkpoint(20))
    result = invoke("inspect", own_run.run_dir)
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["step", "label", "kind", "MB", "loadable", "path"]
    rows = [line.split() for line in lines[:3]]
    assert [row[:4] for row in rows] == [[str(s), "step", str(s), "full"] for s in (10, 20, 30)]
    assert [row[5] for row in rows] == ["yes", "INCOMPLETE_WEIGHTS", "yes"]
    assert [row[6] for row in rows] == [str(own_run.checkpoint(s)) for s in (10, 20, 30)], "paths are not cut"
    assert lines[3].startswith("step 20: model.safetensors is truncated")
    assert lines[4] == "step 20: It was written to less than a minute ago: its save may go on."
    assert lines[5] == "layout: hf_trainer"
    assert lines[-3:] == [
        f"{name}: {own_run.run_dir}/../{name}{end}" for name, end in (
            ("student", " (folder)"), ("teacher", " (folder)"), ("prompts", ".jsonl (file)"),
        )
    ]  # fmt: skip


def test_inspect_of_nothing(tmp_path):
    assert "does not exist" in refused("inspect", tmp_path / "absent")
    assert "No checkpoint found" in refused("inspect", tmp_path)


# Names that look like markup, and terminals without Unicode.


@pytest.fixture
def marked_up(tiny_run, tmp_path):
    """A run whose folder, and so the label of its only checkpoint, is full of what rich would take for its own."""
    own = tiny_run.copied_to(tmp_path / "[bold]deep[" / ":x:")
    model = own.root / "[red]run[bold] :smile:"
    shutil.copytree(own.checkpoint(30), model)
    (model / "trainer_state.json").unlink()
    shutil.copy(own.run_dir / "opd-diag.toml", model)
    return model


def test_names_with_markup_print_as_they_are(marked_up, tmp_path, without_pages):
    label = "[red]run[bold] :smile:"
    inspected = invoke("inspect", marked_up).stdout
    assert str(marked_up) in inspected
    assert f"?     {label}" in inspected
    out = tmp_path / "[blue]out :x:"
    result = reported(marked_up, "--out", out)
    assert result.stdout.startswith(f"{label}: ")
    assert f"page: {out / 'report.html'}" in result.stdout
    assert str(marked_up) in result.stderr
    assert f"\n{label}: scoring start states, tokens: " in result.stderr
    assert "\\" not in result.stderr + result.stdout
    assert f"At {label} the tokens" in invoke("check", out).stdout


def test_errors_with_markup_print_as_they_are(tmp_path):
    message = refused("report", tmp_path / "[red]gone[/] :x:", "--out", tmp_path / "out")
    assert str(tmp_path / "[red]gone[/] :x:") in message


def test_a_terminal_without_unicode_gets_its_answer(tiny_run, tmp_path):
    own = tiny_run.copied_to(tmp_path / "läuft → gut")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([PROGRAM, "inspect", own.run_dir], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert "l\\xe4uft \\u2192 gut" in done.stdout.decode("ascii")


# The program itself.


def test_the_installed_program_from_a_shell(tiny_run, tmp_path):
    command = [PROGRAM, "report", tiny_run.run_dir, "--checkpoints", "30", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("page: opd-diag/run/report.html\n")
    assert ESCAPE not in done.stdout
    assert (tmp_path / "opd-diag/run/report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    wrong = subprocess.run([PROGRAM, "inspect", "absent"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: Expected the folder")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the bundled runs are not here")
def test_demo_reports_every_bundled_run(demo):
    assert demo.exit_code == 0, demo.stderr
    assert demo.stderr == ""
    names = sorted(path.parent.name for path in DATA.glob("*/opd-diag.toml"))
    lines = demo.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[: len(names)]] == names
    assert lines[len(names) :] == [f"page: {demo.report(name) / 'report.html'}" for name in names]
    pages = [(demo.report(name) / "report.html").read_text(encoding="utf-8") for name in names]
    assert all(len(page) > 50_000 for page in pages)
    assert len({line.split(": ", 1)[1] for line in lines[: len(names)]}) == len(names), "the pages say different things"
    assert demo.data_unchanged


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.parent.name for path in DATA.glob("*/opd-diag.toml")))
def test_a_bundled_run_needs_no_other_argument(name, demo, tmp_path, monkeypatch, without_pages):
    """It asks for the very parts that the demo made, where none is named to find them in."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "opd-diag" / name
    shutil.copytree(demo.report(name), out)
    (out / "report.json").unlink()
    reported(DATA / name)
    stored = json.loads((out / "report.json").read_text())
    assert stored["run"] == name
    assert stored["provenance"]["cost"]["parts_made"] == 0
    assert {v["status"] for v in stored["verdicts"]} != {"unknown"}
