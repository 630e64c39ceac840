//! Behaviour cloning: losses, gradients, five optimiser steps, moving average, learning rates.

use tenon_core::network::{Activation, NetworkSpec};
use tenon_train::network::NoiseNetwork;
use tenon_train::optimizer::{AdamW, LrSchedule, update_ema};
use tenon_train::pretrain::{DenoisingLoss, Prediction};
use tenon_train::workers::Workers;

use crate::load::{Case, case, compare_f64, devices, workers};

fn network(c: &Case) -> NoiseNetwork {
    let spec = NetworkSpec::diffusion_mlp(
        c.usize("time_dim"),
        &c.dims("mlp_dims"),
        &c.dims("cond_mlp_dims"),
        activation(c, "activation"),
    );
    let state_len = c.shape("state")[2..].iter().product();
    NoiseNetwork::new(&spec, state_len, c.usize("horizon"), c.usize("action")).unwrap()
}

fn activation(c: &Case, key: &str) -> Activation {
    match c.config[key].as_str() {
        Some("ReLU") => Activation::ReLU,
        Some("Mish") | None => Activation::Mish,
        Some(other) => panic!("unknown activation {other}"),
    }
}

/// Arrays of batch `s` of `name`.
fn batch(c: &Case, name: &str, s: usize) -> Vec<f32> {
    let values = c.f32(name);
    let n = values.len() / c.shape(name)[0];
    values[s * n..(s + 1) * n].to_vec()
}

fn steps_of(c: &Case, s: usize) -> Vec<u32> {
    batch(c, "t", s).into_iter().map(|t| t as u32).collect()
}

#[test]
fn golden_pretrain_losses_and_gradients() {
    let Some(c) = case("pretrain") else { return };
    devices().iter().for_each(|device| losses_and_gradients(&c, &workers(device)));
}

fn losses_and_gradients(c: &Case, workers: &Workers) {
    let network = network(c).on(workers.device());
    let parameters = c.parameters("network", network.table());
    let rows = c.shape("t")[1];
    for (name, prediction) in [("eps", Prediction::Noise), ("x0", Prediction::Sample)] {
        let mut loss = DenoisingLoss::new(&network, workers, rows, c.usize("denoising_steps"), prediction);
        let (value, gradient) = loss.gradient(
            workers,
            &network,
            &parameters,
            &batch(c, "state", 0),
            &batch(c, "actions", 0),
            &steps_of(c, 0),
            &batch(c, "noise", 0),
        );
        c.compare_loss(&format!("loss.{name}"), value);
        c.compare_gradient(network.table(), gradient, |parameter| {
            let double = format!("grad.{name}.f64.{parameter}");
            if c.has(&double) { c.f64(&double) } else { c.f64(&format!("grad.{name}.{parameter}")) }
        });
        c.compare_to("x_noisy", loss.noisy(), 1e-6);
    }
}

#[test]
fn golden_pretrain_five_steps() {
    let Some(c) = case("pretrain") else { return };
    devices().iter().for_each(|device| five_steps(&c, &workers(device)));
}

fn five_steps(c: &Case, workers: &Workers) {
    let network = network(c).on(workers.device());
    let mut parameters = c.parameters("network", network.table());
    let mut ema = parameters.clone();
    let mut optimizer = AdamW::new(parameters.len(), c.number("weight_decay"));
    let schedule = LrSchedule {
        max_lr: c.number("max_lr"),
        min_lr: c.number("min_lr"),
        warmup_steps: c.usize("warmup_steps") as u64,
        first_cycle_steps: c.usize("first_cycle_steps") as u64,
    };
    let (losses, rates) = (c.f64("step_losses"), c.f64("step_lrs"));
    let rows = c.shape("t")[1];
    let mut loss = DenoisingLoss::new(&network, workers, rows, c.usize("denoising_steps"), Prediction::Noise);
    for s in 0..losses.len() {
        let lr = schedule.rate(s as u64);
        compare_f64("step_lrs", &[lr], &rates[s..=s], 1e-12);
        let (value, gradient) = loss.gradient(
            workers,
            &network,
            &parameters,
            &batch(c, "state", s),
            &batch(c, "actions", s),
            &steps_of(c, s),
            &batch(c, "noise", s),
        );
        assert!((value - losses[s]).abs() <= 1e-5 + 1e-4 * losses[s], "step {s}: loss {value}, not {}", losses[s]);
        optimizer.step(&mut parameters, gradient, lr, None);
        update_ema(&mut ema, &parameters, c.number("ema_decay"));
        for (prefix, flat) in [("after", &parameters), ("ema", &ema)] {
            let prefix = format!("{prefix}{}", s + 1);
            if c.has(&format!("{prefix}.mlp_mean.layers.0.weight")) {
                for (name, _, range) in network.table().iter() {
                    let name = format!("{prefix}.{name}");
                    c.compare(&name, &flat[range], &c.f64(&name), 1e-4);
                }
            }
        }
    }
}

#[test]
fn golden_pretrain_learning_rates() {
    let Some(c) = case("pretrain") else { return };
    let mut schedules = 0;
    for (name, settings) in c.config.as_object().expect("settings") {
        let Some(max_lr) = settings.get("max_lr").and_then(|v| v.as_f64()) else { continue };
        schedules += 1;
        let schedule = LrSchedule {
            max_lr,
            min_lr: settings["min_lr"].as_f64().expect("a rate"),
            warmup_steps: settings["warmup_steps"].as_u64().expect("a length"),
            first_cycle_steps: settings["first_cycle_steps"].as_u64().expect("a length"),
        };
        let reference = c.f64(name);
        let ours: Vec<f64> = (0..reference.len() as u64).map(|n| schedule.rate(n)).collect();
        compare_f64(name, &ours, &reference, 1e-12);
    }
    assert!(schedules > 0, "the case has schedules");
}

#[test]
fn golden_adamw_with_norm_clipping() {
    let Some(c) = case("pretrain") else { return };
    let (gradients, states, norms) = (c.f32("adamw_toy.grads"), c.f32("adamw_toy.params"), c.f64("adamw_toy.norms"));
    let n = c.shape("adamw_toy.params")[1];
    let mut parameters = states[..n].to_vec();
    // Settings of the README.
    let mut optimizer = AdamW::new(n, 0.1);
    for (s, gradient) in gradients.chunks_exact(n).enumerate() {
        let norm = optimizer.step(&mut parameters, gradient, 0.05, Some(2.0));
        assert!((norm - norms[s]).abs() < 1e-5 * norms[s], "step {s}: norm {norm}, not {}", norms[s]);
        let after: Vec<f64> = states[(s + 1) * n..(s + 2) * n].iter().map(|&v| f64::from(v)).collect();
        c.compare(&format!("adamw_toy.params after step {}", s + 1), &parameters, &after, 1e-5);
    }
}
