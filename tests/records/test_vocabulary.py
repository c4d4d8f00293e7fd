"""The ids that occur, as people read them, survive the disk."""

import json

import pytest

from opd_diag.errors import StoreError
from opd_diag.records.vocabulary import Token, load_vocabulary, save_vocabulary

TOKENS = {
    151643: Token("<|end|>", True),
    5: Token(" ü", False),
    12: Token("<0xE2>", False),
    0: Token('"\n\u2028', False),
}


def test_round_trip_lowest_id_first(tmp_path):
    save_vocabulary(tmp_path / "v.json", TOKENS)
    loaded = load_vocabulary(tmp_path / "v.json")
    assert loaded == TOKENS
    assert list(loaded) == [0, 5, 12, 151643]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": {"text": "x", "special": false}}', '{"1": {"text": "x"}}', '{"1": 2}']
)
def test_a_damaged_file(tmp_path, text):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(StoreError, match=r"v.json is no readable vocabulary: .*\. Run report again\."):
        load_vocabulary(tmp_path / "v.json")


def test_a_missing_file(tmp_path):
    with pytest.raises(StoreError, match="No such file"):
        load_vocabulary(tmp_path / "v.json")


def test_unknown_fields_are_damage(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"1": {"text": "x", "special": True, "more": 1}}))
    with pytest.raises(StoreError, match="unexpected keyword argument 'more'"):
        load_vocabulary(tmp_path / "v.json")
