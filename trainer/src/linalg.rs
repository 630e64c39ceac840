//! Matrix views over slices and one product, `dst (+)= lhs · rhs`, on the `gemm` crate.
//!
//! Everything is f32 and row-major unless transposed. Threads are ours ([`crate::workers`]), so `gemm` runs on the
//! calling thread.

use std::cell::RefCell;

use gemm::Parallelism;

/// A matrix in a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `[rows, cols]`, row-major and dense.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]` whose rows are `row_stride` apart: some columns of a wider matrix.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(span(rows, cols, row_stride) <= data.len(), "matrix {rows}×{cols} in {} values", data.len());
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, as a view.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

fn span(rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols }
}

/// What happens to the former content of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    Overwrite,
    Add,
}

/// A matrix to write to, in a slice.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// `[rows, cols]` whose rows are `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(cols <= row_stride || rows <= 1, "rows of {cols} values, {row_stride} apart, overlap");
        assert!(span(rows, cols, row_stride) <= data.len(), "matrix {rows}×{cols} in {} values", data.len());
        Self { data, rows, cols, row_stride }
    }
}

/// `dst (+)= lhs · rhs` for a dense row-major `dst` of `[lhs.rows, rhs.cols]`.
pub fn multiply(dst: &mut [f32], into: Into, lhs: Matrix, rhs: Matrix) {
    let cols = rhs.cols;
    multiply_to(MatrixMut::strided(dst, lhs.rows, cols, cols), into, lhs, rhs, 1.0);
}

/// Values of a product up to which `gemm` sums in another order than beyond, and rows below which it does.
const SMALL_PRODUCT: usize = 256;
const FEW_ROWS: usize = 3;

thread_local! {
    /// A small product's left side and result, with rows of zeros.
    static PADDED: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// `dst (+)= lhs · rhs` where each row stands for itself: a row's bits do not depend on how many others there are.
///
/// `gemm` has other kernels for few values and few rows, which sum in another order; such products are made larger here
/// with rows of zeros. Inference may so be cut anywhere, and one environment sees what three see.
pub fn multiply_rows(dst: &mut [f32], into: Into, lhs: Matrix, rhs: Matrix) {
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    // With one or two columns there is one kernel for any number of rows.
    let wanted = if n <= 2 { m } else { FEW_ROWS.max(SMALL_PRODUCT / n + 1) };
    if m >= wanted || m == 0 {
        return multiply(dst, into, lhs, rhs);
    }
    assert_eq!(lhs.col_stride, 1, "rows that stand for themselves lie in one piece");
    PADDED.with_borrow_mut(|(left, product)| {
        left.clear();
        (0..m).for_each(|row| left.extend_from_slice(&lhs.data[row * lhs.row_stride..][..k]));
        left.resize(wanted * k, 0.0);
        product.clear();
        product.resize(wanted * n, 0.0);
        if into == Into::Add {
            product[..m * n].copy_from_slice(&dst[..m * n]);
        }
        multiply(product, into, Matrix::new(left, wanted, k), rhs);
        dst[..m * n].copy_from_slice(&product[..m * n]);
    });
}

/// `dst (+)= factor · lhs · rhs`.
pub fn multiply_to(dst: MatrixMut, into: Into, lhs: Matrix, rhs: Matrix, factor: f32) {
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    assert_eq!(k, rhs.rows, "product of {m}×{k} and {}×{n}", rhs.rows);
    assert_eq!((dst.rows, dst.cols), (m, n), "product of {m}×{k} and {}×{n}", rhs.rows);
    // SAFETY: all views were checked against their slices when made; `dst`, being `&mut`, overlaps neither of the
    // others and its rows do not overlap one another; strides are those of the views.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            into == Into::Add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lets inference cut a batch as it likes: the same bits for a row whatever rows stand around it.
    #[test]
    fn a_row_of_a_product_does_not_depend_on_its_neighbours() {
        let values = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 2_654_435_761 + seed * 97) % 10_007) as f32 / 5003.5 - 1.0).collect()
        };
        for k in [1, 2, 3, 4, 11, 16, 28, 63, 512, 1024] {
            for n in [1, 2, 3, 5, 8, 10, 12, 28, 64, 512] {
                let (a, b) = (values(120 * k, 1), values(n * k, 2));
                // Weights are stored [out, in], so the right side is a transpose.
                let product = |rows: std::ops::Range<usize>| {
                    let mut dst = values(120 * n, 3)[rows.start * n..rows.end * n].to_vec();
                    let lhs = Matrix::new(&a[rows.start * k..rows.end * k], rows.len(), k);
                    multiply_rows(&mut dst, Into::Add, lhs, Matrix::new(&b, n, k).t());
                    dst
                };
                let whole = product(0..120);
                for cut in [1, 2, 3, 7, 24, 25, 29, 48, 60, 61, 96, 119] {
                    let parts = [product(0..cut), product(cut..120)].concat();
                    assert!(parts == whole, "{k} × {n}, cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn product_of_views_equals_the_sum_by_hand() {
        let a: Vec<f32> = (0..12).map(|i| i as f32).collect(); // 3×4
        let b: Vec<f32> = (0..10).map(|i| 1.0 - i as f32).collect(); // 2 rows, 5 apart
        let mut dst = vec![1.0; 6];
        multiply(&mut dst, Into::Add, Matrix::new(&a, 3, 4), Matrix::strided(&b, 2, 4, 5).t());
        for i in 0..3 {
            for j in 0..2 {
                let sum: f32 = (0..4).map(|k| a[4 * i + k] * b[5 * j + k]).sum();
                assert_eq!(dst[2 * i + j], 1.0 + sum);
            }
        }
    }
}
