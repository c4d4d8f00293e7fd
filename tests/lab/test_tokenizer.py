"""The tokenizer round-trips, knows the world's words whole and speaks chat."""

import random

import pytest

from opd_diag.lab.tokenizer import SPECIALS, load_tokenizer, save_tokenizer, train_tokenizer, world_texts
from opd_diag.lab.world import LARGEST_NUMBER, Curriculum, draw_problem, respond


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(world_texts(500)), folder)
    return load_tokenizer(folder)


def test_world_texts_round_trip_as_whole_words(tokenizer):
    rng = random.Random(3)
    for index in range(200):
        problem = draw_problem(rng)
        for text in (problem.question, respond(problem, Curriculum(narration_share=index % 2), rng)):
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            assert len(ids) <= len(text.split()) + 6


@pytest.mark.parametrize("text", ["Grüße, 東京!\n\n  x = 1234 <b>", " a ,b", "Quixotic\tzebra", "don't 007"])
def test_foreign_text_round_trips_through_bytes(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_numbers_are_single_tokens(tokenizer):
    assert all(len(tokenizer.encode(f" {number}")) == 1 for number in range(LARGEST_NUMBER + 1))


def test_specials_padding_and_stop(tokenizer):
    assert tokenizer.padding_side == "left"
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|end|>")
    assert [tokenizer.encode(special) for special in SPECIALS] == [[0], [1], [2], [3]]
    assert set(tokenizer.all_special_ids) == {0, 1, 2, 3}


def test_chat_template(tokenizer):
    messages = [{"role": "user", "content": "How many?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>How many?<|end|><|assistant|>"
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "7"}], tokenize=False)
    assert whole == prompt + "7<|end|>"


def test_reloading_changes_no_id(tokenizer):
    fresh = train_tokenizer(world_texts(500))
    text = "<|user|>At noon Anna has 7 figs.<|end|>"
    assert fresh.encode(text) == tokenizer.encode(text)
    assert fresh.get_vocab() == tokenizer.get_vocab()
