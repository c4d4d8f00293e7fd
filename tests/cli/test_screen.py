"""Verdicts on a screen: laid out, wrapped, alarms first; in a pipe or a log the same as plain lines."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from opd_diag.cli import screen, terminal
from opd_diag.cli.printing import print_every_selftest, print_selftests, print_verdicts
from opd_diag.records.selftest import SelfTest
from opd_diag.records.verdict import Verdict

NAN = float("nan")
LONG = "Of the change of reverse KL on own states, policy −4.07 [−4.26, −3.88] and states −6.37 [−6.75, −6.00]; " * 4
VERDICTS = [
    Verdict(
        "shared_mass", "Is it shared?", "pass", 0.97, 0.96, 0.98, 0.9, "Tokens shared hold 0.97; more; and more", "", ""
    ),
    Verdict("accuracy", "Did it get better?", "unknown", NAN, NAN, NAN, NAN, "No answers.", "Give answers.", ""),
    Verdict("entropy_gap", "Does it close?", "warn", 0.1, 0.08, 0.12, 0.0, "It stays.", "Look at it.", ""),
    Verdict("false_success", "Can it be believed?", "fail", -6.37, -6.75, -6.0, 0.0, LONG, "Read the rollouts.", ""),
]
TESTS = [
    SelfTest("ends", "step 0", "pass", 0.0, 0.1, "Alike.", ""),
    SelfTest("shift", "step 0", "fail", 1.0, 0.0, "It fits best shifted by 1.", "Look at the template."),
]


@pytest.fixture
def looked_at(monkeypatch):
    """Give a function that puts a screen of some columns in place of stdout, and gives what was written there."""

    def made(columns: int | None, **kind) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        console = Console(file=stream, soft_wrap=True, highlight=False, emoji=False, width=terminal.UNCUT, **kind)
        monkeypatch.setattr(terminal, "out", console)
        return stream

    return made


def shown(stream: io.StringIO) -> list[str]:
    """Lines as they are seen, without colours and what is blank at their ends."""
    return [line.rstrip() for line in Text.from_ansi(stream.getvalue()).plain.splitlines()]


@pytest.mark.parametrize(("columns", "widest"), [(60, 60), (80, 80), (140, screen.WIDEST)])
def test_everything_is_wrapped_to_the_width(looked_at, columns, widest):
    stream = looked_at(columns, force_terminal=True)
    print_verdicts(VERDICTS)
    widths = [cell_len(line) for line in shown(stream)]
    assert widest - 20 < max(widths) <= widest


def test_alarms_come_first_and_in_full_and_passes_are_short(looked_at):
    stream = looked_at(80, force_terminal=True)
    print_verdicts(VERDICTS)
    lines = shown(stream)
    assert [line.split()[1] for line in lines if line[:1] in tuple("✗!?✓")] == ["fail", "warn", "unknown", "pass"]
    assert lines[0] == "✗ fail     Can it be believed?  false_success"
    assert lines[1].startswith("           −6.37 [−6.75, −6.00]   Of the change of reverse KL")
    words = " ".join(" ".join(line.split()) for line in lines)
    assert " ".join(LONG.split()) in words
    assert "           → Read the rollouts." in lines
    assert "? unknown  Did it get better?  accuracy" in lines
    assert "✓ pass     shared_mass  Tokens shared hold 0.97" in lines
    assert "and more" not in words
    assert lines[-1] == "1 fail · 1 warn · 1 unknown · 1 pass"


def test_a_pass_takes_one_line_however_long_it_is(looked_at):
    stream = looked_at(60, force_terminal=True)
    print_verdicts([dataclasses.replace(VERDICTS[0], evidence="long " * 60, name="runs_differ[" + "x" * 90 + "]")])
    line = shown(stream)[0]
    assert line.startswith("✓ pass     runs_differ[xx")
    assert line.count("…") == 2


def test_self_tests_on_a_screen(looked_at):
    stream = looked_at(80, force_terminal=True)
    print_selftests(TESTS)
    assert shown(stream) == [
        "✗ fail     Self-test: shift  step 0",
        "           It fits best shifted by 1.",
        "           → Look at the template.",
        "",
        "self-tests: 1 fail · 1 pass",
        "",
    ]
    stream = looked_at(80, force_terminal=True)
    print_every_selftest(TESTS)
    assert shown(stream) == [
        "✗ fail     shift  It fits best shifted by 1.",
        "                  → Look at the template.",
        "✓ pass     ends   Alike.",
        "",
        "1 fail · 1 pass",
    ]


def test_the_headline_has_its_facts_under_it(looked_at):
    stream = looked_at(80, force_terminal=True)
    screen.show_headline(
        "my [run]", "warn", "Not so sure", ["On [own] states " + "and so on " * 9, "At the start"], "Look."
    )
    lines = shown(stream)
    assert lines[0] == "my [run]: ! Not so sure"
    assert lines[1].startswith(" •  On [own] states and so on")
    assert re.match(r" {4}\S", lines[2])
    assert lines[3:] == [" •  At the start", " →  Look.", ""]


def hostile() -> Verdict:
    return dataclasses.replace(
        VERDICTS[2], name="a\x1b[31mb", evidence="one\ntwo\u202e [red]three[/red]\x07\u200b\u2060\U000e0041"
    )


@pytest.mark.parametrize("columns", [screen.WIDEST, None])
def test_what_users_named_prints_as_it_is(looked_at, columns):
    stream = looked_at(columns, force_terminal=columns is not None)
    print_verdicts([hostile()])
    text = "\n".join(shown(stream))
    assert r"a\x1b[31mb" in text
    assert r"one\ntwo\u202e [red]three[/red]\x07\u200b\u2060\U000e0041" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\u200b\u2060\U000e0041]", text)


def test_in_a_pipe_there_is_one_plain_line_each(looked_at):
    stream = looked_at(80, force_terminal=False)
    print_verdicts([*VERDICTS, hostile()])
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["fail", "warn", "warn", "unknown", "pass"]
    assert lines[0] == f"fail     false_success  {LONG}"
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("environment", "kind", "expected"),
    [
        ({}, {"force_terminal": True}, True),
        ({}, {"force_terminal": False}, False),
        ({"CI": "true"}, {"force_terminal": True}, False),
        ({"CI": "false"}, {"force_terminal": True}, True),
        ({"TERM": "dumb"}, {"force_terminal": True}, False),
    ],
)
def test_what_a_screen_is(monkeypatch, environment, kind, expected):
    for name, value in ({"CI": "", "TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    assert screen.is_screen(Console(file=io.StringIO(), **kind)) is expected
