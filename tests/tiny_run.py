"""A run of models small enough to be made in a moment: three checkpoints on the way from a student to its teacher."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

SPECIAL = ("<pad>", "<end>", "<system>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BYTES = 256
VOCABULARY = BYTES + len(SPECIAL)
CONTEXT = 96
STEPS = {10: 0.5, 20: 0.8, 30: 0.95}
"""Share of the way to the teacher, by step."""
N_PROMPTS = 8
ROLLOUTS_PER_PROMPT = 2
MAX_NEW_TOKENS = 10


@dataclass(frozen=True)
class TinyRun:
    """Where the parts of the run lie."""

    root: Path

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    @property
    def student(self) -> Path:
        return self.root / "student"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts.jsonl"

    def checkpoint(self, step: int) -> Path:
        return self.run_dir / f"checkpoint-{step}"

    def copied_to(self, root: Path) -> TinyRun:
        """A copy of its own, to be broken; modification times stay."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return TinyRun(root)


def build(root: Path) -> TinyRun:
    """Write student, teacher, run folder, prompts and manifest below `root`."""
    run = TinyRun(root)
    logging.disable_progress_bar()
    student, other = model(seed=1), model(seed=2)
    teacher = between(student, other, 0.4)
    tokenizer = byte_tokenizer()
    save(student, run.student, tokenizer)
    save(teacher, run.teacher, tokenizer)
    for step, share in STEPS.items():
        save(between(student, teacher, share), run.checkpoint(step), tokenizer)
    write_prompts(run.prompts)
    write_manifest(run)
    return run


def model(seed: int, *, vocabulary: int = VOCABULARY, width: int = 32) -> Qwen3ForCausalLM:
    """A random model whose distributions are far from flat."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=0.35,
        bos_token_id=None,
        eos_token_id=BYTES + 1,
        pad_token_id=BYTES,
    )
    return Qwen3ForCausalLM(config)


def between(first: Qwen3ForCausalLM, second: Qwen3ForCausalLM, share: float) -> Qwen3ForCausalLM:
    """The model whose weights lie `share` of the way from the first to the second."""
    made = Qwen3ForCausalLM(first.config)
    weights = second.state_dict()
    made.load_state_dict({name: torch.lerp(w, weights[name], share) for name, w in first.state_dict().items()})
    return made


def byte_tokenizer(special: tuple[str, ...] = SPECIAL, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a byte, then the special ones; any text can be written with it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    hf = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[1])
    hf.chat_template = template
    return hf


def save(made: Qwen3ForCausalLM, folder: Path, tokenizer: PreTrainedTokenizerFast | None) -> None:
    """Write model and tokenizer as a trainer does."""
    made.generation_config = GenerationConfig(eos_token_id=BYTES + 1, pad_token_id=BYTES)
    made.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "trainer_state.json").write_text("{}")


def write_prompts(path: Path, n: int = N_PROMPTS, **fields: str) -> Path:
    """Write `n` chat prompts with answers; some are longer than others."""
    lines = [
        {"id": f"p{i}", "prompt": [{"role": "user", "content": f"{i}+{i}" + "?" * (i % 3)}], "answer": str(2 * i)}
        | fields
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_manifest(run: TinyRun, **changes: str) -> None:
    """Write opd-diag.toml; a change replaces a line, an empty one leaves it out."""
    named = {"student": "../student", "teacher": "../teacher", "prompts": "../prompts.jsonl"} | changes
    lines = [f'{name} = "{value}"' for name, value in named.items() if value]
    lines += ["[sampling]", f"rollouts_per_prompt = {ROLLOUTS_PER_PROMPT}", f"max_new_tokens = {MAX_NEW_TOKENS}"]
    (run.run_dir / "opd-diag.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def change_weights(folder: Path, change) -> None:
    """Rewrite the weights of a model folder: `change` gets the name and the tensor of each."""
    path = folder / "model.safetensors"
    weights = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    """Cut the weight file of a model folder in half."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_with_nan(folder: Path) -> None:
    """Make all weights of a model folder NaN: it loads, and gives no numbers."""
    change_weights(folder, lambda name, tensor: torch.full_like(tensor, torch.nan))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of everything below `folder`, by path."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }
