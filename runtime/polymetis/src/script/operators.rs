//! The operators that a script may call. What is not in [`OPERATORS`] is refused before anything runs.

mod containers;
mod elements;
mod making;
mod shapes;

use super::heap::{Heap, Kind, Outcome, Value};
use containers::{contains, entries, only, plain, set_item};
use elements::{
    arithmetic, checked_floor, clamp, compare, divide, each, equal, extreme, fold, greatest, in_place, least, norm,
    pairs, real, same, scaled, test, updated, wanted,
};
use making::{constant, eye, full, like, tensor, to};
use shapes::{cat, diag, len, product, reshape, selected, size, slice, squeeze, stack, swapped, unsqueeze};

pub use containers::{index, truth};

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
