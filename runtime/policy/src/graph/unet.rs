//! The 1-D U-Net with FiLM conditioning by the larger encoder (spec dppo.md §3.3).
//!
//! The condition encoders of all residual blocks see only the time and the state, so their outputs (scale and bias of
//! each channel) are the features; they hold 40 % of the One-leg network's parameters.

use tenon_core::network::{NetworkSpec, UnetSpec};

use super::blocks::{gemm, mish};
use super::{NetworkGraph, Time};
use crate::onnx::{Attribute, GraphBuilder, Value};

/// One residual block: where its parameters are and how wide it is.
struct Block {
    name: String,
    inputs: usize,
    outputs: usize,
}

/// Sizes of the network, read from its description.
struct Sizes {
    kernel_size: usize,
    groups: usize,
    group_norm_eps: f32,
    /// Da, then the width of each level.
    dims: Vec<usize>,
}

fn sizes(net: &NetworkGraph) -> Sizes {
    let NetworkSpec::Unet(UnetSpec { dim, dim_mults, kernel_size, groups, group_norm_eps, .. }) = net.network else {
        unreachable!("only a U-Net is built here")
    };
    Sizes {
        kernel_size: *kernel_size,
        groups: *groups,
        group_norm_eps: *group_norm_eps,
        dims: std::iter::once(net.dims.action_dim).chain(dim_mults.iter().map(|m| dim * m)).collect(),
    }
}

/// The residual blocks in execution order: two a level down, two in the middle, two a level up.
fn blocks(dims: &[usize]) -> Vec<Block> {
    let block = |name: String, inputs: usize, outputs: usize| Block { name, inputs, outputs };
    let levels = dims.len() - 1;
    let mut blocks = Vec::new();
    for level in 0..levels {
        blocks.push(block(format!("down_modules.{level}.0"), dims[level], dims[level + 1]));
        blocks.push(block(format!("down_modules.{level}.1"), dims[level + 1], dims[level + 1]));
    }
    for i in 0..2 {
        blocks.push(block(format!("mid_modules.{i}"), dims[levels], dims[levels]));
    }
    for (i, level) in (1..levels).rev().enumerate() {
        blocks.push(block(format!("up_modules.{i}.0"), 2 * dims[level + 1], dims[level]));
        blocks.push(block(format!("up_modules.{i}.1"), dims[level], dims[level]));
    }
    blocks
}

/// Values of one row of features: scale and bias of every block's channels.
pub(super) fn film_len(dim: usize, dim_mults: &[usize]) -> usize {
    let dims: Vec<usize> = std::iter::once(1).chain(dim_mults.iter().map(|m| dim * m)).collect();
    blocks(&dims).iter().map(|b| 2 * b.outputs).sum()
}

/// Scale and bias of every block for each step: `[steps, film_len]`.
pub(super) fn features(g: &mut GraphBuilder, net: &NetworkGraph, state: &Value, time: Time) -> Value {
    let (state_len, time_dim) = (net.dims.state_len(), net.time_dim());
    let input = match time {
        Time::Steps(_) => state.clone(),
        Time::Features(time) => g.concat(&[time, state], 1),
    };
    let mut film = Vec::new();
    for block in blocks(&sizes(net).dims) {
        let layer = format!("{}.cond_encoder", block.name);
        let first = format!("{layer}.0");
        let h = match time {
            Time::Steps(steps) => {
                let weight = net.columns(g, &first, time_dim, time_dim + state_len);
                let share = gemm(g, &input, &weight, None);
                let time_share = net.constant_time_share(&first, 0, steps);
                let shape = [steps.len(), 2 * block.outputs];
                let time_share = g.constant(&format!("{first}/time_share"), &shape, &time_share);
                g.add(&time_share, &share)
            }
            Time::Features(_) => net.linear(g, &first, &input),
        };
        let h = mish(g, &h);
        let h = net.linear(g, &format!("{layer}.2"), &h);
        let h = mish(g, &h);
        film.push(net.linear(g, &format!("{layer}.4"), &h));
    }
    g.concat(&film.iter().collect::<Vec<_>>(), 1)
}

/// Predicted noise from the noisy chunk and one row of features.
pub(super) fn noise(g: &mut GraphBuilder, net: &NetworkGraph, x: &Value, features: &Value) -> Value {
    let sizes = sizes(net);
    let levels = sizes.dims.len() - 1;
    let mut blocks = blocks(&sizes.dims).into_iter();
    let mut offset = 0;
    let mut length = net.dims.prediction_horizon;
    let mut block = |g: &mut GraphBuilder, x: &Value, length: usize| {
        let block = blocks.next().expect("blocks() lists every block of the walk below");
        let film = (offset, block.outputs);
        offset += 2 * block.outputs;
        residual_block(g, net, &sizes, &block, x, features, film, length)
    };
    let mut h = g.transpose(x, &[0, 2, 1]);
    let mut skips = Vec::new();
    for level in 0..levels {
        h = block(g, &h, length);
        h = block(g, &h, length);
        skips.push(h.clone());
        // The last level is not down-sampled: its output goes on to the middle and is the first skip of the way up.
        if level + 1 < levels {
            h = conv(g, net, &format!("down_modules.{level}.2.conv"), &h, 3, 2);
            length /= 2;
        }
    }
    h = block(g, &h, length);
    h = block(g, &h, length);
    for i in 0..levels - 1 {
        let skip = skips.pop().expect("one skip a level");
        h = g.concat(&[&h, &skip], 1);
        h = block(g, &h, length);
        h = block(g, &h, length);
        h = upsample(g, net, &format!("up_modules.{i}.2.conv"), &h);
        length *= 2;
    }
    h = conv_block(g, net, &sizes, "final_conv.0", &h, sizes.dims[1], length);
    h = conv(g, net, "final_conv.1", &h, 1, 1);
    g.transpose(&h, &[0, 2, 1])
}

/// ConvBlock, FiLM, ConvBlock, plus the (projected) input.
fn residual_block(
    g: &mut GraphBuilder,
    net: &NetworkGraph,
    sizes: &Sizes,
    block: &Block,
    x: &Value,
    features: &Value,
    (offset, width): (usize, usize),
    length: usize,
) -> Value {
    let name = &block.name;
    let h = conv_block(g, net, sizes, &format!("{name}.blocks.0"), x, width, length);
    let scale = g.slice(features, 1, offset, offset + width);
    let scale = g.reshape(&scale, &[1, width, 1]);
    let bias = g.slice(features, 1, offset + width, offset + 2 * width);
    let bias = g.reshape(&bias, &[1, width, 1]);
    let h = g.mul(&h, &scale);
    let h = g.add(&h, &bias);
    let h = conv_block(g, net, sizes, &format!("{name}.blocks.1"), &h, width, length);
    if block.inputs == block.outputs {
        return g.add(&h, x);
    }
    let skip = conv(g, net, &format!("{name}.residual_conv"), x, 1, 1);
    g.add(&h, &skip)
}

/// Conv1d → GroupNorm → Mish on `[1, channels, length]`.
fn conv_block(
    g: &mut GraphBuilder,
    net: &NetworkGraph,
    sizes: &Sizes,
    name: &str,
    x: &Value,
    width: usize,
    length: usize,
) -> Value {
    let h = conv(g, net, &format!("{name}.block.0"), x, sizes.kernel_size, 1);
    let h = group_norm(g, sizes, &h, width, length);
    let weight = net.constant_as(g, &format!("{name}.block.2.weight"), &[1, width, 1]);
    let bias = net.constant_as(g, &format!("{name}.block.2.bias"), &[1, width, 1]);
    let h = g.mul(&h, &weight);
    let h = g.add(&h, &bias);
    mish(g, &h)
}

/// Normalises each group of channels to mean 0 and variance 1 (without the affine part).
///
/// As InstanceNormalization over one row a group: ONNX Runtime has a kernel for it and tract makes its fused RMS norm
/// of it.
fn group_norm(g: &mut GraphBuilder, sizes: &Sizes, x: &Value, width: usize, length: usize) -> Value {
    let groups = sizes.groups;
    let rows = g.reshape(x, &[1, groups, width / groups * length]);
    let one = g.constant("group_norm/one", &[groups], &vec![1.0; groups]);
    let zero = g.constant("group_norm/zero", &[groups], &vec![0.0; groups]);
    let epsilon = [("epsilon", Attribute::Float(sizes.group_norm_eps))];
    let rows = g.node("InstanceNormalization", &[&rows, &one, &zero], &epsilon);
    g.reshape(&rows, &[1, width, length])
}

/// Conv1d with "same" padding for odd kernels (half the length where the stride is 2).
fn conv(g: &mut GraphBuilder, net: &NetworkGraph, name: &str, x: &Value, kernel: usize, stride: usize) -> Value {
    let weight = net.constant(g, &format!("{name}.weight"));
    let bias = net.constant(g, &format!("{name}.bias"));
    let pad = (kernel / 2) as i64;
    let attributes = [
        ("kernel_shape", Attribute::Ints(&[kernel as i64])),
        ("pads", Attribute::Ints(&[pad, pad])),
        ("strides", Attribute::Ints(&[stride as i64])),
    ];
    g.node("Conv", &[x, &weight, &bias], &attributes)
}

/// ConvTranspose1d with kernel 4, stride 2, padding 1: twice the length.
fn upsample(g: &mut GraphBuilder, net: &NetworkGraph, name: &str, x: &Value) -> Value {
    let weight = net.constant(g, &format!("{name}.weight"));
    let bias = net.constant(g, &format!("{name}.bias"));
    let attributes = [
        ("kernel_shape", Attribute::Ints(&[4])),
        ("pads", Attribute::Ints(&[1, 1])),
        ("strides", Attribute::Ints(&[2])),
    ];
    g.node("ConvTranspose", &[x, &weight, &bias], &attributes)
}
