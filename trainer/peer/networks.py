"""The paper's networks in plain PyTorch (spec dppo.md §3): diffusion MLP, 1-D U-Net, state critic.

Written from the specification for the bench; sub-modules carry the names of published checkpoints where that is free,
so that `check.py` can load them.
"""

import math

import torch
from torch import nn

ACTIVATIONS = {"ReLU": nn.ReLU, "Mish": nn.Mish}


class SinusoidalEmbedding(nn.Module):
    """Integer step t `(B,)` → [sin(t·ω), cos(t·ω)] `(B, dim)`, ω_i = exp(−i·ln(10000)/(dim/2 − 1))."""

    def __init__(self, dim):
        super().__init__()
        self.half = dim // 2

    def forward(self, t):
        rates = torch.exp(torch.arange(self.half, device=t.device) * -(math.log(10000) / (self.half - 1)))
        angles = t[:, None] * rates[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def time_embedding(dim, widening):
    return nn.Sequential(
        SinusoidalEmbedding(dim), nn.Linear(dim, widening * dim), nn.Mish(), nn.Linear(widening * dim, dim)
    )


class ResidualBlock(nn.Module):
    """x + L2(act(L1(act(x))))."""

    def __init__(self, width, activation):
        super().__init__()
        self.act = ACTIVATIONS[activation]()
        self.l1 = nn.Linear(width, width)
        self.l2 = nn.Linear(width, width)

    def forward(self, x):
        return x + self.l2(self.act(self.l1(self.act(x))))


class ResidualMlp(nn.Module):
    """Linear, (hidden layers − 1)/2 residual blocks, Linear; no activation outside the blocks."""

    def __init__(self, inputs, hidden, outputs, activation):
        super().__init__()
        width = hidden[0]
        blocks = [ResidualBlock(width, activation) for _ in range((len(hidden) - 1) // 2)]
        self.layers = nn.ModuleList([nn.Linear(inputs, width), *blocks, nn.Linear(width, outputs)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class DiffusionMlp(nn.Module):
    """ε̂(x, t, state) by a residual MLP on [flattened chunk, time embedding, state]."""

    def __init__(self, state_dim, horizon, action_dim, hidden, activation, time_dim=16):
        super().__init__()
        chunk = horizon * action_dim
        self.time_embedding = time_embedding(time_dim, 2)
        self.mlp_mean = ResidualMlp(chunk + time_dim + state_dim, hidden, chunk, activation)

    def forward(self, x, t, state):
        """x `(B, Tp, Da)`, t `(B,)`, state `(B, To, Do)` → `(B, Tp, Da)`."""
        inputs = torch.cat([x.flatten(1), self.time_embedding(t), state.flatten(1)], dim=-1)
        return self.mlp_mean(inputs).view(x.shape)


class ConvBlock(nn.Module):
    """Conv1d → GroupNorm → Mish."""

    def __init__(self, inputs, outputs, kernel, groups, eps):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, outputs, eps=eps),
            nn.Mish(),
        )

    def forward(self, x):
        return self.block(x)


class ConditionalBlock(nn.Module):
    """Two conv blocks with FiLM between them (larger condition encoder: three linear layers), and a skip."""

    def __init__(self, inputs, outputs, condition, kernel, groups, eps):
        super().__init__()
        self.blocks = nn.ModuleList(
            [ConvBlock(inputs, outputs, kernel, groups, eps), ConvBlock(outputs, outputs, kernel, groups, eps)]
        )
        film = 2 * outputs
        self.cond_encoder = nn.Sequential(
            nn.Linear(condition, film), nn.Mish(), nn.Linear(film, film), nn.Mish(), nn.Linear(film, film)
        )
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, condition):
        h = self.blocks[0](x)
        scale, bias = self.cond_encoder(condition).unsqueeze(-1).chunk(2, dim=1)
        h = self.blocks[1](scale * h + bias)
        return h + self.residual_conv(x)


class Resample(nn.Module):
    """Halves or doubles the number of time steps."""

    def __init__(self, width, up):
        super().__init__()
        self.conv = nn.ConvTranspose1d(width, width, 4, 2, 1) if up else nn.Conv1d(width, width, 3, 2, 1)

    def forward(self, x):
        return self.conv(x)


class Unet(nn.Module):
    """ε̂(x, t, state) by the 1-D U-Net over the chunk's time; n levels, n − 1 of them halve and double."""

    def __init__(self, state_dim, action_dim, dim, mults, time_dim=16, kernel=5, groups=8, eps=1e-5):
        super().__init__()
        widths = [action_dim, *(dim * m for m in mults)]
        condition = time_dim + state_dim

        def block(inputs, outputs):
            return ConditionalBlock(inputs, outputs, condition, kernel, groups, eps)

        self.time_mlp = time_embedding(time_dim, 4)
        pairs = list(zip(widths[:-1], widths[1:]))
        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [block(a, b), block(b, b), Resample(b, up=False) if i < len(pairs) - 1 else nn.Identity()]
            )
            for i, (a, b) in enumerate(pairs)
        )
        top = widths[-1]
        self.mid_modules = nn.ModuleList([block(top, top), block(top, top)])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * b, a), block(a, a), Resample(a, up=True)]) for a, b in reversed(pairs[1:])
        )
        self.final_conv = nn.Sequential(ConvBlock(dim, dim, kernel, groups, eps), nn.Conv1d(dim, action_dim, 1))

    def forward(self, x, t, state):
        """x `(B, Tp, Da)`, t `(B,)`, state `(B, To, Do)` → `(B, Tp, Da)`."""
        x = x.transpose(1, 2)
        condition = torch.cat([self.time_mlp(t), state.flatten(1)], dim=-1)
        skips = []
        for first, second, downsample in self.down_modules:
            x = second(first(x, condition), condition)
            skips.append(x)
            x = downsample(x)
        for middle in self.mid_modules:
            x = middle(x, condition)
        for first, second, upsample in self.up_modules:
            x = torch.cat([x, skips.pop()], dim=1)
            x = upsample(second(first(x, condition), condition))
        return self.final_conv(x).transpose(1, 2)


class Critic(nn.Module):
    """V(state)."""

    def __init__(self, state_dim, hidden, activation="Mish"):
        super().__init__()
        self.Q1 = ResidualMlp(state_dim, hidden, 1, activation)

    def forward(self, state):
        """state `(B, To, Do)` → `(B,)`."""
        return self.Q1(state.flatten(1)).squeeze(-1)
