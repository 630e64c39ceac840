//! The diffusion MLP (spec dppo.md §3.2), also the head of the ViT policies.
//!
//! Input order of the first layer: noisy chunk, time features, (image features,) state or encoded state.

use tenon_core::network::{Activation, NetworkSpec};

use super::blocks::{activate, gemm};
use super::{NetworkGraph, Time};
use crate::onnx::{GraphBuilder, Value};

fn head<'a>(net: &NetworkGraph<'a>) -> (&'a [usize], Activation) {
    match net.network {
        NetworkSpec::DiffusionMlp { mlp_dims, activation, .. } | NetworkSpec::VitMlp { mlp_dims, activation, .. } => {
            (mlp_dims, *activation)
        }
        _ => unreachable!("a U-Net has no MLP head"),
    }
}

/// What the first layer gets from everything but the noisy chunk: `[steps, width]`.
pub(super) fn features(
    g: &mut GraphBuilder,
    net: &NetworkGraph,
    state: &Value,
    image_features: Option<&Value>,
    time: Time,
) -> Value {
    let chunk_len = net.dims.chunk_len();
    let mut condition = state.clone();
    let mut width = net.dims.state_len();
    if let NetworkSpec::DiffusionMlp { cond_mlp_dims, activation, .. } = net.network {
        for (i, &next) in cond_mlp_dims.iter().enumerate() {
            condition = net.linear(g, &format!("cond_mlp.moduleList.{i}.linear_1"), &condition);
            if i + 1 < cond_mlp_dims.len() {
                condition = activate(g, *activation, &condition);
            }
            width = next;
        }
    }
    if let (NetworkSpec::VitMlp { vision, .. }, Some(image)) = (net.network, image_features) {
        condition = g.concat(&[image, &condition], 1);
        width += vision.cameras * vision.features();
    }
    let (layer, time_end) = ("mlp_mean.layers.0", chunk_len + net.time_dim());
    match time {
        Time::Steps(steps) => {
            let weight = net.columns(g, layer, time_end, time_end + width);
            let share = gemm(g, &condition, &weight, None);
            let time_share = net.constant_time_share(layer, chunk_len, steps);
            let time_share = g.constant("time_share", &[steps.len(), head(net).0[0]], &time_share);
            g.add(&time_share, &share)
        }
        Time::Features(time) => {
            let weight = net.columns(g, layer, chunk_len, time_end + width);
            let input = g.concat(&[time, &condition], 1);
            let bias = net.constant(g, &format!("{layer}.bias"));
            gemm(g, &input, &weight, Some(&bias))
        }
    }
}

/// Predicted noise from the noisy chunk and one row of features.
pub(super) fn noise(g: &mut GraphBuilder, net: &NetworkGraph, x: &Value, features: &Value) -> Value {
    let (mlp_dims, activation) = head(net);
    let chunk_len = net.dims.chunk_len();
    let x = g.reshape(x, &[1, chunk_len]);
    let weight = net.columns(g, "mlp_mean.layers.0", 0, chunk_len);
    let mut h = gemm(g, &x, &weight, Some(features));
    let blocks = (mlp_dims.len() - 1) / 2;
    for block in 1..=blocks {
        let layer = format!("mlp_mean.layers.{block}");
        let a = activate(g, activation, &h);
        let a = net.linear(g, &format!("{layer}.l1"), &a);
        let a = activate(g, activation, &a);
        let a = net.linear(g, &format!("{layer}.l2"), &a);
        h = g.add(&h, &a);
    }
    let out = net.linear(g, &format!("mlp_mean.layers.{}", blocks + 1), &h);
    g.reshape(&out, &net.dims.chunk_shape())
}
