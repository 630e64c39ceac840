//! The ViT image encoder with spatial embedding (spec dppo.md §3.4).

use tenon_core::network::VisionSpec;

use super::NetworkGraph;
use super::blocks::gemm;
use crate::onnx::{Attribute, GraphBuilder, Value};

/// Epsilon of every LayerNorm of the image encoder.
const LAYER_NORM_EPS: f32 = 1e-5;

/// Image features `[1, cameras · spatial_emb]` from the flat state and `rgb [1, 1, 3 · cameras, px, px]` (0..255).
pub(super) fn image_features(g: &mut GraphBuilder, net: &NetworkGraph, state: &Value, rgb: &Value) -> Value {
    let Some(VisionSpec { cameras, image_px, embed_dim, heads, depth, .. }) = net.network.vision() else {
        unreachable!("only a ViT-MLP sees images")
    };
    let spatial_emb = &net.network.vision().map_or(0, VisionSpec::features);
    let (cameras, px, width, heads, embedding) = (*cameras, *image_px, *embed_dim, *heads, *spatial_emb);
    // Conv 8/4, then conv 3/2.
    let side = ((px - 8) / 4 + 1 - 3) / 2 + 1;
    let patches = side * side;
    // One shared backbone; the cameras are its batch.
    let image = g.reshape(rgb, &[cameras, 3, px, px]);
    let (scale, half) = (g.scalar(1.0 / 255.0), g.scalar(-0.5));
    let image = g.mul(&image, &scale);
    let image = g.add(&image, &half);
    let h = conv2d(g, net, "backbone.vit.patch_embed.embed.0", &image, 8, 4);
    let h = g.node("Relu", &[&h], &[]);
    let h = conv2d(g, net, "backbone.vit.patch_embed.embed.3", &h, 3, 2);
    let h = g.reshape(&h, &[cameras, width, patches]);
    let h = g.transpose(&h, &[0, 2, 1]);
    let position = net.constant(g, "backbone.vit.pos_embed");
    let h = g.add(&h, &position);
    let mut tokens = g.reshape(&h, &[cameras * patches, width]);
    for layer in 0..*depth {
        let name = format!("backbone.vit.net.{layer}");
        let h = layer_norm(g, net, &format!("{name}.layer_norm1"), &tokens);
        let qkv = net.linear(g, &format!("{name}.mha.qkv_proj"), &h);
        let h = attention(g, &qkv, cameras, patches, heads, width);
        let h = net.linear(g, &format!("{name}.mha.out_proj"), &h);
        tokens = g.add(&tokens, &h);
        let h = layer_norm(g, net, &format!("{name}.layer_norm2"), &tokens);
        let h = net.linear(g, &format!("{name}.linear1"), &h);
        let h = gelu(g, &h);
        let h = net.linear(g, &format!("{name}.linear2"), &h);
        tokens = g.add(&tokens, &h);
    }
    let tokens = layer_norm(g, net, "backbone.vit.norm", &tokens);
    let tokens = g.reshape(&tokens, &[cameras, patches, width]);
    // [cameras, features, patches]: the spatial embedding mixes patches, one row a feature.
    let rows = g.transpose(&tokens, &[0, 2, 1]);
    let rows = g.reshape(&rows, &[cameras * width, patches]);
    let mut compressed = Vec::new();
    for camera in 0..cameras {
        let name = if cameras == 1 { "compress".into() } else { format!("compress{}", camera + 1) };
        let rows = if cameras == 1 { rows.clone() } else { g.slice(&rows, 0, camera * width, (camera + 1) * width) };
        // The state stands on every row, so its share of the layer is one row.
        let layer = format!("{name}.input_proj.0");
        let weight = net.columns(g, &layer, patches, patches + net.dims.state_len());
        let bias = net.constant(g, &format!("{layer}.bias"));
        let state_share = gemm(g, state, &weight, Some(&bias));
        let weight = net.columns(g, &layer, 0, patches);
        let h = gemm(g, &rows, &weight, None);
        let h = g.add(&h, &state_share);
        let h = layer_norm(g, net, &format!("{name}.input_proj.1"), &h);
        let h = g.node("Relu", &[&h], &[]);
        let weight = net.constant_as(g, &format!("{name}.weight"), &[width, embedding]);
        let h = g.mul(&h, &weight);
        let axis = g.indices(&[0]);
        compressed.push(g.node("ReduceSum", &[&h, &axis], &[("keepdims", Attribute::Int(1))]));
    }
    match compressed.len() {
        1 => compressed.swap_remove(0),
        _ => g.concat(&compressed.iter().collect::<Vec<_>>(), 1),
    }
}

/// Multi-head attention inside each camera's tokens: `qkv [cameras · patches, 3 · width]` → `[cameras · patches, width]`.
fn attention(g: &mut GraphBuilder, qkv: &Value, cameras: usize, patches: usize, heads: usize, width: usize) -> Value {
    let head = width / heads;
    let split = |g: &mut GraphBuilder, i: usize, permutation: &[i64]| {
        let part = g.slice(qkv, 1, i * width, (i + 1) * width);
        let part = g.reshape(&part, &[cameras, patches, heads, head]);
        g.transpose(&part, permutation)
    };
    let q = split(g, 0, &[0, 2, 1, 3]);
    let k = split(g, 1, &[0, 2, 3, 1]);
    let v = split(g, 2, &[0, 2, 1, 3]);
    let scale = g.scalar(1.0 / (head as f32).sqrt());
    let q = g.mul(&q, &scale);
    let scores = g.node("MatMul", &[&q, &k], &[]);
    let weights = g.node("Softmax", &[&scores], &[("axis", Attribute::Int(3))]);
    let h = g.node("MatMul", &[&weights, &v], &[]);
    let h = g.transpose(&h, &[0, 2, 1, 3]);
    g.reshape(&h, &[cameras * patches, width])
}

fn conv2d(g: &mut GraphBuilder, net: &NetworkGraph, name: &str, x: &Value, kernel: i64, stride: i64) -> Value {
    let weight = net.constant(g, &format!("{name}.weight"));
    let bias = net.constant(g, &format!("{name}.bias"));
    let attributes =
        [("kernel_shape", Attribute::Ints(&[kernel, kernel])), ("strides", Attribute::Ints(&[stride, stride]))];
    g.node("Conv", &[x, &weight, &bias], &attributes)
}

fn layer_norm(g: &mut GraphBuilder, net: &NetworkGraph, name: &str, x: &Value) -> Value {
    let weight = net.constant(g, &format!("{name}.weight"));
    let bias = net.constant(g, &format!("{name}.bias"));
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(LAYER_NORM_EPS))];
    g.node("LayerNormalization", &[x, &weight, &bias], &attributes)
}

/// The exact GELU x · (1 + erf(x/√2))/2.
fn gelu(g: &mut GraphBuilder, x: &Value) -> Value {
    let scale = g.scalar(std::f32::consts::FRAC_1_SQRT_2);
    let (one, half) = (g.scalar(1.0), g.scalar(0.5));
    let e = g.mul(x, &scale);
    let e = g.node("Erf", &[&e], &[]);
    let e = g.add(&e, &one);
    let h = g.mul(x, &e);
    g.mul(&h, &half)
}
