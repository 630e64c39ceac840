"""The ViT image encoder of spec dppo.md §3.4 and the networks that see pictures, in plain PyTorch from the specification.

Parameter names are those of the authors' checkpoints. Used by the scripts that write the test files.
"""

import torch
from torch import nn
from torch.nn import functional

from diffusion_mlp import ResidualMlp, Sinusoid
from unet import Unet


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        rows, tokens, width = x.shape
        by_head = lambda y: y.view(rows, tokens, self.heads, width // self.heads).transpose(1, 2)
        q, k, v = (by_head(y) for y in self.qkv_proj(x).chunk(3, dim=-1))
        h = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(h.transpose(1, 2).reshape(rows, tokens, width))


class TransformerLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width)
        self.mha = Attention(width, heads)
        self.layer_norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.mha(self.layer_norm1(x))
        return x + self.linear2(functional.gelu(self.linear1(self.layer_norm2(x))))


class PatchEmbedding(nn.Module):
    """Pictures (B, 3, px, px) → tokens (B, patches, width): conv 8/4, [GroupNorm], ReLU, conv 3/2; or conv 8/8."""

    def __init__(self, vision):
        super().__init__()
        width = vision["embed_dim"]
        self.two = vision.get("patch_embedding", "two") == "two"
        if self.two:
            norm = nn.GroupNorm(width, width) if vision.get("patch_norm", False) else nn.Identity()
            first, second = nn.Conv2d(3, width, 8, stride=4), nn.Conv2d(width, width, 3, stride=2)
            self.embed = nn.Sequential(first, norm, nn.ReLU(), second)
        else:
            self.conv = nn.Conv2d(3, width, 8, stride=8)

    def forward(self, x):
        x = self.embed(x) if self.two else self.conv(x)
        return x.flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(self, vision):
        super().__init__()
        width = vision["embed_dim"]
        self.patch_embed = PatchEmbedding(vision)
        with torch.no_grad():
            self.patches = self.patch_embed(torch.zeros(1, 3, vision["image_px"], vision["image_px"])).shape[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patches, width))
        self.net = nn.Sequential(*(TransformerLayer(width, vision["heads"]) for _ in range(vision["depth"])))
        self.norm = nn.LayerNorm(width)

    def forward(self, picture):
        return self.norm(self.net(self.patch_embed(picture / 255 - 0.5) + self.pos_embed))


class Backbone(nn.Module):
    def __init__(self, vision):
        super().__init__()
        self.vit = Vit(vision)

    def forward(self, picture):
        return self.vit(picture)


class SpatialEmbedding(nn.Module):
    """Tokens (B, patches, width) and states (B, To·Do) → (B, dim)."""

    def __init__(self, patches, width, state_len, dim):
        super().__init__()
        self.input_proj = nn.Sequential(nn.Linear(patches + state_len, dim), nn.LayerNorm(dim), nn.ReLU())
        self.weight = nn.Parameter(torch.zeros(1, width, dim))

    def forward(self, tokens, state):
        rows = tokens.transpose(1, 2)
        rows = torch.cat([rows, state[:, None, :].expand(-1, rows.shape[1], -1)], dim=-1)
        return (self.weight * self.input_proj(rows)).sum(1)


class Eyes(nn.Module):
    """Base of networks that see pictures: one backbone for all cameras, a compressor for each."""

    def __init__(self, state_len, vision):
        super().__init__()
        self.cameras, dim = vision["cameras"], vision["compression"]["spatial"]["dim"]
        self.backbone = Backbone(vision)
        compress = lambda: SpatialEmbedding(self.backbone.vit.patches, vision["embed_dim"], state_len, dim)
        if self.cameras == 1:
            self.compress = compress()
        else:
            for camera in range(1, self.cameras + 1):
                self.add_module(f"compress{camera}", compress())
        self.features = self.cameras * dim

    def see(self, rgb, state):
        """Features of pictures (B, 3·cameras, px, px), 0 to 255."""
        found = []
        for camera, picture in enumerate(rgb.float().split(3, dim=1), 1):
            compress = self.compress if self.cameras == 1 else getattr(self, f"compress{camera}")
            found.append(compress(self.backbone(picture), state.flatten(1)))
        return torch.cat(found, dim=-1)


class VitMlp(Eyes):
    """Noise by a residual MLP on [chunk, time, image features, state]."""

    def __init__(self, state_len, horizon, action_dim, network):
        super().__init__(state_len, network["vision"])
        time, chunk = network["time_dim"], horizon * action_dim
        self.time_embedding = nn.Sequential(
            Sinusoid(time), nn.Linear(time, 2 * time), nn.Mish(), nn.Linear(2 * time, time)
        )
        inputs = chunk + time + self.features + state_len
        self.mlp_mean = ResidualMlp(inputs, network["mlp_dims"], chunk, network["activation"])

    def forward(self, chunk, t, state, rgb):
        parts = [chunk.flatten(1), self.time_embedding(t), self.see(rgb, state), state.flatten(1)]
        return self.mlp_mean(torch.cat(parts, dim=-1)).view(chunk.shape)


class VitUnet(Eyes):
    """Noise by the U-Net with [time, image features, state] as its condition; the U-Net's names lie at the top."""

    def __init__(self, state_len, action_dim, network):
        super().__init__(state_len, network["vision"])
        self.unet = [Unet(state_len, action_dim, network["unet"], self.features)]
        for name, module in self.unet[0].named_children():
            self.add_module(name, module)

    def forward(self, chunk, t, state, rgb):
        return self.unet[0](chunk, t, state, self.see(rgb, state))


class VitCritic(Eyes):
    """V(s) (B, 1) by a residual MLP on [image features, state]."""

    def __init__(self, state_len, critic):
        super().__init__(state_len, critic["vision"])
        head = critic["head"]
        self.Q1 = ResidualMlp(self.features + state_len, head["dims"], 1, head["activation"])

    def forward(self, state, rgb):
        return self.Q1(torch.cat([self.see(rgb, state), state.flatten(1)], dim=-1))
