"""Supervised training teaches responses and nothing else."""

from itertools import islice

import pytest
import torch

from opd_diag.lab.models import Shape, build_model, load_model, save_model
from opd_diag.lab.pretraining import IGNORED, Schooling, draw_batches, pretrain, response_loss, usual_followers
from opd_diag.lab.tokenizer import train_tokenizer, world_texts
from opd_diag.lab.world import Curriculum

TINY = Shape(layers=1, width=16, inner_width=16, heads=2, head_width=16)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(world_texts(400))


def test_labels_are_the_response_with_its_stop(tokenizer):
    ids, labels = next(draw_batches(tokenizer, Schooling(Curriculum(), steps=1, batch_size=8), frozenset()))
    for row, taught in zip(ids, labels, strict=True):
        text = tokenizer.decode(row[taught == IGNORED]).replace("<|pad|>", "")
        assert text.startswith("<|user|>")
        assert text.endswith("?<|end|><|assistant|>")
        assert tokenizer.decode(row[taught != IGNORED]).endswith(".<|end|>")
        assert torch.equal(row[taught != IGNORED], taught[taught != IGNORED])


def test_held_out_questions_are_not_shown(tokenizer):
    schooling = Schooling(Curriculum(), steps=1, batch_size=16)

    def questions(held_out):
        batches = islice(draw_batches(tokenizer, schooling, held_out), 3)
        texts = [text for ids, _ in batches for text in tokenizer.batch_decode(ids)]
        return [text.split("<|user|>")[1].split("<|end|>")[0] for text in texts]

    held_out = frozenset(questions(frozenset())[:20])
    assert not held_out & set(questions(held_out))


def test_loss_matches_a_plain_forward_pass_and_cross_entropy_with_soft_targets(tokenizer):
    model = build_model(TINY, tokenizer, seed=0)
    ids, labels = next(draw_batches(tokenizer, Schooling(Curriculum(), steps=1, batch_size=4), frozenset()))
    followers = torch.rand(len(tokenizer), len(tokenizer)).softmax(-1)
    plain = model(input_ids=ids, labels=labels)
    torch.testing.assert_close(response_loss(model, ids, labels, followers, 0.0), plain.loss)

    is_taught = labels[:, 1:] != IGNORED
    targets = 0.7 * torch.nn.functional.one_hot(labels[:, 1:][is_taught], len(tokenizer))
    targets += 0.3 * followers[ids[:, :-1][is_taught]]
    expected = torch.nn.functional.cross_entropy(plain.logits[:, :-1][is_taught], targets)
    torch.testing.assert_close(response_loss(model, ids, labels, followers, 0.3), expected)


def test_usual_followers_are_counted_in_responses(tokenizer):
    followers = usual_followers(tokenizer, Schooling(Curriculum(narration_share=0.5), steps=1), frozenset(), n=300)
    torch.testing.assert_close(followers.sum(1), torch.ones(len(tokenizer)))

    def after(first, second):
        return followers[tokenizer.encode(first)[0], tokenizer.encode(second)[0]].item()

    assert after(" answer", " is") > 0.8
    assert after(" answer", " figs") < 0.05
    assert after(" How", " many") == 0.0  # only prompts say so
    assert after("<|assistant|>", "Well") == pytest.approx(0.4, abs=0.15)


def test_training_lowers_the_loss_and_repeats_exactly(tokenizer):
    def losses(seed):
        seen = []
        schooling = Schooling(Curriculum(), steps=25, batch_size=8, learning_rate=1e-2, seed=seed)
        pretrain(build_model(TINY, tokenizer, 0), tokenizer, schooling, progress=lambda step, loss: seen.append(loss))
        return seen

    first = losses(0)
    assert len(first) == 25
    assert first[-1] < first[0] - 1.5
    assert first == losses(0) != losses(1)


def test_saved_model_loads_in_float32_with_rounded_weights(tokenizer, tmp_path):
    model = build_model(TINY, tokenizer, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_model(model, tokenizer, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.dtype == torch.float32
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, before[name].to(torch.bfloat16).float())
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
