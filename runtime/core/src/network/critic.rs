//! Value networks and the η module (spec dppo.md §1.6, §3.5).

use super::layers::Layers;
use super::mlp::{mlp, plain_mlp};
use super::{Activation, CriticSpec, EtaSpec, MlpSpec, vit};

/// V(s) `[1, 1]`.
pub(super) fn value<L: Layers>(l: &mut L, spec: &CriticSpec, state: &L::Value, images: Option<&L::Value>) -> L::Value {
    match &spec.vision {
        None => mlp(l, "Q1", &[state], &spec.head, 1),
        Some(vision) => {
            let images = images.expect("checked: a network that sees pictures is given some");
            let features = vit::image_features(l, vision, images, state);
            mlp(l, "Q1", &[&features, state], &spec.head, 1)
        }
    }
}

/// Q(s, a) `[1, 1]` of two heads; `chunk`: the executed part of it.
pub(super) fn double_q<L: Layers>(l: &mut L, spec: &MlpSpec, state: &L::Value, chunk: &L::Value) -> [L::Value; 2] {
    let chunk = l.flatten(chunk);
    ["Q1", "Q2"].map(|name| mlp(l, name, &[state, &chunk], spec, 1))
}

/// η of DDIM, `[1, 1]` or `[1, Da]`.
pub(super) fn eta<L: Layers>(l: &mut L, spec: &EtaSpec, state: &L::Value, action_dim: usize) -> L::Value {
    let (min, max, base) = (spec.min as f32, spec.max as f32, spec.base as f32);
    let n = if spec.per_action { action_dim } else { 1 };
    match &spec.mlp_dims {
        None => {
            // ½ (tanh(w) + 1)(max − min) + min
            let logit = l.parameter("eta_logit", &[n], 1, n);
            let h = l.activate(Activation::Tanh, &logit);
            let half = 0.5 * (max - min);
            l.scale_shift(&h, half, half + min)
        }
        Some(dims) => {
            let head = MlpSpec { dims: dims.clone(), activation: Activation::ReLU, residual: false, layer_norm: false };
            let widths = [&dims[..], &[n]].concat();
            let h = plain_mlp(l, "mlp_res", &[state], &head, &widths, None);
            let h = l.activate(Activation::Tanh, &h);
            let h = l.scale_shift(&h, 1.0, base);
            l.clamp(&h, min, max)
        }
    }
}
