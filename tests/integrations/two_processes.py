"""One of two processes that distil together on the CPU, recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from integrations import training
from opd_diag.integrations import Probe, record


def main(out: Path) -> None:
    trainer = training.distillation(out / "run", ddp_backend="gloo", max_steps=2)
    recorder = record(trainer, probe=Probe(every=1, n_prompts=2, max_new_tokens=4))
    seen, original = [], trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        seen.append((trainer.state.global_step, inputs["completion_ids"][inputs["completion_mask"].bool()].tolist()))
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    (out / f"seen-{trainer.args.process_index}.json").write_text(json.dumps(seen))
    assert recorder.rollouts_dir.exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
