//! Gaussian and Gaussian-mixture policies: mean, log-variance and mixture logits from the state (spec dppo.md §4).

use super::layers::{AffineNames, Layers};
use super::mlp::{mlp, plain_mlp};
use super::{Activation, GaussianSpec, MlpSpec, StdSpec, TransformerSpec, TrunkSpec, vit};

const NORM_EPSILON: f32 = 1e-5;

/// What a Gaussian policy says about a state. M = 1 for a single Gaussian.
#[derive(Debug, Clone)]
pub struct GaussianOutputs<V> {
    /// Means, tanh applied, `[M, Tp · Da]`.
    pub mean: V,
    /// Log-variances `[1, n]`: per action (n = Da) or per mode and action (n = M · Da), the same for every state, not
    /// yet clamped; or of every element (n = M · Tp · Da), bounded. None where the deviation is a constant.
    pub log_variance: Option<V>,
    /// Mixture logits `[1, M]`, none for a single Gaussian.
    pub logits: Option<V>,
}

/// Builds the network. `state [1, To · Do]`; `images` where the trunk sees them. Chunks are `[horizon, action_dim]`.
pub(super) fn gaussian<L: Layers>(
    l: &mut L,
    spec: &GaussianSpec,
    state: &L::Value,
    images: Option<&L::Value>,
    [horizon, action_dim]: [usize; 2],
) -> GaussianOutputs<L::Value> {
    let (modes, chunk_len) = (spec.modes.max(1), horizon * action_dim);
    let outputs = modes * chunk_len;
    let (mean, per_state, logits) = match &spec.trunk {
        TrunkSpec::Mlp(head) => mlp_heads(l, spec, head, &[state], outputs),
        TrunkSpec::VitMlp { vision, head } => {
            let images = images.expect("checked: a network that sees pictures is given some");
            let features = vit::image_features(l, vision, images, state);
            mlp_heads(l, spec, head, &[&features, state], outputs)
        }
        TrunkSpec::Transformer(transformer) => transformer_heads(l, spec, transformer, state, horizon, action_dim),
    };
    let mean = if spec.tanh_mean { l.activate(Activation::Tanh, &mean) } else { mean };
    let mean = l.reshape(&mean, modes, chunk_len);
    let log_variance = match spec.std {
        StdSpec::Fixed { .. } => None,
        StdSpec::Learned { .. } => {
            let n = modes * action_dim;
            Some(l.parameter("logvar", &[n], 1, n))
        }
        StdSpec::PerState { min, max } => {
            let h = per_state.expect("the trunk has a second head");
            let (lo, hi) = ((2.0 * min.ln()) as f32, (2.0 * max.ln()) as f32);
            Some(match (&spec.trunk, spec.modes) {
                (TrunkSpec::Mlp(_) | TrunkSpec::VitMlp { .. }, 0) => {
                    // lo + ½ (hi − lo)(tanh(h) + 1)
                    let h = l.activate(Activation::Tanh, &h);
                    let half = 0.5 * (hi - lo);
                    l.scale_shift(&h, half, lo + half)
                }
                _ => l.clamp(&h, lo, hi),
            })
        }
    };
    GaussianOutputs { mean, log_variance, logits }
}

type Heads<V> = (V, Option<V>, Option<V>);

fn mlp_heads<L: Layers>(
    l: &mut L,
    spec: &GaussianSpec,
    head: &MlpSpec,
    inputs: &[&L::Value],
    outputs: usize,
) -> Heads<L::Value> {
    let per_state = matches!(spec.std, StdSpec::PerState { .. });
    if spec.modes > 0 {
        // A mixture has a network for each.
        let mean = mlp(l, "mlp_mean", inputs, head, outputs);
        let log_variance = per_state.then(|| mlp(l, "mlp_logvar", inputs, head, outputs));
        let logits = mlp(l, "mlp_weights", inputs, head, spec.modes);
        return (mean, log_variance, Some(logits));
    }
    if !per_state {
        return (mlp(l, "mlp_mean", inputs, head, outputs), None, None);
    }
    // One trunk, one linear head each.
    let trunk = match (head.residual, head.dims.split_last()) {
        (true, Some((&last, dims))) => {
            let trunk = mlp(l, "mlp_base", inputs, &MlpSpec { dims: dims.to_vec(), ..head.clone() }, last);
            l.activate(head.activation, &trunk)
        }
        _ => plain_mlp(l, "mlp_base", inputs, head, &head.dims, Some(head.activation)),
    };
    let mean = l.linear("mlp_mean.moduleList.0.linear_1", &[&trunk], outputs);
    let log_variance = l.linear("mlp_logvar.moduleList.0.linear_1", &[&trunk], outputs);
    (mean, Some(log_variance), None)
}

/// Decoder-only over the learned positions of the chunk, with the state as the one token of memory.
fn transformer_heads<L: Layers>(
    l: &mut L,
    spec: &GaussianSpec,
    transformer: &TransformerSpec,
    state: &L::Value,
    horizon: usize,
    action_dim: usize,
) -> Heads<L::Value> {
    let n = transformer.embed_dim;
    let modes = spec.modes.max(1);
    let memory = l.linear("transformer.cond_obs_emb", &[state], n);
    let position = l.parameter("transformer.cond_pos_emb", &[1, 1, n], 1, n);
    let memory = l.add(&memory, &position);
    let memory = l.dense("transformer.encoder.0", &[&memory], 4 * n, Activation::Mish);
    let memory = l.linear("transformer.encoder.2", &[&memory], n);
    let mut x = l.parameter("transformer.pos_emb", &[1, horizon, n], horizon, n);
    for layer in 0..transformer.layers {
        let name = format!("transformer.decoder.layers.{layer}");
        let h = l.layer_norm(&format!("{name}.norm1"), &x, NORM_EPSILON);
        let h = attend(l, &format!("{name}.self_attn"), &h, &h, n, transformer.heads);
        x = l.add(&x, &h);
        let h = l.layer_norm(&format!("{name}.norm2"), &x, NORM_EPSILON);
        let h = attend(l, &format!("{name}.multihead_attn"), &h, &memory, n, transformer.heads);
        x = l.add(&x, &h);
        let h = l.layer_norm(&format!("{name}.norm3"), &x, NORM_EPSILON);
        let h = l.dense(&format!("{name}.linear1"), &[&h], 4 * n, Activation::Gelu);
        let h = l.linear(&format!("{name}.linear2"), &[&h], n);
        x = l.add(&x, &h);
    }
    let features = l.layer_norm("transformer.ln_f", &x, NORM_EPSILON);
    let per_state = matches!(spec.std, StdSpec::PerState { .. });
    let means = modes * action_dim;
    let head = l.linear("transformer.head", &[&features], if per_state { 2 * means } else { means });
    let (mean, log_variance) = match per_state {
        true => (l.channels(&head, 0..means), Some(l.channels(&head, means..2 * means))),
        false => (head, None),
    };
    let mean = modes_outermost(l, &mean, modes, action_dim);
    let log_variance = log_variance.map(|v| modes_outermost(l, &v, modes, action_dim));
    let logits = (spec.modes > 0).then(|| {
        let flat = l.flatten(&features);
        l.linear("modes_head", &[&flat], modes)
    });
    (mean, log_variance, logits)
}

/// `[Tp, M · Da]` with the mode outermost in its channels → `[1, M · Tp · Da]`.
fn modes_outermost<L: Layers>(l: &mut L, x: &L::Value, modes: usize, action_dim: usize) -> L::Value {
    let parts: Vec<L::Value> = (0..modes)
        .map(|m| {
            let part = if modes == 1 { x.clone() } else { l.channels(x, m * action_dim..(m + 1) * action_dim) };
            l.flatten(&part)
        })
        .collect();
    match &parts[..] {
        [one] => one.clone(),
        _ => l.concat(&parts.iter().collect::<Vec<_>>()),
    }
}

/// PyTorch's multi-head attention: one fused projection, of which queries, keys and values each take their part.
fn attend<L: Layers>(
    l: &mut L,
    name: &str,
    queries: &L::Value,
    memory: &L::Value,
    width: usize,
    heads: usize,
) -> L::Value {
    let project = |l: &mut L, i: usize, x: &L::Value| {
        let names = AffineNames {
            weight: format!("{name}.in_proj_weight"),
            bias: format!("{name}.in_proj_bias"),
            stored: 3 * width,
            part: i * width..(i + 1) * width,
        };
        l.affine(&names, &[x])
    };
    let (q, k, v) = (project(l, 0, queries), project(l, 1, memory), project(l, 2, memory));
    let h = l.attention(&q, &k, &v, heads);
    l.linear(&format!("{name}.out_proj"), &[&h], width)
}
