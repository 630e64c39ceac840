#!/usr/bin/env python3
"""Does the peer compute what the published code computes? Compares chains, losses and gradients with golden numbers.

    .deps/venv-bench/bin/python trainer/peer/check.py ../shared/golden
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch

from dppo import DiffusionPolicy, Loss
from networks import Critic, DiffusionMlp, Unet

TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_, "U8": np.uint8, "I32": np.int32}


def read(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        a, b = (8 + length + o for o in entry["data_offsets"])
        values = np.frombuffer(raw[a:b], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors


def weights(tensors, prefix):
    # Published U-Net blocks have a layer without weights between convolution and norm.
    return {
        name[len(prefix) :].replace(".block.2.", ".block.1."): value
        for name, value in tensors.items()
        if name.startswith(prefix) and not name.endswith(".f64")
    }


def build(config):
    horizon, action, state = config["horizon_steps"], config["action_dim"], config["obs_dim"]
    if "dim_mults" in config:
        network = Unet(
            state,
            action,
            config["dim"],
            config["dim_mults"],
            time_dim=config["diffusion_step_embed_dim"],
            groups=config["n_groups"],
            eps=config["groupnorm_eps"],
        )
    else:
        network = DiffusionMlp(state, horizon, action, config["mlp_dims"], config["activation"], config["time_dim"])
    return network, (horizon, action)


def relative(ours, golden):
    return ((ours - golden).abs().max() / golden.abs().max().clamp(min=1e-12)).item()


def check(folder, case):
    golden = read(folder / f"{case}.safetensors")
    description = json.loads((folder / f"{case}.json").read_text())
    config, scalars = description["config"], description["scalars"]
    network, shape = build(config)
    network.load_state_dict(weights(golden, "actor."))
    policy = DiffusionPolicy(
        network,
        shape,
        config["denoising_steps"],
        config["ft_denoising_steps"],
        config["ddim_steps"] if config.get("use_ddim") else None,
        config["min_sampling_denoising_std"],
        config["min_logprob_denoising_std"],
        config["randn_clip_value"],
    )
    policy.finetuned.load_state_dict(weights(golden, "actor_ft."))
    critic = Critic(config["obs_dim"], config["critic_mlp_dims"])
    critic.load_state_dict(weights(golden, "critic."))

    state = golden["cond.state"]
    draws = iter([golden["x_T"], *golden["step_noise"]])
    policy.draw = lambda _: next(draws)
    errors = {"chain": relative(policy.sample(state), golden["sample.stoch.chain"])}
    log_probs = policy.chain_log_probs(state, golden["old_chains"]).flatten(0, 1)
    errors["log-probs"] = relative(log_probs, golden["logprobs"])

    loss = Loss(
        policy,
        critic,
        config["gamma_denoising"],
        config["clip_ploss_coef"],
        config["clip_ploss_coef_base"],
        config["clip_ploss_coef_rate"],
        config["reward_horizon"],
    )
    policy_loss, value_loss, (approx_kl, clip_fraction, ratio) = loss(
        state[golden["ppo.batch_inds"]],
        golden["ppo.chains_prev"],
        golden["ppo.chains_next"],
        golden["ppo.denoising_inds"],
        golden["ppo.returns"],
        golden["ppo.advantages"],
        golden["ppo.oldlogprobs"],
    )
    (policy_loss + config["vf_coef"] * value_loss).backward()
    terms = {"pg_loss": policy_loss, "v_loss": value_loss, "approx_kl": approx_kl, "clipfrac": clip_fraction}
    for name, value in {**terms, "ratio_mean": ratio}.items():
        errors[name] = abs(float(torch.as_tensor(value).detach()) - scalars[f"ppo.base.{name}"])
    for prefix, module in (("actor_ft.", policy.finetuned), ("critic.", critic)):
        gradients = weights(golden, f"grad.base.{prefix}")
        own = dict(module.named_parameters())
        assert set(own) == set(gradients), f"{case}: parameters differ from the golden ones"
        errors[f"gradients of {prefix[:-1]}"] = max(relative(own[n].grad, g) for n, g in gradients.items())
    print(f"{case}: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    return max(errors.values()) < 1e-3


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/golden")
    if not folder.is_dir():
        sys.exit(f"{folder} is not there: give the folder of golden numbers")
    good = [check(folder, case) for case in ("dppo_mlp_ddpm", "dppo_mlp_ddim", "dppo_unet_ddim")]
    sys.exit(0 if all(good) else "the peer differs from the golden numbers by more than 1e-3")


if __name__ == "__main__":
    main()
