//! Convolutions as products of contiguous rows, one for each tap.

use tenon_core::network::layers::Window;

use crate::elementwise::column_sum;
use crate::linalg::{Into, Matrix, multiply, multiply_rows};

/// Sizes of a one-dimensional convolution of `[positions, n, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvShape {
    pub n: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub positions: usize,
    pub output_positions: usize,
    pub window: Window,
}

/// A tap j, and runs of positions that it connects: `count` outputs from `output` on with inputs from `input` on.
pub(super) struct Run {
    pub tap: usize,
    pub output: usize,
    pub input: usize,
    pub count: usize,
}

impl ConvShape {
    /// Everything a convolution connects. For a transposed one, input and output change places.
    fn runs(&self) -> Vec<Run> {
        let Window { kernel, stride, padding } = self.window;
        let mut runs = Vec::new();
        for tap in 0..kernel {
            // input = stride · output + tap − padding
            let inside = |output: usize| {
                let input = stride * output + tap;
                (input >= padding && input - padding < self.positions).then(|| input - padding)
            };
            if stride == 1 {
                let hits: Vec<usize> = (0..self.output_positions).filter(|&o| inside(o).is_some()).collect();
                if let (Some(&first), Some(&last)) = (hits.first(), hits.last()) {
                    let input = inside(first).expect("a hit");
                    runs.push(Run { tap, output: first, input, count: last - first + 1 });
                }
            } else {
                for output in 0..self.output_positions {
                    if let Some(input) = inside(output) {
                        runs.push(Run { tap, output, input, count: 1 });
                    }
                }
            }
        }
        runs
    }

    /// The same with input and output exchanged.
    fn transposed(&self) -> Self {
        Self { positions: self.output_positions, output_positions: self.positions, ..*self }
    }

    pub(super) fn connections(&self, transposed: bool) -> Vec<Run> {
        if !transposed {
            return self.runs();
        }
        let runs = self.transposed().runs();
        runs.into_iter().map(|r| Run { output: r.input, input: r.output, ..r }).collect()
    }

    fn rows<'a>(&self, values: &'a [f32], position: usize, count: usize, channels: usize) -> Matrix<'a> {
        Matrix::new(&values[position * self.n * channels..], count * self.n, channels)
    }

    fn tap<'a>(&self, weight: &'a [f32], tap: usize) -> Matrix<'a> {
        let len = self.outputs * self.inputs;
        Matrix::new(&weight[tap * len..(tap + 1) * len], self.outputs, self.inputs)
    }
}

/// y = conv(x) + b, or the transposed convolution.
pub(super) fn conv1d(shape: ConvShape, transposed: bool, y: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32]) {
    y.chunks_exact_mut(shape.outputs).for_each(|row| row.copy_from_slice(bias));
    let row = shape.n * shape.outputs;
    for run in shape.connections(transposed) {
        let y = &mut y[run.output * row..(run.output + run.count) * row];
        let rows = shape.rows(x, run.input, run.count, shape.inputs);
        multiply_rows(y, Into::Add, rows, shape.tap(weight, run.tap).t());
    }
}

/// Backward: gradients of weight and bias are added to, that of x is zeroed first unless it `adds`.
pub(super) fn conv1d_backward(
    shape: ConvShape,
    transposed: bool,
    d: &[f32],
    x: &[f32],
    weight: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    dx: Option<(&mut [f32], bool)>,
) {
    column_sum(d, d_bias);
    let len = shape.outputs * shape.inputs;
    let runs = shape.connections(transposed);
    for run in &runs {
        let d_tap = &mut d_weight[run.tap * len..(run.tap + 1) * len];
        let d = shape.rows(d, run.output, run.count, shape.outputs);
        multiply(d_tap, Into::Add, d.t(), shape.rows(x, run.input, run.count, shape.inputs));
    }
    let Some((dx, adds)) = dx else { return };
    if !adds {
        dx.fill(0.0);
    }
    let row = shape.n * shape.inputs;
    for run in &runs {
        let dx = &mut dx[run.input * row..(run.input + run.count) * row];
        multiply(dx, Into::Add, shape.rows(d, run.output, run.count, shape.outputs), shape.tap(weight, run.tap));
    }
}

/// Sizes of a two-dimensional convolution without padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct PatchShape {
    pub n: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub picture: [usize; 2],
    pub kernel: usize,
    pub stride: usize,
}

impl PatchShape {
    pub(super) fn output(&self) -> [usize; 2] {
        self.picture.map(|n| (n - self.kernel) / self.stride + 1)
    }

    pub(super) fn patch(&self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    /// Calls `visit(row, column, place)` for every run of channels: row and first column in the matrix of patches,
    /// place in the picture.
    fn for_each(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [height, width] = self.output();
        for y in 0..height {
            for x in 0..width {
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        let pixel = (y * self.stride + ky) * self.picture[1] + x * self.stride + kx;
                        let column = (ky * self.kernel + kx) * self.inputs;
                        for r in 0..self.n {
                            let row = (y * width + x) * self.n + r;
                            visit(row, column, (pixel * self.n + r) * self.inputs);
                        }
                    }
                }
            }
        }
    }

    /// The patches of all positions, `[positions · n, patch]`.
    fn patches(&self, x: &[f32], scratch: &mut Vec<f32>) {
        let [height, width] = self.output();
        let patch = self.patch();
        scratch.resize(height * width * self.n * patch, 0.0);
        let c = self.inputs;
        self.for_each(|row, column, place| {
            scratch[row * patch + column..][..c].copy_from_slice(&x[place..place + c]);
        });
    }
}

/// y = conv(x) + b on a picture.
pub(super) fn conv2d(
    shape: PatchShape,
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    scratch: &mut Vec<f32>,
) {
    shape.patches(x, scratch);
    y.chunks_exact_mut(shape.outputs).for_each(|row| row.copy_from_slice(bias));
    let rows = y.len() / shape.outputs;
    let weight = Matrix::new(weight, shape.outputs, shape.patch());
    multiply_rows(y, Into::Add, Matrix::new(scratch, rows, shape.patch()), weight.t());
}

/// Backward of [`conv2d`].
pub(super) fn conv2d_backward(
    shape: PatchShape,
    d: &[f32],
    x: &[f32],
    weight: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    dx: Option<(&mut [f32], bool)>,
    scratch: &mut Vec<f32>,
) {
    column_sum(d, d_bias);
    let rows = d.len() / shape.outputs;
    let d = Matrix::new(d, rows, shape.outputs);
    shape.patches(x, scratch);
    multiply(d_weight, Into::Add, d.t(), Matrix::new(scratch, rows, shape.patch()));
    let Some((dx, adds)) = dx else { return };
    if !adds {
        dx.fill(0.0);
    }
    let (c, patch) = (shape.inputs, shape.patch());
    multiply(scratch, Into::Overwrite, d, Matrix::new(weight, shape.outputs, patch));
    shape.for_each(|row, column, place| {
        crate::elementwise::add(&mut dx[place..place + c], &scratch[row * patch + column..][..c]);
    });
}
