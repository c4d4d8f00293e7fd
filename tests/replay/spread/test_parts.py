"""A replay by two workers of a local Ray cluster gives the report of one process, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest
import tiny_run as tiny

from opd_diag.diagnosis import diagnose
from opd_diag.errors import InputError
from opd_diag.records.settings import Settings

from .comparing import same_numbers

pytest.importorskip("ray")

OPTIONS = {"checkpoints": "10,30", "states": "on-policy,start,teacher,back", "max_prompts": 4, "max_new_tokens": 6}
ON_RAY = OPTIONS | {"engine": "ray", "workers": 2}

pytestmark = [
    pytest.mark.usefixtures("module_without_pages"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own pipes and files
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def alone(tiny_run, tmp_path_factory, cut_small):
    """OUT_DIR of a report by one process, on one thread as each worker is."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("alone") / "out"
    diagnose(tiny_run.run_dir, out=out, **OPTIONS)
    torch.set_num_threads(threads)
    return out


def test_two_workers_give_the_report_of_one_process(tiny_run, tmp_path, cluster, alone, pools):
    """Each part has its key, scores have their very bytes, and nothing stays behind."""
    from opd_diag.replay.spread.node import scratch_folder

    told = []
    report = diagnose(tiny_run.run_dir, out=tmp_path / "out", progress=lambda *what: told.append(what), **ON_RAY)
    same_numbers(tmp_path / "out", alone)
    marked = [json.loads((of / ".opd-diag.json").read_text())["parts"] for of in (tmp_path / "out", alone)]
    assert {name: of["key"] for name, of in marked[0].items() if of["sha256"] != of["key"]} == {
        name: of["key"] for name, of in marked[1].items() if of["sha256"] != of["key"]
    }
    scores = [name for name in marked[0] if name.startswith("scores/")]
    assert len(scores) == 12
    assert [marked[0][name]["sha256"] for name in scores] == [marked[1][name]["sha256"] for name in scores]
    assert report.provenance["cost"]["parts_found"] == 0
    assert report.provenance["threads"] == 1
    assert (len(pools), pools[0].lost) == (1, 0)
    assert len({worker.pid for worker in pools[0].workers} - {os.getpid()}) == 2
    of_one = [(done, total) for what, done, total in told if what == "step 10: scoring start states, tokens"]
    assert len(of_one) > 3, "several shards"
    assert [done for done, _ in of_one] == sorted(done for done, _ in of_one)
    assert of_one[-1][0] == of_one[-1][1]
    kept = scratch_folder(tmp_path / "out")
    assert list(kept.iterdir()) == []
    kept.rmdir()


def test_a_worker_that_is_killed_costs_time_alone(tiny_run, tmp_path, cluster, alone, pools):
    """Killed when the first shard of scores is there, with others under way."""

    def kill(what, done, total):
        if "scoring on-policy" in what and done and not killed:
            killed.append(pools[0].workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    killed = []
    diagnose(tiny_run.run_dir, out=tmp_path / "out", progress=kill, **ON_RAY)
    assert len(killed) == 1
    assert pools[0].lost == 1
    same_numbers(tmp_path / "out", alone)
    # and what stands is found: nobody is hired for it, whichever engine
    again = diagnose(tiny_run.run_dir, out=tmp_path / "out", **ON_RAY)
    assert again.provenance["cost"]["parts_made"] == 0
    assert again.provenance["cost"]["parts_found"] > 30
    assert pools[1].workers == []
    here = diagnose(tiny_run.run_dir, out=tmp_path / "out", **OPTIONS)
    assert here.provenance["cost"]["parts_made"] == 0
    assert asdict_of_engine(here.provenance["settings"]) == asdict_of_engine(vars(Settings()))


def asdict_of_engine(settings):
    return {name: settings[name] for name in ("engine", "workers", "cpus_per_worker", "gpus_per_worker")}


def test_a_broken_checkpoint_is_named_as_by_one_process_and_the_others_go_on(own_run, tmp_path, cluster, cut_small):
    """One that no worker can load, and one that gives no numbers."""
    tiny.fill_with_nan(own_run.checkpoint(10))
    tiny.change_weights(own_run.checkpoint(20), lambda name, tensor: tensor[:-1] if "norm" in name else tensor)
    options = {"states": "on-policy", "max_prompts": 2, "max_new_tokens": 4, "device": "cpu"}
    found, expected = (
        diagnose(own_run.run_dir, out=tmp_path / name, **options, **engine)
        for name, engine in (("ray", {"engine": "ray", "workers": 1}), ("local", {}))
    )
    assert [(c.label, c.loadable) for c in found.checkpoints] == [
        ("step 0", True), ("step 30", True), ("step 10", False), ("step 20", False)
    ]  # fmt: skip
    assert found.checkpoints == expected.checkpoints


def test_a_node_that_does_not_see_the_run(tiny_run, tmp_path, cluster):
    """As where it lies on a disk of this machine: a way that goes through an open file of this process."""
    folder = os.open(tiny_run.run_dir, os.O_RDONLY)
    run = tmp_path / "run"
    run.symlink_to(f"/proc/self/fd/{folder}")
    models = {name: str(getattr(tiny_run, name)) for name in ("student", "teacher", "prompts")}
    with pytest.raises(InputError) as raised:
        diagnose(run, out=tmp_path / "out", **ON_RAY | {"workers": 1}, **models)
    os.close(folder)
    assert str(raised.value) == (
        f"Node {socket.gethostname()} does not see {run}/checkpoint-10 (step 10). Put the run and its models in a "
        "folder that every node has under the same path, or start the report on that one node with RAY_ADDRESS unset."
    )
    assert not (tmp_path / "out").exists()
