//! MLPs and the diffusion MLP (spec dppo.md §3.1, §3.2).

use super::layers::Layers;
use super::{Activation, MlpSpec, NoiseInputs};

/// LayerNorm inside residual blocks and in plain MLPs.
const RESIDUAL_NORM_EPSILON: f32 = 1e-6;
const PLAIN_NORM_EPSILON: f32 = 1e-5;

/// `inputs → spec.dims → outputs` under the given prefix, residual or plain as the description says; no activation
/// behind the last layer.
pub(super) fn mlp<L: Layers>(
    l: &mut L,
    prefix: &str,
    inputs: &[&L::Value],
    spec: &MlpSpec,
    outputs: usize,
) -> L::Value {
    match spec.residual {
        true => residual_mlp(l, prefix, inputs, spec, outputs),
        false => plain_mlp(l, prefix, inputs, spec, &[&spec.dims[..], &[outputs]].concat(), None),
    }
}

/// Linear(d₀ → h), then x ← x + L₂(f(N₂(L₁(f(N₁(x)))))) for each further pair of dims, then Linear(h → outputs).
fn residual_mlp<L: Layers>(l: &mut L, prefix: &str, inputs: &[&L::Value], spec: &MlpSpec, outputs: usize) -> L::Value {
    let width = spec.dims[0];
    let mut x = l.linear(&format!("{prefix}.layers.0"), inputs, width);
    let blocks = (spec.dims.len() - 1) / 2;
    for block in 1..=blocks {
        let name = format!("{prefix}.layers.{block}");
        let norm = |l: &mut L, which: &str, h: L::Value| match spec.layer_norm {
            true => l.layer_norm(&format!("{name}.{which}"), &h, RESIDUAL_NORM_EPSILON),
            false => h,
        };
        let h = norm(l, "norm1", x.clone());
        let h = l.activate(spec.activation, &h);
        let h = l.linear(&format!("{name}.l1"), &[&h], width);
        let h = norm(l, "norm2", h);
        let h = l.activate(spec.activation, &h);
        let h = l.linear(&format!("{name}.l2"), &[&h], width);
        x = l.add(&x, &h);
    }
    l.linear(&format!("{prefix}.layers.{}", blocks + 1), &[&x], outputs)
}

/// Linear → [LayerNorm] → f for each width but the last; behind that, `last` (none: nothing).
pub(super) fn plain_mlp<L: Layers>(
    l: &mut L,
    prefix: &str,
    inputs: &[&L::Value],
    spec: &MlpSpec,
    widths: &[usize],
    last: Option<Activation>,
) -> L::Value {
    let mut x: Option<L::Value> = None;
    for (i, &width) in widths.iter().enumerate() {
        let layer = format!("{prefix}.moduleList.{i}");
        let own: [&L::Value; 1];
        let inputs = match &x {
            None => inputs,
            Some(x) => {
                own = [x];
                &own
            }
        };
        let mut h = l.linear(&format!("{layer}.linear_1"), inputs, width);
        let activation = if i + 1 < widths.len() { Some(spec.activation) } else { last };
        if let Some(activation) = activation {
            if spec.layer_norm {
                h = l.layer_norm(&format!("{layer}.norm_1"), &h, PLAIN_NORM_EPSILON);
            }
            h = l.activate(activation, &h);
        }
        x = Some(h);
    }
    x.expect("an MLP has at least one layer")
}

/// sinusoid(d) → Linear(d → factor · d) → Mish → Linear(→ d).
pub(super) fn time_embedding<L: Layers>(l: &mut L, name: &str, sinusoid: &L::Value, factor: usize) -> L::Value {
    let [_, dim] = l.shape(sinusoid);
    let h = l.dense(&format!("{name}.1"), &[sinusoid], factor * dim, Activation::Mish);
    l.linear(&format!("{name}.3"), &[&h], dim)
}

/// MLP on [noisy chunk, time embedding, image features, state or encoded state] → noise of the chunk.
pub(super) fn diffusion_mlp<L: Layers>(
    l: &mut L,
    inputs: &NoiseInputs<L::Value>,
    head: &MlpSpec,
    cond_mlp_dims: &[usize],
    image_features: Option<&L::Value>,
) -> L::Value {
    let [horizon, action_dim] = l.shape(&inputs.chunk);
    let time = time_embedding(l, "time_embedding", &inputs.sinusoid, 2);
    let condition = match cond_mlp_dims.is_empty() {
        true => inputs.state.clone(),
        false => {
            let plain = MlpSpec { layer_norm: false, ..head.clone() };
            plain_mlp(l, "cond_mlp", &[&inputs.state], &plain, cond_mlp_dims, None)
        }
    };
    let chunk = l.flatten(&inputs.chunk);
    let mut parts = vec![&chunk, &time];
    parts.extend(image_features);
    parts.push(&condition);
    let noise = mlp(l, "mlp_mean", &parts, head, horizon * action_dim);
    l.reshape(&noise, horizon, action_dim)
}
