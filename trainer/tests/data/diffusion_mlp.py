"""The diffusion MLP and the state critic of spec dppo.md §3.2 and §3.5 in plain PyTorch, written from the specification.

Parameter names are those of the authors' checkpoints. Used by the scripts that write the test files.
"""

import math

import torch
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "mish": nn.Mish}


class ResidualMlp(nn.Module):
    """inputs → h, then blocks x + L2(act(N2(L1(act(N1(x)))))), then h → outputs; N1, N2 with `layer_norm` only."""

    def __init__(self, inputs, widths, outputs, activation, layer_norm=False):
        super().__init__()
        assert len(widths) % 2 == 1 and len(set(widths)) == 1
        width, blocks = widths[0], (len(widths) - 1) // 2
        norms = lambda: {f"norm{i}": nn.LayerNorm(width, eps=1e-6) for i in (1, 2)} if layer_norm else {}
        block = lambda: nn.ModuleDict({"l1": nn.Linear(width, width), "l2": nn.Linear(width, width)} | norms())
        layers = [nn.Linear(inputs, width), *(block() for _ in range(blocks)), nn.Linear(width, outputs)]
        self.layers = nn.ModuleList(layers)
        self.activate = ACTIVATIONS[activation]()

    def forward(self, x):
        x = self.layers[0](x)
        for block in self.layers[1:-1]:
            norm = lambda name, h: block[name](h) if name in block else h
            h = block["l1"](self.activate(norm("norm1", x)))
            x = x + block["l2"](self.activate(norm("norm2", h)))
        return self.layers[-1](x)


class PlainMlp(nn.Module):
    """Linear layers with activations between them."""

    def __init__(self, widths, activation):
        super().__init__()
        pairs = zip(widths, widths[1:])
        self.moduleList = nn.ModuleList(nn.ModuleDict({"linear_1": nn.Linear(a, b)}) for a, b in pairs)
        self.activate = ACTIVATIONS[activation]()

    def forward(self, x):
        for i, layer in enumerate(self.moduleList):
            x = layer["linear_1"](self.activate(x) if i else x)
        return x


class Sinusoid(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        half = self.dim // 2
        rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        angles = t[:, None].float() * rates[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class DiffusionMlp(nn.Module):
    """Noise of a chunk (B, Tp, Da) at step t (B,) given states (B, To, Do)."""

    def __init__(self, state_len, horizon, action_dim, time_dim, widths, cond_widths, activation, layer_norm=False):
        super().__init__()
        self.time_embedding = nn.Sequential(
            Sinusoid(time_dim), nn.Linear(time_dim, 2 * time_dim), nn.Mish(), nn.Linear(2 * time_dim, time_dim)
        )
        if cond_widths:
            self.cond_mlp = PlainMlp([state_len, *cond_widths], activation)
        condition = cond_widths[-1] if cond_widths else state_len
        chunk = horizon * action_dim
        self.mlp_mean = ResidualMlp(chunk + time_dim + condition, widths, chunk, activation, layer_norm)

    def forward(self, chunk, t, state):
        state = state.flatten(1)
        if hasattr(self, "cond_mlp"):
            state = self.cond_mlp(state)
        x = torch.cat([chunk.flatten(1), self.time_embedding(t), state], dim=-1)
        return self.mlp_mean(x).view(chunk.shape)


class Critic(nn.Module):
    """V(s), (B, 1)."""

    def __init__(self, state_len, widths, activation="mish"):
        super().__init__()
        self.Q1 = ResidualMlp(state_len, widths, 1, activation)

    def forward(self, state):
        return self.Q1(state.flatten(1))


class Pretrained(nn.Module):
    """What the authors' pre-training saves the state of."""

    def __init__(self, network):
        super().__init__()
        self.network = network


class Finetuned(nn.Module):
    """What the authors' fine-tuning saves the state of: `network` is the frozen network once more."""

    def __init__(self, frozen, finetuned, critic):
        super().__init__()
        self.network = frozen
        self.actor = frozen
        self.actor_ft = finetuned
        self.critic = critic


def probe(network, critic, state_len, horizon, action_dim, steps, rows, generator):
    """Random inputs, and what the networks say to them, as named tensors."""
    state = torch.rand((rows, 1, state_len), generator=generator) * 2 - 1
    chunk = torch.randn((rows, horizon, action_dim), generator=generator)
    t = torch.randint(0, steps, (rows,), generator=generator)
    found = {"state": state, "chunk": chunk, "t": t}
    with torch.no_grad():
        for name, net in network.items():
            found[name] = net(chunk, t, state)
        if critic is not None:
            found["critic"] = critic(state)
    return found
