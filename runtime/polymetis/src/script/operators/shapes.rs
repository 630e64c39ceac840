//! Matrices, shapes and views.

use super::super::heap::{Heap, Outcome, RANK, Tensor, Value, shape_text};
use super::elements::wanted;

pub(super) fn product(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    h.matmul(&a[0].tensor()?, &a[1].tensor()?).map(Value::Tensor)
}

pub(super) fn diag(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
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

pub(super) fn swapped(t: &Tensor, first: usize, second: usize) -> Outcome<Value> {
    let mut out = *t;
    out.sizes.swap(first, second);
    out.strides.swap(first, second);
    Ok(Value::Tensor(out))
}

pub(super) fn size(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
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

pub(super) fn len(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let count = match a[0] {
        Value::List(id) | Value::Tuple(id) => h.items(id).len(),
        Value::Dict(id) => h.items(id).len() / 2,
        Value::Text(id) => h.text(id).chars().count(),
        Value::Tensor(t) if t.rank() > 0 => t.sizes[0] as usize,
        other => return Err(wanted("something with a length", other)),
    };
    Ok(Value::Int(count as i64))
}

pub(super) fn selected(t: &Tensor, dim: usize, index: i64) -> Outcome<Value> {
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

pub(super) fn slice(_: &mut Heap, a: &[Value]) -> Outcome<Value> {
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
pub(super) fn sizes(h: &Heap, value: Value) -> Outcome<([u32; RANK], usize)> {
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

pub(super) fn reshape(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
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

pub(super) fn unsqueeze(_: &mut Heap, a: &[Value]) -> Outcome<Value> {
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

pub(super) fn squeeze(_: &mut Heap, a: &[Value]) -> Outcome<Value> {
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
pub(super) fn tensors(h: &Heap, value: Value) -> Outcome<Vec<Tensor>> {
    let Value::List(id) = value else { return Err(wanted("a list of Tensors", value)) };
    let tensors = h.items(id).iter().map(Value::tensor).collect::<Outcome<Vec<_>>>()?;
    let Some(first) = tensors.first() else { return Err("a list of no Tensors".to_owned()) };
    if tensors.iter().any(|t| h.element_kind(t) != h.element_kind(first)) {
        return Err("Tensors of different types".to_owned());
    }
    Ok(tensors)
}

pub(super) fn stack(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let mut parts = tensors(h, a[0])?;
    let dim = if a[1] == Value::Absent { Value::Int(0) } else { a[1] };
    for part in &mut parts {
        *part = unsqueeze(h, &[Value::Tensor(*part), dim])?.tensor()?;
    }
    joined(h, &parts, dim)
}

pub(super) fn cat(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    let parts = tensors(h, a[0])?;
    joined(h, &parts, if a[1] == Value::Absent { Value::Int(0) } else { a[1] })
}

pub(super) fn joined(h: &mut Heap, parts: &[Tensor], dim: Value) -> Outcome<Value> {
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
