"""What a page says where a server returned a part of the teacher's distribution, whatever it calls its model."""

from __future__ import annotations

import dataclasses
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from model_server import ModelServer
from typer.testing import CliRunner

from opd_diag.cli import app
from opd_diag.inference import load_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay import served as served_module
from opd_diag.replay.served import Served
from opd_diag.report.figures import Figures
from opd_diag.report.page import report_page
from opd_diag.report.provenance import reader_notes
from opd_diag.report.served import EFFECTS, OfServer, SweepRow, bound_panels, of_server
from opd_diag.servers import About
from opd_diag.tables.k_sweep import SWEEP_COLUMNS, SWEPT
from opd_diag.tokenization import load_tokenizer
from opd_diag.verdicts import DEFAULTS

from .made_up_report import made_up_report
from .strict_html import StrictReader

INF = math.inf
ADDRESS = "vllm=http://127.0.0.1:8000"
HOSTILE = "served/<script>alert(1)</script> [red]a, b\x00\x1b[31m\u202etxet | `pipe`"
"""As a server may call its model."""

ENDS = {
    "forward_kl": {"step 0": ((0.8, 1.0), (0.85, 0.865)), "step 9": ((0.3, 0.5), (0.4, 0.415))},
    "reverse_kl": {"step 0": ((0.5, INF), (0.6, INF)), "step 9": ((0.1, INF), (0.2, INF))},
    "jensen_shannon": {"step 0": ((0.1, 0.2), (0.12, 0.15)), "step 9": ((0.05, 0.1), (0.06, 0.08))},
    "common_mass": {"step 0": ((0.7, 0.71), (0.704, 0.707)), "step 9": ((0.8, 0.81), (0.804, 0.807))},
    "teacher_entropy": {"step 0": ((1.0, 1.5), (1.2, 1.3)), "step 9": ((1.0, 1.01), (1.0, 1.0))},
}
"""Bounds on own states by metric and checkpoint, at K = 4 and 16; at the start's states they lie 0.1 higher."""


def sweep():
    """That table, with a state set besides whose bounds are as wide as can be and which no page shows."""
    shift, rows = {"on-policy": 0.0, "start": 0.1}, []
    for step, label in ((0, "step 0"), (9, "step 9")):
        for states in ("on-policy", "start", "near-on-policy"):
            for metric in SWEPT:
                for top, ends in zip((4, 16), ENDS[metric][label], strict=True):
                    low, high = (-9.0, 9.0) if states not in shift else (end + shift[states] for end in ends)
                    rows.append((step, label, "big", states, metric, top, low, high, 80))
    return pd.DataFrame(rows, columns=SWEEP_COLUMNS).astype({"step": "Int64"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made_up_report(tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def partly(whole):
    return dataclasses.replace(whole, tables=dataclasses.replace(whole.tables, sweep=sweep()))


def page_of(report):
    return report_page(report, Figures({}, {}, {}, []))


class TestWhatIsLeftOpen:
    def test_each_metric_has_its_bounds_and_the_k_that_would_do(self, partly):
        assert of_server(partly) == OfServer(
            top=16,
            sentence="Of the teacher the 16 most probable ids came back at each state. Overlap, and both masses on the "
            "shared tokens, are exact for every k up to 16. What hangs on the rest of the vocabulary lies between the "
            "bounds below, whatever the rest is; nothing was filled in.",
            states=["own states", "the start's states"],
            rows=[
                SweepRow("forward_kl", ["0.400 to 0.415", "0.500 to 0.515"], "0.02", "K = 16"),
                SweepRow("reverse_kl", ["at least 0.20", "at least 0.30"], "0.02", "the whole vocabulary"),
                SweepRow("jensen_shannon", ["0.06 to 0.08", "0.16 to 0.18"], "0.005", "more than 16"),
                SweepRow("common_mass", ["0.804 to 0.807", "0.904 to 0.907"], "0.02", "K = 4"),
                SweepRow("teacher_entropy", ["1.00 to 1.00", "1.10 to 1.10"], "0.02", "more than 16"),
            ],
        )

    def test_where_the_mean_of_reverse_kl_is_estimated_is_said(self, partly):
        summary = partly.tables.summary.copy()
        summary.loc[summary["metric"] == "reverse_kl", ["value", "bound_low", "bound_high"]] = [math.nan, 0.1, INF]
        known = dataclasses.replace(partly.tables, summary=summary)
        said = of_server(dataclasses.replace(partly, tables=known)).sentence
        assert said.endswith(
            "nothing was filled in. The mean of reverse KL, which no top K bounds from above, is estimated without "
            "bias on own states: by the tail-sampled reverse KL, on which verdicts on reverse KL rest there."
        )

    def test_widths_that_would_do_are_the_changes_that_count(self):
        assert {*EFFECTS} == {*SWEPT}
        assert EFFECTS["forward_kl"] == DEFAULTS.effect("forward_kl")
        assert EFFECTS["reverse_kl"] == DEFAULTS.effect("reverse_kl")

    def test_a_jensen_shannon_that_counts_is_a_quarter_of_a_kl_that_does(self):
        """Between two distributions a small step apart."""
        p = np.array([0.5, 0.3, 0.2])
        q = p + 1e-3 * np.array([1.0, 0.5, -1.5])
        kl = (p * np.log(p / q)).sum() / 2 + (q * np.log(q / p)).sum() / 2
        m = (p + q) / 2
        js = (p * np.log(p / m)).sum() / 2 + (q * np.log(q / m)).sum() / 2
        assert EFFECTS["jensen_shannon"] / EFFECTS["reverse_kl"] == pytest.approx(js / kl, rel=1e-3)

    def test_where_whole_distributions_were_seen_there_is_nothing_to_say(self, whole):
        assert of_server(whole) is None
        assert bound_panels(whole.tables) == []
        assert 'id="served"' not in page_of(whole)


def test_pictures_say_what_the_first_and_the_last_k_leave(partly):
    panels = bound_panels(partly.tables)
    assert [(panel.name, panel.term, panel.reading) for panel in panels] == [
        ("bounds-forward_kl", "forward_kl", "At step 9, own states: 0.30 to 0.50 at K = 4, 0.400 to 0.415 at K = 16."),
        (
            "bounds-jensen_shannon", "jensen_shannon",
            "At step 9, own states: 0.05 to 0.10 at K = 4, 0.06 to 0.08 at K = 16.",
        ),
    ]  # fmt: skip
    assert panels[0].title == "Forward KL between bounds, by K"
    page = StrictReader(report_page(partly, Figures({}, {}, {}, [], bounds=panels)))
    assert len(page.ids) == len({*page.ids})
    assert panels[0].reading in page.text


class TestThePage:
    def test_the_table_stands_under_a_heading_that_the_contents_name(self, partly):
        page = StrictReader(page_of(partly))
        assert ("a", {"href": "#served"}) in page.tags
        shown = page.text[page.text.rindex("What the teacher's top 16 leave open") :]
        assert shown.startswith("What the teacher's top 16 leave open Of the teacher the 16 most probable ids")
        for row in of_server(partly).rows:
            assert " ".join((*row.bounds, row.least, row.needed)) in shown

    def test_a_hostile_name_is_text_wherever_it_stands(self, partly):
        name = served(HOSTILE).name
        assert name == "script> [red]a, b\x00\x1b[31m\u202etxet | `pipe`"
        tables = {
            field.name: of.assign(teacher=HOSTILE) if "teacher" in of.columns else of
            for field in dataclasses.fields(partly.tables)
            if isinstance(of := getattr(partly.tables, field.name), pd.DataFrame)
        }
        models = [*partly.provenance["models"][:-1], partly.provenance["models"][-1] | {"path": HOSTILE}]
        report = dataclasses.replace(
            partly,
            tables=dataclasses.replace(partly.tables, **tables),
            provenance=partly.provenance | {"models": models},
            notes=notes_of(HOSTILE),
        )
        html = page_of(report)
        StrictReader(html)
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert not re.search("[\x00-\x08\x0e-\x1f\u202e]", html)
        assert r"a, b\x00\x1b[31m\u202etxet" in StrictReader(html).text


def served(model, **options):
    about = About("vllm", "0.32.0\x1b[0m", model, None, 512, None, True, None, True)
    return Served(SimpleNamespace(about=about), ADDRESS, options.pop("top", 20), 16)


def notes_of(model, **options):
    plan = SimpleNamespace(
        step_zero_known=True, blocked=(), settings=SimpleNamespace(student_temperature=1.0),
        served=options.pop("of", None) or served(model, **options),
    )  # fmt: skip
    scores = SimpleNamespace(student_cut_mass=np.zeros(3), teacher_cut_mass=np.full(3, math.nan))
    scored = [SimpleNamespace(scores=scores, states="start", rollouts=(), checkpoint=None)]
    replayed = SimpleNamespace(broken=(), scored=scored, heads=(), floors=(), selftests=(), logprobs=())
    return reader_notes(plan, replayed)


@pytest.mark.parametrize(("top", "part"), [(20, " Only its top 20 came back at each state; what the rest decides lies "
                                             "between bounds."), (-1, "")])  # fmt: skip
def test_a_reader_is_told_who_the_teacher_is_and_what_it_cannot_be_asked(top, part):
    assert notes_of("org/big, the second", top=top) == [
        "The teacher is org/big, the second behind vllm=http://127.0.0.1:8000 (vllm 0.32.0\\x1b[0m). Its weights have "
        f"no fingerprint; a few answers are held against those of the first time instead.{part} Its precision floor, a "
        "fitted temperature, gradient coherence and coverage of the teacher's states take a teacher that opd-diag "
        "loads itself."
    ]


def test_a_teacher_in_vllm_here_is_told_as_such(tmp_path):
    about = About("vllm", "0.32.0", "models/big", "models/big", 512, None, True, None, True)
    here = Served(SimpleNamespace(about=about), f"vllm={tmp_path}", 20, 16, "key of its files")
    assert here.said() == (
        "models/big in vllm 0.32.0, in this process, its top 20 and exact values at the student's at each state"
    )
    assert notes_of("models/big", of=here) == [
        "The teacher is models/big in vllm 0.32.0, in this process. Only its top 20 came back at each state; what the "
        "rest decides lies between bounds. Its precision floor, a fitted temperature, gradient coherence and coverage "
        "of the teacher's states take a teacher that opd-diag loads itself."
    ]


@pytest.mark.parametrize(
    ("top", "gives"), [(20, "its top 20 and exact values at the student's"), (-1, "the whole vocabulary")]
)
def test_a_plan_says_what_it_gives(top, gives):
    assert served("org/big", top=top).said() == (
        f"org/big behind vllm=http://127.0.0.1:8000 (vllm 0.32.0\\x1b[0m), {gives} at each state"
    )


def test_a_hostile_name_does_not_drive_a_terminal(tiny_run, monkeypatch):
    tokenizer = load_tokenizer(str(tiny_run.teacher))
    where = Checkpoint("teacher", None, tiny_run.teacher, "full")
    model = load_model(where, name="teacher", stop_ids=tokenizer.stop_ids)
    server = ModelServer(model, name=HOSTILE, tokenizer=tokenizer)
    monkeypatch.setattr(served_module, "connect", lambda address, *, model, top, dtype, weights_key: server)
    result = CliRunner().invoke(app, ["report", str(tiny_run.run_dir), "--teacher", ADDRESS, "--plan"])
    assert result.exit_code == 0, result.output
    assert not re.search("[\x00\x1b\u202e]", result.output)
    said = "".join(result.output.split())
    assert r"served/<script>alert(1)</script>[red]a,b\x00\x1b[31m\u202etxet|`pipe`behindvllm=http" in said
