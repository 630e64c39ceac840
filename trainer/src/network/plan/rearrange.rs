//! Kernels that move values: gather, reshape, transpose, concatenation, slices. All `[positions, n, channels]`.

use crate::elementwise::add;

/// Which element of the source stands behind element r.
#[derive(Debug, Clone, Copy)]
pub(super) enum Index<'a> {
    /// All have the first.
    One,
    /// Element r itself.
    Same,
    List(&'a [u32]),
}

impl Index<'_> {
    fn at(&self, r: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Same => r,
            Self::List(list) => list[r] as usize,
        }
    }
}

/// A table of values that are looked up: `[positions, elements, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub values: &'a [f32],
    pub positions: usize,
    pub elements: usize,
    pub index: Index<'a>,
}

/// `out[p][r] (+)= source[p][index(r)]`; a source with one position stands on every position.
pub(super) fn gather(out: &mut [f32], positions: usize, n: usize, channels: usize, source: Source, adds: bool) {
    for p in 0..positions {
        let from = if source.positions == 1 { 0 } else { p * source.elements };
        let rows = out[p * n * channels..(p + 1) * n * channels].chunks_exact_mut(channels);
        for (r, row) in rows.enumerate() {
            let value = &source.values[(from + source.index.at(r)) * channels..][..channels];
            if adds {
                add(row, value);
            } else {
                row.copy_from_slice(value);
            }
        }
    }
}

/// The reverse: `sums[p][index(r)] += d[p][r]`.
pub(super) fn scatter(
    sums: &mut [f32],
    (sum_positions, elements): (usize, usize),
    index: Index,
    d: &[f32],
    positions: usize,
    n: usize,
    channels: usize,
) {
    for p in 0..positions {
        let to = if sum_positions == 1 { 0 } else { p * elements };
        for (r, row) in d[p * n * channels..(p + 1) * n * channels].chunks_exact(channels).enumerate() {
            add(&mut sums[(to + index.at(r)) * channels..][..channels], row);
        }
    }
}

/// Copies (or adds) every row-major value of `[p₁, c₁]` to its place in `[p₂, c₂]`, p₁ c₁ = p₂ c₂.
pub(super) fn reshape(to: &mut [f32], to_channels: usize, from: &[f32], from_channels: usize, n: usize, adds: bool) {
    let len = from.len() / n;
    let mut flat = 0;
    while flat < len {
        let (p, c) = (flat / from_channels, flat % from_channels);
        let (q, e) = (flat / to_channels, flat % to_channels);
        let run = (from_channels - c).min(to_channels - e);
        for r in 0..n {
            let source = &from[(p * n + r) * from_channels + c..][..run];
            let target = &mut to[(q * n + r) * to_channels + e..][..run];
            if adds {
                target.iter_mut().zip(source).for_each(|(t, s)| *t += s);
            } else {
                target.copy_from_slice(source);
            }
        }
        flat += run;
    }
}

/// `[positions, channels]` → `[channels, positions]` of each element.
pub(super) fn transpose(to: &mut [f32], from: &[f32], positions: usize, channels: usize, n: usize, adds: bool) {
    for p in 0..positions {
        for r in 0..n {
            let row = &from[(p * n + r) * channels..][..channels];
            for (c, &x) in row.iter().enumerate() {
                let target = &mut to[(c * n + r) * positions + p];
                *target = if adds { *target + x } else { x };
            }
        }
    }
}

/// Copies `width` channels from place `from_start` of each row to place `to_start`, adding if `adds`.
pub(super) fn copy_channels(
    to: &mut [f32],
    (to_channels, to_start): (usize, usize),
    from: &[f32],
    (from_channels, from_start): (usize, usize),
    width: usize,
    adds: bool,
) {
    for (to, from) in to.chunks_exact_mut(to_channels).zip(from.chunks_exact(from_channels)) {
        let (to, from) = (&mut to[to_start..to_start + width], &from[from_start..from_start + width]);
        if adds {
            to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
        } else {
            to.copy_from_slice(from);
        }
    }
}

/// `x · scale + bias` with `film [n, 2c]`, scales first.
pub(super) fn modulate(out: &mut [f32], x: &[f32], film: &[f32], n: usize, channels: usize) {
    for (out, x) in out.chunks_exact_mut(n * channels).zip(x.chunks_exact(n * channels)) {
        let rows = out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)).zip(film.chunks_exact(2 * channels));
        for ((out, x), film) in rows {
            let (scale, bias) = film.split_at(channels);
            for (((out, x), s), b) in out.iter_mut().zip(x).zip(scale).zip(bias) {
                *out = x * s + b;
            }
        }
    }
}

/// Σ_p w_p ∘ x_p; `w [positions, channels]`, `out [n, channels]`.
pub(super) fn weighted_sum(out: &mut [f32], x: &[f32], w: &[f32], n: usize, channels: usize) {
    out.fill(0.0);
    for (x, w) in x.chunks_exact(n * channels).zip(w.chunks_exact(channels)) {
        for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for ((out, x), w) in out.iter_mut().zip(x).zip(w) {
                *out += x * w;
            }
        }
    }
}

/// Adds to the gradient of `film [n, 2c]` of [`modulate`].
pub(super) fn modulate_film(d_film: &mut [f32], d: &[f32], x: &[f32], n: usize, channels: usize) {
    for (d, x) in d.chunks_exact(n * channels).zip(x.chunks_exact(n * channels)) {
        let rows = d_film.chunks_exact_mut(2 * channels).zip(d.chunks_exact(channels)).zip(x.chunks_exact(channels));
        for ((d_film, d), x) in rows {
            let (scale, bias) = d_film.split_at_mut(channels);
            for (((s, b), d), x) in scale.iter_mut().zip(bias).zip(d).zip(x) {
                *s += d * x;
                *b += d;
            }
        }
    }
}

/// The gradient of x of [`modulate`].
pub(super) fn modulate_input(dx: &mut [f32], d: &[f32], film: &[f32], n: usize, channels: usize, adds: bool) {
    for (dx, d) in dx.chunks_exact_mut(n * channels).zip(d.chunks_exact(n * channels)) {
        let rows = dx.chunks_exact_mut(channels).zip(d.chunks_exact(channels)).zip(film.chunks_exact(2 * channels));
        for ((dx, d), film) in rows {
            for ((dx, d), s) in dx.iter_mut().zip(d).zip(film) {
                *dx = if adds { *dx + d * s } else { d * s };
            }
        }
    }
}

/// Adds to the gradient of w of [`weighted_sum`].
pub(super) fn weighted_sum_weight(dw: &mut [f32], x: &[f32], d: &[f32], n: usize, channels: usize) {
    for (x, sum) in x.chunks_exact(n * channels).zip(dw.chunks_exact_mut(channels)) {
        for (x, d) in x.chunks_exact(channels).zip(d.chunks_exact(channels)) {
            sum.iter_mut().zip(x).zip(d).for_each(|((s, x), d)| *s += x * d);
        }
    }
}

/// The gradient of x of [`weighted_sum`].
pub(super) fn weighted_sum_input(dx: &mut [f32], d: &[f32], w: &[f32], n: usize, channels: usize, adds: bool) {
    for (dx, w) in dx.chunks_exact_mut(n * channels).zip(w.chunks_exact(channels)) {
        for (dx, d) in dx.chunks_exact_mut(channels).zip(d.chunks_exact(channels)) {
            for ((dx, d), w) in dx.iter_mut().zip(d).zip(w) {
                *dx = if adds { *dx + d * w } else { d * w };
            }
        }
    }
}
