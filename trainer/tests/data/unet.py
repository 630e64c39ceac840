"""The 1-D U-Net over the chunk of spec dppo.md §3.3 in plain PyTorch, written from the specification.

Parameter names are those of the authors' checkpoints. Used by the scripts that write the test files.
"""

import torch
from torch import nn

from diffusion_mlp import ACTIVATIONS, ResidualMlp, Sinusoid


class ConvBlock(nn.Module):
    """Conv1d → GroupNorm (none with 0 groups) → activation; the authors number the norm 2."""

    def __init__(self, inputs, outputs, unet):
        super().__init__()
        kernel, groups = unet["kernel_size"], unet["groups"]
        norm = nn.GroupNorm(groups, outputs, eps=unet["group_norm_eps"]) if groups else nn.Identity()
        conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.block = nn.Sequential(conv, nn.Identity(), norm, nn.Identity(), ACTIVATIONS[unet["activation"]]())

    def forward(self, x):
        return self.block(x)


class ConditionedBlock(nn.Module):
    """ConvBlock, FiLM (or the condition added), ConvBlock, plus the input."""

    def __init__(self, inputs, outputs, condition, unet):
        super().__init__()
        self.scales = unet["condition_scales"]
        self.blocks = nn.ModuleList([ConvBlock(inputs, outputs, unet), ConvBlock(outputs, outputs, unet)])
        film = 2 * outputs if self.scales else outputs
        activate = ACTIVATIONS[unet["activation"]]
        if unet["condition_encoder"] == "large":
            layers = [nn.Linear(condition, film), activate(), nn.Linear(film, film), activate(), nn.Linear(film, film)]
        else:
            layers = [activate(), nn.Linear(condition, film)]
        self.cond_encoder = nn.Sequential(*layers)
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, condition):
        h = self.blocks[0](x)
        film = self.cond_encoder(condition)[:, :, None]
        if self.scales:
            scale, bias = film.chunk(2, dim=1)
            h = scale * h + bias
        else:
            h = h + film
        return self.blocks[1](h) + self.residual_conv(x)


class Resampling(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x)


class Unet(nn.Module):
    """Noise of a chunk (B, Tp, Da) at step t (B,) given [image features,] states. `unet`: as in a configuration."""

    def __init__(self, state_len, action_dim, unet, image_features=0):
        super().__init__()
        time, dim = unet["time_dim"], unet["dim"]
        self.time_mlp = nn.Sequential(Sinusoid(time), nn.Linear(time, 4 * time), nn.Mish(), nn.Linear(4 * time, time))
        encoder = unet.get("cond_mlp_dims", [])
        if encoder:
            self.cond_mlp = ResidualMlp(state_len, encoder[:-1], encoder[-1], unet["activation"])
        condition = time + image_features + (encoder[-1] if encoder else state_len)
        block = lambda inputs, outputs: ConditionedBlock(inputs, outputs, condition, unet)
        widths = [action_dim, *(dim * m for m in unet["dim_mults"])]
        levels = list(zip(widths, widths[1:]))
        halve = lambda width: Resampling(nn.Conv1d(width, width, 3, stride=2, padding=1))
        double = lambda width: Resampling(nn.ConvTranspose1d(width, width, 4, stride=2, padding=1))
        self.down_modules = nn.ModuleList(
            nn.ModuleList([block(a, b), block(b, b), halve(b) if i + 1 < len(levels) else nn.Identity()])
            for i, (a, b) in enumerate(levels)
        )
        top = widths[-1]
        self.mid_modules = nn.ModuleList([block(top, top), block(top, top)])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * b, a), block(a, a), double(a)]) for a, b in reversed(levels[1:])
        )
        self.final_conv = nn.Sequential(ConvBlock(dim, dim, unet), nn.Conv1d(dim, action_dim, 1))

    def forward(self, chunk, t, state, features=None):
        state = state.flatten(1)
        if hasattr(self, "cond_mlp"):
            state = self.cond_mlp(state)
        parts = [self.time_mlp(t), state] if features is None else [self.time_mlp(t), features, state]
        condition = torch.cat(parts, dim=-1)
        x = chunk.transpose(1, 2)
        skips = []
        for first, second, resample in self.down_modules:
            x = second(first(x, condition), condition)
            skips.append(x)
            x = resample(x)
        for block in self.mid_modules:
            x = block(x, condition)
        for first, second, resample in self.up_modules:
            x = torch.cat([x, skips.pop()], dim=1)
            x = resample(second(first(x, condition), condition))
        return self.final_conv(x).transpose(1, 2)
