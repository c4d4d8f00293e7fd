"""Lines as trainers leave them: half written, damaged, in columns, too long to look at whole."""

import json
from pathlib import Path

import pytest

from opd_diag.errors import RolloutsError
from opd_diag.runs.recorded.lines import first_fields, json_objects, rows, unfolded
from opd_diag.runs.recorded.recorded_file import Reading


def written(tmp_path, content: bytes | str) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(tmp_path, content) -> str:
    path = written(tmp_path, content)
    with pytest.raises(RolloutsError) as caught:
        list(json_objects(path, Reading()))
    return str(caught.value).replace(str(path), path.name)


def test_lines_count_from_1_and_blank_ones_are_passed_over(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": NaN}')
    reading = Reading()
    found = list(json_objects(path, reading))
    assert [number for number, _ in found] == [1, 4]
    assert found[0][1] == {"a": 1}
    assert reading.notes == []


@pytest.mark.parametrize("tail", ['{"a": 2', '{"a"', '{"a": "\u00e9'.encode()[:-1].decode("latin-1"), "{"])
def test_a_half_written_last_line_is_noted(tmp_path, tail):
    path, reading = written(tmp_path, '{"a": 1}\n' + tail), Reading()
    assert list(json_objects(path, reading)) == [(1, {"a": 1})]
    assert reading.notes == [f"{path}: the last line is half written and was left out."]


def test_a_character_that_is_cut_through_is_a_half_written_line(tmp_path):
    path, reading = written(tmp_path, '{"a": 1}\n{"a": "é'.encode()[:-1]), Reading()
    assert list(json_objects(path, reading)) == [(1, {"a": 1})]
    assert len(reading.notes) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"a": 1}\n{"a": 2\n{"a": 3}\n',
            "a.jsonl, line 2: not JSON (Expecting ',' delimiter at column 8). Mend it or leave the file out.",
        ),
        ("[1]\n", "a.jsonl, line 1: expected a JSON object on each line, found list. Mend it or leave the file out."),
        ("[" * 200_000 + "\n", "a.jsonl, line 1: not JSON (nested too deeply). Mend it or leave the file out."),
        (
            '{"a": "b\n',
            "a.jsonl, line 1: not JSON (Unterminated string starting at column 7). Mend it or leave the file out.",
        ),
        (b'{"a": "\xff"}\n', "a.jsonl, line 1: not JSON (byte 8 is not UTF-8). Mend it or leave the file out."),
        (
            '{"a": ' + "1" * 5000 + "}\n",
            "a.jsonl, line 1: not JSON (a number of too many digits). Mend it or leave the file out.",
        ),
    ],
)
def test_damaged_lines_are_named(tmp_path, content, message):
    assert refusal(tmp_path, content) == message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RolloutsError) as caught:
        list(json_objects(tmp_path, Reading()))
    assert str(caught.value) == f"{tmp_path} cannot be read: Is a directory. Check it and its permissions."


def test_the_first_line_tells_columns_from_records(tmp_path):
    columns = {"step": [1, 1], "prompt": ["a", "b"], "extra": [1]}
    path = written(tmp_path, json.dumps(columns) + "\n" + json.dumps({"step": [2], "prompt": ["c"]}) + "\n")
    assert list(rows(path, Reading(), ("step", "prompt"))) == [
        (f"{path}, line 1, row 1", {"step": 1, "prompt": "a"}),
        (f"{path}, line 1, row 2", {"step": 1, "prompt": "b"}),
        (f"{path}, line 2, row 1", {"step": 2, "prompt": "c"}),
    ]
    path = written(tmp_path, '{"step": 1, "ids": [1, 2]}\n')
    assert list(rows(path, Reading(), ("step",))) == [(f"{path}, line 1", {"step": 1, "ids": [1, 2]})]


def test_a_line_of_columns_must_have_those_that_are_needed():
    with pytest.raises(RolloutsError) as caught:
        unfolded({"step": [1], "prompt": "a"}, ("step", "prompt"), "here")
    assert str(caught.value) == "here: expected a column 'prompt', found step, prompt. Mend it or leave the file out."


def test_the_fields_of_a_first_line(tmp_path):
    assert first_fields(written(tmp_path, '\n{"a": 1, "b": {"c": 2}}\n{"d": 3}\n')) == {"a", "b"}
    assert first_fields(written(tmp_path, '{"a": 1, "b"')) == frozenset()
    assert first_fields(written(tmp_path, "[1]\n")) == frozenset()
    assert first_fields(written(tmp_path, "")) == frozenset()


def test_no_more_than_a_megabyte_of_a_long_line_is_looked_at(tmp_path, monkeypatch):
    text = {"responses": ['he said "step": \\ 4'] * 100_000, "global_step": [1]}
    path = written(tmp_path, json.dumps(text) + "\n")
    read = []
    opened = Path.open

    def counting(self, *args, **kwargs):
        file = opened(self, *args, **kwargs)
        plain = file.read
        file_read = lambda size=-1: read.append(size) or plain(size)  # noqa: E731
        return _Wrapped(file, file_read)

    monkeypatch.setattr(Path, "open", counting)
    assert first_fields(path) == {"responses"}
    assert read == [1 << 20]


class _Wrapped:
    def __init__(self, file, read):
        self.file, self.read = file, read

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
