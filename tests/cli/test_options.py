"""Options that one command takes over from another."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from opd_diag.cli.options import OF_MODELS, json_option, takes_options_of
from opd_diag.cli.program import report
from opd_diag.errors import InputError


def run_with(arguments: list[str]) -> tuple[Any, dict[str, Any]]:
    seen: dict[str, Any] = {}

    @takes_options_of(report, ("k", "chat_template_kwargs", "quiet"))
    def study(student: Annotated[str, typer.Option(help="Student.")], **options: Any) -> None:
        """Ask something."""
        if student == "broken":
            raise InputError("It is broken.")
        seen.update(options, student=student)

    app = typer.Typer(rich_markup_mode=None)
    app.command()(study)
    return CliRunner().invoke(app, arguments), seen


def test_own_options_come_first_and_others_keep_defaults_and_help():
    result, seen = run_with(["--student", "s", "--k", "8"])
    assert result.exit_code == 0, result.output
    assert seen == {"student": "s", "k": 8, "chat_template_kwargs": None, "quiet": False}
    shown = " ".join(run_with(["--help"])[0].output.split())
    assert "Tokens compared, 1 to 32. Default 16." in shown
    assert "Ask something." in shown
    assert shown.index("--student") < shown.index("--k ")


def test_json_is_read_and_errors_are_one_sentence():
    assert run_with(["--student", "s", "--chat-template-kwargs", '{"a": 1}'])[1]["chat_template_kwargs"] == {"a": 1}
    wrong, _ = run_with(["--student", "s", "--chat-template-kwargs", "[1]"])
    assert wrong.exit_code == 2
    assert "must be a JSON object, found list" in wrong.output
    assert "It is broken." in run_with(["--student", "broken"])[0].output


def test_unknown_names_are_a_mistake_of_ours():
    with pytest.raises(ValueError, match="report has no never, nowhere"):
        takes_options_of(report, ("k", "never", "nowhere"))


def test_options_of_models_exist():
    takes_options_of(report, OF_MODELS)
    assert json_option(None) is None
