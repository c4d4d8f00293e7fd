"""A small byte-level tokenizer that knows every word of the world, and its chat template."""

import json
import random
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from opd_diag.lab.world import LARGEST_NUMBER, Curriculum, draw_problem, respond

PAD, USER, ASSISTANT, END = SPECIALS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
#: A word with the space before it, a number with the space before it, other marks, spaces.
SPLIT = Regex(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    """Learn a vocabulary from texts: the 256 bytes, then every word that occurs, then the specials.

    Words are looked up whole (``ignore_merges``), so that the vocabulary needs no fragments of words;
    anything else falls back to its bytes and every text round-trips.

    Parameters
    ----------
    texts : list of str
        What the vocabulary is read from.

    Returns
    -------
    PreTrainedTokenizerBase
        Pads on the left, ends with ``<|end|>``, carries the chat template.
    """
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(piece for text in texts for piece, _ in pieces.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = set(alphabet)
    vocabulary = [*SPECIALS, *alphabet, *sorted(word for word in counts if word not in known)]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
        chat_template=CHAT_TEMPLATE,
    )


def world_texts(n: int = 4000, seed: int = 0) -> list[str]:
    """Write enough questions and responses of both patterns, and all numbers, to meet every word."""
    rng = random.Random(f"vocabulary {seed}")
    texts = [f" {number}" for number in range(LARGEST_NUMBER + 1)]
    for index in range(n):
        problem = draw_problem(rng)
        texts += [problem.question, respond(problem, Curriculum(narration_share=index % 2), rng)]
    return texts


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as `AutoTokenizer` reads it, its JSON without white space to save room."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that `save_tokenizer` wrote."""
    return AutoTokenizer.from_pretrained(folder)
