//! NumPy's arrays, element types and scalars.
//!
//! An array is pickled either as an empty one that is given its state (`_reconstruct`, protocols 2 to 4) or as a buffer
//! (`_frombuffer`, protocol 5); an element type as a name that is given its byte order.

use std::sync::Arc;

use super::Machine;
use super::globals::Function;
use super::node::{Node, NodeId};
use crate::tensor::element_count;
use crate::{DataType, FormatError, TensorData, TensorValue, Value, c_strides};

impl Machine<'_> {
    /// `_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes.
    pub(super) fn encode(&mut self, text: NodeId, encoding: NodeId) -> Result<(), FormatError> {
        let text = self.str(text, "text to encode")?;
        if &*self.str(encoding, "encoding")? != "latin1" {
            return Err(self.error("an encoding other than latin1"));
        }
        self.spend(text.len())?;
        let bytes: Option<Arc<[u8]>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let bytes = bytes.ok_or_else(|| self.error("text that latin1 cannot encode"))?;
        self.push_leaf(Value::Bytes(bytes));
        Ok(())
    }

    /// `numpy.dtype(name, False, True)`.
    pub(super) fn element_type(&mut self, name: NodeId) -> Result<(), FormatError> {
        let name = self.str(name, "element type")?;
        let Some(data_type) = DataType::from_numpy(name.trim_start_matches(['<', '=', '|'])) else {
            let name: String = name.chars().take(32).collect();
            return Err(self.error(format!("arrays of element type {name:?}; read are numbers, little-endian")));
        };
        self.push(Node::ElementType { data_type, checked: false });
        Ok(())
    }

    /// State of an element type: (version, byte order, …); the rest describes structures and text.
    pub(super) fn check_element_type(&mut self, target: NodeId, state: NodeId) -> Result<(), FormatError> {
        let parts = self.tuple(state, "state of an element type")?;
        let order = match parts.get(1) {
            Some(&order) => self.str(order, "byte order")?,
            None => return Err(self.error("element type without a byte order")),
        };
        if !matches!(&*order, "<" | "|" | "=") {
            return Err(self.error("big-endian array; save it again with little-endian elements"));
        }
        if let Node::ElementType { checked, .. } = &mut self.nodes[target] {
            *checked = true;
        }
        Ok(())
    }

    /// `_reconstruct(numpy.ndarray, (0,), b'b')`.
    pub(super) fn empty_array(&mut self, class: NodeId) -> Result<(), FormatError> {
        if !matches!(self.nodes[class], Node::Function(Function::NdArray)) {
            return Err(self.error(format!("array of class {}", self.nodes[class].kind())));
        }
        self.push(Node::EmptyArray);
        Ok(())
    }

    /// State of an array: (version, shape, element type, whether in Fortran order, bytes).
    pub(super) fn fill_array(&mut self, target: NodeId, state: NodeId) -> Result<(), FormatError> {
        let parts = self.tuple(state, "state of an array")?;
        let &[_version, shape, element, fortran, bytes] = parts.as_slice() else {
            return Err(self.error(format!("state of an array has {} parts, not 5", parts.len())));
        };
        let Node::Leaf(Value::Bool(fortran)) = self.nodes[fortran] else {
            return Err(self.error("state of an array without its order"));
        };
        let array = self.array(bytes, element, shape, fortran)?;
        self.nodes[target] = Node::Leaf(Value::Tensor(array));
        Ok(())
    }

    /// `_frombuffer(bytes, element type, shape, order)`.
    pub(super) fn array_of_buffer(
        &mut self,
        bytes: NodeId,
        element: NodeId,
        shape: NodeId,
        order: NodeId,
    ) -> Result<(), FormatError> {
        let fortran = match &*self.str(order, "order of an array")? {
            "C" => false,
            "F" => true,
            _ => return Err(self.error("order of an array that is neither C nor F")),
        };
        let array = self.array(bytes, element, shape, fortran)?;
        self.push_leaf(Value::Tensor(array));
        Ok(())
    }

    /// `scalar(element type, bytes)`: a number.
    pub(super) fn scalar(&mut self, element: NodeId, bytes: NodeId) -> Result<(), FormatError> {
        let element = self.element(element)?;
        let bytes = self.buffer(bytes, "scalar")?;
        let tensor = TensorValue::from_view(&bytes, element, bytes.len() / element.size(), 0, Vec::new(), &[])
            .filter(|_| bytes.len() == element.size())
            .ok_or_else(|| self.error(format!("scalar of type {} with {} bytes", element.name(), bytes.len())))?;
        let value = match tensor.data() {
            TensorData::I64(v) => Value::Int(v[0]),
            TensorData::I32(v) => Value::Int(v[0].into()),
            TensorData::I16(v) => Value::Int(v[0].into()),
            TensorData::I8(v) => Value::Int(v[0].into()),
            TensorData::U8(v) => Value::Int(v[0].into()),
            TensorData::Bool(v) => Value::Bool(v[0]),
            TensorData::F64(v) => Value::Float(v[0]),
            TensorData::F32(_) | TensorData::F16(_) | TensorData::BF16(_) => {
                Value::Float(tensor.to_f32_vec()[0].into())
            }
        };
        self.push_leaf(value);
        Ok(())
    }

    fn element(&self, id: NodeId) -> Result<DataType, FormatError> {
        match self.nodes[id] {
            Node::ElementType { data_type, checked } if checked || data_type.size() == 1 => Ok(data_type),
            Node::ElementType { .. } => Err(self.error("element type whose byte order is not told")),
            ref other => Err(self.error(format!("{} where an element type is wanted", other.kind()))),
        }
    }

    fn array(
        &mut self,
        bytes: NodeId,
        element: NodeId,
        shape: NodeId,
        fortran: bool,
    ) -> Result<Arc<TensorValue>, FormatError> {
        let element = self.element(element)?;
        let bytes = self.buffer(bytes, "content of an array")?;
        let shape = self.sizes(shape, "shape")?;
        let needed = element_count(&shape).and_then(|count| count.checked_mul(element.size()));
        if needed != Some(bytes.len()) {
            return Err(self.error(format!(
                "array of shape {shape:?} and type {} with {} bytes",
                element.name(),
                bytes.len()
            )));
        }
        self.spend(bytes.len())?;
        let strides = if fortran { fortran_strides(&shape) } else { c_strides(&shape) };
        TensorValue::from_view(&bytes, element, bytes.len() / element.size(), 0, shape, &strides)
            .map(Arc::new)
            .ok_or_else(|| self.error("array that leaves its buffer"))
    }
}

/// Strides, in elements, of an array whose first index runs fastest.
fn fortran_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for i in 1..shape.len() {
        strides[i] = strides[i - 1].saturating_mul(shape[i - 1].max(1));
    }
    strides
}
