//! The operators that a script may call. What is not in [`OPERATORS`] is refused before anything runs.

use super::MAX_NESTING;
use super::heap::{Fault, Heap, Kind, Outcome, RANK, Tensor, Value, shape_text};

/// Most parameters of an operator.
pub const MAX_PARAMETERS: usize = 8;

/// One operator: its name in the text, its parameters in order, how many must be given, and what it does. Parameters
/// not given arrive as [`Value::Absent`].
pub struct Operator {
    pub name: &'static str,
    pub parameters: &'static [&'static str],
    pub required: usize,
    pub run: fn(&mut Heap, &[Value]) -> Outcome<Value>,
}

/// An operator by its name.
pub fn find(name: &str) -> Option<&'static Operator> {
    OPERATORS.iter().find(|operator| operator.name == name)
}

macro_rules! operators {
    ($($name:literal ($($parameter:ident),*) $required:literal => $run:expr;)*) => {
        &[$(Operator { name: $name, parameters: &[$(stringify!($parameter)),*], required: $required, run: $run }),*]
    };
}

static OPERATORS: &[Operator] = operators! {
    // Element by element
    "torch.add" (input, other, alpha) 2 => |h, a| scaled(h, a, i64::checked_add, |x, y| x + y);
    "torch.sub" (input, other, alpha) 2 => |h, a| scaled(h, a, i64::checked_sub, |x, y| x - y);
    "torch.mul" (input, other) 2 => |h, a| arithmetic(h, a, i64::checked_mul, |x, y| x * y);
    "torch.div" (input, other) 2 => divide;
    "torch.floordiv" (input, other) 2 => |h, a| arithmetic(h, a, |x, y| checked_floor(x, y).map(|(q, _)| q), |x, y| (x / y).floor());
    "torch.remainder" (input, other) 2 => |h, a| arithmetic(h, a, |x, y| checked_floor(x, y).map(|(_, r)| r), |x, y| x - y * (x / y).floor());
    "torch.pow" (input, exponent) 2 => |h, a| arithmetic(h, a, |x, y| u32::try_from(y).ok().and_then(|y| x.checked_pow(y)), f64::powf);
    "torch.minimum" (input, other) 2 => |h, a| pairs(h, a, same, least);
    "torch.maximum" (input, other) 2 => |h, a| pairs(h, a, same, greatest);
    "torch.min" (input, other) 1 => |h, a| extreme(h, a, least);
    "torch.max" (input, other) 1 => |h, a| extreme(h, a, greatest);
    "torch.neg" (input) 1 => |h, a| each(h, a, i64::checked_neg, |x| -x);
    "torch.abs" (input) 1 => |h, a| each(h, a, i64::checked_abs, f64::abs);
    "torch.sign" (input) 1 => |h, a| each(h, a, |x| Some(x.signum()), |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { 0.0 });
    "torch.sqrt" (input) 1 => |h, a| real(h, a, f64::sqrt);
    "torch.exp" (input) 1 => |h, a| real(h, a, f64::exp);
    "torch.sin" (input) 1 => |h, a| real(h, a, f64::sin);
    "torch.cos" (input) 1 => |h, a| real(h, a, f64::cos);
    "torch.tanh" (input) 1 => |h, a| real(h, a, f64::tanh);
    "torch.square" (input) 1 => |h, a| each(h, a, |x| x.checked_mul(x), |x| x * x);
    "torch.clamp" (input, min, max) 1 => clamp;
    "torch.where" (condition, input, other) 3 => |h, a| h.select(a[0], a[1], a[2]).map(Value::Tensor);
    "torch.eq" (input, other) 2 => |h, a| equal(h, a, false);
    "torch.ne" (input, other) 2 => |h, a| equal(h, a, true);
    "torch.lt" (input, other) 2 => |h, a| compare(h, a, |x, y| x < y);
    "torch.le" (input, other) 2 => |h, a| compare(h, a, |x, y| x <= y);
    "torch.gt" (input, other) 2 => |h, a| compare(h, a, |x, y| x > y);
    "torch.ge" (input, other) 2 => |h, a| compare(h, a, |x, y| x >= y);
    "torch.isnan" (input) 1 => |h, a| test(h, a, f64::is_nan);
    "torch.isfinite" (input) 1 => |h, a| test(h, a, f64::is_finite);
    "torch.logical_not" (input) 1 => |h, a| test(h, a, |x| x == 0.0);
    "torch.logical_and" (input, other) 2 => |h, a| compare(h, a, |x, y| x != 0.0 && y != 0.0);
    "torch.logical_or" (input, other) 2 => |h, a| compare(h, a, |x, y| x != 0.0 || y != 0.0);
    "torch.__not__" (input) 1 => |_, a| Ok(Value::Bool(!truth(a[0])?));
    "torch.__and__" (input, other) 2 => |h, a| compare(h, a, |x, y| x != 0.0 && y != 0.0);
    "torch.__or__" (input, other) 2 => |h, a| compare(h, a, |x, y| x != 0.0 || y != 0.0);
    "torch.__is__" (input, other) 2 => |_, a| Ok(Value::Bool(a[0] == a[1]));
    "torch.__isnot__" (input, other) 2 => |_, a| Ok(Value::Bool(a[0] != a[1]));
    // In place
    "torch.copy_" (input, src, non_blocking) 2 => |h, a| in_place(h, a[0], a[1]);
    "torch.fill_" (input, value) 2 => |h, a| in_place(h, a[0], a[1]);
    "torch.zero_" (input) 1 => |h, a| in_place(h, a[0], Value::Int(0));
    "torch.add_" (input, other, alpha) 2 => |h, a| updated(h, a, |h, a| scaled(h, a, i64::checked_add, |x, y| x + y));
    "torch.sub_" (input, other, alpha) 2 => |h, a| updated(h, a, |h, a| scaled(h, a, i64::checked_sub, |x, y| x - y));
    "torch.mul_" (input, other) 2 => |h, a| updated(h, a, |h, a| arithmetic(h, a, i64::checked_mul, |x, y| x * y));
    "torch.div_" (input, other) 2 => |h, a| updated(h, a, divide);
    // Reductions
    "torch.sum" (input) 1 => |h, a| fold(h, a, |k| if k.is_float() { k } else { Kind::I64 }, 0.0, |x, y| x + y);
    "torch.all" (input) 1 => |h, a| fold(h, a, |_| Kind::Bool, 1.0, |x, y| f64::from(u8::from(x != 0.0 && y != 0.0)));
    "torch.any" (input) 1 => |h, a| fold(h, a, |_| Kind::Bool, 0.0, |x, y| f64::from(u8::from(x != 0.0 || y != 0.0)));
    "torch.norm" (input) 1 => norm;
    "torch.dot" (input, tensor) 2 => product;
    // Matrices
    "torch.matmul" (input, other) 2 => product;
    "torch.mm" (input, mat2) 2 => product;
    "torch.mv" (input, vec) 2 => product;
    "torch.diag" (input, diagonal) 1 => diag;
    "torch.t" (input) 1 => |_, a| { let t = a[0].tensor()?; if t.rank() < 2 { Ok(a[0]) } else { swapped(&t, 0, 1) } };
    "torch.transpose" (input, dim0, dim1) 3 => |_, a| { let t = a[0].tensor()?; swapped(&t, t.dimension(a[1].int()?)?, t.dimension(a[2].int()?)?) };
    // Shapes and views
    "torch.size" (input, dim) 1 => size;
    "torch.dim" (input) 1 => |_, a| Ok(Value::Int(a[0].tensor()?.rank() as i64));
    "torch.numel" (input) 1 => |_, a| Ok(Value::Int(a[0].tensor()?.len() as i64));
    "torch.len" (input) 1 => len;
    "torch.select" (input, dim, index) 3 => |_, a| { let t = a[0].tensor()?; selected(&t, t.dimension(a[1].int()?)?, a[2].int()?) };
    "torch.slice" (input, dim, start, end, step) 1 => slice;
    "torch.reshape" (input, shape) 2 => reshape;
    "torch.view" (input, size) 2 => reshape;
    "torch.unsqueeze" (input, dim) 2 => unsqueeze;
    "torch.squeeze" (input, dim) 1 => squeeze;
    "torch.stack" (tensors, dim) 1 => stack;
    "torch.cat" (tensors, dim) 1 => cat;
    // Making and converting
    "torch.zeros" (size, dtype, layout, device, pin_memory) 1 => |h, a| constant(h, a[0], a[1], 0.0);
    "torch.ones" (size, dtype, layout, device, pin_memory) 1 => |h, a| constant(h, a[0], a[1], 1.0);
    "torch.full" (size, fill_value, dtype, layout, device, pin_memory) 2 => full;
    "torch.zeros_like" (input, dtype, layout, device, pin_memory, memory_format) 1 => |h, a| like(h, a, 0.0);
    "torch.ones_like" (input, dtype, layout, device, pin_memory, memory_format) 1 => |h, a| like(h, a, 1.0);
    "torch.eye" (n, dtype, layout, device, pin_memory) 1 => eye;
    "torch.tensor" (data, dtype, device, requires_grad) 1 => tensor;
    "torch.clone" (input, memory_format) 1 => |h, a| { let t = a[0].tensor()?; let k = h.element_kind(&t); h.copy(&t, k).map(Value::Tensor) };
    "torch.contiguous" (input, memory_format) 1 => |h, a| { let t = a[0].tensor()?; if t.is_contiguous() { Ok(a[0]) } else { let k = h.element_kind(&t); h.copy(&t, k).map(Value::Tensor) } };
    "torch.detach" (input) 1 => |_, a| a[0].tensor().map(Value::Tensor);
    "ops.prim.data" (input) 1 => |_, a| a[0].tensor().map(Value::Tensor);
    "ops.prim.dtype" (input) 1 => |h, a| { let t = a[0].tensor()?; Ok(Value::Int(h.element_kind(&t).number())) };
    "ops.prim.device" (input) 1 => |h, a| { a[0].tensor()?; Ok(Value::Text(h.intern("cpu"))) };
    "torch.to" (input, other, third, fourth, dtype, layout, device, non_blocking) 1 => to;
    "torch.item" (input) 1 => |h, a| { let t = a[0].tensor()?; let x = only(h, &t)?; Ok(match h.element_kind(&t) {
        Kind::Bool => Value::Bool(x != 0.0),
        Kind::I32 | Kind::I64 => Value::Int(x as i64),
        Kind::F32 | Kind::F64 => Value::Float(x),
    }) };
    "int" (input) 1 => |h, a| { let x = plain(h, a[0])?; if x.abs() < 9.2e18 { Ok(Value::Int(x as i64)) } else { Err(format!("{x} is no int64")) } };
    "float" (input) 1 => |h, a| match a[0] {
        Value::Text(id) => h.text(id).parse().map(Value::Float).map_err(|_| "could not convert string to float".to_owned()),
        other => plain(h, other).map(Value::Float),
    };
    "bool" (input) 1 => |h, a| plain(h, a[0]).map(|x| Value::Bool(x != 0.0));
    // Lists and dicts
    "torch.append" (input, item) 2 => |h, a| { let Value::List(id) = a[0] else { return Err(wanted("a list", a[0])) }; h.append(id, &[a[1]])?; Ok(a[0]) };
    "torch.keys" (input) 1 => |h, a| entries(h, a[0], |_, key, _| Ok(key));
    "torch.values" (input) 1 => |h, a| entries(h, a[0], |_, _, value| Ok(value));
    "torch.items" (input) 1 => |h, a| entries(h, a[0], |h, key, value| h.tuple(&[key, value]));
    "torch.__contains__" (input, key) 2 => contains;
    "torch.__getitem__" (input, key) 2 => |h, a| index(h, a[0], a[1]);
    "torch._set_item" (input, key, value) 3 => set_item;
    "ops.prim.min" (input, other) 1 => |h, a| extreme(h, a, least);
    "ops.prim.max" (input, other) 1 => |h, a| extreme(h, a, greatest);
    "ops.prim.RaiseException" (msg, cls) 1 => |h, a| match a[0] { Value::Text(id) => Err(h.text(id).to_string()), _ => Err("an exception".to_owned()) };
};

fn wanted(what: &str, found: Value) -> Fault {
    format!("{what} is wanted, found {}", found.kind())
}

fn same(kind: Kind) -> Kind {
    kind
}

/// NaN wins, as in PyTorch.
fn least(x: f64, y: f64) -> f64 {
    if x.is_nan() || x < y { x } else { y }
}

fn greatest(x: f64, y: f64) -> f64 {
    if x.is_nan() || x > y { x } else { y }
}

fn is_number(value: Value) -> bool {
    value.number().is_some()
}

fn pairs(h: &mut Heap, a: &[Value], kind: impl Fn(Kind) -> Kind, function: impl Fn(f64, f64) -> f64) -> Outcome<Value> {
    h.zip(a[0], a[1], kind, function).map(Value::Tensor)
}

/// Tensors element by element, ints exactly, floats.
fn arithmetic(
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
fn scaled(
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

fn divide(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    match (a[0].number(), a[1].number()) {
        (Some(_), Some((0.0, _))) => Err("division by zero".to_owned()),
        (Some((x, _)), Some((y, _))) => Ok(Value::Float(x / y)),
        _ => pairs(h, a, |kind| if kind.is_float() { kind } else { Kind::F32 }, |x, y| x / y),
    }
}

/// Quotient and remainder rounded down.
fn checked_floor(x: i64, y: i64) -> Option<(i64, i64)> {
    let remainder = x.checked_rem(y)?;
    let below = i64::from(remainder != 0 && (remainder < 0) != (y < 0));
    Some((x.checked_div(y)? - below, remainder + below * y))
}

fn compare(h: &mut Heap, a: &[Value], function: impl Fn(f64, f64) -> bool) -> Outcome<Value> {
    match (a[0].number(), a[1].number()) {
        (Some((x, _)), Some((y, _))) => Ok(Value::Bool(function(x, y))),
        _ => pairs(h, a, |_| Kind::Bool, |x, y| f64::from(u8::from(function(x, y)))),
    }
}

fn equal(h: &mut Heap, a: &[Value], not: bool) -> Outcome<Value> {
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

fn extreme(h: &mut Heap, a: &[Value], function: impl Fn(f64, f64) -> f64 + Copy) -> Outcome<Value> {
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
fn pick(x: Value, y: Value, function: impl Fn(f64, f64) -> f64) -> Outcome<Value> {
    let ((a, _), (b, _)) =
        (x.number().ok_or_else(|| wanted("a number", x))?, y.number().ok_or_else(|| wanted("a number", y))?);
    let chosen = if function(a, b).to_bits() == a.to_bits() { x } else { y };
    Ok(match (x, y) {
        (Value::Int(_), Value::Int(_)) => chosen,
        _ => Value::Float(function(a, b)),
    })
}

fn each(h: &mut Heap, a: &[Value], ints: impl Fn(i64) -> Option<i64>, reals: impl Fn(f64) -> f64) -> Outcome<Value> {
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
fn real(h: &mut Heap, a: &[Value], function: impl Fn(f64) -> f64) -> Outcome<Value> {
    match a[0].number() {
        Some((x, _)) => Ok(Value::Float(function(x))),
        None => {
            let t = a[0].tensor()?;
            let kind = h.element_kind(&t);
            h.map(&t, if kind.is_float() { kind } else { Kind::F32 }, function).map(Value::Tensor)
        }
    }
}

fn test(h: &mut Heap, a: &[Value], function: impl Fn(f64) -> bool) -> Outcome<Value> {
    match a[0].number() {
        Some((x, _)) => Ok(Value::Bool(function(x))),
        None => {
            let t = a[0].tensor()?;
            h.map(&t, Kind::Bool, |x| f64::from(u8::from(function(x)))).map(Value::Tensor)
        }
    }
}

fn clamp(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let mut value = a[0];
    for (bound, function) in [(a[1], greatest as fn(f64, f64) -> f64), (a[2], least)] {
        if !matches!(bound, Value::None | Value::Absent) {
            value = h.zip(value, bound, same, function).map(Value::Tensor)?;
        }
    }
    value.tensor().map(Value::Tensor)
}

fn in_place(h: &mut Heap, target: Value, value: Value) -> Outcome<Value> {
    h.assign(&target.tensor()?, value)?;
    Ok(target)
}

fn updated(h: &mut Heap, a: &[Value], compute: impl Fn(&mut Heap, &[Value]) -> Outcome<Value>) -> Outcome<Value> {
    let target = a[0].tensor()?;
    let value = compute(h, a)?;
    let (from, to) = (h.element_kind(&value.tensor()?), h.element_kind(&target));
    if from.is_float() && !to.is_float() {
        return Err(format!("result type {from:?} can't be cast to the desired output type {to:?}"));
    }
    in_place(h, a[0], value)
}

fn fold(
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

fn norm(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let kind = h.element_kind(&t);
    if !kind.is_float() {
        return Err("the norm of a tensor that is not of floats".to_owned());
    }
    let x = h.elements(&t).map(|x| x * x).sum::<f64>().sqrt();
    h.scalar(kind, x).map(Value::Tensor)
}

fn product(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    h.matmul(&a[0].tensor()?, &a[1].tensor()?).map(Value::Tensor)
}

fn diag(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    if !matches!(a[1], Value::Absent | Value::Int(0)) {
        return Err("diag with an offset is not computed".to_owned());
    }
    let kind = h.element_kind(&t);
    let out = match t.rank() {
        1 => {
            let n = t.sizes[0];
            let out = h.zeros(kind, &[n, n])?;
            for i in 0..n as usize {
                let x = h.get(&t, i);
                h.set(&out, i * (n as usize + 1), x);
            }
            out
        }
        2 => {
            let (n, columns) = (t.sizes[0].min(t.sizes[1]), t.sizes[1] as usize);
            let out = h.zeros(kind, &[n])?;
            for i in 0..n as usize {
                let x = h.get(&t, i * (columns + 1));
                h.set(&out, i, x);
            }
            out
        }
        rank => return Err(format!("diag of a tensor of {rank} dimensions")),
    };
    Ok(Value::Tensor(out))
}

fn swapped(t: &Tensor, first: usize, second: usize) -> Outcome<Value> {
    let mut out = *t;
    out.sizes.swap(first, second);
    out.strides.swap(first, second);
    Ok(Value::Tensor(out))
}

fn size(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    if let Value::Int(dim) = a[1] {
        return Ok(Value::Int(i64::from(t.sizes[t.dimension(dim)?])));
    }
    let mut sizes = [Value::Absent; RANK];
    for (to, size) in sizes.iter_mut().zip(t.sizes()) {
        *to = Value::Int(i64::from(*size));
    }
    h.list(&sizes[..t.rank()])
}

fn len(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let count = match a[0] {
        Value::List(id) | Value::Tuple(id) => h.items(id).len(),
        Value::Dict(id) => h.items(id).len() / 2,
        Value::Text(id) => h.text(id).chars().count(),
        Value::Tensor(t) if t.rank() > 0 => t.sizes[0] as usize,
        other => return Err(wanted("something with a length", other)),
    };
    Ok(Value::Int(count as i64))
}

fn selected(t: &Tensor, dim: usize, index: i64) -> Outcome<Value> {
    let size = i64::from(t.sizes[dim]);
    let at = if index < 0 { index + size } else { index };
    if at < 0 || at >= size {
        return Err(format!("index {index} is out of bounds for dimension {dim} with size {size}"));
    }
    let mut out = *t;
    out.offset += at as u32 * t.strides[dim];
    out.rank -= 1;
    out.sizes.copy_within(dim + 1.., dim);
    out.strides.copy_within(dim + 1.., dim);
    Ok(Value::Tensor(out))
}

fn slice(_: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let or = |value: Value, default: i64| match value {
        Value::Absent | Value::None => Ok(default),
        other => other.int(),
    };
    let dim = t.dimension(or(a[1], 0)?)?;
    let size = i64::from(t.sizes[dim]);
    let bound = |x: i64| (if x < 0 { x.saturating_add(size) } else { x }).clamp(0, size);
    let (start, end, step) = (bound(or(a[2], 0)?), bound(or(a[3], i64::MAX)?), or(a[4], 1)?);
    let step = u32::try_from(step).ok().filter(|&step| step > 0).ok_or("slice step must be positive")?;
    let mut out = t;
    out.offset += start as u32 * t.strides[dim];
    out.sizes[dim] = ((end - start).max(0) as u32).div_ceil(step);
    out.strides[dim] = t.strides[dim].saturating_mul(step);
    Ok(Value::Tensor(out))
}

/// A shape given as a list of ints.
fn sizes(h: &Heap, value: Value) -> Outcome<([u32; RANK], usize)> {
    let Value::List(id) = value else { return Err(wanted("a list of ints", value)) };
    let items = h.items(id);
    if items.len() > RANK {
        return Err(format!("a tensor of {} dimensions; {RANK} are the most here", items.len()));
    }
    let mut sizes = [1; RANK];
    for (to, item) in sizes.iter_mut().zip(items) {
        *to = u32::try_from(item.int()?).map_err(|_| "a size below zero or beyond 2^32".to_owned())?;
    }
    Ok((sizes, items.len()))
}

fn reshape(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let Value::List(id) = a[1] else { return Err(wanted("a list of ints", a[1])) };
    let items = h.items(id).to_vec();
    if items.len() > RANK {
        return Err(format!("a tensor of {} dimensions; {RANK} are the most here", items.len()));
    }
    let mut shape = [1_u32; RANK];
    let (mut known, mut free) = (1_usize, None);
    for (i, item) in items.iter().enumerate() {
        match item.int()? {
            -1 if free.is_none() => free = Some(i),
            n => {
                shape[i] = u32::try_from(n).map_err(|_| format!("invalid shape dimension {n}"))?;
                known = known.saturating_mul(shape[i] as usize);
            }
        }
    }
    if let Some(i) = free {
        shape[i] = t.len().checked_div(known).unwrap_or(0) as u32;
        known = known.saturating_mul(shape[i] as usize);
    }
    if known != t.len() {
        return Err(format!("shape {} is invalid for input of size {}", shape_text(&shape[..items.len()]), t.len()));
    }
    let base = if t.is_contiguous() {
        t
    } else {
        let kind = h.element_kind(&t);
        h.copy(&t, kind)?
    };
    let mut out = Tensor { rank: items.len() as u8, sizes: shape, strides: [1; RANK], ..base };
    let mut stride = 1;
    for i in (0..items.len()).rev() {
        out.strides[i] = stride;
        stride *= shape[i].max(1);
    }
    Ok(Value::Tensor(out))
}

fn unsqueeze(_: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    if t.rank() == RANK {
        return Err(format!("{RANK} dimensions are the most here"));
    }
    let mut out = t;
    out.rank += 1;
    let dim = out.dimension(a[1].int()?)?;
    out.sizes.copy_within(dim..RANK - 1, dim + 1);
    out.strides.copy_within(dim..RANK - 1, dim + 1);
    (out.sizes[dim], out.strides[dim]) = (1, 1);
    Ok(Value::Tensor(out))
}

fn squeeze(_: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let one = match a[1] {
        Value::Absent | Value::None => None,
        dim => Some(t.dimension(dim.int()?)?),
    };
    let mut out = t;
    out.rank = 0;
    for i in 0..t.rank() {
        if t.sizes[i] == 1 && one.is_none_or(|one| one == i) {
            continue;
        }
        (out.sizes[out.rank()], out.strides[out.rank()]) = (t.sizes[i], t.strides[i]);
        out.rank += 1;
    }
    Ok(Value::Tensor(out))
}

/// The tensors of a list, all of one type.
fn tensors(h: &Heap, value: Value) -> Outcome<Vec<Tensor>> {
    let Value::List(id) = value else { return Err(wanted("a list of Tensors", value)) };
    let tensors = h.items(id).iter().map(Value::tensor).collect::<Outcome<Vec<_>>>()?;
    let Some(first) = tensors.first() else { return Err("a list of no Tensors".to_owned()) };
    if tensors.iter().any(|t| h.element_kind(t) != h.element_kind(first)) {
        return Err("Tensors of different types".to_owned());
    }
    Ok(tensors)
}

fn stack(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let mut parts = tensors(h, a[0])?;
    let dim = if a[1] == Value::Absent { Value::Int(0) } else { a[1] };
    for part in &mut parts {
        *part = unsqueeze(h, &[Value::Tensor(*part), dim])?.tensor()?;
    }
    joined(h, &parts, dim)
}

fn cat(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let parts = tensors(h, a[0])?;
    joined(h, &parts, if a[1] == Value::Absent { Value::Int(0) } else { a[1] })
}

fn joined(h: &mut Heap, parts: &[Tensor], dim: Value) -> Outcome<Value> {
    let first = parts[0];
    let dim = first.dimension(dim.int()?)?;
    let mut shape = first.sizes;
    shape[dim] = 0;
    for part in parts {
        let fits = part.rank == first.rank && (0..part.rank()).all(|i| i == dim || part.sizes[i] == first.sizes[i]);
        if !fits {
            return Err("Sizes of tensors must match except in one dimension".to_owned());
        }
        shape[dim] = shape[dim].saturating_add(part.sizes[dim]);
    }
    let kind = h.element_kind(&first);
    let out = h.zeros(kind, &shape[..first.rank()])?;
    let mut start = 0;
    for part in parts {
        let mut place = out;
        place.offset += start * out.strides[dim];
        place.sizes[dim] = part.sizes[dim];
        h.assign(&place, Value::Tensor(*part))?;
        start += part.sizes[dim];
    }
    Ok(Value::Tensor(out))
}

/// The type asked for, or `default`.
fn dtype(value: Value, default: Kind) -> Outcome<Kind> {
    match value {
        Value::Absent | Value::None => Ok(default),
        other => Kind::of_number(other.int()?),
    }
}

fn constant(h: &mut Heap, shape: Value, kind: Value, x: f64) -> Outcome<Value> {
    let (sizes, rank) = sizes(h, shape)?;
    let kind = dtype(kind, Kind::F32)?;
    h.filled(kind, &sizes[..rank], |_| x).map(Value::Tensor)
}

fn full(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let (x, kind) = a[1].number().ok_or_else(|| wanted("a number", a[1]))?;
    let kind = dtype(a[2], if kind == Kind::F64 { Kind::F32 } else { kind })?;
    let (sizes, rank) = sizes(h, a[0])?;
    h.filled(kind, &sizes[..rank], |_| x).map(Value::Tensor)
}

fn like(h: &mut Heap, a: &[Value], x: f64) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let kind = dtype(a[1], h.element_kind(&t))?;
    h.filled(kind, t.sizes(), |_| x).map(Value::Tensor)
}

fn eye(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let n = u32::try_from(a[0].int()?).ok().filter(|&n| n < 1 << 12).ok_or("a size that no matrix here has")?;
    let kind = dtype(a[1], Kind::F32)?;
    h.filled(kind, &[n, n], |i| f64::from(u8::from(i % (n as usize + 1) == 0))).map(Value::Tensor)
}

/// A tensor of a number or of nested lists of numbers.
fn tensor(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let (mut shape, mut values, mut kind) = (Vec::new(), Vec::new(), None);
    nested(h, a[0], 0, &mut shape, &mut values, &mut kind)?;
    let kind = match kind {
        None | Some(Kind::F64) => Kind::F32,
        Some(kind) => kind,
    };
    let kind = dtype(a[1], kind)?;
    h.filled(kind, &shape, |i| values[i]).map(Value::Tensor)
}

fn nested(
    h: &Heap,
    value: Value,
    depth: usize,
    shape: &mut Vec<u32>,
    values: &mut Vec<f64>,
    kind: &mut Option<Kind>,
) -> Outcome<()> {
    if let Some((x, of)) = value.number() {
        if depth != shape.len() {
            return Err("a list of uneven depth".to_owned());
        }
        *kind = Some(kind.map_or(of, |have| have.max(of)));
        values.push(x);
        return Ok(());
    }
    let Value::List(id) = value else { return Err(wanted("numbers", value)) };
    if depth >= MAX_NESTING.min(RANK) {
        return Err(format!("{RANK} dimensions are the most here"));
    }
    let items = h.items(id);
    let count = items.len() as u32;
    match shape.get(depth) {
        None if values.is_empty() => shape.push(count),
        Some(&have) if have == count => {}
        _ => return Err("a list of uneven lengths".to_owned()),
    }
    for &item in items {
        nested(h, item, depth + 1, shape, values, kind)?;
    }
    Ok(())
}

/// `to(x, other)`, `to(x, dtype)`, `to(x, device, dtype)`, `to(x, dtype=…)`.
fn to(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let have = h.element_kind(&t);
    let kind = match (a[1], a[2], a[4]) {
        (Value::Tensor(other), ..) => h.element_kind(&other),
        (_, _, Value::Int(number)) | (Value::Int(number), ..) => Kind::of_number(number)?,
        (Value::Text(_) | Value::None, Value::Int(number), _) => Kind::of_number(number)?,
        (Value::Text(_) | Value::None | Value::Absent, Value::Absent | Value::None | Value::Bool(_), _) => have,
        (other, ..) => return Err(wanted("a Tensor or a dtype", other)),
    };
    if kind == have { Ok(a[0]) } else { h.copy(&t, kind).map(Value::Tensor) }
}

/// The only element of a tensor.
fn only(h: &Heap, t: &Tensor) -> Outcome<f64> {
    match t.len() {
        1 => Ok(h.get(t, 0)),
        n => Err(format!("a Tensor with {n} elements cannot be converted to Scalar")),
    }
}

fn plain(h: &Heap, value: Value) -> Outcome<f64> {
    match value {
        Value::Tensor(t) => only(h, &t),
        other => other.number().map(|(x, _)| x).ok_or_else(|| wanted("a number", other)),
    }
}

/// A condition.
pub fn truth(value: Value) -> Outcome<bool> {
    match value {
        Value::Bool(b) => Ok(b),
        other => Err(wanted("a bool", other)),
    }
}

fn entries(h: &mut Heap, dict: Value, item: impl Fn(&mut Heap, Value, Value) -> Outcome<Value>) -> Outcome<Value> {
    let Value::Dict(id) = dict else { return Err(wanted("a dict", dict)) };
    let list = h.list(&[])?;
    let Value::List(to) = list else { return Ok(list) };
    for at in (0..h.items(id).len()).step_by(2) {
        let (key, value) = (h.items(id)[at], h.items(id)[at + 1]);
        let item = item(h, key, value)?;
        h.append(to, &[item])?;
    }
    Ok(list)
}

fn contains(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    Ok(Value::Bool(match a[0] {
        Value::Dict(id) => h.dict_get(id, a[1]).is_some(),
        Value::List(id) => h.items(id).contains(&a[1]),
        other => return Err(wanted("a dict or a list", other)),
    }))
}

fn set_item(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    match a[0] {
        Value::Dict(id) => h.dict_set(id, a[1], a[2])?,
        Value::List(id) => {
            let at = place(h.items(id).len(), a[1].int()?)?;
            h.items_mut(id)[at] = a[2];
        }
        other => return Err(wanted("a dict or a list", other)),
    }
    Ok(a[0])
}

fn place(len: usize, index: i64) -> Outcome<usize> {
    let at = if index < 0 { index + len as i64 } else { index };
    usize::try_from(at).ok().filter(|&at| at < len).ok_or_else(|| "list index out of range".to_owned())
}

/// `value[key]`
pub fn index(h: &mut Heap, value: Value, key: Value) -> Outcome<Value> {
    match value {
        Value::Dict(id) => h.dict_get(id, key).ok_or_else(|| {
            let name = key.text().map_or_else(|_| key.kind().to_owned(), |id| h.text(id).to_string());
            format!("KeyError: {name}")
        }),
        Value::List(id) | Value::Tuple(id) => Ok(h.items(id)[place(h.items(id).len(), key.int()?)?]),
        Value::Tensor(t) if t.rank() > 0 => selected(&t, 0, key.int()?),
        other => Err(wanted("something to index", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_pickle::TensorValue;

    fn run(h: &mut Heap, name: &str, arguments: &[Value]) -> Outcome<Value> {
        let operator = find(name).unwrap();
        let mut all = [Value::Absent; MAX_PARAMETERS];
        all[..arguments.len()].copy_from_slice(arguments);
        (operator.run)(h, &all[..operator.parameters.len()])
    }

    fn vector(h: &mut Heap, values: &[f64], kind: Kind) -> Value {
        Value::Tensor(h.filled(kind, &[values.len() as u32], |i| values[i]).unwrap())
    }

    fn values(h: &Heap, value: Value) -> Vec<f64> {
        h.elements(&value.tensor().unwrap()).collect()
    }

    #[test]
    fn every_operator_takes_its_parameters() {
        for operator in OPERATORS {
            assert!(operator.parameters.len() <= MAX_PARAMETERS && operator.required <= operator.parameters.len());
            assert_eq!(OPERATORS.iter().filter(|o| o.name == operator.name).count(), 1, "{}", operator.name);
        }
    }

    #[test]
    fn single_precision_is_rounded_after_every_operation() {
        let mut h = Heap::default();
        let (x, y) = (0.1_f32, 3.7_f32);
        let a = vector(&mut h, &[f64::from(x)], Kind::F32);
        let b = vector(&mut h, &[f64::from(y)], Kind::F32);
        for (name, expected) in [("torch.add", x + y), ("torch.sub", x - y), ("torch.mul", x * y), ("torch.div", x / y)]
        {
            let out = run(&mut h, name, &[a, b]).unwrap();
            assert_eq!(values(&h, out), [f64::from(expected)], "{name}");
        }
        let out = run(&mut h, "torch.mul", &[a, Value::Float(0.3)]).unwrap();
        assert_eq!(values(&h, out), [f64::from(x * 0.3_f32)], "a plain number takes the tensor's type first");
    }

    #[test]
    fn types_are_promoted_as_in_pytorch() {
        let mut h = Heap::default();
        let single = vector(&mut h, &[1.0, 2.0], Kind::F32);
        let double = vector(&mut h, &[1.0, 2.0], Kind::F64);
        let whole = vector(&mut h, &[1.0, 2.0], Kind::I64);
        let zero_dim = Value::Tensor(h.scalar(Kind::F64, 0.5).unwrap());
        for (a, b, kind) in [
            (single, double, Kind::F64),
            (single, zero_dim, Kind::F32),
            (whole, zero_dim, Kind::F64),
            (whole, Value::Float(0.5), Kind::F32),
            (whole, Value::Int(2), Kind::I64),
            (single, whole, Kind::F32),
        ] {
            let out = run(&mut h, "torch.add", &[a, b]).unwrap().tensor().unwrap();
            assert_eq!(h.element_kind(&out), kind);
        }
        let out = run(&mut h, "torch.div", &[whole, Value::Int(2)]).unwrap();
        assert_eq!((values(&h, out), h.element_kind(&out.tensor().unwrap())), (vec![0.5, 1.0], Kind::F32));
    }

    #[test]
    fn views_share_and_copies_do_not() {
        let mut h = Heap::default();
        let a = vector(&mut h, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], Kind::F32);
        let shape = h.list(&[Value::Int(2), Value::Int(-1)]).unwrap();
        let matrix = run(&mut h, "torch.reshape", &[a, shape]).unwrap();
        let turned = run(&mut h, "torch.t", &[matrix]).unwrap();
        assert_eq!(values(&h, turned), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let row = run(&mut h, "torch.select", &[turned, Value::Int(0), Value::Int(-1)]).unwrap();
        let copy = run(&mut h, "torch.clone", &[row]).unwrap();
        run(&mut h, "torch.fill_", &[row, Value::Int(9)]).unwrap();
        assert_eq!(values(&h, a), [1.0, 2.0, 9.0, 4.0, 5.0, 9.0]);
        assert_eq!(values(&h, copy), [3.0, 6.0]);
        let part =
            run(&mut h, "torch.slice", &[a, Value::Int(0), Value::Int(1), Value::Int(-1), Value::Int(2)]).unwrap();
        assert_eq!(values(&h, part), [2.0, 4.0]);
    }

    #[test]
    fn copying_broadcasts_and_refuses_what_does_not_fit() {
        let mut h = Heap::default();
        let target = vector(&mut h, &[0.0; 7], Kind::F32);
        let one = vector(&mut h, &[0.25], Kind::F64);
        run(&mut h, "torch.copy_", &[target, one]).unwrap();
        assert_eq!(values(&h, target), [0.25; 7]);
        let six = vector(&mut h, &[1.0; 6], Kind::F32);
        assert!(run(&mut h, "torch.copy_", &[target, six]).unwrap_err().contains("must match the size"));
        let row =
            h.import(&TensorValue::new(vec![1, 7], tenon_pickle::TensorData::F32(vec![1.0; 7])).unwrap()).unwrap();
        assert!(run(&mut h, "torch.copy_", &[target, Value::Tensor(row)]).is_err());
    }

    #[test]
    fn matrices_multiply_and_nan_wins() {
        let mut h = Heap::default();
        let d = vector(&mut h, &[2.0, 3.0], Kind::F64);
        let matrix = run(&mut h, "torch.diag", &[d]).unwrap();
        let out = run(&mut h, "torch.matmul", &[matrix, d]).unwrap();
        assert_eq!(values(&h, out), [4.0, 9.0]);
        let single = vector(&mut h, &[2.0, 3.0], Kind::F32);
        assert!(run(&mut h, "torch.matmul", &[matrix, single]).unwrap_err().contains("dtype"));
        let bad = vector(&mut h, &[f64::NAN, 1.0], Kind::F64);
        let out = run(&mut h, "torch.min", &[bad, d]).unwrap();
        assert!(values(&h, out)[0].is_nan());
        let out = run(&mut h, "torch.max", &[d, bad]).unwrap();
        assert!(values(&h, out)[0].is_nan());
    }

    #[test]
    fn plain_numbers_follow_python() {
        let mut h = Heap::default();
        let int = |h: &mut Heap, name, x, y| run(h, name, &[Value::Int(x), Value::Int(y)]);
        assert_eq!(int(&mut h, "torch.floordiv", -7, 2), Ok(Value::Int(-4)));
        assert_eq!(int(&mut h, "torch.remainder", -7, 2), Ok(Value::Int(1)));
        assert_eq!(int(&mut h, "torch.div", 7, 2), Ok(Value::Float(3.5)));
        assert!(int(&mut h, "torch.floordiv", 1, 0).is_err());
        assert!(int(&mut h, "torch.mul", i64::MAX, 2).is_err());
        assert_eq!(int(&mut h, "ops.prim.max", 3, 5), Ok(Value::Int(5)));
        assert_eq!(run(&mut h, "int", &[Value::Float(-2.9)]), Ok(Value::Int(-2)));
        assert!(run(&mut h, "int", &[Value::Float(f64::NAN)]).is_err());
    }
}
