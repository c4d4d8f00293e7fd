"""One way to read any file, and one sentence for each that cannot be read."""

from pathlib import Path

import pytest

from opd_diag.runs.recorded import find_recorded, read_recorded, recorded_file

from .written import NEMO_IDS, PRIME_TOKENS, areal, kdflow, lines, nemo, refusal, roll, skyrl_eval, swift_flush, verl

KNOWN = (
    "opd-diag rollouts/*.jsonl; TRL completions/*.parquet; verl or thunlp/OPD N.jsonl; KDFlow rollout_data/N.jsonl; "
    "slime rollout_data/N.pt or train_data/N.pt; NeMo-RL train_data_stepN.jsonl with token ids; NeMo-RL "
    "train_data_stepN.jsonl with text; prime-rl token_exports/step_N/rank_R.jsonl; prime-rl "
    "rollouts/step_N/**/traces.jsonl; SkyRL dumped_data/global_step_N_training_input.pkl; SkyRL "
    "dumped_evals/global_step_N_evals/*.jsonl; AReaL rollout/VERSION/*.jsonl; ms-swift completions.jsonl; ROLL "
    "rollout_dump_data.step_N.jsonl."
)


@pytest.mark.parametrize(
    ("write", "form"),
    [
        (verl, "verl"),
        (kdflow, "kdflow"),
        (lambda path: nemo(path, NEMO_IDS), "nemo-rl"),
        (lambda path: lines(path, PRIME_TOKENS), "prime-tokens"),
        (skyrl_eval, "skyrl-evals"),
        (areal, "areal"),
        (lambda path: lines(path, swift_flush(1)), "ms-swift"),
        (roll, "roll"),
    ],
)
def test_a_file_of_another_name_is_told_by_its_first_line(tmp_path, write, form):
    path = write(tmp_path / "kept.jsonl")
    file = recorded_file(path)
    assert (file.format, file.step, file.path) == (form, None, path)
    assert read_recorded(file) == read_recorded(str(path))


def test_a_found_file_and_its_path_give_the_same(tmp_path):
    path = verl(tmp_path / "validation" / "5.jsonl")
    (file,) = find_recorded(tmp_path)
    assert recorded_file(path) == file
    assert read_recorded(path) == read_recorded(file)


def test_a_name_that_promises_another_format_does_not_decide(tmp_path):
    assert recorded_file(verl(tmp_path / "rollout_data" / "5.jsonl")).format == "verl"
    assert recorded_file(kdflow(tmp_path / "completions.jsonl")).format == "kdflow"


def test_paths_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    verl(tmp_path / "run" / "5.jsonl")
    assert len(read_recorded("~/run/5.jsonl")) == 2


def test_a_half_written_last_line_is_a_note(tmp_path):
    path = verl(tmp_path / "5.jsonl")
    path.write_text(path.read_text() + '{"input": "2 + 4 =", "outp')
    notes = []
    assert [r.response for r in read_recorded(path, notes=notes)] == [" 4", " 6"]
    assert notes == [f"{path}: the last line is half written and was left out."]
    assert len(read_recorded(path)) == 2


def test_a_file_with_nothing_but_a_half_written_line_is_refused(tmp_path):
    path = verl(tmp_path / "5.jsonl")
    file = recorded_file(path)
    path.write_text('{"input": "2 + 4 =", "outp')
    assert (
        refusal(path)
        == f"5.jsonl is of no format that opd-diag reads: its first line has no JSON object. Known are {KNOWN}"
    )
    with pytest.raises(ValueError, match="half written") as caught:
        read_recorded(file)
    assert str(caught.value) == (
        f"{path} holds no response that can be used. {path}: the last line is half written and was left out. Leave the "
        "file out."
    )


def test_files_that_are_not_there_are_named(tmp_path):
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        assert refusal(path) == (
            f"Rollouts file {path} does not exist or is no file. Name one with --rollouts."
        ).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("name", ["5.jsonl", "kept.json"])
def test_an_empty_file_is_named(tmp_path, name):
    (tmp_path / name).touch()
    assert refusal(tmp_path / name) == f"{name} is empty. If the trainer is writing it, run the command again later."


def test_a_file_of_something_else_is_named(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"question": "a", "answer": "b"})
    assert refusal(path) == (
        "a.jsonl is of no format that opd-diag reads: its first line has the fields answer, "
        f"question. Known are {KNOWN}"
    )
    path.write_bytes(b"\x00\xff\x00")
    assert refusal(path) == (
        f"a.jsonl is of no format that opd-diag reads: its first line has no JSON object. Known are {KNOWN}"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = verl(tmp_path / "5.jsonl")
    file = recorded_file(path)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    for given in (path, file):
        with pytest.raises(ValueError, match="Permission denied") as caught:
            read_recorded(given)
        assert str(caught.value) == f"{path} cannot be read: Permission denied. Check it and its permissions."
