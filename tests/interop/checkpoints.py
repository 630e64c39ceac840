"""Full-size checkpoints of cases.toml in both directions; tests/interop/run.sh calls the two halves of this script.

    checkpoints.py write DIR    PyTorch writes checkpoints and the outputs of their networks
    checkpoints.py check DIR    PyTorch reads the safetensors that the Rust test wrote and compares its outputs
"""

import json
import sys
import tomllib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "trainer/tests/data"))

from policies import PRETRAINING_BOUNDS, configuration, critic_network, finetuned, is_diffusion, outputs
from policies import policy_network, pretrained, probe

CASES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text())
ROWS = 16
TOLERANCE = 1e-5


def write(folder):
    for seed, (name, case) in enumerate(CASES.items(), 42):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        config = configuration(case)
        target = folder / name
        target.mkdir(parents=True)
        if "finetune" in config:
            bounds = PRETRAINING_BOUNDS if case.get("pretraining_bounds") else None
            checkpoint, networks = finetuned(config, generator, bounds)
        else:
            checkpoint, networks = pretrained(config, generator)
        torch.save(checkpoint, target / "theirs.pt")
        save_file(probe(config, networks, ROWS, generator), target / "theirs_outputs.safetensors")


def part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_case(name, folder, config):
    """The largest deviation of a case."""
    with safe_open(folder / "ours.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["tenon"])
    tensors = load_file(folder / "ours.safetensors")
    given = load_file(folder / "theirs_outputs.safetensors")
    ours = load_file(folder / "ours_outputs.safetensors")
    fine = "finetune" in config
    assert header["stage"] == ("finetune" if fine else "pretrain"), header
    networks = {key: policy_network(config) for key in (("actor", "actor_ft") if fine else ("network", "ema"))}
    if fine:
        networks["critic"] = critic_network(config)
    worst = 0.0
    for key, network in networks.items():
        weights = part(tensors, f"{key}.")
        if not is_diffusion(config) and key != "critic":
            # In ours the bounds of a deviation stand in the header, as the configuration has them.
            bounds = ("logvar_min", "logvar_max")
            weights |= {bound: network.state_dict()[bound] for bound in bounds}
        # Strict: every name of the one is a name of the other.
        network.load_state_dict(weights, strict=True)
        for said, theirs in outputs(key, network, given).items():
            theirs = theirs.flatten()
            deviation = ((theirs - ours.pop(said)).abs().max() / theirs.abs().max()).item()
            verdict = "ok" if deviation <= TOLERANCE else "FAILED"
            print(f"{name}: our {said} in PyTorch: off by {deviation:.1e} of the largest value, {verdict}")
            # A NaN counts as the worst.
            worst = max(worst, deviation if deviation == deviation else float("inf"))
    assert not ours, f"{name}: {sorted(ours)} were not compared"
    return worst


def check(folder):
    worst = max(check_case(name, folder / name, configuration(case)) for name, case in CASES.items())
    print(f"{len(CASES)} cases of ours in PyTorch: at most {worst:.1e} of the largest value, {TOLERANCE:.0e} allowed")
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
