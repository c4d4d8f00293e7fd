"""Which teachers are held side by side: names of those behind servers, what each is asked for, what is refused."""

from __future__ import annotations

import pytest
from model_server import ModelServer

from opd_diag.errors import InputError
from opd_diag.inference import load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay import served as served_module
from opd_diag.studies.teachers import plan_teachers
from opd_diag.studies.teachers_planned import names_of

ONE, TWO = "vllm=http://one:8000", "sglang=http://two:30000"


@pytest.fixture
def asked(tiny_run, monkeypatch):
    """What servers were asked for, once any address has the tiny run's teacher, under the name that is wanted."""
    teacher = load_model(Checkpoint("teacher", None, tiny_run.teacher, "full"), name="teacher")
    found = []

    def connect(address, *, model, top, dtype, weights_key):
        found.append((address, model, top))
        return ModelServer(teacher, name=model or "org/teacher")

    monkeypatch.setattr(served_module, "connect", connect)
    return found


def planned(tiny_run, chosen, out, **options):
    return plan_teachers(tiny_run.student, chosen, out=out, prompts=str(tiny_run.prompts), **options)


def test_each_is_asked_for_what_its_address_says_and_what_is_loaded_for_nothing(tiny_run, asked, tmp_path):
    chosen = [f"{ONE}#org/big,top=24", tiny_run.teacher, f"{TWO}#far"]
    made = planned(tiny_run, chosen, tmp_path / "out", teacher_top=40, requests=3)
    assert asked == [("vllm=http://one:8000", "org/big", 24), ("sglang=http://two:30000", "far", 40)]
    assert [*made.plans] == ["big", "teacher", "far"]
    assert [plan.served and plan.served.top for plan in made.plans.values()] == [24, None, 40]
    assert made.plans["far"].served.at_once == 3
    assert made.plans["teacher"].settings.teacher_top is None
    assert len({made.folder_of(name) for name in made.plans}) == 3
    assert not (tmp_path / "out").exists()


def test_names_are_what_servers_call_them_with_the_server_before_it_where_two_call_theirs_alike(tmp_path):
    folder = tmp_path / "big"
    folder.mkdir()
    models = [str(folder), ONE, f"{TWO}#x", "vllm=http://down:1"]
    places = {ONE: f"{ONE}/org/big", f"{TWO}#x": f"{TWO}/org/x"}
    parent = tmp_path.name
    assert list(names_of(models, None, places).values()) == [f"{parent}/big", "org/big", "org/x", "vllm=http:/down:1"]
    assert list(names_of(models[1:], None, places).values()) == ["big", "x", "down:1"]


def test_one_that_does_not_answer_is_left_out_of_the_plan_by_its_address(tiny_run, asked, tmp_path):
    made = planned(tiny_run, [ONE, f"{TWO}#far,top=4"], tmp_path / "out")
    assert [*made.plans] == ["teacher"]
    assert {name: str(error) for name, error in made.errors.items()} == {
        "two:30000#far,top=4": "Option k is 16, but only the 4 most probable ids of the teacher are asked for. Lower "
        "--k to 4, or raise --teacher-top."
    }


class TestAKey:
    """It is sent to every server of a command."""

    @pytest.fixture(autouse=True)
    def key(self, monkeypatch):
        monkeypatch.setenv("OPD_DIAG_SERVER_KEY", "secret")

    def test_is_sent_to_one_host_alone(self, tiny_run, asked, tmp_path):
        with pytest.raises(InputError) as error:
            planned(tiny_run, [ONE, f"{TWO}#far", tiny_run.teacher], tmp_path / "out")
        assert str(error.value) == (
            "The key in the environment variable OPD_DIAG_SERVER_KEY would be sent to 2 hosts, one, two. Ask each in a "
            "command of its own, with its own key, or unset the variable if none of them wants one."
        )
        assert not asked
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "second", ["vllm=http://localhost:8001#b", "sglang=http://127.0.0.1:30000#b", "vllm=http://[::1]:8000#b"]
    )
    def test_several_servers_of_one_host_are_asked(self, tiny_run, asked, tmp_path, second):
        planned(tiny_run, ["vllm=http://localhost:8000#a", second], tmp_path / "out")
        assert len(asked) == 2

    @pytest.mark.parametrize("empty", ["", " "])
    def test_that_is_empty_is_none(self, tiny_run, asked, tmp_path, monkeypatch, empty):
        monkeypatch.setenv("OPD_DIAG_SERVER_KEY", empty)
        planned(tiny_run, [ONE, f"{TWO}#far"], tmp_path / "out")
        assert len(asked) == 2


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            [ONE, TWO],
            f"Teachers {ONE} and {TWO} cannot be told apart: both servers call theirs org/teacher, and say the same of "
            "it. Name it once, or start one with another --served-model-name.",
        ),
        ([ONE, ONE], f"Teacher {ONE} is named twice. Name each model once."),
        (
            ["vllm=org/a", "vllm=org/b#top=4"],
            "2 teachers are to be loaded into vLLM here, org/a, org/b, and one process has room for one. Start servers "
            "for the others, as vllm=http://HOST:PORT, or load them without vLLM.",
        ),
        (
            [ONE, "vllm=http://me:secret@two:8000#x"],
            "The address of two has a name or password in it, which would be written to reports. Leave it out, and put "
            "the server's key into the environment variable OPD_DIAG_SERVER_KEY.",
        ),
        (
            [ONE, f"{TWO}#size=7"],
            "Behind # an address has the name of one model, top=K and tokenizer=T, each once and with commas between "
            "them; found 'size=7'. Write it as #NAME,top=64, or use --teacher-model for other names.",
        ),
    ],
)
def test_refused_before_anything_is_asked_or_written(tiny_run, asked, tmp_path, chosen, message):
    with pytest.raises(InputError) as error:
        planned(tiny_run, chosen, tmp_path / "out")
    assert str(error.value) == message
    assert len(asked) == (2 if "told apart" in message else 0)
    assert not (tmp_path / "out").exists()
