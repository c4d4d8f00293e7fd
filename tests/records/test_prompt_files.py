"""Prompts as trainers read them: by the readers of those trainers' formats, and our own."""

from __future__ import annotations

import errno
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from opd_diag.errors import StoreError
from opd_diag.records.prompt import load_prompts, prompt_records
from opd_diag.records.prompt_files import write_prompt_files

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 = ? <é>"}]
RECORDS = [
    {"prompt": CHAT, "answer": 4, "group": "math", "level": {"of": [1, 2]}},
    {"prompt": [{"role": "user", "content": "Hello"}], "id": "hi", "teacher_prompt": "Greet."},
]


def written(tmp_path, *records):
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    raw = [record for _, record in prompt_records(source)]
    return tmp_path / "out", write_prompt_files(tmp_path / "out", load_prompts(source), raw)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_for_trl(tmp_path):
    folder, names = written(tmp_path, *RECORDS)
    assert names == ["trl.jsonl", "verl.parquet", "prompts.jsonl"]
    assert lines(folder / "trl.jsonl") == [
        {"prompt": CHAT, "id": "1", "answer": "4", "group": "math"},
        {"prompt": [{"role": "user", "content": "Hello"}], "id": "hi", "answer": None, "group": None},
    ]


def test_for_verl(tmp_path):
    folder, _ = written(tmp_path, *RECORDS)
    table = pd.read_parquet(folder / "verl.parquet")  # as verl reads it
    assert list(table.columns) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert [dict(message) for message in table["prompt"][0]] == CHAT
    assert table["data_source"].tolist() == ["math", ""]
    assert table["reward_model"].tolist() == [
        {"style": "rule", "ground_truth": "4"},
        {"style": "rule", "ground_truth": None},
    ]
    assert table["extra_info"].tolist() == [
        {"split": "train", "index": 0, "id": "1"},
        {"split": "train", "index": 1, "id": "hi"},
    ]
    kinds = pq.read_schema(folder / "verl.parquet")
    assert str(kinds.field("extra_info").type) == "struct<split: string, index: int64, id: string>"


def test_our_own_keeps_every_field(tmp_path):
    folder, _ = written(tmp_path, *RECORDS)
    assert lines(folder / "prompts.jsonl") == [{**RECORDS[0], "id": "1"}, RECORDS[1]]
    assert load_prompts(folder / "prompts.jsonl") == load_prompts(tmp_path / "source.jsonl")


def test_text_is_no_chat_so_verl_gets_no_file(tmp_path):
    written(tmp_path, *RECORDS)
    folder, names = written(tmp_path, RECORDS[0], {"prompt": "2 + 2 ="})
    assert names == ["trl.jsonl", "prompts.jsonl"]
    assert not (folder / "verl.parquet").exists()  # nor that of before
    assert lines(folder / "trl.jsonl")[1]["prompt"] == "2 + 2 ="


def test_of_a_parquet_file_every_field_is_kept(tmp_path):
    source = tmp_path / "source.parquet"
    pd.DataFrame([{"prompt": "a", "day": pd.Timestamp("2026-01-02")}]).to_parquet(source)
    raw = [record for _, record in prompt_records(source)]
    write_prompt_files(tmp_path, load_prompts(source), raw)
    assert lines(tmp_path / "prompts.jsonl") == [{"prompt": "a", "day": "2026-01-02 00:00:00", "id": "1"}]


@pytest.mark.parametrize("odd", ["trl.jsonl", "verl.parquet", "prompts.jsonl"])
def test_something_odd_in_the_way_leaves_earlier_files_as_they_were(tmp_path, odd):
    folder, names = written(tmp_path, *RECORDS)
    (folder / odd).unlink()
    (folder / odd).mkdir()
    before = {name: (folder / name).read_bytes() for name in names if name != odd}
    with pytest.raises(StoreError) as caught:
        written(tmp_path, RECORDS[1])
    assert str(caught.value) == f"Cannot write {folder / odd}: Is a directory. Choose another folder with --out."
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StoreError, match=rf"^Cannot write {tmp_path / 'out' / 'trl.jsonl'}: "):
        written(tmp_path, *RECORDS)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failure_on_the_way_replaces_nothing(tmp_path, monkeypatch):
    folder, names = written(tmp_path, *RECORDS)
    before = {name: (folder / name).read_bytes() for name in names}

    def full(*args):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StoreError, match="No space left on device"):
        written(tmp_path, RECORDS[1])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
