//! Fused element-wise passes: bias, activation and its derivative, products with column sums, AdamW.
//!
//! Each pass is written once and compiled twice, for AVX2 with FMA and for the target's baseline; the processor is
//! asked at run time. One machine always takes the same path, so results repeat bit for bit.

use tenon_core::network::Activation;

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

/// Mish and its derivative with one exponential and one division.
///
/// mish(x) = x tanh(softplus x) = x n/(n+2) with n = e(e+2), e = eˣ;
/// mish'(x) = n/(n+2) + 4 x e(e+1)/(n+2)².
#[inline(always)]
fn mish<const FMA: bool>(x: f32) -> (f32, f32) {
    // From 20 on the quotient is 1 in f32, and e² stays finite.
    let e = exp::<FMA>(if x > 20.0 { 20.0 } else { x });
    let n = e * (e + 2.0);
    let inverse = 1.0 / (n + 2.0);
    let t = n * inverse;
    (x * t, madd::<FMA>(4.0 * x, (e * (e + 1.0) * inverse) * inverse, t))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // Not `max`: a NaN has to survive.
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn bias_mish_body<const FMA: bool>(h: &mut [f32], bias: &[f32], a: &mut [f32]) {
    for (h, a) in h.chunks_exact_mut(bias.len()).zip(a.chunks_exact_mut(bias.len())) {
        for ((h, a), b) in h.iter_mut().zip(a).zip(bias) {
            (*a, *h) = mish::<FMA>(*h + b);
        }
    }
}

#[inline(always)]
fn bias_relu_body<const FMA: bool>(h: &mut [f32], bias: &[f32], a: &mut [f32]) {
    for (h, a) in h.chunks_exact_mut(bias.len()).zip(a.chunks_exact_mut(bias.len())) {
        for ((h, a), b) in h.iter().zip(a).zip(bias) {
            *a = relu(*h + b);
        }
    }
}

vectorised! { pub fn bias_mish(h: &mut [f32], bias: &[f32], a: &mut [f32]) = bias_mish_body }
vectorised! { pub fn bias_relu(h: &mut [f32], bias: &[f32], a: &mut [f32]) = bias_relu_body }

/// `a = f(h + bias)`; leaves f'(h + bias) in `h` for Mish, where the backward pass cannot tell it from `a`.
///
/// `h`, `a`: `[rows, bias.len()]`.
pub fn bias_activate(activation: Activation, h: &mut [f32], bias: &[f32], a: &mut [f32]) {
    debug_assert_eq!(h.len(), a.len());
    match activation {
        Activation::Mish => bias_mish(h, bias, a),
        Activation::ReLU => bias_relu(h, bias, a),
    }
}

#[inline(always)]
fn inplace_mish_body<const FMA: bool>(h: &mut [f32], bias: &[f32]) {
    for h in h.chunks_exact_mut(bias.len()) {
        for (h, b) in h.iter_mut().zip(bias) {
            *h = mish::<FMA>(*h + b).0;
        }
    }
}

#[inline(always)]
fn inplace_relu_body<const FMA: bool>(h: &mut [f32], bias: &[f32]) {
    for h in h.chunks_exact_mut(bias.len()) {
        for (h, b) in h.iter_mut().zip(bias) {
            *h = relu(*h + b);
        }
    }
}

vectorised! { pub fn inplace_mish(h: &mut [f32], bias: &[f32]) = inplace_mish_body }
vectorised! { pub fn inplace_relu(h: &mut [f32], bias: &[f32]) = inplace_relu_body }

/// `h = f(h + bias)` where no backward pass follows.
pub fn bias_activate_in_place(activation: Activation, h: &mut [f32], bias: &[f32]) {
    match activation {
        Activation::Mish => inplace_mish(h, bias),
        Activation::ReLU => inplace_relu(h, bias),
    }
}

#[inline(always)]
fn fork_mish_body<const FMA: bool>(x: &mut [f32], bias: &[f32], a: &mut [f32], d: &mut [f32]) {
    let width = bias.len();
    for ((x, a), d) in x.chunks_exact_mut(width).zip(a.chunks_exact_mut(width)).zip(d.chunks_exact_mut(width)) {
        for (((x, a), d), b) in x.iter_mut().zip(a).zip(d).zip(bias) {
            (*a, *d) = mish::<FMA>(*x);
            *x += b;
        }
    }
}

#[inline(always)]
fn fork_relu_body<const FMA: bool>(x: &mut [f32], bias: &[f32], a: &mut [f32], _d: &mut [f32]) {
    let width = bias.len();
    for (x, a) in x.chunks_exact_mut(width).zip(a.chunks_exact_mut(width)) {
        for ((x, a), b) in x.iter_mut().zip(a).zip(bias) {
            *a = relu(*x);
            *x += b;
        }
    }
}

#[inline(always)]
fn fork_mish_forward_body<const FMA: bool>(x: &mut [f32], bias: &[f32], a: &mut [f32], _d: &mut [f32]) {
    let width = bias.len();
    for (x, a) in x.chunks_exact_mut(width).zip(a.chunks_exact_mut(width)) {
        for ((x, a), b) in x.iter_mut().zip(a).zip(bias) {
            *a = mish::<FMA>(*x).0;
            *x += b;
        }
    }
}

vectorised! { pub fn fork_mish(x: &mut [f32], bias: &[f32], a: &mut [f32], d: &mut [f32]) = fork_mish_body }
vectorised! { pub fn fork_relu(x: &mut [f32], bias: &[f32], a: &mut [f32], d: &mut [f32]) = fork_relu_body }
vectorised! { pub fn fork_mish_forward(x: &mut [f32], bias: &[f32], a: &mut [f32], d: &mut [f32]) = fork_mish_forward_body }

/// Enters a residual block: `a = f(x)`, `d = f'(x)` (Mish, and only where `d` is not empty), then `x += bias`, the
/// bias of the block's second layer, whose product is added to `x` later.
pub fn fork(activation: Activation, x: &mut [f32], bias: &[f32], a: &mut [f32], d: &mut [f32]) {
    match activation {
        Activation::Mish if d.is_empty() => fork_mish_forward(x, bias, a, d),
        Activation::Mish => fork_mish(x, bias, a, d),
        Activation::ReLU => fork_relu(x, bias, a, d),
    }
}

#[inline(always)]
fn gate_product_body<const FMA: bool>(d: &mut [f32], derivative: &[f32], column_sum: &mut [f32]) {
    let width = column_sum.len();
    for (d, f) in d.chunks_exact_mut(width).zip(derivative.chunks_exact(width)) {
        for ((d, f), s) in d.iter_mut().zip(f).zip(column_sum.iter_mut()) {
            *d *= f;
            *s += *d;
        }
    }
}

#[inline(always)]
fn gate_sign_body<const FMA: bool>(d: &mut [f32], a: &[f32], column_sum: &mut [f32]) {
    let width = column_sum.len();
    for (d, a) in d.chunks_exact_mut(width).zip(a.chunks_exact(width)) {
        for ((d, a), s) in d.iter_mut().zip(a).zip(column_sum.iter_mut()) {
            *d = if *a > 0.0 { *d } else { 0.0 };
            *s += *d;
        }
    }
}

vectorised! { pub fn gate_product(d: &mut [f32], derivative: &[f32], column_sum: &mut [f32]) = gate_product_body }
vectorised! { pub fn gate_sign(d: &mut [f32], a: &[f32], column_sum: &mut [f32]) = gate_sign_body }

/// Backward through an activation: `d *= f'`, and adds the columns of the result to `column_sum`, the bias gradient.
///
/// `a`: the activation's output; `derivative`: what [`bias_activate`] left behind.
pub fn activation_backward(
    activation: Activation,
    d: &mut [f32],
    a: &[f32],
    derivative: &[f32],
    column_sum: &mut [f32],
) {
    match activation {
        Activation::Mish => gate_product(d, derivative, column_sum),
        Activation::ReLU => gate_sign(d, a, column_sum),
    }
}

#[inline(always)]
fn join_mish_body<const FMA: bool>(d: &mut [f32], branch: &[f32], _a: &[f32], derivative: &[f32]) {
    for ((d, g), f) in d.iter_mut().zip(branch).zip(derivative) {
        *d = madd::<FMA>(*g, *f, *d);
    }
}

#[inline(always)]
fn join_relu_body<const FMA: bool>(d: &mut [f32], branch: &[f32], a: &[f32], _derivative: &[f32]) {
    for ((d, g), a) in d.iter_mut().zip(branch).zip(a) {
        *d += if *a > 0.0 { *g } else { 0.0 };
    }
}

vectorised! { pub fn join_mish(d: &mut [f32], branch: &[f32], a: &[f32], derivative: &[f32]) = join_mish_body }
vectorised! { pub fn join_relu(d: &mut [f32], branch: &[f32], a: &[f32], derivative: &[f32]) = join_relu_body }

/// Backward out of a residual block's branch: `d += branch · f'`.
pub fn join(activation: Activation, d: &mut [f32], branch: &[f32], a: &[f32], derivative: &[f32]) {
    match activation {
        Activation::Mish => join_mish(d, branch, a, derivative),
        Activation::ReLU => join_relu(d, branch, a, derivative),
    }
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

    fn mish_f64(x: f64) -> f64 {
        x * x.exp().ln_1p().tanh()
    }

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

    #[test]
    fn mish_and_its_derivative_match_f64() {
        let xs: Vec<f32> = (-3000..3000).map(|i| i as f32 / 100.0).collect();
        let (mut h, mut a, bias) = (xs.clone(), vec![0.0; xs.len()], vec![0.0; 10]);
        bias_activate(Activation::Mish, &mut h, &bias, &mut a);
        for ((&x, &a), &d) in xs.iter().zip(&a).zip(&h) {
            let x = f64::from(x);
            assert!((f64::from(a) - mish_f64(x)).abs() < 3e-7 * x.abs().max(1.0), "mish({x}) = {a}");
            let slope = (mish_f64(x + 1e-5) - mish_f64(x - 1e-5)) / 2e-5;
            assert!((f64::from(d) - slope).abs() < 2e-6, "mish'({x}) = {d}, not {slope}");
        }
    }

    #[test]
    fn not_a_number_survives_both_activations() {
        for activation in [Activation::Mish, Activation::ReLU] {
            let (mut h, mut a) = ([f32::NAN; 4], [0.0; 4]);
            bias_activate(activation, &mut h, &[0.0; 4], &mut a);
            assert!(a.iter().all(|a| a.is_nan()), "{activation:?}");
        }
    }
}
