"""Gaussian policies and mixtures of spec dppo.md §4 in plain PyTorch, written from the specification.

Parameter names are those of the authors' checkpoints. Used by the scripts that write the test files.
"""

import torch
from torch import nn

from diffusion_mlp import ACTIVATIONS, PlainMlp, ResidualMlp
from vision import Eyes


def mlp(inputs, head, outputs):
    if head["residual"]:
        return ResidualMlp(inputs, head["dims"], outputs, head["activation"])
    return PlainMlp([inputs, *head["dims"], outputs], head["activation"])


class Deviation:
    """Where the deviation comes from; a mix-in of networks, for its parameters lie among theirs.

    `model`: as in a configuration. `sizes`: To·Do, Tp, Da.
    """

    def begin(self, model, sizes):
        _, self.horizon, self.action_dim = sizes
        self.modes, self.std = model.get("modes", 0), model["std"]
        self.components = max(self.modes, 1)
        self.per_state = self.std["kind"] == "per_state"
        log_variance = lambda std: torch.log(torch.tensor(std**2))
        if self.std["kind"] == "learned":
            start = log_variance(self.std["std"]).item()
            self.logvar = nn.Parameter(torch.full((self.components * self.action_dim,), start))
        # In every file, trained in none; 0.01 and 1 are the authors' defaults.
        low, high = self.std.get("min", 0.01), self.std.get("max", 1.0)
        self.logvar_min = nn.Parameter(log_variance(low), requires_grad=False)
        self.logvar_max = nn.Parameter(log_variance(high), requires_grad=False)

    def say(self, mean, log_variance, logits, squashed=False):
        """Mean and deviation (B, M, Tp·Da), mixture logits (B, M) or none. `squashed`: bounds by a tanh, not a clamp."""
        rows, elements = mean.shape[0], self.horizon * self.action_dim
        mean = torch.tanh(mean).reshape(rows, self.components, elements)
        low, high = self.logvar_min, self.logvar_max
        if self.std["kind"] == "fixed":
            return mean, torch.full_like(mean, self.std["std"]), logits
        if self.std["kind"] == "learned":
            log_variance = self.logvar.view(1, self.components, 1, self.action_dim)
            log_variance = log_variance.expand(rows, -1, self.horizon, -1)
        if squashed:
            log_variance = low + 0.5 * (high - low) * (torch.tanh(log_variance) + 1)
        else:
            log_variance = torch.clamp(log_variance, low, high)
        return mean, torch.exp(0.5 * log_variance).reshape(mean.shape), logits


def add_mlp_heads(network, inputs, head):
    """Mean, deviation and mixture weights: of a mixture each an MLP, of one Gaussian one trunk with two heads."""
    elements = network.horizon * network.action_dim
    if network.per_state and not network.modes:
        assert not head["residual"], "no configuration has a residual trunk under two heads"
        network.mlp_base = PlainMlp([inputs, *head["dims"]], head["activation"])
        network.mlp_mean = PlainMlp([head["dims"][-1], elements], head["activation"])
        network.mlp_logvar = PlainMlp([head["dims"][-1], elements], head["activation"])
        network.activate = ACTIVATIONS[head["activation"]]()
        return
    network.mlp_mean = mlp(inputs, head, network.components * elements)
    if network.per_state:
        network.mlp_logvar = mlp(inputs, head, network.components * elements)
    if network.modes:
        network.mlp_weights = mlp(inputs, head, network.modes)


def say_by_mlp(network, x):
    if hasattr(network, "mlp_base"):
        x = network.activate(network.mlp_base(x))
        return network.say(network.mlp_mean(x), network.mlp_logvar(x), None, squashed=True)
    log_variance = network.mlp_logvar(x) if network.per_state else None
    return network.say(network.mlp_mean(x), log_variance, network.mlp_weights(x) if network.modes else None)


class GaussianMlp(nn.Module, Deviation):
    def __init__(self, model, sizes):
        super().__init__()
        self.begin(model, sizes)
        add_mlp_heads(self, sizes[0], model["trunk"])

    def forward(self, state):
        return say_by_mlp(self, state.flatten(1))


class GaussianVitMlp(Eyes, Deviation):
    def __init__(self, model, sizes):
        super().__init__(sizes[0], model["trunk"]["vision"])
        self.begin(model, sizes)
        add_mlp_heads(self, self.features + sizes[0], model["trunk"]["head"])

    def forward(self, state, rgb):
        return say_by_mlp(self, torch.cat([self.see(rgb, state), state.flatten(1)], dim=-1))


class Decoder(nn.Module):
    """Learned positions of the chunk, decoded with the encoded state as the one token of memory → (B, Tp, width)."""

    def __init__(self, trunk, sizes, outputs):
        super().__init__()
        width = trunk["embed_dim"]
        self.cond_obs_emb = nn.Linear(sizes[0], width)
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_emb = nn.Parameter(torch.zeros(1, sizes[1], width))
        self.encoder = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        layer = nn.TransformerDecoderLayer(
            width, trunk["heads"], 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, trunk["layers"])
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, state):
        memory = self.encoder(self.cond_obs_emb(state.flatten(1))[:, None] + self.cond_pos_emb)
        return self.ln_f(self.decoder(self.pos_emb.expand(state.shape[0], -1, -1), memory))


class GaussianTransformer(nn.Module, Deviation):
    def __init__(self, model, sizes):
        super().__init__()
        self.begin(model, sizes)
        width = model["trunk"]["embed_dim"]
        means = self.components * self.action_dim
        self.transformer = Decoder(model["trunk"], sizes, 2 * means if self.per_state else means)
        if self.modes:
            self.modes_head = nn.Linear(self.horizon * width, self.modes)

    def forward(self, state):
        features = self.transformer(state)
        # Of each position its modes, of each mode its actions: the modes come first in what is said.
        by_mode = lambda x: x.unflatten(2, (self.components, self.action_dim)).transpose(1, 2).flatten(1)
        means = self.components * self.action_dim
        head = self.transformer.head(features)
        log_variance = by_mode(head[:, :, means:]) if self.per_state else None
        logits = self.modes_head(features.flatten(1)) if self.modes else None
        return self.say(by_mode(head[:, :, :means]), log_variance, logits)


def gaussian_network(model, sizes):
    """The network of `[policy.model]` of a configuration."""
    assert model.get("tanh_mean", True)
    kinds = {"mlp": GaussianMlp, "transformer": GaussianTransformer, "vit_mlp": GaussianVitMlp}
    return kinds[model["trunk"]["kind"]](model, sizes)
