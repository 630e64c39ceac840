//! LayerNorm and GroupNorm.

/// Sizes of a normalisation of `[positions, n, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormShape {
    pub n: usize,
    pub channels: usize,
    pub groups: usize,
    pub epsilon: f32,
}

/// LayerNorm over the channels of each row. `normalised`: as `x`; `inverse_std`: one a row.
pub(super) fn layer_norm(
    out: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    normalised: &mut [f32],
    inverse_std: &mut [f32],
) {
    let c = weight.len();
    let rows = out.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(normalised.chunks_exact_mut(c));
    for (((out, x), normalised), inverse) in rows.zip(inverse_std) {
        let mean = x.iter().sum::<f32>() / c as f32;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / c as f32;
        *inverse = 1.0 / (variance + epsilon).sqrt();
        for ((((out, x), z), w), b) in out.iter_mut().zip(x).zip(normalised).zip(weight).zip(bias) {
            *z = (x - mean) * *inverse;
            *out = *z * w + b;
        }
    }
}

/// Backward: adds to the gradients of weight and bias and gives that of x.
pub(super) fn layer_norm_backward(
    dx: &mut [f32],
    adds: bool,
    d: &[f32],
    weight: &[f32],
    normalised: &[f32],
    inverse_std: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let c = weight.len();
    let rows = dx.chunks_exact_mut(c).zip(d.chunks_exact(c)).zip(normalised.chunks_exact(c));
    for (((dx, d), z), inverse) in rows.zip(inverse_std) {
        let (mut mean, mut along) = (0.0, 0.0);
        for (((d, z), w), (dw, db)) in d.iter().zip(z).zip(weight).zip(d_weight.iter_mut().zip(d_bias.iter_mut())) {
            *dw += d * z;
            *db += d;
            mean += d * w;
            along += d * w * z;
        }
        (mean, along) = (mean / c as f32, along / c as f32);
        for (((dx, d), z), w) in dx.iter_mut().zip(d).zip(z).zip(weight) {
            let g = (d * w - mean - z * along) * inverse;
            *dx = if adds { *dx + g } else { g };
        }
    }
}

/// GroupNorm over a group's channels and all positions of an element. `inverse_std [n, groups]`.
pub(super) fn group_norm(
    out: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: NormShape,
    normalised: &mut [f32],
    inverse_std: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let NormShape { n, channels, groups, epsilon } = shape;
    let width = channels / groups;
    let count = (x.len() / n / groups) as f32;
    // Sums of each element's channels over positions, then over the group: [n, channels].
    scratch.clear();
    scratch.resize(2 * n * channels, 0.0);
    let (sums, spread) = scratch.split_at_mut(n * channels);
    for x in x.chunks_exact(n * channels) {
        crate::elementwise::add(sums, x);
    }
    for group in sums.chunks_exact_mut(width) {
        let mean = group.iter().sum::<f32>() / count;
        group.fill(mean);
    }
    for x in x.chunks_exact(n * channels) {
        for ((s, x), mean) in spread.iter_mut().zip(x).zip(sums.iter()) {
            let z = x - mean;
            *s += z * z;
        }
    }
    for (group, inverse) in spread.chunks_exact_mut(width).zip(inverse_std.iter_mut()) {
        *inverse = 1.0 / (group.iter().sum::<f32>() / count + epsilon).sqrt();
        group.fill(*inverse);
    }
    let positions = out.chunks_exact_mut(n * channels).zip(x.chunks_exact(n * channels));
    for ((out, x), z) in positions.zip(normalised.chunks_exact_mut(n * channels)) {
        for (((z, x), mean), inverse) in z.iter_mut().zip(x).zip(sums.iter()).zip(spread.iter()) {
            *z = (x - mean) * inverse;
        }
        for (out, z) in out.chunks_exact_mut(channels).zip(z.chunks_exact(channels)) {
            for (((out, z), w), b) in out.iter_mut().zip(z).zip(weight).zip(bias) {
                *out = z * w + b;
            }
        }
    }
}

/// Backward of [`group_norm`].
pub(super) fn group_norm_backward(
    dx: &mut [f32],
    adds: bool,
    d: &[f32],
    weight: &[f32],
    shape: NormShape,
    normalised: &[f32],
    inverse_std: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let NormShape { n, channels, groups, .. } = shape;
    let width = channels / groups;
    let count = (d.len() / n / groups) as f32;
    scratch.clear();
    scratch.resize(2 * n * channels, 0.0);
    let (means, alongs) = scratch.split_at_mut(n * channels);
    for (d, z) in d.chunks_exact(n * channels).zip(normalised.chunks_exact(n * channels)) {
        for (((m, a), d), z) in means.iter_mut().zip(alongs.iter_mut()).zip(d).zip(z) {
            *m += d;
            *a += d * z;
        }
    }
    // Sums over positions are those of the parameters too; with the weight they are those of the groups.
    for (m, a) in means.chunks_exact_mut(channels).zip(alongs.chunks_exact_mut(channels)) {
        crate::elementwise::add(d_bias, m);
        crate::elementwise::add(d_weight, a);
        m.iter_mut().zip(weight).for_each(|(m, w)| *m *= w);
        a.iter_mut().zip(weight).for_each(|(a, w)| *a *= w);
    }
    for group in means.chunks_exact_mut(width).chain(alongs.chunks_exact_mut(width)) {
        let mean = group.iter().sum::<f32>() / count;
        group.fill(mean);
    }
    let positions = dx.chunks_exact_mut(n * channels).zip(d.chunks_exact(n * channels));
    for ((dx, d), z) in positions.zip(normalised.chunks_exact(n * channels)) {
        for r in 0..n {
            let row = r * channels..(r + 1) * channels;
            let (dx, d, z) = (&mut dx[row.clone()], &d[row.clone()], &z[row.clone()]);
            let (means, alongs) = (&means[row.clone()], &alongs[row]);
            for c in 0..channels {
                let inverse = inverse_std[r * groups + c / width];
                let g = (d[c] * weight[c] - means[c] - z[c] * alongs[c]) * inverse;
                dx[c] = if adds { dx[c] + g } else { g };
            }
        }
    }
}
