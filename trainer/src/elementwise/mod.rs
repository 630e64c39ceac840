//! Fused element-wise passes: activations with bias and derivative, products with column sums, AdamW.
//!
//! Each pass is written once and compiled twice, for AVX2 with FMA and for the target's baseline; the processor is
//! asked at run time. One machine always takes the same path, so results repeat bit for bit.

/// Compiles `$body::<FMA>` for AVX2 + FMA and for the baseline and picks one at run time.
macro_rules! vectorised {
    ($(#[$doc:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn fast($($arg: $ty),*) {
                    $body::<true>($($arg),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has both features.
                    return unsafe { fast($($arg),*) };
                }
            }
            $body::<false>($($arg),*)
        }
    };
}

mod activation;

pub use activation::{activate, activation_backward, bias_activate, bias_activate_in_place};

/// a · b + c, in one rounding where the processor does that in one instruction.
#[inline(always)]
fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ for x ≤ 88, relative error about 1e-7; below −87 it stays at e⁻⁸⁷. NaN stays NaN.
///
/// x = n ln 2 + r with |r| ≤ ½ ln 2, a degree-6 polynomial for eʳ (coefficients of Cephes' `expf`), and 2ⁿ put
/// together from its bits.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to an integer, which then sits in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = madd::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -LN2_LO, madd::<FMA>(n, -LN2_HI, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = madd::<FMA>(p, r, c);
    }
    let e = madd::<FMA>(p, r * r, r) + 1.0;
    // The low nine bits of ROUND's pattern are zero, so the shift leaves n + 127 as the exponent.
    e * f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23)
}

#[inline(always)]
fn column_sum_body<const FMA: bool>(x: &[f32], sum: &mut [f32]) {
    for row in x.chunks_exact(sum.len()) {
        for (s, x) in sum.iter_mut().zip(row) {
            *s += x;
        }
    }
}

#[inline(always)]
fn add_body<const FMA: bool>(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

vectorised! {
    /// Adds the columns of `x: [rows, sum.len()]` to `sum`.
    pub fn column_sum(x: &[f32], sum: &mut [f32]) = column_sum_body
}
vectorised! {
    /// `x += y`.
    pub fn add(x: &mut [f32], y: &[f32]) = add_body
}

/// Constants of one AdamW step.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// 1 − learning rate · weight decay.
    pub keep: f32,
    /// Learning rate / (1 − β₁ᵗ).
    pub step_size: f32,
    /// 1 / √(1 − β₂ᵗ).
    pub second_scale: f32,
    /// Factor on the gradient (gradient-norm clipping); 1 leaves it.
    pub gradient_scale: f32,
}

#[inline(always)]
fn adamw_body<const FMA: bool>(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamStep) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = *g * s.gradient_scale;
        *m += (g - *m) * (1.0 - s.beta1);
        *v = *v * s.beta2 + (g * g) * (1.0 - s.beta2);
        *p = *p * s.keep - s.step_size * (*m / (v.sqrt() * s.second_scale + s.epsilon));
    }
}

vectorised! {
    /// One AdamW step in one pass (Loshchilov & Hutter 2019, algorithm 2; operations as in `torch.optim.AdamW`).
    pub fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamStep) = adamw_body
}

#[inline(always)]
fn moving_average_body<const FMA: bool>(average: &mut [f32], x: &[f32], decay: f32) {
    for (a, x) in average.iter_mut().zip(x) {
        *a = *a * decay + (1.0 - decay) * x;
    }
}

vectorised! {
    /// `average = decay · average + (1 − decay) · x`.
    pub fn moving_average(average: &mut [f32], x: &[f32], decay: f32) = moving_average_body
}

/// Σ x², in f64, in a fixed order.
pub fn square_sum(x: &[f32]) -> f64 {
    // Eight running sums, so that the additions do not wait for one another.
    let mut lanes = [0.0f64; 8];
    let chunks = x.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(v) * f64::from(v);
        }
    }
    lanes.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate_to_two_parts_in_ten_million() {
        for i in -8_700..8_800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            for ours in [exp::<false>(x), exp::<true>(x)] {
                assert!(((f64::from(ours) - exact) / exact).abs() < 2e-7, "exp({x}) = {ours}, not {exact}");
            }
        }
        assert!(exp::<false>(f32::NAN).is_nan());
    }
}
