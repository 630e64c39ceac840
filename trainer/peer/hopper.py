"""Hopper in chunks: gymnasium's environments in this process, normalised as the specification's wrapper (§8.1, §8.2)."""

import warnings

import gymnasium
import numpy as np

STATE, ACTION = 11, 3


class HopperBatch:
    """`envs` environments that execute whole chunks and reset themselves."""

    def __init__(self, envs, seed=42):
        with warnings.catch_warnings():
            # v4 has the formulas of the paper's v2; gymnasium recommends v5, which pays another reward.
            warnings.simplefilter("ignore")
            self.envs = [gymnasium.make("Hopper-v4", disable_env_checker=True).unwrapped for _ in range(envs)]
        self.envs = [gymnasium.wrappers.TimeLimit(env, 1000) for env in self.envs]
        # Any data set's limits would do: the time does not depend on them.
        self.low, self.high = np.full(STATE, -5.0), np.full(STATE, 5.0)
        self.action_low, self.action_high = np.full(ACTION, -1.0), np.full(ACTION, 1.0)
        self.env_steps = 0
        self.states = np.stack([self._normal(env.reset(seed=seed + i)[0]) for i, env in enumerate(self.envs)])

    def _normal(self, state):
        return 2 * ((state - self.low) / (self.high - self.low + 1e-6) - 0.5)

    def step(self, chunks):
        """chunks `(E, Ta, Da)`, normalised → states `(E, Do)`, summed rewards, terminated, truncated, final states."""
        n = len(self.envs)
        rewards, terminated, truncated = np.zeros(n), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        final_states = {}
        # The wrapper of the paper clips actions before the environment.
        actions = (chunks.clip(-1, 1) + 1) / 2 * (self.action_high - self.action_low) + self.action_low
        states = np.empty_like(self.states)
        for e, env in enumerate(self.envs):
            for action in actions[e]:
                state, reward, terminated[e], truncated[e], _ = env.step(action)
                rewards[e] += reward
                self.env_steps += 1
                if terminated[e] or truncated[e]:
                    final_states[e] = self._normal(state)
                    state, _ = env.reset()
                    break
            states[e] = self._normal(state)
        self.states = states
        return states, rewards, terminated, truncated, final_states


class RewardScaler:
    """Divides rewards by the running standard deviation of discounted returns (§2.5b)."""

    def __init__(self, envs):
        self.returns = np.zeros(envs)
        self.mean, self.variance, self.count = 0.0, 1.0, 1e-4

    def __call__(self, rewards, first):
        """rewards, first `(N, E)` → scaled rewards."""
        returns = np.empty_like(rewards)
        for i in range(len(rewards)):
            self.returns = rewards[i] + (1 - first[i]) * 0.99 * self.returns
            returns[i] = self.returns
        mean, variance, count = returns.mean(), returns.var(), returns.size
        delta, total = mean - self.mean, self.count + count
        spread = self.variance * self.count + variance * count + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.variance, self.count = spread / (total - 1), total
        return (rewards / np.sqrt(self.variance + 1e-8)).clip(-10, 10)


def generalized_advantages(rewards, values, last_values, terminated, gamma=0.99, gae_lambda=0.95):
    """All `(N, E)`, last_values `(E,)` → advantages, returns."""
    advantages = np.zeros_like(rewards)
    following, advantage = last_values, np.zeros(rewards.shape[1])
    for i in reversed(range(len(rewards))):
        alive = 1.0 - terminated[i]
        delta = rewards[i] + gamma * following * alive - values[i]
        advantage = delta + gamma * gae_lambda * alive * advantage
        advantages[i] = advantage
        following = values[i]
    return advantages, advantages + values
