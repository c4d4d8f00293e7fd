"""Long work, drawn while it goes on."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from opd_diag.cli import terminal
from opd_diag.cli.progress import drawn_progress


@pytest.fixture
def screen(monkeypatch):
    """Give a function that puts a screen of the given kind in place of stderr."""

    monkeypatch.delenv("CI", raising=False)

    def made(**kind):
        stream = io.StringIO()
        monkeypatch.setattr(terminal, "err", Console(file=stream, width=120, emoji=False, highlight=False, **kind))
        return stream

    return made


def test_bars_show_names_as_they_are_and_the_rate(screen):
    stream = screen(force_terminal=True)
    with drawn_progress(quiet=False) as progress:
        for done in range(1, 30):
            progress("[red]step[/] :x:: scoring", done, 30)
    assert "[red]step[/] :x:: scoring" in stream.getvalue()
    assert re.search(r"\d/s", stream.getvalue())


def test_elsewhere_there_is_one_line_a_task_when_it_is_done(screen):
    stream = screen(force_terminal=False)
    with drawn_progress(quiet=False) as progress:
        for what in ("[red]a[/]", "b"):
            for done in (0, 1000, 2000):
                progress(what, done, 2000)
            progress(what, 2000, 2000)
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"[\d.]+ s$", "T", line) for line in lines] == ["[red]a[/]: 2,000 in T", "b: 2,000 in T"]


def test_a_long_task_says_once_a_minute_how_far_it_is(screen, monkeypatch):
    stream, clock = screen(force_terminal=False), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with drawn_progress(quiet=False) as progress:
        for clock[0], done in ((0, 0), (59, 100), (61, 150), (100, 160), (125, 200), (500, 600), (500, 600)):
            progress("scoring", done, 600)
    assert stream.getvalue().splitlines() == [
        "scoring: 150 of 600 after 1 min, some 3 min left",
        "scoring: 200 of 600 after 2 min, some 4 min left",
        "scoring: 600 in 500.0 s",
    ]


PWN = "step\x1b[31m\x1b]0;pwn\x07\u202e"
PWN_SHOWN = r"step\x1b[31m\x1b]0;pwn\x07\u202e"
"""A folder that would colour the terminal, rename its window, ring and turn its line."""


def test_bars_show_control_characters_of_a_name(screen):
    stream = screen(force_terminal=True)
    with drawn_progress(quiet=False) as progress:
        progress(PWN, 1, 2)
    assert PWN_SHOWN in stream.getvalue()
    assert not re.search(r"\x1b\]|\x07|\u202e", stream.getvalue())


def test_lines_show_control_characters_of_a_name(screen, monkeypatch):
    stream, clock = screen(force_terminal=False), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with drawn_progress(quiet=False) as progress:
        for clock[0], done in ((0, 0), (61, 150), (200, 600)):
            progress(PWN, done, 600)
    assert stream.getvalue().splitlines() == [
        f"{PWN_SHOWN}: 150 of 600 after 1 min, some 3 min left",
        f"{PWN_SHOWN}: 600 in 200.0 s",
    ]


def test_in_the_log_of_a_ci_job_there_are_no_bars(screen, monkeypatch):
    stream = screen(force_terminal=True)
    monkeypatch.setenv("CI", "true")
    with drawn_progress(quiet=False) as progress:
        for done in range(1, 31):
            progress("scoring", done, 30)
    assert re.fullmatch(r"scoring: 30 in [\d.]+ s\n", stream.getvalue())


def test_quiet_draws_nothing(screen):
    stream = screen(force_terminal=True)
    with drawn_progress(quiet=True) as progress:
        assert progress is None
    assert stream.getvalue() == ""
