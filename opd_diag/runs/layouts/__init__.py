"""How trainers lay out a run: one function per layout, from a folder to its checkpoints, or none.

================  =======================================================================
`run.py`          what every layout is given, and how it makes its records; read this first
`verl.py`         verl and thunlp/OPD: FSDP, Megatron before and from 0.9, SFT
`skyrl.py`        SkyRL: checkpoints, exports
`nemo_rl.py`      NeMo-RL
`prime_rl.py`     prime-rl
`others.py`       OpenRLHF, AReaL, KDFlow, ROLL
`hf.py`           Hugging Face Trainer (TRL, LLaMA-Factory, axolotl, unsloth), ms-swift
`iterations.py`   Megatron (slime), torchtune
`tinker.py`       tinker-cookbook, whose weights are elsewhere
`generic.py`      what a user lists, model folders side by side, one model
================  =======================================================================

A new layout is one function and one line in `LAYOUTS`.
"""

from opd_diag.runs.layouts import hf, iterations, nemo_rl, others, prime_rl, skyrl, verl
from opd_diag.runs.layouts.generic import generic_hf, listed, single
from opd_diag.runs.layouts.run import Layout, Run
from opd_diag.runs.layouts.tinker import tinker

LAYOUTS: tuple[Layout, ...] = (
    Layout("manifest", "", "[[checkpoints]] in opd-diag.toml", listed),
    Layout("tinker", "tinker", "checkpoints.jsonl", tinker),
    Layout(
        "verl_megatron_v2",
        "verl",
        "global_step_N/actor",
        verl.verl_megatron_v2,
        steps=verl.STEP,
        pointer=verl.POINTER,
    ),
    Layout("verl_megatron_v1", "verl", "", verl.verl_megatron_v1, steps=verl.STEP, pointer=verl.POINTER),
    Layout("verl_fsdp", "verl", "", verl.verl_fsdp, steps=verl.STEP, pointer=verl.POINTER),
    Layout("skyrl", "skyrl", "global_step_N/policy", skyrl.skyrl, steps=verl.STEP, pointer=skyrl.POINTER),
    Layout("skyrl_export", "skyrl", "", skyrl.skyrl_export, steps=verl.STEP),
    Layout("verl_sft", "verl", "", verl.verl_sft, steps=verl.STEP, pointer=verl.POINTER),
    Layout(
        "nemo_rl",
        "nemo_rl",
        "step_N/policy/weights",
        nemo_rl.nemo_rl,
        steps=nemo_rl.STEP,
        caveat=nemo_rl.CAVEAT,
    ),
    Layout("prime_rl", "prime_rl", "checkpoints/step_N/trainer, weights/step_N", prime_rl.prime_rl, steps=nemo_rl.STEP),
    Layout(
        "openrlhf",
        "openrlhf",
        "global_stepN_hf",
        others.openrlhf,
        steps=others.OPENRLHF,
        caveat=others.OPENRLHF_CAVEAT,
    ),
    Layout("areal", "areal", "epochEepochstepSglobalstepG", others.areal, steps=others.AREAL, base=0),
    Layout("kdflow", "kdflow", "epoch_E_global_step_N", others.kdflow, steps=others.KDFLOW),
    Layout("roll", "roll", "actor_train-R/checkpoint-N", others.roll, base=0),
    Layout("swift", "hf", "", hf.swift, steps=hf.STEP),
    Layout("hf_trainer", "hf", "checkpoint-N", hf.hf_trainer, steps=hf.STEP),
    Layout(
        "megatron",
        "megatron",
        "iter_NNNNNNN",
        iterations.megatron,
        steps=iterations.MEGATRON,
        base=0,
        pointer=verl.POINTER,
        caveat=iterations.MEGATRON_CAVEAT,
    ),
    Layout("torchtune", "torchtune", "epoch_N", iterations.torchtune, steps=iterations.TORCHTUNE),
    Layout("generic_hf", "", "folders with a model in each", generic_hf),
    Layout("single", "", "a model in the folder itself", single),
)
"""In order of precedence; where layouts of two families find checkpoints, the folder is refused."""

LAYOUT_NAMES = tuple(layout.name for layout in LAYOUTS)

TRAINERS = tuple(layout for layout in LAYOUTS if layout.family)
"""Those of a trainer, known by the names of its folders."""

__all__ = ["LAYOUTS", "LAYOUT_NAMES", "TRAINERS", "Layout", "Run"]
