"""A model in two shards gives what it gives whole; a rank that is lost, fails or is left alone is told of at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from models import V, checkpoint, random_rollouts, tiny_model, word_tokenizer, wrapped

from opd_diag.errors import CheckpointError, InputError, RankError
from opd_diag.inference import OtherPrecision, check_head, leading, load_model, sample_rollouts, score
from opd_diag.inference.device_maps import Sharded
from opd_diag.inference.leading import Ranks
from opd_diag.records.sampling import Sampling
from opd_diag.records.scores import TENSOR_FIELDS

from .test_sampling import ragged_prompts

IDS = torch.randint(0, V, (2, 20), generator=torch.Generator().manual_seed(0))
CLOSE = 1e-5
"""In float32: sums over ranks are taken in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher")
    tiny_model("qwen3", eos_token_id=2, spread=0.2).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def whole(folder):
    return load_model(checkpoint(folder))


@pytest.fixture(scope="module")
def sharded(folder):
    model = load_model(checkpoint(folder), device_map=Sharded(2))
    yield model
    model.ranks.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid, seconds=5.0):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


class TestNumbers:
    def test_hidden_states_and_logits(self, sharded, whole):
        ours, theirs = (model.hf.base_model.layers[0].mlp.up_proj.weight for model in (sharded, whole))
        assert ours.to_local().shape == (24, 32)
        assert theirs.shape == ours.shape == (48, 32)
        with torch.inference_mode():
            torch.testing.assert_close(sharded.hidden(IDS), whole.hidden(IDS), atol=CLOSE, rtol=0)
        assert check_head(sharded, IDS[0].tolist()).max_abs_difference < CLOSE
        assert torch.equal(sharded.head.weight, whole.head.weight)

    def test_shards_own_their_memory(self, folder, sharded, whole):
        file = folder / "model.safetensors"
        bytes_before = file.read_bytes()
        with file.open("r+b") as handle:  # in place, as a trainer may write
            handle.seek(len(bytes_before) // 2)
            handle.write(bytes(len(bytes_before) - len(bytes_before) // 2))
        try:
            with torch.inference_mode():
                torch.testing.assert_close(sharded.hidden(IDS), whole.hidden(IDS), atol=CLOSE, rtol=0)
        finally:
            file.write_bytes(bytes_before)

    def test_another_precision(self, sharded, whole):
        views = [OtherPrecision.of(model, body_dtype=torch.float64) for model in (sharded, whole)]
        with torch.inference_mode():
            ours, theirs = (view.hidden(IDS) for view in views)
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-6)

    def test_responses_are_equal(self, sharded, whole):
        tokenizer = word_tokenizer()
        sampling = Sampling(rollouts_per_prompt=3, max_new_tokens=20)
        ours, theirs = (
            sample_rollouts(m, tokenizer, ragged_prompts(), sampling=sampling, vocabulary=len(tokenizer.hf))
            for m in (sharded, whole)
        )
        assert len({len(r.response_ids) for r in ours}) > 1, "rows leave and join"
        assert [r.response_ids for r in ours] == [r.response_ids for r in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.sampled_logprobs == pytest.approx(other.sampled_logprobs, abs=CLOSE)

    def test_scores_of_packs(self, sharded, whole):
        assert sharded.takes_packs, "so spans are told to the other rank"
        student, rollouts = wrapped("llama", seed=1, eos_token_id=2), random_rollouts([(3, 9), (7, 5), (2, 4)])
        ours, theirs = (score(student, teacher, rollouts, states="start") for teacher in (sharded, whole))
        for name in TENSOR_FIELDS:
            one, other = getattr(ours, name), getattr(theirs, name)
            torch.testing.assert_close(
                torch.as_tensor(one), torch.as_tensor(other), atol=CLOSE, rtol=CLOSE, equal_nan=True, msg=name
            )

    def test_nothing_is_said_on_the_terminal(self, sharded, capfd):
        with torch.inference_mode():
            sharded.hidden(IDS)
        assert capfd.readouterr() == ("", "")

    def test_a_failure_of_all_ranks_is_one(self, sharded, whole):
        message = None
        for model in (whole, sharded):
            with pytest.raises(RuntimeError) as failed, torch.inference_mode():
                model.hidden(IDS, position_ids=torch.zeros(3, 7, dtype=torch.long))
            message = message or str(failed.value)
            assert str(failed.value) == message
        with torch.inference_mode():
            torch.testing.assert_close(sharded.hidden(IDS), whole.hidden(IDS), atol=CLOSE, rtol=0)

    def test_a_rank_that_is_lost_in_a_sum(self, sharded):
        """The last test of this model."""
        process = sharded.ranks.processes[1]
        os.kill(process.pid, signal.SIGSTOP)
        timer = threading.Timer(0.5, process.kill)
        timer.start()
        message = (
            "Rank 1 of the model in shards failed: its process was ended by SIGKILL: the system does that where memory "
            "runs out"
        )
        with pytest.raises(RankError) as lost, torch.inference_mode():
            sharded.hidden(IDS)
        timer.join()
        assert str(lost.value) == message
        with pytest.raises(RankError) as again, torch.inference_mode():
            sharded.hidden(IDS)
        assert str(again.value) == message
        assert not sharded.ranks.folder.exists()


class TestEnds:
    def test_one_group_at_a_time_and_ctrl_c_ends_it(self, monkeypatch):
        monkeypatch.setattr(sys, "path", [*sys.path, Path("a notebook's")])
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
        monkeypatch.setenv("NCCL_SOCKET_IFNAME", "of the user's")
        ranks = Ranks(2)
        with pytest.raises(InputError) as refused:
            Ranks(2)
        assert str(refused.value) == (
            "--tensor-parallel starts a process group, and this process belongs to one already. Use it in a process of "
            "its own, with one model in shards at a time."
        )
        pid = ranks.processes[1].pid
        assert alive(pid)
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == (loopback, "of the user's")
        if sys.platform == "linux":
            there = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert {b"GLOO_SOCKET_IFNAME=lo", b"NCCL_SOCKET_IFNAME=of the user's"} <= {*there}
        with pytest.raises(KeyboardInterrupt), ranks.together("join", "", 2, 1):
            raise KeyboardInterrupt
        assert not alive(pid)
        assert not torch.distributed.is_initialized()
        assert "GLOO_SOCKET_IFNAME" not in os.environ
        assert os.environ["NCCL_SOCKET_IFNAME"] == "of the user's"
        for thread in threading.enumerate():
            if thread.name == "ranks":
                thread.join(5.0)
        with pytest.raises(RankError) as ended, ranks.together("join"):
            pass
        assert str(ended.value) == "The ranks of a model in shards were ended. Run the same command again."

    def test_a_rank_that_fails_while_this_one_waits_for_it(self, monkeypatch):
        monkeypatch.setattr(leading, "GRACE", 0.3)
        ranks = Ranks(2)
        with pytest.raises(RankError) as failed, ranks.together("nothing"):
            torch.distributed.all_reduce(torch.ones(1))
        assert str(failed.value) == (
            "Rank 1 of the model in shards failed: 'Follower' object has no attribute 'nothing'"
        )
        assert not alive(ranks.processes[1].pid)

    def test_what_no_rank_can_load_is_said_as_ever(self, folder, tmp_path):
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes()[: 3000 if file.suffix == ".safetensors" else None])
        messages = []
        for where in (None, Sharded(2)):
            with pytest.raises(CheckpointError) as failed:
                load_model(checkpoint(tmp_path), device_map=where)
            messages.append(str(failed.value))
        assert messages[0] == messages[1]
        assert not torch.distributed.is_initialized()

    def test_a_rank_whose_last_words_are_gone(self, tmp_path, monkeypatch):
        def gone_meanwhile(*_, **how):
            raise FileNotFoundError

        ranks = object.__new__(Ranks)
        ranks.folder, ranks.processes = tmp_path, {1: subprocess.Popen(["false"])}
        (tmp_path / "rank-1.txt").write_text("Why\n")
        assert ranks._last_words(1) == "its process ended with exit code 1: Why"
        monkeypatch.setattr(Path, "read_text", gone_meanwhile)
        assert ranks._last_words(1) == "its process ended with exit code 1"

    def test_ranks_end_with_the_process_that_leads_them(self):
        waits = (
            "import os, threading, time\n"
            "from opd_diag.inference.following import _end_with\n"
            "threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()\n"
            "print(os.getpid(), flush=True)\n"
            "time.sleep(60)"
        )
        leads = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waits!r}])"
        environment = {**os.environ, "PYTHONPATH": str(Path(leading.__file__).parents[2])}
        leader = subprocess.Popen([sys.executable, "-c", leads], stdout=subprocess.PIPE, env=environment)
        pid = int(leader.stdout.readline())
        leader.kill()
        leader.communicate()
        assert gone(pid)


LOSES_ITSELF = """
import os, signal
from multiprocessing.connection import Connection


def main(handle, rank, leader):
    connection = Connection(handle)
    connection.send((True, ""))
    assert connection.recv()[0] == "join"
    os.kill(os.getpid(), signal.SIGKILL)
"""


class TestALostRankThatThisOneWaitsFor:
    """With two ranks nothing is left to listen to, and this one waits in torch for a rank that does not come."""

    LOST = (
        "Rank 1 of the model in shards failed: its process was ended by SIGKILL: the system does that where memory "
        "runs out"
    )

    @pytest.fixture(autouse=True)
    def lost_at_join(self, tmp_path, monkeypatch):
        folder = tmp_path / "path" / "opd_diag" / "inference"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder.parent / "__init__.py").touch()
        (folder / "following.py").write_text(LOSES_ITSELF)
        monkeypatch.syspath_prepend(tmp_path / "path")
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr(leading.tempfile, "tempdir", str(tmp_path / "temporary"))
        monkeypatch.setattr(leading, "GRACE", 0.2)

    def test_a_terminal_command_ends(self, tmp_path):
        leads = (
            "import sys\n"
            "from opd_diag.cli.terminal import shows_errors\n"
            "from opd_diag.inference import leading\n"
            "leading.GRACE = 0.2\n"
            f"sys.path.insert(0, {str(tmp_path / 'path')!r})\n"
            "shows_errors(leading.Ranks)(2)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(leading.__file__).parents[2])}
        environment["TMPDIR"] = str(tmp_path / "temporary")
        ended = subprocess.run(
            [sys.executable, "-c", leads], stderr=subprocess.PIPE, env=environment, check=False, text=True, timeout=60
        )
        assert (ended.returncode, ended.stderr) == (2, f"error: {self.LOST}\n")
        assert [*(tmp_path / "temporary").iterdir()] == []

    def test_every_other_caller_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setattr(leading, "PATIENCE", timedelta(seconds=2))
        with pytest.raises(RankError) as lost:
            Ranks(2)
        assert str(lost.value) == self.LOST
        assert [*(tmp_path / "temporary").iterdir()] == []
