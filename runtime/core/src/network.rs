//! What a denoising network looks like: sizes, and the name and shape of every parameter.
//!
//! Parameter names are those of the authors' public checkpoints, so an import is a look-up and an export keeps them.
//! Linear weights are `[out, in]`, Conv1d `[out, in, kernel]`, ConvTranspose1d `[in, out, kernel]`, Conv2d
//! `[out, in, kh, kw]` (spec dppo.md §3).

use serde::{Deserialize, Serialize};

/// Element-wise non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    #[serde(rename = "relu")]
    ReLU,
    #[serde(rename = "mish")]
    Mish,
}

/// A noise-predicting network. `state_len` = To · Do, `chunk_len` = Tp · Da.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum NetworkSpec {
    /// Residual MLP on [chunk, time embedding, state or encoded state] (spec dppo.md §3.2).
    DiffusionMlp {
        time_dim: usize,
        /// Hidden widths, all equal and odd in number: h, then one residual block for each further pair.
        mlp_dims: Vec<usize>,
        /// Observation encoder; empty = the state goes in as it is.
        #[serde(default)]
        cond_mlp_dims: Vec<usize>,
        activation: Activation,
    },
    /// 1-D U-Net over the chunk with FiLM conditioning by the larger encoder (spec dppo.md §3.3).
    Unet { time_dim: usize, dim: usize, dim_mults: Vec<usize>, kernel_size: usize, groups: usize, group_norm_eps: f32 },
    /// ViT image encoder with spatial embedding in front of a residual MLP (spec dppo.md §3.4).
    VitMlp {
        time_dim: usize,
        mlp_dims: Vec<usize>,
        activation: Activation,
        cameras: usize,
        /// Image side in pixels (square, RGB).
        image_px: usize,
        embed_dim: usize,
        heads: usize,
        depth: usize,
        spatial_emb: usize,
    },
}

/// Sinusoidal embedding of step t: `[sin(t ω_i), cos(t ω_i)]`, ω_i = exp(−i · ln 10000 / (d/2 − 1)), i < d/2, formed in
/// f32 like the authors' (spec dppo.md §3.1). `dim` is even and at least 4.
pub fn sinusoid(t: usize, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let rate = (10_000f64.ln() / (half as f64 - 1.0)) as f32;
    let angles: Vec<f32> = (0..half).map(|i| t as f32 * (-(i as f32) * rate).exp()).collect();
    angles.iter().map(|a| a.sin()).chain(angles.iter().map(|a| a.cos())).collect()
}

/// Name and shape of a parameter tensor.
pub type Parameter = (String, Vec<usize>);

fn linear(out: &mut Vec<Parameter>, name: &str, inputs: usize, outputs: usize) {
    out.push((format!("{name}.weight"), vec![outputs, inputs]));
    out.push((format!("{name}.bias"), vec![outputs]));
}

fn norm(out: &mut Vec<Parameter>, name: &str, width: usize) {
    out.push((format!("{name}.weight"), vec![width]));
    out.push((format!("{name}.bias"), vec![width]));
}

fn conv1d(out: &mut Vec<Parameter>, name: &str, inputs: usize, outputs: usize, kernel: usize) {
    out.push((format!("{name}.weight"), vec![outputs, inputs, kernel]));
    out.push((format!("{name}.bias"), vec![outputs]));
}

/// Parameters of a residual MLP `inputs → mlp_dims → outputs` under the given prefix.
pub fn residual_mlp(prefix: &str, inputs: usize, mlp_dims: &[usize], outputs: usize) -> Vec<Parameter> {
    let mut p = Vec::new();
    let width = mlp_dims[0];
    linear(&mut p, &format!("{prefix}.layers.0"), inputs, width);
    let blocks = (mlp_dims.len() - 1) / 2;
    for b in 1..=blocks {
        linear(&mut p, &format!("{prefix}.layers.{b}.l1"), width, width);
        linear(&mut p, &format!("{prefix}.layers.{b}.l2"), width, width);
    }
    linear(&mut p, &format!("{prefix}.layers.{}", blocks + 1), width, outputs);
    p
}

/// Parameters of the state critic V(s) (spec dppo.md §3.5).
pub fn critic_parameters(state_len: usize, mlp_dims: &[usize]) -> Vec<Parameter> {
    residual_mlp("Q1", state_len, mlp_dims, 1)
}

impl NetworkSpec {
    /// Name and shape of every parameter, in a fixed order.
    ///
    /// `state_len` = To · Do, `prediction_horizon` = Tp, `action_dim` = Da.
    pub fn parameters(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Vec<Parameter> {
        let chunk_len = prediction_horizon * action_dim;
        let mut p = Vec::new();
        match self {
            Self::DiffusionMlp { time_dim, mlp_dims, cond_mlp_dims, .. } => {
                linear(&mut p, "time_embedding.1", *time_dim, 2 * time_dim);
                linear(&mut p, "time_embedding.3", 2 * time_dim, *time_dim);
                let mut width = state_len;
                for (i, &next) in cond_mlp_dims.iter().enumerate() {
                    linear(&mut p, &format!("cond_mlp.moduleList.{i}.linear_1"), width, next);
                    width = next;
                }
                p.extend(residual_mlp("mlp_mean", chunk_len + time_dim + width, mlp_dims, chunk_len));
            }
            Self::Unet { time_dim, dim, dim_mults, kernel_size, .. } => {
                linear(&mut p, "time_mlp.1", *time_dim, 4 * time_dim);
                linear(&mut p, "time_mlp.3", 4 * time_dim, *time_dim);
                let cond = time_dim + state_len;
                let dims: Vec<usize> = std::iter::once(action_dim).chain(dim_mults.iter().map(|m| dim * m)).collect();
                let levels = dim_mults.len();
                for level in 0..levels {
                    unet_block(
                        &mut p,
                        &format!("down_modules.{level}.0"),
                        dims[level],
                        dims[level + 1],
                        cond,
                        *kernel_size,
                    );
                    unet_block(
                        &mut p,
                        &format!("down_modules.{level}.1"),
                        dims[level + 1],
                        dims[level + 1],
                        cond,
                        *kernel_size,
                    );
                    if level + 1 < levels {
                        conv1d(&mut p, &format!("down_modules.{level}.2.conv"), dims[level + 1], dims[level + 1], 3);
                    }
                }
                let top = dims[levels];
                unet_block(&mut p, "mid_modules.0", top, top, cond, *kernel_size);
                unet_block(&mut p, "mid_modules.1", top, top, cond, *kernel_size);
                for (i, level) in (1..levels).rev().enumerate() {
                    let (lo, hi) = (dims[level], dims[level + 1]);
                    unet_block(&mut p, &format!("up_modules.{i}.0"), 2 * hi, lo, cond, *kernel_size);
                    unet_block(&mut p, &format!("up_modules.{i}.1"), lo, lo, cond, *kernel_size);
                    p.push((format!("up_modules.{i}.2.conv.weight"), vec![lo, lo, 4]));
                    p.push((format!("up_modules.{i}.2.conv.bias"), vec![lo]));
                }
                conv1d(&mut p, "final_conv.0.block.0", *dim, *dim, *kernel_size);
                norm(&mut p, "final_conv.0.block.2", *dim);
                conv1d(&mut p, "final_conv.1", *dim, action_dim, 1);
            }
            Self::VitMlp { time_dim, mlp_dims, cameras, image_px, embed_dim, depth, spatial_emb, .. } => {
                let e = *embed_dim;
                // Conv 8/4, then 3/2: 96 px → 23 → 11, 121 tokens.
                let side = ((image_px - 8) / 4 + 1 - 3) / 2 + 1;
                p.push(("backbone.vit.pos_embed".into(), vec![1, side * side, e]));
                p.push(("backbone.vit.patch_embed.embed.0.weight".into(), vec![e, 3, 8, 8]));
                p.push(("backbone.vit.patch_embed.embed.0.bias".into(), vec![e]));
                p.push(("backbone.vit.patch_embed.embed.3.weight".into(), vec![e, e, 3, 3]));
                p.push(("backbone.vit.patch_embed.embed.3.bias".into(), vec![e]));
                for layer in 0..*depth {
                    let name = format!("backbone.vit.net.{layer}");
                    norm(&mut p, &format!("{name}.layer_norm1"), e);
                    linear(&mut p, &format!("{name}.mha.qkv_proj"), e, 3 * e);
                    linear(&mut p, &format!("{name}.mha.out_proj"), e, e);
                    norm(&mut p, &format!("{name}.layer_norm2"), e);
                    linear(&mut p, &format!("{name}.linear1"), e, 4 * e);
                    linear(&mut p, &format!("{name}.linear2"), 4 * e, e);
                }
                norm(&mut p, "backbone.vit.norm", e);
                for camera in 1..=*cameras {
                    // One camera: `compress`; several: `compress1`, `compress2`, …
                    let name = if *cameras == 1 { "compress".to_string() } else { format!("compress{camera}") };
                    p.push((format!("{name}.weight"), vec![1, e, *spatial_emb]));
                    linear(&mut p, &format!("{name}.input_proj.0"), side * side + state_len, *spatial_emb);
                    norm(&mut p, &format!("{name}.input_proj.1"), *spatial_emb);
                }
                linear(&mut p, "time_embedding.1", *time_dim, 2 * time_dim);
                linear(&mut p, "time_embedding.3", 2 * time_dim, *time_dim);
                let inputs = chunk_len + time_dim + cameras * spatial_emb + state_len;
                p.extend(residual_mlp("mlp_mean", inputs, mlp_dims, chunk_len));
            }
        }
        p
    }

    /// Number of values in all parameters.
    pub fn parameter_count(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> usize {
        self.parameters(state_len, prediction_horizon, action_dim)
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }
}

fn unet_block(p: &mut Vec<Parameter>, name: &str, inputs: usize, outputs: usize, cond: usize, kernel: usize) {
    conv1d(p, &format!("{name}.blocks.0.block.0"), inputs, outputs, kernel);
    norm(p, &format!("{name}.blocks.0.block.2"), outputs);
    conv1d(p, &format!("{name}.blocks.1.block.0"), outputs, outputs, kernel);
    norm(p, &format!("{name}.blocks.1.block.2"), outputs);
    linear(p, &format!("{name}.cond_encoder.0"), cond, 2 * outputs);
    linear(p, &format!("{name}.cond_encoder.2"), 2 * outputs, 2 * outputs);
    linear(p, &format!("{name}.cond_encoder.4"), 2 * outputs, 2 * outputs);
    if inputs != outputs {
        conv1d(p, &format!("{name}.residual_conv"), inputs, outputs, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mlp(time_dim: usize, width: usize, cond: &[usize]) -> NetworkSpec {
        NetworkSpec::DiffusionMlp {
            time_dim,
            mlp_dims: vec![width; 3],
            cond_mlp_dims: cond.to_vec(),
            activation: Activation::Mish,
        }
    }

    /// Spec dppo.md §3.7.
    #[test]
    fn parameter_counts_are_those_of_the_paper() {
        assert_eq!(mlp(16, 512, &[]).parameter_count(19, 4, 7), 573_516);
        assert_eq!(mlp(32, 1024, &[512, 64]).parameter_count(23, 4, 7), 2_305_212);
        assert_eq!(mlp(16, 512, &[]).parameter_count(11, 4, 3), 553_020);
        assert_eq!(mlp(16, 512, &[]).parameter_count(4, 4, 2), 545_336);
        let unet = |dim, dim_mults: &[usize]| NetworkSpec::Unet {
            time_dim: 16,
            dim,
            dim_mults: dim_mults.to_vec(),
            kernel_size: 5,
            groups: 8,
            group_norm_eps: 1e-5,
        };
        assert_eq!(unet(64, &[1, 2, 4]).parameter_count(58, 16, 10), 6_856_346);
        assert_eq!(unet(40, &[1, 2]).parameter_count(19, 4, 7), 648_615);
        let vit = |width, cameras| NetworkSpec::VitMlp {
            time_dim: 32,
            mlp_dims: vec![width; 3],
            activation: Activation::Mish,
            cameras,
            image_px: 96,
            embed_dim: 128,
            heads: 4,
            depth: 1,
            spatial_emb: 128,
        };
        assert_eq!(vit(512, 1).parameter_count(9, 4, 7), 1_064_956);
        assert_eq!(vit(768, 1).parameter_count(9, 4, 7), 1_778_684);
        assert_eq!(vit(768, 2).parameter_count(18, 8, 14), 2_048_720);
        let critic: usize = critic_parameters(11, &[256; 3]).iter().map(|(_, s)| s.iter().product::<usize>()).sum();
        assert_eq!(critic, 134_913);
    }

    #[test]
    fn sinusoid_starts_at_zero_one_and_ends_at_the_slowest_frequency() {
        let e = sinusoid(3, 16);
        assert_eq!(sinusoid(0, 4), [0.0, 0.0, 1.0, 1.0]);
        assert!((e[0] - 3f32.sin()).abs() < 1e-7 && (e[8] - 3f32.cos()).abs() < 1e-7);
        assert!((e[7] - 3e-4).abs() < 1e-9, "{e:?}");
    }
}
