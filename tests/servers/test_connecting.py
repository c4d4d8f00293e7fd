"""Reaching a server: its models, its engine, the extra, and faults that show at once."""

import sys

import pytest

from opd_diag.errors import MissingExtra, ServerError
from opd_diag.servers import About, Patience, Question, connect

from .stand_in import TinyModel, stand_in

MODEL = TinyModel(48)
ONCE = Patience(tries=1)


def refused(engine, url, **options):
    with pytest.raises(ServerError) as caught:
        connect(f"{engine}={url}", **{"top": 4, "patience": ONCE, **options})
    return str(caught.value)


def test_what_vllm_says_of_itself():
    with stand_in("vllm", MODEL, exact=False) as url:
        about = connect(f"vllm={url}/v1/", top=20).about
    assert about == About(
        engine="vllm",
        version="0.32.0",
        model="teacher",
        root="org/teacher",
        context=512,
        top_limit=20,
        exact_ids=False,
        why_not_exact=(
            "Exact values at given ids need vLLM 0.32 or newer on its V2 model runner, started with "
            "--enable-scale-out; it answers HTTP 400, prompt_logprob_token_ids requires the V2 model runner "
            "(VLLM_USE_V2_MODEL_RUNNER=1)."
        ),
        sees_all=False,
        vocab_size=48,
        url=url,
    )


def test_what_sglang_says_of_itself():
    with stand_in("sglang", MODEL) as url:
        about = connect(f"sglang={url}", top=20).about
    assert about == About("sglang", "0.5.23", "teacher", "org/teacher", 512, None, True, None, False, None, url)


def test_one_of_several_models():
    with stand_in("vllm", MODEL, names=("base", "adapter")) as url:
        assert connect(f"vllm={url}", model="adapter", top=4).about.model == "adapter"
        assert refused("vllm", url) == f"{url} serves 2 models: base, adapter. Name one of them."
        assert refused("vllm", url, model="teacher\x1b") == (
            f"{url} serves base, adapter; teacher\\x1b was asked for. Name a model that it serves."
        )


def test_the_other_engine():
    with stand_in("sglang", MODEL) as url:
        assert refused("vllm", url) == f"{url} is not vLLM but SGLang. Write sglang={url}."


def test_no_models():
    with stand_in("vllm", MODEL, names=()) as url:
        assert refused("vllm", url) == (
            f"{url}/v1/models was expected to list the served models, found none. Give the address of a vLLM server."
        )


def test_another_kind_of_server():
    with stand_in("vllm", MODEL, misbehave="refuses", from_start=True) as url:
        assert refused("vllm", url) == f"{url}/v1/models refuses what it was asked: HTTP 422, it is refuses\\x1b[31m"


def test_a_server_that_starts_is_waited_for():
    with stand_in("vllm", MODEL, misbehave={"unavailable": 2}, from_start=True) as url:
        assert connect(f"vllm={url}", top=4, patience=Patience(pause_s=0.001)).about.model == "teacher"


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_logits_are_seen_at_once(engine):
    with stand_in(engine, MODEL, misbehave="logits", from_start=True) as url:
        told = refused(engine, url)
    found = f"{MODEL([0])[0][1] + 9:.6g}"
    mend = {
        "vllm": "These are logits: start the server with --logprobs-mode raw_logprobs.",
        "sglang": "These are no log-probabilities at temperature 1: take a release that answers them.",
    }[engine]
    name = {"vllm": "vLLM", "sglang": "SGLang"}[engine]
    assert told == (
        f"{name} at {url} answers what cannot be: in the row of token 1 log-probabilities of at most 0 were expected, "
        f"found {found}. {mend}"
    )


def test_top_that_means_nothing():
    with pytest.raises(ValueError, match=r"^top must be at least 1, or -1 for all, got 0$"):
        connect("vllm=http://127.0.0.1:1", top=0)


@pytest.mark.parametrize("package", ["requests", "orjson"])
def test_without_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("transport", "vllm", "sglang"):
        monkeypatch.delitem(sys.modules, f"opd_diag.servers.{module}", raising=False)
    with pytest.raises(MissingExtra) as caught:
        connect("vllm=http://127.0.0.1:1", top=4)
    assert str(caught.value) == (f"This needs {package}, which is not installed: run pip install 'opd-diag[servers]'.")


def test_the_room_loads_neither_requests_nor_torch():
    import subprocess

    script = "import sys, opd_diag.servers; print([n for n in ('requests', 'orjson', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_connected_server_answers():
    with stand_in("sglang", MODEL) as url:
        assert connect(f"sglang={url}", top=4).answer(Question((1, 2), 1, 4)).topk_ids.shape == (1, 4)
