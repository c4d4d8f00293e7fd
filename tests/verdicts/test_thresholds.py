"""Thresholds are overridden one by one, from a mapping or a file; a mistake is named."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from opd_diag.errors import InputError
from opd_diag.verdicts import DEFAULTS, Thresholds, load_thresholds


def test_a_file_overrides_what_it_names(tmp_path):
    file = tmp_path / "limits.toml"
    file.write_text("shared_mass = 0.95\nprompts = 20\n")
    found = load_thresholds(file)
    assert (found.shared_mass, found.prompts) == (0.95, 20.0)
    assert asdict(found) == asdict(DEFAULTS) | {"shared_mass": 0.95, "prompts": 20.0}
    assert load_thresholds(str(file)) == found


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "limits.toml").write_text("# nothing\n")
    assert load_thresholds(tmp_path / "limits.toml") == DEFAULTS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shared_mas = 0.9", ["there is no threshold 'shared_mas'", "shared_mass"]),
        ('shared_mass = "high"', ["shared_mass must be a number", "'high'"]),
        ("shared_mass = true", ["shared_mass must be a number", "True"]),
        ("[shared_mass]\nvalue = 1", ["shared_mass must be a number"]),
        ("shared_mass = nan", ["shared_mass must be a number", "nan"]),
        ("prompts = inf", ["prompts must be a number", "inf"]),
        ("depth_change = 0", ["depth_change must be over 0", "found 0"]),
        ("reverse_kl_change = -0.1", ["reverse_kl_change must be over 0", "-0.1"]),
        ("stop_never = -1", ["stop_never must be at least 0", "-1"]),
        ("shared_mass =\nprompts = 5", ["cannot be read", "line 1", "--thresholds"]),
    ],
)
def test_what_is_wrong_in_a_file_is_said_whole(tmp_path, text, said):
    file = tmp_path / "limits.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_thresholds(file)
    for part in (str(file), *said):
        assert part in str(error.value)


@pytest.mark.parametrize("values", [{"depth_change": 0}, {"shared_mass": -0.1}, {"prompts": float("nan")}])
def test_what_is_built_directly_is_checked_as_well(values):
    [name] = values
    with pytest.raises(InputError, match=f"thresholds: {name} must be"):
        Thresholds(**values)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent\.toml.*--thresholds"):
        load_thresholds(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(InputError, match=r"latin\.toml.*--thresholds"):
        load_thresholds(tmp_path / "latin.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_thresholds(tmp_path)


def test_every_threshold_says_where_it_comes_from():
    import ast
    import inspect

    [body] = [n for n in ast.parse(inspect.getsource(Thresholds)).body if isinstance(n, ast.ClassDef)]
    named = [n.target.id for n in body.body if isinstance(n, ast.AnnAssign)]
    documented = {
        before.target.id: after.value.value
        for before, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
    assert set(documented) == set(named) == set(asdict(DEFAULTS))
    assert all("Ours" in text or "arXiv" in text for text in documented.values())
