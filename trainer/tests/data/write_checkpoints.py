"""Writes the small files of this folder: checkpoints and statistics as PyTorch and NumPy write them.

Needs PyTorch, NumPy and safetensors (written with PyTorch 2.8.0, NumPy 2.4.6, safetensors 0.8.0):

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch==2.8.0 numpy==2.4.6 safetensors==0.8.0
    /tmp/venv/bin/python trainer/tests/data/write_checkpoints.py

All weights are random (seed 42). The files:

    pretrained.pt      {epoch, model, ema} of a residual MLP, ReLU, no observation encoder
    finetuned.pt       {itr, model} with network, actor, actor_ft, critic, eta; Mish, observation encoder; "from a GPU"
    bare.pt            the state dict of the moving average alone, as float64, pickle protocol 4
    tensors.pt         every element type; views, shared storages, parameters, empty and scalar tensors; tensors.json
    legacy.pt          a state dict in the format of before PyTorch 1.6
    hostile.pt/.pkl    call os.system when Python loads them
    furniture.pth      limits of observations and actions as nested dicts of tensors
    parameters.pth     the same as the state dict of nested parameter dicts
    limits_p{2,4,5}.pkl  limits as NumPy arrays, pickle protocols 2, 4, 5
    *.safetensors      inputs, and the outputs of the networks above
"""

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion_mlp import Critic, DiffusionMlp, Finetuned, Pretrained, probe

FOLDER = Path(__file__).parent
# Avoid: To·Do, Tp, Da, K.
STATE, HORIZON, ACTION, STEPS = 4, 4, 2, 20
OBSERVATION_LIMITS = ([0.3, -0.3, 0.29, -0.31], [0.7, 0.4, 0.71, 0.41])
ACTION_LIMITS = ([-0.01, -0.0098], [0.01, 0.0099])


def shaken(network, generator):
    """A copy with other weights."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def write_checkpoints(generator):
    network = DiffusionMlp(STATE, HORIZON, ACTION, 16, [32] * 3, [], "relu")
    average = shaken(network, generator)
    model, ema = Pretrained(network).state_dict(), Pretrained(average).state_dict()
    torch.save({"epoch": 3000, "model": model, "ema": ema}, FOLDER / "pretrained.pt")
    double = {name: tensor.double() for name, tensor in average.state_dict().items()}
    torch.save(double, FOLDER / "bare.pt", pickle_protocol=4)
    torch.save(average.state_dict(), FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    outputs = probe({"model": network, "ema": average}, None, STATE, HORIZON, ACTION, STEPS, 16, generator)
    save_file(outputs, FOLDER / "pretrained.safetensors")

    frozen = DiffusionMlp(STATE, HORIZON, ACTION, 16, [32] * 3, [24, 8], "mish")
    finetuned, critic = shaken(frozen, generator), Critic(STATE, [16] * 3)
    whole = Finetuned(frozen, finetuned, critic)
    whole.eta = nn.Module()
    whole.eta.eta_logit = nn.Parameter(torch.tensor([float("inf")]))
    # The authors train on a GPU, whose name is then in the file.
    location_tag = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: "cuda:0"
    torch.save({"itr": 51, "model": whole.state_dict()}, FOLDER / "finetuned.pt")
    torch.serialization.location_tag = location_tag
    outputs = probe({"actor": frozen, "actor_ft": finetuned}, critic, STATE, HORIZON, ACTION, STEPS, 16, generator)
    save_file(outputs, FOLDER / "finetuned.safetensors")


def write_tensors():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    types = [
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
    ]  # fmt: skip
    tensors = {str(t).removeprefix("torch."): torch.tensor([0, 1, 2, 100], dtype=t) for t in types}
    tensors |= {
        "negative_half": torch.tensor([-0.5, 65504.0, 6e-8], dtype=torch.float16),
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "expanded": base[0:1, :3].expand(4, 3),
        "shared": base,
        "shared_again": base,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 7),
        "parameter": nn.Parameter(torch.tensor([[1.0, -1.0]])),
        "nested": {"list": [torch.tensor([1, 2]), (torch.tensor([3.0]),)]},
    }
    notes = {"size": base.shape, "numpy_scalar": np.float64(0.25), "text": "é", "none": None, "flag": True, "big": 2**40}
    torch.save({"tensors": tensors, "notes": notes}, FOLDER / "tensors.pt")

    def plain(value):
        if isinstance(value, torch.Tensor):
            name = str(value.dtype).removeprefix("torch.")
            return {"type": name, "shape": list(value.shape), "values": value.detach().double().flatten().tolist()}
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return [plain(v) for v in value]

    (FOLDER / "tensors.json").write_text(json.dumps(plain(tensors)) + "\n")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch pickle_was_executed",)


def write_hostile():
    torch.save({"epoch": 1, "model": Hostile()}, FOLDER / "hostile.pt")
    (FOLDER / "hostile.pkl").write_bytes(pickle.dumps({"obs_min": Hostile()}, protocol=4))


def write_statistics():
    nested = {}
    for key, (low, high) in (("observations", OBSERVATION_LIMITS), ("actions", ACTION_LIMITS)):
        nested[key] = {"min": torch.tensor(low), "max": torch.tensor(high)}
    torch.save(nested, FOLDER / "furniture.pth")

    class Normalizer(nn.Module):
        def __init__(self):
            super().__init__()
            part = lambda limits: nn.ParameterDict({k: nn.Parameter(v) for k, v in limits.items()})
            self.stats = nn.ModuleDict({key: part(limits) for key, limits in nested.items()})

    torch.save(Normalizer().state_dict(), FOLDER / "parameters.pth")
    flat = {
        "obs_min": np.array(OBSERVATION_LIMITS[0]),
        "obs_max": np.array(OBSERVATION_LIMITS[1]),
        "action_min": np.array(ACTION_LIMITS[0], dtype=np.float32),
        # Every second of twice as many, so that it lies with gaps.
        "action_max": np.repeat(np.array(ACTION_LIMITS[1], dtype=np.float32), 2)[::2],
        "matrix": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "count": np.int64(7),
    }
    for protocol in (2, 4, 5):
        (FOLDER / f"limits_p{protocol}.pkl").write_bytes(pickle.dumps(flat, protocol=protocol))


def main():
    torch.manual_seed(42)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(42)
    write_checkpoints(generator)
    write_tensors()
    write_hostile()
    write_statistics()


if __name__ == "__main__":
    main()
