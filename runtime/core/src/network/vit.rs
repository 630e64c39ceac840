//! The ViT image encoder with spatial embedding (spec dppo.md §3.4).

use super::layers::Layers;
use super::{Activation, Compression, PatchEmbedding, VisionSpec};

/// Epsilon of every normalisation of the image encoder.
const EPSILON: f32 = 1e-5;

/// Features of one picture as tokens `[patches, embed_dim]`; `picture [px · px, 3]`, 0..255. `prefix`: where the
/// encoder's parameters are, without the last point.
pub(super) fn encode<L: Layers>(l: &mut L, prefix: &str, spec: &VisionSpec, picture: &L::Value) -> L::Value {
    let width = spec.embed_dim;
    let px = spec.image_px;
    let x = l.scale_shift(picture, 1.0 / 255.0, -0.5);
    let embed = format!("{prefix}.patch_embed");
    let mut x = match spec.patch_embedding {
        PatchEmbedding::One => l.conv2d(&format!("{embed}.conv"), &x, [px, px], width, 8, 8),
        PatchEmbedding::Two => {
            let mut h = l.conv2d(&format!("{embed}.embed.0"), &x, [px, px], width, 8, 4);
            if spec.patch_norm {
                h = l.group_norm(&format!("{embed}.embed.1"), &h, width, EPSILON);
            }
            let h = l.activate(Activation::ReLU, &h);
            let side = (px - 8) / 4 + 1;
            l.conv2d(&format!("{embed}.embed.3"), &h, [side, side], width, 3, 2)
        }
    };
    let [patches, _] = l.shape(&x);
    let position = l.parameter(&format!("{prefix}.pos_embed"), &[1, patches, width], patches, width);
    x = l.add(&x, &position);
    for layer in 0..spec.depth {
        let name = format!("{prefix}.net.{layer}");
        let h = l.layer_norm(&format!("{name}.layer_norm1"), &x, EPSILON);
        let qkv = l.linear(&format!("{name}.mha.qkv_proj"), &[&h], 3 * width);
        let part = |l: &mut L, i: usize| l.channels(&qkv, i * width..(i + 1) * width);
        let (q, k, v) = (part(l, 0), part(l, 1), part(l, 2));
        let h = l.attention(&q, &k, &v, spec.heads);
        let h = l.linear(&format!("{name}.mha.out_proj"), &[&h], width);
        x = l.add(&x, &h);
        let h = l.layer_norm(&format!("{name}.layer_norm2"), &x, EPSILON);
        let h = l.dense(&format!("{name}.linear1"), &[&h], 4 * width, Activation::Gelu);
        let h = l.linear(&format!("{name}.linear2"), &[&h], width);
        x = l.add(&x, &h);
    }
    l.layer_norm(&format!("{prefix}.norm"), &x, EPSILON)
}

/// Features of all cameras, `[1, cameras · features]`; `images [px · px, 3 · cameras]`. One backbone serves all
/// cameras, each has a compressor of its own.
pub(super) fn image_features<L: Layers>(l: &mut L, spec: &VisionSpec, images: &L::Value, state: &L::Value) -> L::Value {
    let features: Vec<L::Value> = (0..spec.cameras)
        .map(|camera| {
            let picture = match spec.cameras {
                1 => images.clone(),
                _ => l.channels(images, 3 * camera..3 * (camera + 1)),
            };
            let tokens = encode(l, "backbone.vit", spec, &picture);
            let name = if spec.cameras == 1 { "compress".to_string() } else { format!("compress{}", camera + 1) };
            compress(l, &name, spec.compression, &tokens, state)
        })
        .collect();
    match &features[..] {
        [one] => one.clone(),
        _ => l.concat(&features.iter().collect::<Vec<_>>()),
    }
}

fn compress<L: Layers>(
    l: &mut L,
    name: &str,
    compression: Compression,
    tokens: &L::Value,
    state: &L::Value,
) -> L::Value {
    match compression {
        Compression::Spatial { dim } => {
            // One row a feature; the state stands on each of them.
            let rows = l.transpose(tokens);
            let h = l.linear(&format!("{name}.input_proj.0"), &[&rows, state], dim);
            let h = l.layer_norm(&format!("{name}.input_proj.1"), &h, EPSILON);
            let h = l.activate(Activation::ReLU, &h);
            l.weighted_sum(&format!("{name}.weight"), &h)
        }
        Compression::Flat { dim } => {
            let flat = l.flatten(tokens);
            let h = l.linear(&format!("{name}.0"), &[&flat], dim);
            let h = l.layer_norm(&format!("{name}.1"), &h, EPSILON);
            l.activate(Activation::ReLU, &h)
        }
    }
}
