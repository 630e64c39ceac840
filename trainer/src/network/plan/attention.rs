//! Multi-head scaled dot-product attention within each element.

use crate::linalg::{Into, Matrix, MatrixMut, multiply_to};

/// Sizes: queries `[positions, n, channels]`, keys and values `[memory, n, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionShape {
    pub n: usize,
    pub positions: usize,
    pub memory: usize,
    pub channels: usize,
    pub heads: usize,
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.channels / self.heads
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.width() as f32).sqrt()
    }

    /// One head of one element.
    fn head<'a>(&self, x: &'a [f32], positions: usize, r: usize, head: usize) -> Matrix<'a> {
        let start = r * self.channels + head * self.width();
        Matrix::strided(&x[start..], positions, self.width(), self.n * self.channels)
    }

    fn head_mut<'a>(&self, x: &'a mut [f32], positions: usize, r: usize, head: usize) -> MatrixMut<'a> {
        let start = r * self.channels + head * self.width();
        MatrixMut::strided(&mut x[start..], positions, self.width(), self.n * self.channels)
    }
}

/// softmax(Q Kᵀ/√d) V; `weights [n, heads, positions, memory]` keeps the softmax.
pub(super) fn attention(shape: AttentionShape, out: &mut [f32], q: &[f32], k: &[f32], v: &[f32], weights: &mut [f32]) {
    let AttentionShape { n, positions, memory, heads, .. } = shape;
    let scale = shape.scale();
    for (i, w) in weights.chunks_exact_mut(positions * memory).take(n * heads).enumerate() {
        let (r, head) = (i / heads, i % heads);
        let scores = MatrixMut::strided(w, positions, memory, memory);
        let keys = shape.head(k, memory, r, head).t();
        multiply_to(scores, Into::Overwrite, shape.head(q, positions, r, head), keys, scale);
        w.chunks_exact_mut(memory).for_each(softmax);
        let w = Matrix::new(w, positions, memory);
        let out = shape.head_mut(out, positions, r, head);
        multiply_to(out, Into::Overwrite, w, shape.head(v, memory, r, head), 1.0);
    }
}

fn softmax(row: &mut [f32]) {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - highest).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Backward: each gradient is overwritten unless it `adds`.
pub(super) fn attention_backward(
    shape: AttentionShape,
    d: &[f32],
    [q, k, v]: [&[f32]; 3],
    weights: &[f32],
    [dq, dk, dv]: [(&mut [f32], bool); 3],
    scratch: &mut Vec<f32>,
) {
    let AttentionShape { n, positions, memory, heads, .. } = shape;
    let scale = shape.scale();
    let into = |adds: bool| if adds { Into::Add } else { Into::Overwrite };
    scratch.resize(positions * memory, 0.0);
    for (i, w) in weights.chunks_exact(positions * memory).take(n * heads).enumerate() {
        let (r, head) = (i / heads, i % heads);
        let d = shape.head(d, positions, r, head);
        let weights = Matrix::new(w, positions, memory);
        multiply_to(shape.head_mut(dv.0, memory, r, head), into(dv.1), weights.t(), d, 1.0);
        // Through the softmax: ds = w ∘ (dw − Σ w dw).
        let dw = &mut scratch[..positions * memory];
        let scores = MatrixMut::strided(dw, positions, memory, memory);
        multiply_to(scores, Into::Overwrite, d, shape.head(v, memory, r, head).t(), 1.0);
        for (dw, w) in dw.chunks_exact_mut(memory).zip(w.chunks_exact(memory)) {
            let along: f32 = dw.iter().zip(w).map(|(d, w)| d * w).sum();
            dw.iter_mut().zip(w).for_each(|(d, w)| *d = w * (*d - along));
        }
        let ds = Matrix::new(dw, positions, memory);
        multiply_to(shape.head_mut(dq.0, positions, r, head), into(dq.1), ds, shape.head(k, memory, r, head), scale);
        let queries = shape.head(q, positions, r, head);
        multiply_to(shape.head_mut(dk.0, memory, r, head), into(dk.1), ds.t(), queries, scale);
    }
}
