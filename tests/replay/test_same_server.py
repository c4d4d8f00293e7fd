"""Whether a server still has the teacher of the first time: its answers are held against those that were kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.records.arrays import load_arrays
from opd_diag.records.prompt import Prompt
from opd_diag.replay import open_store
from opd_diag.replay.marker import read_marker, write_marker
from opd_diag.replay.same_server import FORMER, NAME, refuse_other_teacher
from opd_diag.servers import About, Answer
from opd_diag.tokenization import EncodedPrompt


class Scripted:
    """A server that gives token `v` the log-probability -v / 10 and what `more` adds at a place, counted over all."""

    def __init__(self, more=0.0):
        about = ("vllm", "0.32.0", "served/teacher", None, 512, None, False, "It is too old.", True, None, "http://h:1")
        self.about, self.more, self.asked = About(*about), more, []

    def answer(self, question):
        self.asked.append(question)
        ids = np.array(question.ids[question.start :])
        more = np.asarray(self.more)
        return Answer(-ids / 10 + (more if more.ndim == 0 else more[: len(ids)]), ids[:, None], ids[:, None], None, 1)


def prompts(*lengths):
    """Prompts whose ids count on from 1, the teacher's; the student sees one other id."""
    return [EncodedPrompt(i, Prompt("text", f"id{i}"), (99,), tuple(range(1, n + 1))) for i, n in enumerate(lengths)]


@pytest.fixture
def ask(tmp_path):
    """(server, prompts, key) → asks as one report does, in the one OUT_DIR of the test."""

    def asked(server, of, key="key of big"):
        with open_store(tmp_path / "out", tmp_path / "run") as store:
            refuse_other_teacher(ServedTeacher("big", key, server, 20), of, store)
        return server.asked

    return asked


class TestTheFirstTime:
    def test_the_beginnings_of_four_prompts_are_asked_about_and_kept(self, ask, tmp_path):
        asked = ask(Scripted(), prompts(3, 70, 1, 2, 5, 9))
        assert sorted(len(q.ids) for q in asked) == [2, 3, 64]
        assert {(q.start, q.top, q.after, q.at is None) for q in asked} == {(1, 1, False, True)}
        (file,) = (tmp_path / "out").glob(NAME.format("*"))
        kept = load_arrays(file)["sampled_logprobs"]
        np.testing.assert_allclose(kept, [-v / 10 for n in (3, 64, 2) for v in range(2, n + 1)])

    def test_of_prompts_of_one_token_nothing_can_be_asked(self, ask, tmp_path):
        assert ask(Scripted(), prompts(1, 1)) == []
        assert not list((tmp_path / "out").glob(NAME.format("*")))


class TestTheNextTime:
    OF = prompts(5, 6)

    @pytest.fixture(autouse=True)
    def first(self, ask):
        ask(Scripted(), self.OF)

    def test_the_same_teacher_is_asked_once_more_and_taken(self, ask):
        assert len(ask(Scripted(), self.OF)) == 2

    def test_other_prompts_of_a_study_leave_the_first_answers_where_they_are(self, ask):
        ask(Scripted(), prompts(7, 8))
        with pytest.raises(ServerError):
            ask(Scripted(more=1.0), self.OF)

    def test_answers_that_an_earlier_version_kept_elsewhere_count(self, ask, tmp_path):
        (file,) = (tmp_path / "out").glob(NAME.format("*"))
        marker = read_marker(tmp_path / "out", tmp_path / "run").parts
        marker[FORMER] = marker.pop(str(file.relative_to(tmp_path / "out")))
        file.rename(tmp_path / "out" / FORMER)
        write_marker(tmp_path / "out", tmp_path / "run", marker)
        with pytest.raises(ServerError):
            ask(Scripted(more=1.0), self.OF)
        assert len(ask(Scripted(), self.OF)) == 2
        ask(Scripted(more=1.0), prompts(7, 8))  # others than those that were kept there
        assert len([*(tmp_path / "out" / ".checks").iterdir()]) == 2

    @pytest.mark.parametrize("more", [0.045, -0.045, [0.19, 0.0, 0.0, 0.0, 0.0]])
    def test_what_other_batches_make_is_no_other_teacher(self, ask, more):
        ask(Scripted(more), self.OF)

    @pytest.mark.parametrize(
        ("more", "apart"),
        [(-0.055, "0.055"), (0.5, "0.5"), ([-math.inf, 0, 0, 0, 0], "inf"), ([2, -1, 0, 0, 0], "0.67")],
    )
    def test_another_teacher_is_refused(self, ask, more, apart, tmp_path):
        with pytest.raises(ServerError) as error:
            ask(Scripted(more), self.OF)
        assert str(error.value) == (
            f"vLLM at http://h:1 gives the same 9 tokens log-probabilities that differ by {apart} nats on average from "
            f"those it gave when {tmp_path / 'out'} was begun: it has other weights under the name served/teacher. "
            "Choose another folder with --out, or start the server as it was."
        )
        ask(Scripted(), self.OF)  # what was kept stands

    def test_another_name_or_other_prompts_are_another_first_time(self, ask):
        ask(Scripted(-3.0), self.OF, key="key of another")
        ask(Scripted(-3.0), prompts(8, 9), key="key of another")
        with pytest.raises(ServerError):
            ask(Scripted(), prompts(8, 9), key="key of another")


@pytest.mark.parametrize("more", [[-math.inf, 0, 0, 0], -math.inf])
def test_tokens_that_are_impossible_both_times_are_no_difference(ask, more):
    ask(Scripted(more), prompts(4))
    assert len(ask(Scripted(more), prompts(4))) == 1
    with pytest.raises(ServerError, match="differ by inf nats"):
        ask(Scripted(), prompts(4))
