"""A function named on the command line."""

from __future__ import annotations

import sys

import pytest

from opd_diag.cli.grading import function_named
from opd_diag.errors import InputError


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_graders.py").write_text("number = 3\n\ndef yes(text, answer):\n    return True\n")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_graders", None)


def test_of_the_working_directory(module):
    before = list(sys.path)
    assert function_named("my_graders:yes")("a", None) is True
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def yes(:\n", "SyntaxError: invalid syntax (broken_graders.py, line 1)"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_fails(module, tmp_path, text, said):
    (tmp_path / "broken_graders.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(InputError) as error:
        function_named("broken_graders:yes")
    assert str(error.value) == f"Module 'broken_graders' cannot be imported: {said}. Correct it."
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_graders", "Expected MODULE:FUNCTION, as my_graders:math, found 'my_graders'."),
        (":yes", "Expected MODULE:FUNCTION, as my_graders:math, found ':yes'."),
        ("my_graders:no", "my_graders has no function 'no'. Correct the name."),
        ("my_graders:number", "my_graders has no function 'number'. Correct the name."),
        (
            "not_there:yes",
            "Module 'not_there' cannot be imported: No module named 'not_there'. Name one that is installed or lies in "
            "the working directory.",
        ),
    ],
)
def test_refused(module, name, said):
    with pytest.raises(InputError) as error:
        function_named(name)
    assert str(error.value) == said
