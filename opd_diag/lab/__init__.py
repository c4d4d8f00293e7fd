"""Grow tiny distillation runs whose outcome is known.

``python -m opd_diag.lab.grow --out data --seed 0`` makes everything that lies in ``data/``: one student, three
teachers, and three real runs of TRL's ``DistillationTrainer``. Read in this order:

- `words`, `world`: word problems with a right answer, and two thinking patterns (an equation, a narration);
- `tokenizer`: byte-level, every word of the world one token;
- `prompts`: the questions held out, and those a run trains on;
- `models`, `pretraining`: tiny Qwen3 models, taught a `Curriculum`;
- `distillation`: on-policy distillation of the student from one teacher;
- `evaluation`, `outcomes`: accuracies by operation, and the page that tells them;
- `grow`: the plan and the command.

Two more commands use `distillation`: `collapse` grows tiny runs that work and tiny runs that collapse, from the bundled
models; `smollm2` makes one run of each sort with a real language model whose weights are somewhere else.

To grow another outcome, give `distil` another teacher, `Distillation` another learning rate, or `pretrain` another
`Curriculum`. Distillation needs ``pip install 'opd-diag[lab]'``.
"""
