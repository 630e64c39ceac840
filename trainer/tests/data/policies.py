"""Policies from configurations: their networks in PyTorch, random weights, checkpoints as the authors save them, probes.

A case is a table of a TOML file: `base` names a configuration of configs/paper, `changes` are laid over its values. The
Rust tests read the same files (trainer/tests/import/cases.rs).
"""

import copy
import math
import tomllib
from pathlib import Path

import torch
from torch import nn

from diffusion_mlp import Critic, DiffusionMlp, Finetuned, PlainMlp, Pretrained
from gaussian import gaussian_network
from unet import Unet
from vision import VitCritic, VitMlp, VitUnet

PAPER = Path(__file__).resolve().parents[3] / "configs/paper"
# To·Do and Da (spec dppo.md §6.1).
DIMENSIONS = {
    "avoid_m1": (4, 2),
    "hopper": (11, 3),
    "can": (23, 7),
    "square": (23, 7),
    "transport": (59, 14),
    "one_leg_low": (58, 10),
    "can_pixels": (9, 7),
    "square_pixels": (9, 7),
    "transport_pixels": (18, 14),
}
# Bounds of a deviation in the authors' pre-training. Their fine-tuning loads them with the weights (spec dppo.md §4).
PRETRAINING_BOUNDS = (0.01, 1.0)


def lay_over(table, changes):
    """Table by table; one that names its `kind` takes the place of the other."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict) and "kind" not in value:
            lay_over(table[key], value)
        else:
            table[key] = value
    return table


def configuration(case):
    """The configuration of a case's `base` with its `changes`."""
    base = tomllib.loads((PAPER / f"{case['base']}.toml").read_text())
    return lay_over(base, copy.deepcopy(case.get("changes", {})))


def is_diffusion(config):
    return config["policy"]["model"]["method"] == "diffusion"


def policy_network(config):
    state, action = DIMENSIONS[config["task"]]
    horizon, model = config["policy"]["prediction_horizon"], config["policy"]["model"]
    if not is_diffusion(config):
        return gaussian_network(model, (state, horizon, action))
    network = model["network"]
    match network["kind"]:
        case "diffusion_mlp":
            assert network.get("residual", True)
            widths = (network["time_dim"], network["mlp_dims"], network.get("cond_mlp_dims", []))
            norm = network.get("layer_norm", False)
            return DiffusionMlp(state, horizon, action, *widths, network["activation"], norm)
        case "unet":
            return Unet(state, action, network)
        case "vit_mlp":
            return VitMlp(state, horizon, action, network)
        case "vit_unet":
            return VitUnet(state, action, network)


def critic_network(config):
    critic, (state, _) = config["finetune"]["critic"], DIMENSIONS[config["task"]]
    if "vision" in critic:
        return VitCritic(state, critic)
    return Critic(state, critic["head"]["dims"], critic["head"]["activation"])


def randomise(network, generator):
    """Random weights of which each has its own effect: no norm is at 1 and 0, no position and no bias at 0."""
    draw = lambda parameter: torch.randn(parameter.shape, generator=generator)
    norms = (nn.GroupNorm, nn.LayerNorm)
    of_norms = {id(module.weight) for module in network.modules() if isinstance(module, norms)}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in ("logvar_min", "logvar_max"):
                continue
            if name == "logvar":
                # Deviations from 0.005 to 2, and so beyond both bounds.
                middle = math.log(0.1**2)
                parameter.copy_(torch.linspace(middle - 6, middle + 6, len(parameter)) + 0.3 * draw(parameter))
            elif id(parameter) in of_norms:
                parameter.copy_(1 + 0.2 * draw(parameter))
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * draw(parameter))
            elif name.endswith(("pos_embed", "pos_emb")):
                parameter.copy_(0.5 * draw(parameter))
            # The others keep outputs of about 1. Beyond a large sum a tanh says little but how it was rounded.
            elif "compress" in name and parameter.dim() == 3:
                parameter.copy_(draw(parameter) / math.sqrt(parameter[0, :, 0].numel()))
            else:
                parameter.copy_(draw(parameter) / math.sqrt(3 * parameter[0].numel()))
    return network


def fresh(config, generator):
    return randomise(policy_network(config), generator)


def set_bounds(network, bounds):
    """`bounds`: deviations, as a file holds them whatever the configuration says."""
    with torch.no_grad():
        network.logvar_min.copy_(torch.log(torch.tensor(bounds[0] ** 2)))
        network.logvar_max.copy_(torch.log(torch.tensor(bounds[1] ** 2)))


def pretrained(config, generator):
    """What the authors' pre-training saves, and its networks by key."""
    networks = {"model": fresh(config, generator), "ema": fresh(config, generator)}
    return {"epoch": 3000} | {key: Pretrained(n).state_dict() for key, n in networks.items()}, networks


class FinetunedGaussian(nn.Module):
    """What the authors' fine-tuning of a Gaussian saves the state of: `network` is the trained one, `actor` its copy of
    the beginning. A mixture keeps none."""

    def __init__(self, frozen, finetuned, critic):
        super().__init__()
        self.network = finetuned
        self.critic = critic
        self.actor_ft = finetuned
        if frozen is not None:
            self.actor = frozen


class Eta(nn.Module):
    """η of DDIM as the authors save it, a constant for each action or an MLP on the state (spec dppo.md §1.6)."""

    def __init__(self, state, action, spec):
        super().__init__()
        self.base, self.min, self.max = spec["base"], spec["min"], spec["max"]
        outputs = action if spec.get("per_action", False) else 1
        if "mlp_dims" in spec:
            self.mlp_res = PlainMlp([state, *spec["mlp_dims"], outputs], "relu")
        else:
            self.eta_logit = nn.Parameter(torch.zeros(outputs))

    def forward(self, state):
        state = state.flatten(1)
        if hasattr(self, "eta_logit"):
            eta = 0.5 * (torch.tanh(self.eta_logit) + 1) * (self.max - self.min) + self.min
            return eta.expand(len(state), -1)
        return torch.clamp(torch.tanh(self.mlp_res(state)) + self.base, self.min, self.max)


def eta_module(config, generator):
    """A learned η where the configuration has one, else the authors' fixed one: η = 1 where at most 1 is allowed."""
    learned = config["finetune"]["diffusion"].get("eta")
    if not learned:
        eta = Eta(1, 1, {"base": 1.0, "min": 0.1, "max": 1.0})
    else:
        eta = randomise(Eta(*DIMENSIONS[config["task"]], learned["module"]), generator)
    if hasattr(eta, "eta_logit"):
        with torch.no_grad():
            eta.eta_logit[0] = float("inf")
    return eta


def finetuned(config, generator, bounds=None):
    """What the authors' fine-tuning saves, and its networks by prefix. `bounds`: of the deviation, in the file."""
    frozen, trained = fresh(config, generator), fresh(config, generator)
    critic = randomise(critic_network(config), generator)
    model = config["policy"]["model"]
    if bounds:
        set_bounds(frozen, bounds), set_bounds(trained, bounds)
    if is_diffusion(config):
        whole = Finetuned(frozen, trained, critic)
        if model["sampler"]["kind"] == "ddim":
            whole.eta = eta_module(config, generator)
    else:
        frozen = None if model.get("modes", 0) else frozen
        whole = FinetunedGaussian(frozen, trained, critic)
    networks = {"actor": frozen, "actor_ft": trained, "critic": critic}
    if is_diffusion(config) and "eta" in config["finetune"]["diffusion"]:
        networks["eta"] = whole.eta
    return {"itr": 51, "model": whole.state_dict()}, {key: n for key, n in networks.items() if n is not None}


def inputs(config, rows, generator):
    """Random states, and chunks, steps and pictures where the networks take them."""
    state, action = DIMENSIONS[config["task"]]
    policy = config["policy"]
    found = {"state": torch.rand((rows, 1, state), generator=generator) * 2 - 1}
    model = policy["model"]
    if is_diffusion(config):
        found["chunk"] = torch.randn((rows, policy["prediction_horizon"], action), generator=generator)
        found["t"] = torch.randint(0, model["denoising_steps"], (rows,), generator=generator)
    vision = model.get("network", model.get("trunk")).get("vision")
    if vision:
        shape = (rows, 3 * vision["cameras"], vision["image_px"], vision["image_px"])
        found["rgb"] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return found


def outputs(key, network, given):
    """What a network says to these inputs, by name: a policy's under its key, a Gaussian's three with their own."""
    names = ("state",) if key == "eta" else ("state", "rgb") if key == "critic" or "chunk" not in given else ("chunk", "t", "state", "rgb")
    with torch.no_grad():
        said = network(*(given[name] for name in names if name in given))
    if not isinstance(said, tuple):
        return {key: said.contiguous()}
    named = dict(zip(("mean", "std", "logits"), said))
    return {f"{key}.{name}": value.contiguous() for name, value in named.items() if value is not None}


def probe(config, networks, rows, generator):
    """Inputs and outputs of networks, for a file."""
    found = inputs(config, rows, generator)
    for key, network in networks.items():
        found |= outputs(key, network, found)
    return found
