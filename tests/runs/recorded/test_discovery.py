"""Files are found by names and few first lines, whatever else lies about."""

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opd_diag.errors import RolloutsError
from opd_diag.runs.recorded import find_recorded

from . import written
from .written import (
    NEMO_IDS,
    PRIME_TOKENS,
    TRL,
    areal,
    kdflow,
    lines,
    nemo,
    roll,
    skyrl_batch,
    skyrl_eval,
    slime,
    slime_sample,
    swift_flush,
    verl,
)


def found(folder) -> list[tuple[str, str, int | None]]:
    return [(f.path.relative_to(folder).as_posix(), f.format, f.step) for f in find_recorded(folder)]


@pytest.fixture
def opened(monkeypatch):
    """Paths that are opened or listed from here on."""
    seen = {"open": [], "scandir": [], "stat": []}

    def watching(name, plain):
        def watched(path, *args, **kwargs):
            seen[name].append(os.fspath(path) if not isinstance(path, int) else path)
            return plain(path, *args, **kwargs)

        return watched

    for module, name in ((os, "scandir"), (os, "stat"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, name, watching(name, getattr(module, name)))
    return seen


def test_every_format_in_one_folder(tmp_path):
    verl(tmp_path / "rollouts" / "5.jsonl")
    kdflow(tmp_path / "rollout_data" / "4.jsonl")
    slime(tmp_path / "dump" / "rollout_data" / "3.pt", slime_sample())
    nemo(tmp_path / "logs" / "exp_001" / "train_data_step2.jsonl", NEMO_IDS)
    lines(tmp_path / "token_exports" / "step_4" / "rank_0.jsonl", PRIME_TOKENS)
    lines(tmp_path / "rollouts" / "step_6" / "train" / "all" / "traces.jsonl", written.episode())
    skyrl_batch(tmp_path / "dumped_data" / "global_step_9_training_input.pkl", written.SKYRL, {})
    skyrl_eval(tmp_path / "dumped_evals" / "global_step_8_evals" / "a.jsonl")
    areal(tmp_path / "logs" / "me" / "exp" / "trial" / "rollout" / "3" / "8.jsonl")
    lines(tmp_path / "completions.jsonl", swift_flush(1))
    roll(tmp_path / "rollout_dump_data.step_0.jsonl")
    assert found(tmp_path) == [
        ("rollouts/5.jsonl", "verl", 5),
        ("rollout_data/4.jsonl", "kdflow", 4),
        ("dump/rollout_data/3.pt", "slime", 3),
        ("logs/exp_001/train_data_step2.jsonl", "nemo-rl", 2),
        ("token_exports/step_4/rank_0.jsonl", "prime-tokens", 4),
        ("rollouts/step_6/train/all/traces.jsonl", "prime-traces", 6),
        ("dumped_data/global_step_9_training_input.pkl", "skyrl-batches", 9),
        ("dumped_evals/global_step_8_evals/a.jsonl", "skyrl-evals", 8),
        ("logs/me/exp/trial/rollout/3/8.jsonl", "areal", 3),
        ("completions.jsonl", "ms-swift", None),
        ("rollout_dump_data.step_0.jsonl", "roll", 0),
    ]


def test_a_folder_of_files_itself_is_enough(tmp_path):
    assert len(find_recorded(TRL / "grpo" / "completions")) == 2
    skyrl_eval(tmp_path / "dumped_evals" / "global_step_8_evals" / "a.jsonl")
    assert found(tmp_path / "dumped_evals" / "global_step_8_evals") == [("a.jsonl", "skyrl-evals", 8)]


def test_steps_are_in_their_own_order(tmp_path):
    for step in (100, 9, 20):
        verl(tmp_path / "rollouts" / f"{step}.jsonl", step=step)
    assert [step for _, _, step in found(tmp_path)] == [9, 20, 100]


def test_other_files_are_passed_over(tmp_path):
    lines(tmp_path / "data" / "5.jsonl", {"question": "a", "answer": "b"})
    lines(tmp_path / "completions.jsonl", {"text": "a"})
    lines(tmp_path / "metrics.jsonl", {"step": 1, "prompt": "a", "completion": "b"})
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "optimizer.pt").write_bytes(b"")
    (tmp_path / "7.jsonl").mkdir()
    assert found(tmp_path) == []


def test_checkpoints_and_hidden_folders_are_not_looked_into(tmp_path, opened):
    for name in ("checkpoint-5", "global_step_10", "step_3", "iter_0000019", "epoch_1_global_step_5", ".git", "wandb"):
        verl(tmp_path / name / "rollouts" / "5.jsonl")
    opened["scandir"].clear()
    assert found(tmp_path) == []
    assert {str(folder) for folder in opened["scandir"]} == {str(tmp_path)}


def test_ten_thousand_files_cost_one_first_line(tmp_path, opened):
    verl(tmp_path / "rollouts" / "1.jsonl", step=1)
    for step in range(2, 10_001):
        os.link(tmp_path / "rollouts" / "1.jsonl", tmp_path / "rollouts" / f"{step}.jsonl")
    for seen in opened.values():
        seen.clear()
    assert len(find_recorded(tmp_path)) == 10_000
    assert len(opened["open"]) == 1
    assert len(opened["scandir"]) <= 3
    assert len(opened["stat"]) < 10


def test_ten_thousand_checkpoints_cost_one_listing(tmp_path, opened):
    for step in range(10_000):
        (tmp_path / f"checkpoint-{step}").mkdir()
    opened["scandir"].clear()
    assert found(tmp_path) == []
    assert (len(opened["scandir"]), opened["open"]) == (2, [])


def test_versions_of_one_run_share_a_first_line(tmp_path, opened):
    for version in range(50):
        areal(tmp_path / "rollout" / str(version) / "1.jsonl", version=version)
    opened["open"].clear()
    assert [step for _, _, step in found(tmp_path)] == list(range(50))
    assert len(opened["open"]) == 1


def test_a_file_that_is_empty_yet_does_not_hide_the_others(tmp_path):
    (tmp_path / "rollouts").mkdir()
    for step in (1, 2, 3):
        verl(tmp_path / "rollouts" / f"{step}.jsonl", step=step)
    (tmp_path / "rollouts" / "4.jsonl").touch()
    assert {step for _, _, step in found(tmp_path)} - {4} == {1, 2, 3}


def test_links_are_followed_once(tmp_path):
    run, other = tmp_path / "run", tmp_path / "elsewhere"
    verl(other / "rollouts" / "5.jsonl")
    verl(run / "own" / "6.jsonl", step=6)
    (run / "linked").symlink_to(other)
    (run / "a").symlink_to(run / "own")
    (run / "loop").symlink_to(run)
    (run / "circle").symlink_to(run / "circle")
    (run / "circle.jsonl").symlink_to(run / "circle.jsonl")
    (run / "9.jsonl").symlink_to(tmp_path / "nowhere")
    assert found(run) == [("linked/rollouts/5.jsonl", "verl", 5), ("own/6.jsonl", "verl", 6)]


def test_names_in_any_script(tmp_path):
    for name in ("실험 1", "опыт", "a\nb", "😀"):
        verl(tmp_path / name / "5.jsonl")
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(folder)
    verl(Path(os.fsdecode(folder)) / "6.jsonl")
    assert len(find_recorded(tmp_path)) == 5


def test_what_cannot_be_listed_or_read_is_passed_over(tmp_path, monkeypatch):
    verl(tmp_path / "a" / "5.jsonl")
    verl(tmp_path / "b" / "5.jsonl")
    verl(tmp_path / "c" / "5.jsonl")
    scandir, opened = os.scandir, Path.open

    def listing(folder):
        if os.path.basename(folder) == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    def opening(self, *args, **kwargs):
        if self.parent.name == "c":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(os, "scandir", listing)
    monkeypatch.setattr(Path, "open", opening)
    assert found(tmp_path) == [("a/5.jsonl", "verl", 5)]


@pytest.mark.parametrize(("name", "reason"), [("nowhere", "No such file or directory"), ("file", "Not a directory")])
def test_a_folder_that_is_none_is_refused(tmp_path, name, reason):
    (tmp_path / "file").touch()
    with pytest.raises(RolloutsError) as caught:
        find_recorded(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name} cannot be read: {reason}. Check it and its permissions."


def test_nothing_heavy_is_loaded(tmp_path):
    verl(tmp_path / "rollouts" / "5.jsonl")
    slime(tmp_path / "rollout_data" / "3.pt", slime_sample())
    script = (
        "import sys\n"
        "from opd_diag.runs.recorded import find_recorded, read_recorded\n"
        "for folder in sys.argv[1:]:\n"
        "    print([f.format for f in find_recorded(folder)])\n"
        "read_recorded(sys.argv[1] + '/rollouts/5.jsonl')\n"
        "print([n for n in ('torch', 'pandas', 'pyarrow', 'numpy', 'transformers') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, TRL / "grpo"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['verl', 'slime']\n['trl', 'trl']\n[]\n"
