"""What is measured: each case is built once and then repeated (sizes of spec dppo.md §3.8, §6.1, §6.3)."""

import contextlib
import dataclasses
import time

import numpy as np
import torch

import hopper
from dppo import DiffusionPolicy, Loss, Updater
from networks import Critic, DiffusionMlp, Unet


@dataclasses.dataclass(frozen=True)
class Sizes:
    rows: int = 50_000
    environments: int = 50
    quick: bool = False


class Stopwatch:
    """Clock and processor seconds of the named parts of one repetition."""

    def __init__(self):
        self.parts = {}

    @contextlib.contextmanager
    def part(self, name, scale=1.0):
        """Adds what happens inside, times `scale`."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = self.parts.setdefault(name, {"wall": 0.0, "cpu": 0.0})
        seconds["wall"] += (time.perf_counter() - wall) * scale
        seconds["cpu"] += (time.process_time() - cpu) * scale


def hopper_policy():
    network = DiffusionMlp(hopper.STATE, 4, hopper.ACTION, [512] * 3, "ReLU")
    return DiffusionPolicy(network, (4, hopper.ACTION), denoising_steps=20, finetuned_steps=10)


def hopper_updater(policy):
    critic = Critic(hopper.STATE, [256] * 3)
    return Updater(Loss(policy, critic, gamma_denoising=0.99, clip=0.01, clip_base=0.01))


class UpdateHopper:
    """One minibatch of the DPPO update: actor and critic forward and backward, AdamW steps of both."""

    def __init__(self, sizes):
        steps, rows = 10, sizes.rows
        samples = -(-4 * rows // steps)
        self.updater = hopper_updater(hopper_policy())
        self.data = {
            "states": torch.randn(samples, 1, hopper.STATE),
            "chains": 0.3 * torch.randn(samples, steps + 1, 4, hopper.ACTION),
            "returns": torch.randn(samples),
            "advantages": torch.randn(samples),
            "log_probs": torch.full((samples, steps, 4, hopper.ACTION), -0.5),
        }
        self.indices = torch.randperm(samples * steps)[:rows]

    def run(self, watch):
        with watch.part("update"):
            self.updater.step(self.data, self.indices)

    warm_up = run


class Sample:
    """One call of the sampler: a chunk, and its chain, for each environment."""

    def __init__(self, policy, state_dim, environments):
        self.policy = policy
        self.states = torch.randn(environments, 1, state_dim)

    def run(self, watch):
        with watch.part("sampling"):
            self.policy.sample(self.states)

    warm_up = run


def sample_lift(sizes):
    network = DiffusionMlp(19, 4, 7, [512] * 3, "Mish")
    return Sample(DiffusionPolicy(network, (4, 7), 20, 10), 19, sizes.environments)


def sample_one_leg(sizes):
    network = Unet(58, 10, dim=64, mults=[1, 2, 4])
    policy = DiffusionPolicy(network, (16, 10), 100, 5, ddim_steps=5, min_sampling_std=0.04)
    return Sample(policy, 58, sizes.environments)


class IterationHopper:
    """One training iteration: collection, values and log-probs, reward scaling, advantages, 5 epochs of minibatches.

    Quick: 1 of 20 chunk steps is sampled and executed (its data repeated to full size), 1 of 2 slices of log-probs and
    1 of 20 minibatches is computed; their times are multiplied by 20, 20, 2 and 20.
    """

    ENVIRONMENTS, CHUNK_STEPS, EPOCHS, MINIBATCHES, SLICES = 40, 500, 5, 4, 2
    SHARE = 20

    def __init__(self, sizes):
        self.quick = sizes.quick
        self.policy = hopper_policy()
        self.updater = hopper_updater(self.policy)
        self.envs = hopper.HopperBatch(self.ENVIRONMENTS)
        self.scaler = hopper.RewardScaler(self.ENVIRONMENTS)
        self.done = np.ones(self.ENVIRONMENTS)

    def warm_up(self, watch):
        whole, self.quick = self.quick, True
        self.run(watch)
        self.quick = whole

    def run(self, watch):
        slices, share = self.SLICES, self.SHARE if self.quick else 1
        rollout = self._collect(watch, self.CHUNK_STEPS // share, share)
        states = torch.from_numpy(rollout["states"]).float().flatten(0, 1)[:, None]
        chains = torch.from_numpy(rollout["chains"]).float().flatten(0, 1)
        states, chains = states.repeat(share, 1, 1), chains.repeat(share, 1, 1, 1)

        size = len(states) // slices
        measured = 1 if self.quick else slices
        log_probs, values = [], []
        with watch.part("values_log_probs", slices / measured):
            for part in range(measured):
                rows = slice(part * size, (part + 1) * size)
                log_probs.append(self.policy.chain_log_probs(states[rows], chains[rows]))
                values.append(self._values(states[rows]))
        log_probs = torch.cat(log_probs).repeat(slices // measured, 1, 1, 1)
        values = torch.cat(values).repeat(slices // measured)
        with watch.part("values_log_probs"):
            repeated = {name: np.tile(rollout[name], (share, 1)) for name in ("rewards", "first", "terminated")}
            rewards = self.scaler(repeated["rewards"], repeated["first"])
            last = self._values(torch.from_numpy(self.envs.states).float()[:, None]).numpy()
            advantages, returns = hopper.generalized_advantages(
                rewards, values.numpy().reshape(-1, self.ENVIRONMENTS), last, repeated["terminated"]
            )
        data = {
            "states": states,
            "chains": chains,
            "log_probs": log_probs,
            "returns": torch.from_numpy(returns).float().flatten(),
            "advantages": torch.from_numpy(advantages).float().flatten(),
        }
        self._update(watch, data)

    def _values(self, states):
        with torch.no_grad():
            return self.updater.loss.critic(states)

    def _collect(self, watch, chunk_steps, share):
        envs = self.ENVIRONMENTS
        rollout = {
            "states": np.zeros((chunk_steps, envs, hopper.STATE)),
            "chains": np.zeros((chunk_steps, envs, self.policy.finetuned_steps + 1, *self.policy.chunk_shape)),
            "rewards": np.zeros((chunk_steps, envs)),
            "terminated": np.zeros((chunk_steps, envs)),
            "first": np.zeros((chunk_steps, envs)),
        }
        for i in range(chunk_steps):
            rollout["states"][i] = self.envs.states
            rollout["first"][i] = self.done
            with watch.part("sampling", share):
                state = torch.from_numpy(self.envs.states).float()[:, None]
                rollout["chains"][i] = chains = self.policy.sample(state).numpy()
            with watch.part("environment", share):
                _, rewards, terminated, truncated, _ = self.envs.step(chains[:, -1])
            # Gym time-outs count as terminal in the authors' code (§8.1).
            rollout["rewards"][i], rollout["terminated"][i] = rewards, terminated | truncated
            self.done = (terminated | truncated).astype(float)
        return rollout

    def _update(self, watch, data):
        rows = len(data["states"]) * self.policy.finetuned_steps
        size = rows // self.MINIBATCHES
        scale = self.EPOCHS * self.MINIBATCHES if self.quick else 1
        with watch.part("update", scale):
            for _ in range(self.EPOCHS):
                order = torch.randperm(rows)
                for b in range(self.MINIBATCHES):
                    approx_kl = self.updater.step(data, order[b * size : (b + 1) * size])
                    # Early stop; never reached with these learning rates.
                    if approx_kl > 1 or self.quick:
                        return


CASES = {
    "update_hopper": UpdateHopper,
    "sample_lift": sample_lift,
    "sample_one_leg": sample_one_leg,
    "iteration_hopper": IterationHopper,
}
