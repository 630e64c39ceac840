//! Activations, alone and together with a bias, and their way back.

use tenon_core::network::Activation;

use super::{exp, madd};

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

/// `a = f(h + bias)`; leaves f'(h + bias) in `h`, but for ReLU, where the backward pass tells it from `a`.
///
/// `h`, `a`: `[rows, bias.len()]`.
pub fn bias_activate(activation: Activation, h: &mut [f32], bias: &[f32], a: &mut [f32]) {
    debug_assert_eq!(h.len(), a.len());
    match activation {
        Activation::Mish => bias_mish(h, bias, a),
        Activation::ReLU => bias_relu(h, bias, a),
        Activation::Tanh | Activation::Gelu | Activation::Elu => {
            let f = rare(activation);
            for (h, a) in h.chunks_exact_mut(bias.len()).zip(a.chunks_exact_mut(bias.len())) {
                for ((h, a), b) in h.iter_mut().zip(a).zip(bias) {
                    (*a, *h) = f(*h + b);
                }
            }
        }
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
        Activation::Tanh | Activation::Gelu | Activation::Elu => {
            let f = rare(activation);
            for h in h.chunks_exact_mut(bias.len()) {
                h.iter_mut().zip(bias).for_each(|(h, b)| *h = f(*h + b).0);
            }
        }
    }
}

/// Activations of small networks: not worth a fused pass of their own. Value and derivative.
fn rare(activation: Activation) -> fn(f32) -> (f32, f32) {
    match activation {
        Activation::Tanh => |x| {
            let t = x.tanh();
            (t, 1.0 - t * t)
        },
        Activation::Gelu => |x| {
            // Φ(x) = (1 + erf(x/√2))/2, φ(x) its density.
            let cdf = 0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2));
            let density =
                (-0.5 * x * x).exp() * (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
            (x * cdf, cdf + x * density)
        },
        Activation::Elu => |x| if x > 0.0 { (x, 1.0) } else { (x.exp_m1(), x.exp()) },
        Activation::ReLU | Activation::Mish => unreachable!("these have passes of their own"),
    }
}

#[inline(always)]
fn value_mish_body<const FMA: bool>(x: &[f32], a: &mut [f32], d: &mut [f32]) {
    for ((x, a), d) in x.iter().zip(a).zip(d) {
        (*a, *d) = mish::<FMA>(*x);
    }
}

vectorised! { pub fn value_mish(x: &[f32], a: &mut [f32], d: &mut [f32]) = value_mish_body }

/// `a = f(x)`, `d = f'(x)` where `x` is still wanted; ReLU leaves `d` alone.
pub fn activate(activation: Activation, x: &[f32], a: &mut [f32], d: &mut [f32]) {
    match activation {
        Activation::Mish => value_mish(x, a, d),
        Activation::ReLU => a.iter_mut().zip(x).for_each(|(a, x)| *a = relu(*x)),
        Activation::Tanh | Activation::Gelu | Activation::Elu => {
            let f = rare(activation);
            for ((x, a), d) in x.iter().zip(a).zip(d) {
                (*a, *d) = f(*x);
            }
        }
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
        Activation::ReLU => gate_sign(d, a, column_sum),
        Activation::Mish | Activation::Tanh | Activation::Gelu | Activation::Elu => {
            gate_product(d, derivative, column_sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mish_f64(x: f64) -> f64 {
        x * x.exp().ln_1p().tanh()
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
        for activation in [Activation::Mish, Activation::ReLU, Activation::Tanh, Activation::Gelu, Activation::Elu] {
            let (mut h, mut a) = ([f32::NAN; 4], [0.0; 4]);
            bias_activate(activation, &mut h, &[0.0; 4], &mut a);
            assert!(a.iter().all(|a| a.is_nan()), "{activation:?}");
        }
    }
}
