//! Building blocks shared by the networks (spec dppo.md §3.1).

use tenon_core::diffusion::DenoisingStep;
use tenon_core::network::{Activation, NetworkSpec, sinusoid};

use super::{NetworkGraph, Tensor};
use crate::onnx::{Attribute, GraphBuilder, Value};

impl NetworkGraph<'_> {
    /// A parameter of the network.
    pub(super) fn parameter(&self, name: &str) -> &Tensor {
        self.parameters.get(name).expect("check_parameters saw every name that NetworkSpec lists")
    }

    /// A parameter as a constant under its own name.
    pub(super) fn constant(&self, g: &mut GraphBuilder, name: &str) -> Value {
        let tensor = self.parameter(name);
        g.constant(name, &tensor.shape, &tensor.data)
    }

    /// A parameter as a constant in another shape of the same size.
    pub(super) fn constant_as(&self, g: &mut GraphBuilder, name: &str, shape: &[usize]) -> Value {
        g.constant(name, shape, &self.parameter(name).data)
    }

    /// Columns `start..end` of a linear layer's weight, as a constant `[outputs, end − start]`.
    pub(super) fn columns(&self, g: &mut GraphBuilder, layer: &str, start: usize, end: usize) -> Value {
        let weight = self.parameter(&format!("{layer}.weight"));
        let data = columns(weight, start, end);
        g.constant(&format!("{layer}.weight/{start}..{end}"), &[weight.shape[0], end - start], &data)
    }

    /// A whole linear layer on rows `[n, inputs]` → `[n, outputs]`.
    pub(super) fn linear(&self, g: &mut GraphBuilder, layer: &str, x: &Value) -> Value {
        let weight = self.constant(g, &format!("{layer}.weight"));
        let bias = self.constant(g, &format!("{layer}.bias"));
        gemm(g, x, &weight, Some(&bias))
    }

    /// Width of the time features.
    pub(super) fn time_dim(&self) -> usize {
        self.network.time_dim()
    }

    /// Prefix of the two linear layers of the time embedding.
    fn time_prefix(&self) -> &'static str {
        match self.network {
            NetworkSpec::Unet(_) | NetworkSpec::VitUnet { .. } => "time_mlp",
            _ => "time_embedding",
        }
    }

    /// Time features of step t, computed here in f64 for graphs in which t is a constant.
    pub(super) fn constant_time_features(&self, t: usize) -> Vec<f64> {
        let prefix = self.time_prefix();
        let sinusoid: Vec<f64> = sinusoid(t, self.time_dim()).into_iter().map(f64::from).collect();
        let mut hidden = self.apply(&format!("{prefix}.1"), &sinusoid);
        for x in &mut hidden {
            *x *= x.exp().ln_1p().tanh();
        }
        self.apply(&format!("{prefix}.3"), &hidden)
    }

    fn apply(&self, layer: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.parameter(&format!("{layer}.weight"));
        let bias = self.parameter(&format!("{layer}.bias"));
        weight
            .data
            .chunks_exact(weight.shape[1])
            .zip(&bias.data)
            .map(|(row, &b)| f64::from(b) + row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>())
            .collect()
    }

    /// W_t · (time features) + b of a linear layer whose columns `start..start + time_dim` see the time, for each step:
    /// `[steps, outputs]`, row-major.
    pub(super) fn constant_time_share(&self, layer: &str, start: usize, steps: &[usize]) -> Vec<f32> {
        let weight = self.parameter(&format!("{layer}.weight"));
        let bias = self.parameter(&format!("{layer}.bias"));
        let inputs = weight.shape[1];
        let mut share = Vec::with_capacity(steps.len() * weight.shape[0]);
        for &t in steps {
            let time = self.constant_time_features(t);
            for (row, &b) in weight.data.chunks_exact(inputs).zip(&bias.data) {
                let columns = &row[start..start + time.len()];
                let sum: f64 = columns.iter().zip(&time).map(|(&w, x)| f64::from(w) * x).sum();
                share.push((sum + f64::from(b)) as f32);
            }
        }
        share
    }
}

fn columns(weight: &Tensor, start: usize, end: usize) -> Vec<f32> {
    weight.data.chunks_exact(weight.shape[1]).flat_map(|row| row[start..end].iter().copied()).collect()
}

/// Time features `[n, time_dim]` of the steps `t [n]` (int64), in the graph.
pub(super) fn time_features(g: &mut GraphBuilder, net: &NetworkGraph, t: &Value) -> Value {
    let (steps, dim) = (net.dims.denoising_steps, net.time_dim());
    let table: Vec<f32> = (0..steps).flat_map(|t| sinusoid(t, dim)).collect();
    let table = g.constant("sinusoid", &[steps, dim], &table);
    let sinusoid = g.node("Gather", &[&table, t], &[("axis", Attribute::Int(0))]);
    let prefix = net.time_prefix();
    let hidden = net.linear(g, &format!("{prefix}.1"), &sinusoid);
    let hidden = mish(g, &hidden);
    net.linear(g, &format!("{prefix}.3"), &hidden)
}

/// `x [n, inputs] · weight [outputs, inputs]ᵀ + bias`.
pub(super) fn gemm(g: &mut GraphBuilder, x: &Value, weight: &Value, bias: Option<&Value>) -> Value {
    let inputs: Vec<&Value> = [x, weight].into_iter().chain(bias).collect();
    g.node("Gemm", &inputs, &[("transB", Attribute::Int(1))])
}

/// Mish(x) = x · tanh(softplus(x)) = x · n/(n + 2) with n = e(e + 2), e = exp(x).
///
/// The rational form needs one transcendental function instead of three and keeps its digits where x is very negative.
/// Above 20 it is x to the last bit, so the exponent is limited there and cannot overflow. Measured on one core of a
/// Zen 3, One-leg U-Net, against x · tanh(softplus(x)): ONNX Runtime 22 % faster where Mish weighs most (the condition
/// encoders) and equal elsewhere, tract 4 % slower.
pub(super) fn mish(g: &mut GraphBuilder, x: &Value) -> Value {
    let limit = g.scalar(20.0);
    let two = g.scalar(2.0);
    let limited = g.node("Min", &[x, &limit], &[]);
    let e = g.node("Exp", &[&limited], &[]);
    let e_plus_two = g.add(&e, &two);
    let n = g.mul(&e, &e_plus_two);
    let d = g.add(&n, &two);
    let gate = g.node("Div", &[&n, &d], &[]);
    g.mul(x, &gate)
}

/// The network's element-wise non-linearity.
pub(super) fn activate(g: &mut GraphBuilder, activation: Activation, x: &Value) -> Value {
    match activation {
        Activation::ReLU => g.node("Relu", &[x], &[]),
        Activation::Mish => mish(g, x),
        _ => unimplemented!(),
    }
}

/// x clamped to ±`limit`.
pub(super) fn clamp(g: &mut GraphBuilder, x: &Value, limit: f32) -> Value {
    let (low, high) = (g.scalar(-limit), g.scalar(limit));
    g.node("Clip", &[x, &low, &high], &[])
}

/// One denoising step without noise, as [`DenoisingStep::mean`].
pub(super) fn denoise(
    g: &mut GraphBuilder,
    x: &Value,
    noise: &Value,
    step: &DenoisingStep,
    denoised_clip: f32,
) -> Value {
    let (from_x, from_noise) = (g.scalar(step.x0_from_x), g.scalar(-step.x0_from_noise));
    let (a, b) = (g.mul(x, &from_x), g.mul(noise, &from_noise));
    let x0 = g.add(&a, &b);
    let x0 = clamp(g, &x0, denoised_clip);
    let (mean_from_x0, mean_from_x) = (g.scalar(step.mean_from_x0), g.scalar(step.mean_from_x));
    let (a, b) = (g.mul(&x0, &mean_from_x0), g.mul(x, &mean_from_x));
    g.add(&a, &b)
}
