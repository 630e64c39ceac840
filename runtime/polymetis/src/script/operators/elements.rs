//! Operators that work element by element, in place or over all elements.

use super::super::heap::{Fault, Heap, Kind, Outcome, Value};

pub(super) fn wanted(what: &str, found: Value) -> Fault {
    format!("{what} is wanted, found {}", found.kind())
}

pub(super) fn same(kind: Kind) -> Kind {
    kind
}

/// NaN wins, as in PyTorch.
pub(super) fn least(x: f64, y: f64) -> f64 {
    if x.is_nan() || x < y { x } else { y }
}

pub(super) fn greatest(x: f64, y: f64) -> f64 {
    if x.is_nan() || x > y { x } else { y }
}

pub(super) fn is_number(value: Value) -> bool {
    value.number().is_some()
}

pub(super) fn pairs(
    h: &mut Heap,
    a: &[Value],
    kind: impl Fn(Kind) -> Kind,
    function: impl Fn(f64, f64) -> f64,
) -> Outcome<Value> {
    h.zip(a[0], a[1], kind, function).map(Value::Tensor)
}

/// Tensors element by element, ints exactly, floats.
pub(super) fn arithmetic(
    h: &mut Heap,
    a: &[Value],
    ints: impl Fn(i64, i64) -> Option<i64>,
    reals: impl Fn(f64, f64) -> f64,
) -> Outcome<Value> {
    match (a[0], a[1]) {
        (Value::Int(x), Value::Int(y)) => {
            ints(x, y).map(Value::Int).ok_or_else(|| "an int leaves its range".to_owned())
        }
        (x, y) => match (x.number(), y.number()) {
            (Some((x, _)), Some((y, _))) => Ok(Value::Float(reals(x, y))),
            _ => pairs(h, a, same, reals),
        },
    }
}

/// `input ± alpha · other`
pub(super) fn scaled(
    h: &mut Heap,
    a: &[Value],
    ints: impl Fn(i64, i64) -> Option<i64>,
    reals: impl Fn(f64, f64) -> f64,
) -> Outcome<Value> {
    match a.get(2) {
        None | Some(Value::Absent | Value::Int(1)) => arithmetic(h, a, ints, reals),
        Some(alpha) => {
            let other = arithmetic(h, &[a[1], *alpha], i64::checked_mul, |x, y| x * y)?;
            arithmetic(h, &[a[0], other], ints, reals)
        }
    }
}

pub(super) fn divide(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    match (a[0].number(), a[1].number()) {
        (Some(_), Some((0.0, _))) => Err("division by zero".to_owned()),
        (Some((x, _)), Some((y, _))) => Ok(Value::Float(x / y)),
        _ => pairs(h, a, |kind| if kind.is_float() { kind } else { Kind::F32 }, |x, y| x / y),
    }
}

/// Quotient and remainder rounded down.
pub(super) fn checked_floor(x: i64, y: i64) -> Option<(i64, i64)> {
    let remainder = x.checked_rem(y)?;
    let below = i64::from(remainder != 0 && (remainder < 0) != (y < 0));
    Some((x.checked_div(y)? - below, remainder + below * y))
}

pub(super) fn compare(h: &mut Heap, a: &[Value], function: impl Fn(f64, f64) -> bool) -> Outcome<Value> {
    match (a[0].number(), a[1].number()) {
        (Some((x, _)), Some((y, _))) => Ok(Value::Bool(function(x, y))),
        _ => pairs(h, a, |_| Kind::Bool, |x, y| f64::from(u8::from(function(x, y)))),
    }
}

pub(super) fn equal(h: &mut Heap, a: &[Value], not: bool) -> Outcome<Value> {
    if let (Value::Text(x), Value::Text(y)) = (a[0], a[1]) {
        return Ok(Value::Bool((x == y) != not));
    }
    let items = |value| match value {
        Value::List(id) | Value::Tuple(id) => Some(id),
        _ => None,
    };
    if let (Some(x), Some(y)) = (items(a[0]), items(a[1])) {
        return Ok(Value::Bool((h.items(x) == h.items(y)) != not));
    }
    compare(h, a, |x, y| (x == y) != not)
}

pub(super) fn extreme(h: &mut Heap, a: &[Value], function: impl Fn(f64, f64) -> f64 + Copy) -> Outcome<Value> {
    match (a[0], a[1]) {
        (Value::Tensor(t), Value::Absent) => {
            if t.len() == 0 {
                return Err("the extreme of no elements".to_owned());
            }
            let x = h.elements(&t).reduce(function).unwrap_or(f64::NAN);
            let kind = h.element_kind(&t);
            h.scalar(kind, x).map(Value::Tensor)
        }
        (Value::List(id), Value::Absent) => {
            let mut items = h.items(id).iter().copied();
            let first = items.next().ok_or_else(|| "the extreme of no items".to_owned())?;
            items.try_fold(first, |have, next| pick(have, next, function))
        }
        (x, y) if is_number(x) && is_number(y) => pick(x, y, function),
        _ => pairs(h, a, same, function),
    }
}

/// One of two plain numbers; ints stay ints.
pub(super) fn pick(x: Value, y: Value, function: impl Fn(f64, f64) -> f64) -> Outcome<Value> {
    let ((a, _), (b, _)) =
        (x.number().ok_or_else(|| wanted("a number", x))?, y.number().ok_or_else(|| wanted("a number", y))?);
    let chosen = if function(a, b).to_bits() == a.to_bits() { x } else { y };
    Ok(match (x, y) {
        (Value::Int(_), Value::Int(_)) => chosen,
        _ => Value::Float(function(a, b)),
    })
}

pub(super) fn each(
    h: &mut Heap,
    a: &[Value],
    ints: impl Fn(i64) -> Option<i64>,
    reals: impl Fn(f64) -> f64,
) -> Outcome<Value> {
    match a[0] {
        Value::Int(x) => ints(x).map(Value::Int).ok_or_else(|| "an int leaves its range".to_owned()),
        Value::Float(x) => Ok(Value::Float(reals(x))),
        other => {
            let t = other.tensor()?;
            let kind = h.element_kind(&t);
            h.map(&t, kind, reals).map(Value::Tensor)
        }
    }
}

/// A function whose result is a float whatever its argument.
pub(super) fn real(h: &mut Heap, a: &[Value], function: impl Fn(f64) -> f64) -> Outcome<Value> {
    match a[0].number() {
        Some((x, _)) => Ok(Value::Float(function(x))),
        None => {
            let t = a[0].tensor()?;
            let kind = h.element_kind(&t);
            h.map(&t, if kind.is_float() { kind } else { Kind::F32 }, function).map(Value::Tensor)
        }
    }
}

pub(super) fn test(h: &mut Heap, a: &[Value], function: impl Fn(f64) -> bool) -> Outcome<Value> {
    match a[0].number() {
        Some((x, _)) => Ok(Value::Bool(function(x))),
        None => {
            let t = a[0].tensor()?;
            h.map(&t, Kind::Bool, |x| f64::from(u8::from(function(x)))).map(Value::Tensor)
        }
    }
}

pub(super) fn clamp(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let mut value = a[0];
    for (bound, function) in [(a[1], greatest as fn(f64, f64) -> f64), (a[2], least)] {
        if !matches!(bound, Value::None | Value::Absent) {
            value = h.zip(value, bound, same, function).map(Value::Tensor)?;
        }
    }
    value.tensor().map(Value::Tensor)
}

pub(super) fn in_place(h: &mut Heap, target: Value, value: Value) -> Outcome<Value> {
    h.assign(&target.tensor()?, value)?;
    Ok(target)
}

pub(super) fn updated(
    h: &mut Heap,
    a: &[Value],
    compute: impl Fn(&mut Heap, &[Value]) -> Outcome<Value>,
) -> Outcome<Value> {
    let target = a[0].tensor()?;
    let value = compute(h, a)?;
    let (from, to) = (h.element_kind(&value.tensor()?), h.element_kind(&target));
    if from.is_float() && !to.is_float() {
        return Err(format!("result type {from:?} can't be cast to the desired output type {to:?}"));
    }
    in_place(h, a[0], value)
}

pub(super) fn fold(
    h: &mut Heap,
    a: &[Value],
    kind: impl Fn(Kind) -> Kind,
    start: f64,
    function: impl Fn(f64, f64) -> f64,
) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let x = h.elements(&t).fold(start, function);
    let kind = kind(h.element_kind(&t));
    h.scalar(kind, x).map(Value::Tensor)
}

pub(super) fn norm(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let kind = h.element_kind(&t);
    if !kind.is_float() {
        return Err("the norm of a tensor that is not of floats".to_owned());
    }
    let x = h.elements(&t).map(|x| x * x).sum::<f64>().sqrt();
    h.scalar(kind, x).map(Value::Tensor)
}
