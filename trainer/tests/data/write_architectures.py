"""Writes architectures/: a small checkpoint of every architecture beside the diffusion MLP, as PyTorch writes them.

Needs PyTorch, NumPy and safetensors, like write_checkpoints.py:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch==2.8.0 numpy==2.4.6 safetensors==0.8.0
    /tmp/venv/bin/python trainer/tests/data/write_architectures.py

All weights are random (seed 42 and the place of the case in architectures.toml). For each case of that file:

    NAME.pt           the checkpoint: {epoch, model, ema} of pre-training, or {itr, model} of fine-tuning with its critic
    NAME.safetensors  random inputs, and the outputs of its networks
"""

import tomllib
from pathlib import Path

import torch
from safetensors.torch import save_file

from policies import PRETRAINING_BOUNDS, configuration, finetuned, pretrained, probe

FOLDER = Path(__file__).parent
ROWS = 6


def main():
    torch.set_num_threads(1)
    cases = tomllib.loads((FOLDER / "architectures.toml").read_text())
    for seed, (name, case) in enumerate(cases.items(), 42):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        config = configuration(case)
        if "finetune" in config:
            bounds = PRETRAINING_BOUNDS if case.get("pretraining_bounds") else None
            checkpoint, networks = finetuned(config, generator, bounds)
        else:
            checkpoint, networks = pretrained(config, generator)
        torch.save(checkpoint, FOLDER / f"architectures/{name}.pt")
        save_file(probe(config, networks, ROWS, generator), FOLDER / f"architectures/{name}.safetensors")


if __name__ == "__main__":
    main()
