"""Workers that ask the teacher's server give the report of one process that asks it, and ask no more than that one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from model_server import ModelServer
from servers.stand_in import stand_in

from opd_diag.diagnosis import diagnose
from opd_diag.errors import InputError, ServerError
from opd_diag.records.rollout import load_rollouts

from ..crashing import with_tables_kept
from .comparing import same_numbers

pytest.importorskip("ray")

KEY = "the key that is written nowhere"
OPTIONS = {"checkpoints": "10,30", "max_prompts": 4, "max_new_tokens": 6, "requests": 3}
OF_FEW = OPTIONS | {"checkpoints": "30", "max_prompts": 2, "teacher_top": 20}
RAY = {"engine": "ray", "workers": 2}
ONE = RAY | {"workers": 1}

pytestmark = [
    pytest.mark.usefixtures("module_without_pages", "tables_once", "one_thread", "key"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own pipes and files
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def key(cluster):
    """The key of the server, in the environment of this process: the cluster, and what it will start, has it not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_DIAG_SERVER_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def tables_once(kept_tables):
    """Tables are made once of what is the same to the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        with_tables_kept(patch, kept_tables)
        yield


@pytest.fixture(scope="module")
def behind(teacher):
    """(…) → a server of the tiny run's teacher, behind HTTP."""

    def run(logprobs=None, **options):
        tokenizer, model = teacher.tokenizer, teacher.model
        more = {"context": 96, "text": tokenizer.text, "stop_id": model.stop_ids[0], "names": ["big"], "key": KEY}
        return stand_in("vllm", logprobs or ModelServer(model).logprobs, **more, **options)

    return run


@pytest.fixture(scope="module")
def top(behind):
    """A server that gives its top 20 and no ids that it is asked for, and the options that ask for them."""
    with behind(exact=False) as url:
        yield SimpleNamespace(url=url, options=OPTIONS | {"teacher": f"vllm={url}", "teacher_top": 20})


@pytest.fixture(scope="module")
def alone(tiny_run, tmp_path_factory, cut_small, top):
    """OUT_DIR and costs of a report by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    report = diagnose(tiny_run.run_dir, out=out, **top.options)
    return SimpleNamespace(out=out, cost=report.provenance["cost"])


def parts_of(out, of):
    """What the marker says of parts, ``key`` or ``sha256``: of all, of scores alone."""
    parts = json.loads((out / ".opd-diag.json").read_text())["parts"]
    names = [name for name, noted in parts.items() if noted["key"] and (of == "key" or name.startswith("scores/"))]
    return {name: parts[name][of] for name in names}


def sequences(out, writer):
    """The ids of prompts as the teacher sees them, and responses, of one writer."""
    return {(*r.teacher_prompt_ids, *r.response_ids) for r in load_rollouts(out / "rollouts" / f"{writer}.jsonl")}


def test_two_workers_give_the_report_of_one_process(tiny_run, tmp_path, cluster, top, alone, pools):
    """Keys, numbers and scores are the same to the byte, and so is what the server is asked for, so many at once."""
    top.url.most_at_work = 0
    report = diagnose(tiny_run.run_dir, out=tmp_path / "out", **top.options, **RAY)
    same_numbers(tmp_path / "out", alone.out)
    assert parts_of(tmp_path / "out", "key") == parts_of(alone.out, "key")
    assert parts_of(tmp_path / "out", "sha256") == parts_of(alone.out, "sha256")
    assert len(parts_of(alone.out, "sha256")) == 9
    assert any(row["bound_low"] < row["bound_high"] for row in report.tables.summary.to_dict("records"))
    cost = report.provenance["cost"]
    for name in ("requests", "received", "sampled"):
        assert cost["actual"][name] == alone.cost["actual"][name] > 0, name
    responses = sum(len(load_rollouts(path)) for path in (tmp_path / "out" / "rollouts").glob("*.jsonl")) - 8
    # 8 responses each of step 0 (which `start.jsonl` has again), 10, 30 and the teacher; probes twice; 4 prompts
    assert cost["actual"]["requests"] == cost["predicted"]["requests"] == responses + 2 * 4 + 4 == 44
    assert 1 <= top.url.most_at_work <= 3
    assert len({worker.pid for worker in pools[0].workers} - {os.getpid()}) == 2
    assert not (tmp_path / "out" / ".shards").exists()
    # the key, without which nothing is answered, is in no file: of the report, and of all that Ray writes
    session = Path(cluster._private.worker._global_node.get_session_dir_path())
    files = [path for folder in (session, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_what_one_process_began_workers_finish_though_one_is_killed(tiny_run, tmp_path, cluster, top, alone, pools):
    """Answers at shared states that one process kept are found, and not asked for again."""

    def stop(what, done, total):
        if what == "step 10: scoring start states, tokens" and 0 < done < total:
            raise KeyboardInterrupt

    def kill(what, done, total):
        if "scoring teacher" in what and done and not pools[0].lost:
            os.kill(pools[0].workers[0].pid, signal.SIGKILL)

    with pytest.raises(KeyboardInterrupt):
        diagnose(tiny_run.run_dir, out=tmp_path / "out", progress=stop, **top.options)
    kept = len(list((tmp_path / "out" / ".shards").rglob("*.safetensors")))
    before = len(top.url.asked)
    report = diagnose(tiny_run.run_dir, out=tmp_path / "out", progress=kill, **top.options, **RAY)
    assert kept > 3
    assert pools[0].lost >= 1
    same_numbers(tmp_path / "out", alone.out)
    assert parts_of(tmp_path / "out", "sha256") == parts_of(alone.out, "sha256")
    assert 0 < report.provenance["cost"]["actual"]["requests"] < alone.cost["actual"]["requests"]
    asked = [body["prompt"] for _, body in top.url.asked[before:] if "prompt" in body]
    start, *others = (sequences(tmp_path / "out", of) for of in ("start", "step-000010", "step-000030", "teacher"))
    of_start = {ids for ids in start.difference(*others) if any(tuple(one[: len(ids)]) == ids for one in asked)}
    assert start.difference(*others)
    assert not of_start


def test_ids_that_each_student_asks_for(tiny_run, tmp_path, cluster, behind, cut_small):
    """A server that gives exact values at given ids is asked at shared states by every checkpoint."""
    with behind() as url:
        options = OF_FEW | {"teacher": f"vllm={url}", "states": "on-policy,start"}
        reports = [
            diagnose(tiny_run.run_dir, out=tmp_path / name, **options, **how)
            for name, how in (("ray", ONE), ("local", {}))
        ]
    assert parts_of(tmp_path / "ray", "sha256") == parts_of(tmp_path / "local", "sha256")
    requests = [report.provenance["cost"]["actual"]["requests"] for report in reports]
    assert requests == [4 + 4 + 4 + 2 * 2] * 2  # step 0's own, step 30's own and the start's, probes twice


def test_an_address_of_each_machine_where_workers_are_on_another(tiny_run, tmp_path, cluster, top, monkeypatch):
    """Told by a worker before anything is asked or written; here, this process takes itself to be elsewhere."""
    node, before = socket.gethostname(), len(top.url.asked)
    monkeypatch.setattr(socket, "gethostname", lambda: "login")
    monkeypatch.setattr("opd_diag.diagnosis.predicted_or_none", lambda plan: None)
    with pytest.raises(InputError) as raised:
        diagnose(tiny_run.run_dir, out=tmp_path / "out", **top.options, **ONE)
    assert str(raised.value) == (
        f"vllm={top.url} is every machine's own address: on node {node} it is not the server of login. Name the server "
        "with --teacher by an address that all nodes reach, and let it listen there (--host 0.0.0.0)."
    )
    assert not (tmp_path / "out").exists()
    assert max(len(body.get("prompt", ())) for _, body in top.url.asked[before:]) == 2  # those of connecting


def test_an_answer_that_cannot_be_ends_the_report_with_one_sentence(tiny_run, tmp_path, cluster, behind, teacher):
    """Told by a worker as by one process; what was finished stands."""
    logits, plain = threading.Event(), ModelServer(teacher.model).logprobs

    def begin(what, done, total):
        if "scoring on-policy" in what and done:
            logits.set()

    with behind(lambda ids: plain(ids) + 9.0 * logits.is_set(), exact=False) as url:
        options = OF_FEW | {"teacher": f"vllm={url}", "states": "on-policy"}
        with pytest.raises(ServerError) as raised:
            diagnose(tiny_run.run_dir, out=tmp_path / "out", progress=begin, **options, **ONE)
    assert re.fullmatch(
        rf"vLLM at {url} answers what cannot be: in the row of token \d+ log-probabilities of at most 0 were expected, "
        r"found \d\.\d+\. These are logits: start the server with --logprobs-mode raw_logprobs\.",
        str(raised.value),
    )
    assert (tmp_path / "out" / "rollouts" / "step-000000.jsonl").is_file()
