"""Diffusion policy with a frozen base and a fine-tuned copy, and the DPPO loss (spec dppo.md §1, §2.5e).

"The authors' way": the frozen network runs on the whole batch and the fine-tuned rows are overwritten, the critic sees
every row of a minibatch, time steps and states go through the whole first layer for every row.
"""

import copy
import math

import torch
from torch.distributions import Normal


def cosine_betas(steps, s=0.008):
    def f(i):
        return math.cos((i / steps + s) / (1 + s) * math.pi / 2) ** 2

    betas = [min(max(1 - f(t + 1) / f(t), 0.0), 0.999) for t in range(steps)]
    return torch.tensor(betas, dtype=torch.float64).float()


class DiffusionPolicy:
    """K denoising steps, the last `finetuned_steps` of them by the fine-tuned copy; DDIM where `ddim_steps` is given.

    Positions i count steps in the order of processing; the network is given the original t of each.
    """

    def __init__(
        self,
        network,
        chunk_shape,
        denoising_steps,
        finetuned_steps,
        ddim_steps=None,
        min_sampling_std=0.1,
        min_logprob_std=0.1,
        randn_clip=3.0,
    ):
        self.frozen = network.requires_grad_(False)
        self.finetuned = copy.deepcopy(network).requires_grad_(True)
        self.chunk_shape = chunk_shape
        self.finetuned_steps = finetuned_steps
        self.ddim = ddim_steps is not None
        self.min_sampling_std = min_sampling_std
        self.min_logprob_std = min_logprob_std
        self.randn_clip = randn_clip
        # Replaced by the golden check, which has stored draws.
        self.draw = torch.randn
        alpha_bar = torch.cumprod(1 - cosine_betas(denoising_steps), 0)
        if self.ddim:
            self.times = torch.arange(ddim_steps).flip(0) * (denoising_steps // ddim_steps)
            self._ddim_tables(alpha_bar)
        else:
            self.times = torch.arange(denoising_steps - 1, -1, -1)
            self._ddpm_tables(cosine_betas(denoising_steps), alpha_bar)

    def _ddpm_tables(self, beta, alpha_bar):
        previous = torch.cat([torch.ones(1), alpha_bar[:-1]])
        variance = beta * (1 - previous) / (1 - alpha_bar)
        tables = {
            "x0_of_x": (1 / alpha_bar).sqrt(),
            "x0_of_noise": (1 / alpha_bar - 1).sqrt(),
            "mean_of_x0": beta * previous.sqrt() / (1 - alpha_bar),
            "mean_of_x": (1 - previous) * (1 - beta).sqrt() / (1 - alpha_bar),
            "std": variance.clamp(min=1e-20).sqrt(),
        }
        self.tables = {name: table[self.times] for name, table in tables.items()}

    def _ddim_tables(self, alpha_bar, eta=1.0):
        a = alpha_bar[self.times]
        previous = torch.cat([a[1:], torch.ones(1)])
        std = (eta * ((1 - previous) / (1 - a) * (1 - a / previous)).sqrt()).clamp(min=1e-10)
        self.tables = {
            "sqrt_a": a.sqrt(),
            "sqrt_1_a": (1 - a).sqrt(),
            "sqrt_previous": previous.sqrt(),
            "direction": (1 - previous - std**2).clamp(min=0).sqrt(),
            "std": std,
        }

    def mean_std(self, x, position, state):
        """Mean and standard deviation (before any floor) of the next x. x `(B, Tp, Da)`, position `(B,)`."""
        t = self.times[position]
        noise = self.frozen(x, t, state)
        rows = torch.where(position >= len(self.times) - self.finetuned_steps)[0]
        if len(rows) > 0:
            noise[rows] = self.finetuned(x[rows], t[rows], state[rows])
        c = {name: table[position][:, None, None] for name, table in self.tables.items()}
        if self.ddim:
            x0 = ((x - c["sqrt_1_a"] * noise) / c["sqrt_a"]).clamp(-1, 1)
            noise = (x - c["sqrt_a"] * x0) / c["sqrt_1_a"]
            mean = c["sqrt_previous"] * x0 + c["direction"] * noise
        else:
            x0 = (c["x0_of_x"] * x - c["x0_of_noise"] * noise).clamp(-1, 1)
            mean = c["mean_of_x0"] * x0 + c["mean_of_x"] * x
        return mean, c["std"]

    @torch.no_grad()
    def sample(self, state):
        """Chains of exploration: state `(B, To, Do)` → `(B, K'+1, Tp, Da)`; the last entry is the action chunk."""
        batch, steps = len(state), len(self.times)
        x = self.draw((batch, *self.chunk_shape))
        chain = [x] if self.finetuned_steps == steps else []
        for i in range(steps):
            position = torch.full((batch,), i, dtype=torch.long)
            mean, std = self.mean_std(x, position, state)
            noise = self.draw(x.shape).clamp(-self.randn_clip, self.randn_clip)
            x = mean + std.clamp(min=self.min_sampling_std) * noise
            if i >= steps - self.finetuned_steps - 1:
                chain.append(x)
        return torch.stack(chain, dim=1)

    def log_probs(self, state, x, x_next, j):
        """Elementwise log-density of fine-tuned steps j `(B,)` from x to x_next `(B, Tp, Da)`."""
        mean, std = self.mean_std(x, len(self.times) - self.finetuned_steps + j, state)
        return Normal(mean, std.clamp(min=self.min_logprob_std)).log_prob(x_next)

    @torch.no_grad()
    def chain_log_probs(self, state, chains):
        """Elementwise log-densities of whole chains: `(B, K'+1, Tp, Da)` → `(B, K', Tp, Da)`."""
        steps = self.finetuned_steps
        repeated = state.repeat_interleave(steps, dim=0)
        j = torch.arange(steps).repeat(len(state))
        before, after = chains[:, :-1].flatten(0, 1), chains[:, 1:].flatten(0, 1)
        return self.log_probs(repeated, before, after, j).view(len(state), steps, *self.chunk_shape)


class Loss:
    """Policy and value loss of a minibatch of (environment step, denoising step) rows."""

    def __init__(self, policy, critic, gamma_denoising, clip, clip_base, clip_rate=3.0, reward_horizon=4):
        self.policy = policy
        self.critic = critic
        self.gamma_denoising = gamma_denoising
        self.clip = clip
        self.clip_base = clip_base
        self.clip_rate = clip_rate
        self.reward_horizon = reward_horizon

    def __call__(self, state, x, x_next, j, returns, advantages, old_log_probs):
        """Returns policy loss, value loss and, as plain numbers, approx_kl, clip fraction and mean ratio."""
        steps = self.policy.finetuned_steps
        new = self.policy.log_probs(state, x, x_next, j).clamp(-5, 2)
        old = old_log_probs.clamp(-5, 2)
        new = new[:, : self.reward_horizon].mean(dim=(-1, -2))
        old = old[:, : self.reward_horizon].mean(dim=(-1, -2))

        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        # The quantiles 0 and 1 of the configurations: clips nothing, but it is computed.
        low, high = torch.quantile(advantages, torch.tensor([0.0, 1.0]))
        advantages = advantages.clamp(low, high)
        advantages = advantages * self.gamma_denoising ** (steps - 1 - j).float()

        log_ratio = new - old
        ratio = log_ratio.exp()
        u = j.float() / (steps - 1)
        growth = (torch.exp(self.clip_rate * u) - 1) / (math.exp(self.clip_rate) - 1)
        epsilon = self.clip_base + (self.clip - self.clip_base) * growth
        clipped = torch.minimum(torch.maximum(ratio, 1 - epsilon), 1 + epsilon)
        policy_loss = torch.max(-advantages * ratio, -advantages * clipped).mean()

        value_loss = 0.5 * ((self.critic(state) - returns) ** 2).mean()
        with torch.no_grad():
            approx_kl = ((ratio - 1) - log_ratio).mean().item()
            clip_fraction = ((ratio - 1).abs() > epsilon).float().mean().item()
        return policy_loss, value_loss, (approx_kl, clip_fraction, ratio.mean().item())


class Updater:
    """Losses, gradients and AdamW steps of both networks."""

    def __init__(self, loss, actor_lr=1e-4, critic_lr=1e-3, vf_coef=0.5):
        self.loss = loss
        self.vf_coef = vf_coef
        self.actor = torch.optim.AdamW(loss.policy.finetuned.parameters(), lr=actor_lr, weight_decay=0.0)
        self.critic = torch.optim.AdamW(loss.critic.parameters(), lr=critic_lr, weight_decay=0.0)

    def step(self, data, indices):
        """One minibatch. indices: rows of (sample × denoising step), the step fastest. Returns approx_kl."""
        sample = torch.div(indices, self.loss.policy.finetuned_steps, rounding_mode="floor")
        j = indices % self.loss.policy.finetuned_steps
        policy_loss, value_loss, (approx_kl, _, _) = self.loss(
            data["states"][sample],
            data["chains"][sample, j],
            data["chains"][sample, j + 1],
            j,
            data["returns"][sample],
            data["advantages"][sample],
            data["log_probs"][sample, j],
        )
        total = policy_loss + self.vf_coef * value_loss
        self.actor.zero_grad()
        self.critic.zero_grad()
        total.backward()
        self.actor.step()
        self.critic.step()
        return approx_kl
