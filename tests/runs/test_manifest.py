"""``opd-diag.toml``: what it may say, how its paths are meant, and one clear error for what it may not."""

from dataclasses import fields
from pathlib import Path

import pytest

from opd_diag.errors import RunFolderError
from opd_diag.records.settings import SETTING_NAMES, Settings, settings_from
from opd_diag.runs.manifest import SAMPLING_NAMES, Manifest, read_manifest

from .folders import write


def manifest(folder: Path, text: str) -> Manifest:
    (folder / "opd-diag.toml").write_text(text, encoding="utf-8")
    return read_manifest(folder)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(RunFolderError) as caught:
        manifest(folder, text)
    return str(caught.value)


def test_no_manifest_says_nothing(tmp_path):
    assert read_manifest(tmp_path) == Manifest(None, {}, ())


def test_an_empty_manifest_has_a_path(tmp_path):
    assert manifest(tmp_path, "") == Manifest(tmp_path / "opd-diag.toml", {}, ())


def test_every_kind_of_setting(tmp_path):
    text = """
    teacher = "org/teacher@main"
    k = 8
    states = ["on-policy"]
    checkpoints = [20, "final"]
    student_temperature = 1
    trust_remote_code = true
    chat_template_kwargs = { enable_thinking = false }
    [sampling]
    max_prompts = 4
    temperature = 0.7
    """
    assert manifest(tmp_path, text).settings == {
        "teacher": "org/teacher@main",
        "k": 8,
        "states": ["on-policy"],
        "checkpoints": [20, "final"],
        "student_temperature": 1,
        "trust_remote_code": True,
        "chat_template_kwargs": {"enable_thinking": False},
        "max_prompts": 4,
        "temperature": 0.7,
    }


def test_its_settings_go_into_a_report(tmp_path):
    read = manifest(tmp_path, 'checkpoints = [20, "final"]\nprompts = "p.txt"\n[sampling]\nseed = 3')
    settings = settings_from({}, read.settings, read.path)
    assert (settings.checkpoints, settings.seed) == (("20", "final"), 3)
    assert settings.prompts == str(tmp_path / "p.txt")


def test_sampling_names_are_settings():
    assert {"max_prompts", "rollouts_per_prompt", "max_new_tokens", "temperature", "top_p", "seed"} == set(
        SAMPLING_NAMES
    )
    assert set(SAMPLING_NAMES) < set(SETTING_NAMES) == {f.name for f in fields(Settings)}


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path):
    (tmp_path / "opd-diag.toml").write_bytes(b'\xef\xbb\xbfteacher = "org/t"\r\nk = 4\r\n')
    assert read_manifest(tmp_path).settings == {"teacher": "org/t", "k": 4}


def test_explicit_checkpoints_keep_their_order_and_are_relative_to_the_manifest(tmp_path):
    text = '[[checkpoints]]\nstep = 40\npath = "b"\n[[checkpoints]]\nstep = 0\npath = "/abs/a"'
    read = manifest(tmp_path, text)
    assert read.checkpoints == ((40, tmp_path / "b"), (0, Path("/abs/a")))
    assert "checkpoints" not in read.settings


def test_files_are_always_relative_to_the_manifest(tmp_path):
    text = 'prompts = "p.jsonl"\nrollouts = "../r"\nteacher_template = "/abs/t.jinja"\nstore = "../s"\nlogs = "l"'
    assert manifest(tmp_path, text).settings == {
        "prompts": str(tmp_path / "p.jsonl"),
        "rollouts": str(tmp_path / "../r"),
        "teacher_template": "/abs/t.jinja",
        "store": str(tmp_path / "../s"),
        "logs": str(tmp_path / "l"),
    }


@pytest.mark.parametrize("name", ["student", "teacher", "base_model", "tokenizer"])
def test_models_are_folders_beside_the_manifest_where_these_exist_and_hub_ids_otherwise(tmp_path, name):
    assert manifest(tmp_path, f'{name} = "models/m"').settings[name] == "models/m"
    (tmp_path / "models" / "m").mkdir(parents=True)
    assert manifest(tmp_path, f'{name} = "models/m"').settings[name] == str(tmp_path / "models/m")


def test_a_model_that_can_only_be_a_path_is_one_even_if_missing(tmp_path):
    assert manifest(tmp_path, 'teacher = "./gone"').settings["teacher"] == str(tmp_path / "gone")


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert manifest(tmp_path, 'teacher = "~/t"\nprompts = "~/p"').settings == {
        "teacher": "/home/me/t",
        "prompts": "/home/me/p",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k = ", "is not TOML: Invalid value (at end of document). Correct it, or delete it and use options."),
        (
            "techer = 'x'",
            "unknown key 'techer'. Correct or delete it; known: allow_pickle, base_model, beta, chat_template_kwargs, ",
        ),
        ("[model]\na = 1", "unknown table 'model'. Correct or delete it; known: "),
        (
            "[sampling]\nk = 4",
            "unknown key in [sampling] 'k'. Correct or delete it; known: max_new_tokens, max_prompts, ",
        ),
        ("sampling = 3", "sampling: expected a table [sampling], found 3. Correct the file."),
        ("seed = 1\n[sampling]\nseed = 2", "seed stands both in [sampling] and outside it. Delete one of them."),
        ("k = 'sixteen'", "k must be a whole number, found 'sixteen' (str). Correct the line."),
        ("k = true", "k must be a whole number, found True (bool). Correct the line."),
        ("k = 1.0", "k must be a whole number, found 1.0 (float)."),
        ("teacher = 3", "teacher must be text, found 3 (int)."),
        ("[sampling]\ntop_p = 'all'", "top_p must be a number, found 'all' (str)."),
        ("trust_remote_code = 1", "trust_remote_code must be true or false, found 1 (int)."),
        ("states = 3", "states must be names separated by commas, or a list of them, found 3 (int)."),
        ("states = [[1]]", "states must be names separated by commas, or a list of them, found [[1]] (list)."),
        ("seed = 2024-01-01", "seed must be a whole number, found datetime.date(2024, 1, 1) (date)."),
        ("chat_template_kwargs = 'x'", "chat_template_kwargs must be a table of names and values, found 'x' (str)."),
        ("teacher = ' '", "teacher: expected a path or hub id, found ' '. Correct the file."),
        ("prompts = ''", "prompts: expected a path, found ''. Correct the file."),
        ("[checkpoints]\nstep = 1", "checkpoints: expected [[checkpoints]] in double brackets, one for each, found {"),
        (
            "[[checkpoints]]\nstep = 1",
            "checkpoints, entry 1: expected a table with 'step' and 'path', found {'step': 1}.",
        ),
        ("[[checkpoints]]\nstep=1\npath='a'\nx=1", "checkpoints, entry 1: expected a table with 'step' and 'path', "),
        (
            "checkpoints = [{step=1, path='a'}, 3]",
            "checkpoints, entry 2: expected a table with 'step' and 'path', found 3",
        ),
        (
            "[[checkpoints]]\nstep='1'\npath='a'",
            "checkpoints, entry 1, step: expected a whole number from 0, found '1'.",
        ),
        (
            "[[checkpoints]]\nstep=true\npath='a'",
            "checkpoints, entry 1, step: expected a whole number from 0, found True",
        ),
        ("[[checkpoints]]\nstep=-1\npath='a'", "checkpoints, entry 1, step: expected a whole number from 0, found -1."),
        ("[[checkpoints]]\nstep=1\npath=''", "checkpoints, entry 1, path: expected a folder, as text, found ''."),
        ("[[checkpoints]]\nstep=1\npath=2", "checkpoints, entry 1, path: expected a folder, as text, found 2."),
    ],
)
def test_what_it_may_not_say(tmp_path, text, message):
    found = refusal(tmp_path, text)
    assert found.startswith(str(tmp_path / "opd-diag.toml"))
    assert message in found


def test_a_manifest_that_is_not_text(tmp_path):
    (tmp_path / "opd-diag.toml").write_bytes(b"k = '\xff'")
    with pytest.raises(RunFolderError, match=r"is not UTF-8 text \(byte 5\). Save it as UTF-8."):
        read_manifest(tmp_path)


def test_a_manifest_that_cannot_be_read(tmp_path):
    (tmp_path / "opd-diag.toml").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot be read: Is a directory\. Check the file and its permissions\."):
        read_manifest(tmp_path)


def test_a_link_to_nothing_is_not_taken_for_no_manifest(tmp_path):
    (tmp_path / "opd-diag.toml").symlink_to("gone.toml")
    with pytest.raises(RunFolderError, match="cannot be read: No such file or directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["'20=a, 40=b/c,0=~/d'", "['20=a', '40=b/c', '0=~/d']"])
def test_folders_of_steps_are_relative_to_the_manifest(tmp_path, monkeypatch, text):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path, {"opd-diag.toml": f"steps = {text}\nstep_base = 0"})
    settings = read_manifest(tmp_path).settings
    assert [step.strip() for step in settings["steps"]] == [
        f"20={tmp_path}/a",
        f"40={tmp_path}/b/c",
        f"0={tmp_path}/home/d",
    ]
    assert settings["step_base"] == 0


def test_the_run_folder_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "run", {"opd-diag.toml": "k = 3"})
    assert read_manifest("~/run") == Manifest(tmp_path / "run" / "opd-diag.toml", {"k": 3})


def test_what_is_no_step_and_folder_is_left_for_whoever_reads_it(tmp_path):
    write(tmp_path, {"opd-diag.toml": "steps = ['20', '=', '3=']"})
    assert read_manifest(tmp_path).settings["steps"] == ["20", "=", "3="]
