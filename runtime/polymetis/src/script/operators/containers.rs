//! Plain values, lists and dicts.

use super::super::heap::{Heap, Outcome, Tensor, Value};
use super::elements::wanted;
use super::shapes::selected;

/// The only element of a tensor.
pub(super) fn only(h: &Heap, t: &Tensor) -> Outcome<f64> {
    match t.len() {
        1 => Ok(h.get(t, 0)),
        n => Err(format!("a Tensor with {n} elements cannot be converted to Scalar")),
    }
}

pub(super) fn plain(h: &Heap, value: Value) -> Outcome<f64> {
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

pub(super) fn entries(
    h: &mut Heap,
    dict: Value,
    item: impl Fn(&mut Heap, Value, Value) -> Outcome<Value>,
) -> Outcome<Value> {
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

pub(super) fn contains(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
    Ok(Value::Bool(match a[0] {
        Value::Dict(id) => h.dict_get(id, a[1]).is_some(),
        Value::List(id) => h.items(id).contains(&a[1]),
        other => return Err(wanted("a dict or a list", other)),
    }))
}

pub(super) fn set_item(h: &mut Heap, a: &[Value]) -> Outcome<Value> {
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

pub(super) fn place(len: usize, index: i64) -> Outcome<usize> {
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
