//! Tensors made and converted.

use super::super::MAX_NESTING;
use super::super::heap::{Heap, Kind, Outcome, RANK, Value};
use super::elements::wanted;
use super::shapes::sizes;

/// The type asked for, or `default`.
pub(super) fn dtype(value: Value, default: Kind) -> Outcome<Kind> {
    match value {
        Value::Absent | Value::None => Ok(default),
        other => Kind::of_number(other.int()?),
    }
}

pub(super) fn constant(h: &mut Heap, shape: Value, kind: Value, x: f64) -> Outcome<Value> {
    let (sizes, rank) = sizes(h, shape)?;
    let kind = dtype(kind, Kind::F32)?;
    h.filled(kind, &sizes[..rank], |_| x).map(Value::Tensor)
}

pub(super) fn full(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let (x, kind) = a[1].number().ok_or_else(|| wanted("a number", a[1]))?;
    let kind = dtype(a[2], if kind == Kind::F64 { Kind::F32 } else { kind })?;
    let (sizes, rank) = sizes(h, a[0])?;
    h.filled(kind, &sizes[..rank], |_| x).map(Value::Tensor)
}

pub(super) fn like(h: &mut Heap, a: &[Value], x: f64) -> Outcome<Value> {
    let t = a[0].tensor()?;
    let kind = dtype(a[1], h.element_kind(&t))?;
    h.filled(kind, t.sizes(), |_| x).map(Value::Tensor)
}

pub(super) fn eye(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let n = u32::try_from(a[0].int()?).ok().filter(|&n| n < 1 << 12).ok_or("a size that no matrix here has")?;
    let kind = dtype(a[1], Kind::F32)?;
    h.filled(kind, &[n, n], |i| f64::from(u8::from(i % (n as usize + 1) == 0))).map(Value::Tensor)
}

/// A tensor of a number or of nested lists of numbers.
pub(super) fn tensor(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let (mut shape, mut values, mut kind) = (Vec::new(), Vec::new(), None);
    nested(h, a[0], 0, &mut shape, &mut values, &mut kind)?;
    let kind = match kind {
        None | Some(Kind::F64) => Kind::F32,
        Some(kind) => kind,
    };
    let kind = dtype(a[1], kind)?;
    h.filled(kind, &shape, |i| values[i]).map(Value::Tensor)
}

pub(super) fn nested(
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
pub(super) fn to(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
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
