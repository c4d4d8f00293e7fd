"""Prompts from three file formats; a line that is no prompt is named, never skipped."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opd_diag.errors import PromptsError
from opd_diag.records.prompt import Prompt, load_prompts

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2"}]


def lines(tmp_path, *records, name="prompts.jsonl"):
    file = tmp_path / name
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), encoding="utf-8")
    return file


def parquet(tmp_path, rows):
    file = tmp_path / "prompts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def refusal(file) -> str:
    with pytest.raises(PromptsError) as caught:
        load_prompts(file)
    return str(caught.value)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.ndjson", "P.JSONL"])
def test_json_lines(tmp_path, name):
    file = lines(tmp_path, {"prompt": "a", "id": 7, "answer": 4, "group": "math"}, "", {"prompt": "b"}, name=name)
    assert load_prompts(str(file)) == [Prompt("a", "7", "4", "math", None), Prompt("b", "3")]


def test_ids_are_line_numbers_where_none_is_given(tmp_path):
    file = lines(
        tmp_path, {"prompt": "a"}, {"prompt": "b", "id": None}, {"prompt": "c", "id": ""}, {"prompt": "d", "id": 0}
    )
    assert [p.id for p in load_prompts(file)] == ["1", "2", "3", "0"]


def test_chat_messages_and_what_the_teacher_sees(tmp_path):
    (prompt,) = load_prompts(lines(tmp_path, {"prompt": CHAT, "teacher_prompt": "hint"}))
    assert (prompt.content, prompt.teacher_content) == (tuple(CHAT), "hint")
    (prompt,) = load_prompts(lines(tmp_path, {"prompt": "a", "teacher_prompt": CHAT}))
    assert (prompt.content, prompt.teacher_content) == ("a", tuple(CHAT))


def test_plain_text_is_one_prompt_a_line_as_it_stands(tmp_path):
    (tmp_path / "p.txt").write_bytes('a\r\n\n  {"prompt": 1}\nü 日本\u2028x\n'.encode())
    assert [(p.id, p.content) for p in load_prompts(tmp_path / "p.txt")] == [
        ("1", "a"),
        ("3", '  {"prompt": 1}'),
        ("4", "ü 日本\u2028x"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa\n")
    (tmp_path / "p.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert [load_prompts(tmp_path / name)[0].content for name in ("p.txt", "p.jsonl")] == ["a", "a"]


def test_parquet_text_and_missing_values(tmp_path):
    file = parquet(tmp_path, [{"prompt": "a", "answer": 4, "id": None}, {"prompt": "b", "answer": None, "id": "x"}])
    assert load_prompts(file) == [Prompt("a", "1", "4"), Prompt("b", "x")]


def test_parquet_chat_messages(tmp_path):
    assert load_prompts(parquet(tmp_path, [{"prompt": CHAT}]))[0].content == tuple(CHAT)


def test_missing_file_and_folder(tmp_path):
    for file in (tmp_path / "gone.jsonl", tmp_path):
        assert refusal(file) == f"Prompts file {file} does not exist or is no file. Name one with --prompts."


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_empty_file(tmp_path, name):
    for text in ("", "\n  \n"):
        (tmp_path / name).write_text(text)
        message = refusal(tmp_path / name)
        assert message.endswith("holds no prompt. Expected one a line (text), or JSON lines with 'prompt'.")


def test_parquet_without_rows_and_a_file_that_is_none(tmp_path):
    assert "holds no prompt" in refusal(parquet(tmp_path, pa.table({"prompt": pa.array([], pa.string())}).to_pylist()))
    (tmp_path / "prompts.parquet").write_bytes(b"PAR1 not really")
    message = refusal(tmp_path / "prompts.parquet")
    assert re.search(r"is no readable parquet file: .*\. Write it again, or use JSON lines\.$", message, re.S)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', "not JSON (Expecting ',' delimiter at column 15). Mend or delete the line."),
        ('["a"]', "expected a JSON object on each line, found list. Save JSON lines."),
        ('{"text": "a", "id": 1}', "expected a field 'prompt', found id, text."),
        ("{}", "expected a field 'prompt', found none."),
        ('{"prompt": null}', "expected a field 'prompt', found prompt."),
        ('{"prompt": ""}', "the prompt is empty text. Write a prompt or delete the line."),
        ('{"prompt": 3}', "as text or as a list of messages with 'role' and 'content' (both text), found int."),
        ('{"prompt": []}', "as text or as a list of messages with 'role' and 'content' (both text), found list."),
        ('{"prompt": [{"role": "user"}]}', "with 'role' and 'content' (both text), found list."),
        ('{"prompt": [{"role": "user", "content": ["a"]}]}', "with 'role' and 'content' (both text), found list."),
        ('{"prompt": "a", "teacher_prompt": {}}', "with 'role' and 'content' (both text), found dict."),
        ('{"prompt": "a", "answer": ["4"]}', "expected 'answer' as text or a number, found list (['4'])."),
        ('{"prompt": "a", "group": {"x": 1}}', "expected 'group' as text or a number, found dict ({'x': 1})."),
        ('{"prompt": "a", "id": true}', "expected 'id' as text or a number, found bool (True)."),
    ],
)
def test_a_broken_line_is_named_with_its_number(tmp_path, line, message):
    file = lines(tmp_path, {"prompt": "fine"}, "", line)
    found = refusal(file)
    assert found.startswith(f"{file}, line 3: ")
    assert message in found


def test_a_broken_row_of_parquet_is_named(tmp_path):
    file = parquet(tmp_path, [{"prompt": "a"}, {"prompt": None}])
    assert refusal(file).startswith(f"{file}, line 2: expected a field 'prompt'")


def test_repeated_ids(tmp_path):
    file = lines(
        tmp_path, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "3"}, {"prompt": "c"}, {"prompt": "d", "id": "x"}
    )
    assert refusal(file) == f"{file}: prompt ids must be unique; repeated: x, 3. Change or leave out 'id'."
    file = lines(tmp_path, *({"prompt": "a", "id": i // 2} for i in range(5000)))
    assert "repeated: 0, 1, 2, 3, 4 and 2495 more." in refusal(file)


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "p.txt").write_bytes("ab\xff".encode("latin-1"))
    assert refusal(tmp_path / "p.txt").endswith("is not UTF-8 text (byte 2). Save it as UTF-8.")
