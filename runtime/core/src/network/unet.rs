//! The 1-D U-Net over the chunk with FiLM conditioning (spec dppo.md §3.3).

use super::layers::{Layers, Window};
use super::mlp::{mlp, time_embedding};
use super::{Activation, ConditionEncoder, MlpSpec, NoiseInputs, UnetSpec};

const HALVE: Window = Window { kernel: 3, stride: 2, padding: 1 };
const DOUBLE: Window = Window { kernel: 4, stride: 2, padding: 1 };
const POINT: Window = Window { kernel: 1, stride: 1, padding: 0 };

/// Noise of the chunk. `image_features`: of networks that see pictures.
pub(super) fn unet<L: Layers>(
    l: &mut L,
    inputs: &NoiseInputs<L::Value>,
    spec: &UnetSpec,
    image_features: Option<&L::Value>,
) -> L::Value {
    let time = time_embedding(l, "time_mlp", &inputs.sinusoid, 4);
    let state = match spec.cond_mlp_dims.split_last() {
        None => inputs.state.clone(),
        Some((&outputs, dims)) => {
            let encoder =
                MlpSpec { dims: dims.to_vec(), activation: spec.activation, residual: true, layer_norm: false };
            mlp(l, "cond_mlp", &[&inputs.state], &encoder, outputs)
        }
    };
    let condition: Vec<L::Value> = [Some(time), image_features.cloned(), Some(state)].into_iter().flatten().collect();
    let mut net = Unet { l, spec, condition };
    let levels = spec.dim_mults.len();
    let width = |level: usize| spec.dim * spec.dim_mults[level];
    let mut x = inputs.chunk.clone();
    let mut skips = Vec::new();
    for level in 0..levels {
        x = net.residual_block(&format!("down_modules.{level}.0"), &x, width(level));
        x = net.residual_block(&format!("down_modules.{level}.1"), &x, width(level));
        skips.push(x.clone());
        // The last level is not halved: its output goes on to the middle and is the first skip of the way up.
        if level + 1 < levels {
            x = net.l.conv1d(&format!("down_modules.{level}.2.conv"), &x, width(level), HALVE);
        }
    }
    for i in 0..2 {
        x = net.residual_block(&format!("mid_modules.{i}"), &x, width(levels - 1));
    }
    for (i, level) in (0..levels - 1).rev().enumerate() {
        let skip = skips.pop().expect("one skip a level");
        x = net.l.concat(&[&x, &skip]);
        x = net.residual_block(&format!("up_modules.{i}.0"), &x, width(level));
        x = net.residual_block(&format!("up_modules.{i}.1"), &x, width(level));
        x = net.l.conv_transpose1d(&format!("up_modules.{i}.2.conv"), &x, width(level), DOUBLE);
    }
    x = net.conv_block("final_conv.0", &x, spec.dim);
    let [_, action_dim] = l.shape(&inputs.chunk);
    l.conv1d("final_conv.1", &x, action_dim, POINT)
}

struct Unet<'a, L: Layers> {
    l: &'a mut L,
    spec: &'a UnetSpec,
    /// Time embedding, image features, state or its encoding.
    condition: Vec<L::Value>,
}

impl<L: Layers> Unet<'_, L> {
    /// ConvBlock, FiLM, ConvBlock, plus the (projected) input.
    fn residual_block(&mut self, name: &str, x: &L::Value, outputs: usize) -> L::Value {
        let h = self.conv_block(&format!("{name}.blocks.0"), x, outputs);
        let film = self.film(&format!("{name}.cond_encoder"), outputs);
        let h = match self.spec.condition_scales {
            true => self.l.modulate(&h, &film),
            false => self.l.add(&h, &film),
        };
        let h = self.conv_block(&format!("{name}.blocks.1"), &h, outputs);
        if self.l.shape(x)[1] == outputs {
            return self.l.add(&h, x);
        }
        let skip = self.l.conv1d(&format!("{name}.residual_conv"), x, outputs, POINT);
        self.l.add(&h, &skip)
    }

    /// Conv1d → GroupNorm → activation.
    fn conv_block(&mut self, name: &str, x: &L::Value, outputs: usize) -> L::Value {
        let window = Window { kernel: self.spec.kernel_size, stride: 1, padding: self.spec.kernel_size / 2 };
        let mut h = self.l.conv1d(&format!("{name}.block.0"), x, outputs, window);
        if self.spec.groups > 0 {
            let (groups, epsilon) = (self.spec.groups, self.spec.group_norm_eps);
            h = self.l.group_norm(&format!("{name}.block.2"), &h, groups, epsilon);
        }
        self.l.activate(self.spec.activation, &h)
    }

    /// Scale and bias (or bias alone) of a block's channels.
    fn film(&mut self, name: &str, channels: usize) -> L::Value {
        let outputs = if self.spec.condition_scales { 2 * channels } else { channels };
        let (l, activation): (&mut L, Activation) = (&mut *self.l, self.spec.activation);
        match self.spec.condition_encoder {
            ConditionEncoder::Small => {
                // The activation stands before the only layer, so it goes to each input by itself.
                let inputs: Vec<L::Value> = self.condition.iter().map(|c| l.activate(activation, c)).collect();
                l.linear(&format!("{name}.1"), &inputs.iter().collect::<Vec<_>>(), outputs)
            }
            ConditionEncoder::Large => {
                let inputs: Vec<&L::Value> = self.condition.iter().collect();
                let h = l.dense(&format!("{name}.0"), &inputs, outputs, activation);
                let h = l.dense(&format!("{name}.2"), &[&h], outputs, activation);
                l.linear(&format!("{name}.4"), &[&h], outputs)
            }
        }
    }
}
