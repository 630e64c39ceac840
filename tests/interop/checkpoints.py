"""Full-size checkpoints in both directions; tests/interop/run.sh calls the two halves of this script.

    checkpoints.py write DIR    PyTorch writes checkpoints and the outputs of their networks
    checkpoints.py check DIR    PyTorch reads the safetensors that the Rust test wrote and compares its outputs
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "trainer/tests/data"))

from diffusion_mlp import Critic, DiffusionMlp, Finetuned, Pretrained, probe

# Avoid: To·Do, Tp, Da, K. Widths are those of the paper's tasks (spec dppo.md §3.8).
STATE, HORIZON, ACTION, STEPS = 4, 4, 2, 20
CASES = {
    "avoid": (16, [512] * 3, [], "relu", [256] * 3),
    "square": (32, [1024] * 3, [512, 64], "mish", [256] * 3),
    "deep": (32, [1024] * 7, [512, 64], "mish", [512] * 3),
}
TOLERANCE = 1e-5


def network_of(case):
    time_dim, widths, cond_widths, activation, _ = case
    return DiffusionMlp(STATE, HORIZON, ACTION, time_dim, widths, cond_widths, activation)


def toml(case):
    time_dim, widths, cond_widths, activation, critic = case
    network = (
        f'{{ kind = "diffusion_mlp", time_dim = {time_dim}, mlp_dims = {widths}, '
        f'cond_mlp_dims = {cond_widths}, activation = "{activation}" }}'
    )
    return {"network": network, "critic": str(critic)}


def write(folder):
    torch.manual_seed(42)
    generator = torch.Generator().manual_seed(42)
    for name, case in CASES.items():
        target = folder / name
        target.mkdir(parents=True)
        first, second = network_of(case), network_of(case)
        critic = Critic(STATE, case[4])
        model, ema = Pretrained(first).state_dict(), Pretrained(second).state_dict()
        torch.save({"epoch": 3000, "model": model, "ema": ema}, target / "pretrained.pt")
        torch.save({"itr": 51, "model": Finetuned(first, second, critic).state_dict()}, target / "finetuned.pt")
        arguments = (STATE, HORIZON, ACTION, STEPS, 64, generator)
        save_file(probe({"model": first, "ema": second}, None, *arguments), target / "pretrained.safetensors")
        save_file(probe({"actor": first, "actor_ft": second}, critic, *arguments), target / "finetuned.safetensors")
    (folder / "cases.json").write_text(json.dumps({name: toml(case) for name, case in CASES.items()}))


def part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check(folder):
    failed = 0
    for name, case in CASES.items():
        path = folder / name / "ours.safetensors"
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["tenon"])
        assert header["stage"] == "finetune" and header["run"]["network"]["mlp_dims"] == case[1], header
        tensors = load_file(path)
        inputs = load_file(folder / name / "finetuned.safetensors")
        outputs = load_file(folder / name / "ours_outputs.safetensors")
        networks = {"actor": network_of(case), "actor_ft": network_of(case), "critic": Critic(STATE, case[4])}
        for key, network in networks.items():
            # Strict: every name of the one is a name of the other.
            network.load_state_dict(part(tensors, f"{key}."), strict=True)
            with torch.no_grad():
                arguments = (inputs["state"],) if key == "critic" else (inputs["chunk"], inputs["t"], inputs["state"])
                theirs = network(*arguments).flatten()
            deviation = ((theirs - outputs[key]).abs().max() / theirs.abs().max()).item()
            failed += deviation > TOLERANCE
            verdict = "ok" if deviation <= TOLERANCE else "FAILED"
            print(f"{name}: our {key} in PyTorch: off by {deviation:.1e} of the largest value, {verdict}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
