//! Writes the pickle of a module object: protocol 2, no memo (spec `polymetis.md` §6.2).

use tenon_pickle::c_strides;

use super::{TensorData, TensorValue};

/// Name of the robot model's custom class, without its module.
pub(super) const ROBOT_MODEL_CLASS: &str = "RobotModelPinocchio";
/// Module of the robot model's custom class.
pub(super) const ROBOT_MODEL_MODULE: &str = "__torch__.torch.classes.torchscript_pinocchio";

/// A pickle under construction, and the storages that its tensors refer to.
#[derive(Debug)]
pub(super) struct PickleBuilder {
    out: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl PickleBuilder {
    /// Opens the module object `__torch__.<class>` and the dict of its attributes.
    pub fn module(class: &str) -> Self {
        let mut pickle = Self { out: vec![0x80, 2], storages: Vec::new() };
        pickle.global("__torch__", class);
        pickle.out.extend_from_slice(b")\x81}("); // EMPTY_TUPLE NEWOBJ EMPTY_DICT MARK
        pickle
    }

    /// Closes the module. Returns `data.pkl` and the contents of `data/0`, `data/1`, …
    pub fn finish(mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        self.out.extend_from_slice(b"ub."); // SETITEMS BUILD STOP
        (self.out, self.storages)
    }

    /// A tensor attribute.
    pub fn tensor_attribute(&mut self, name: &str, tensor: &TensorValue) {
        self.text(name);
        self.tensor(tensor);
    }

    /// An integer attribute.
    pub fn int_attribute(&mut self, name: &str, value: i64) {
        self.text(name);
        self.int(value);
    }

    /// A floating-point attribute.
    pub fn float_attribute(&mut self, name: &str, value: f64) {
        self.text(name);
        self.out.push(b'G'); // BINFLOAT, big-endian
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A truth value.
    pub fn bool_attribute(&mut self, name: &str, value: bool) {
        self.text(name);
        self.out.push(if value { 0x88 } else { 0x89 }); // NEWTRUE, NEWFALSE
    }

    /// A robot model attribute; its state is the whole URDF text.
    pub fn robot_model_attribute(&mut self, name: &str, urdf: &str) {
        self.text(name);
        self.global(ROBOT_MODEL_MODULE, ROBOT_MODEL_CLASS);
        self.out.extend_from_slice(b")\x81"); // EMPTY_TUPLE NEWOBJ
        self.text(urdf);
        self.out.push(b'b'); // BUILD
    }

    /// An attribute of type `Dict[str, Tensor]`. Without the tag a controller's `update` refuses it.
    pub fn tensor_dict_attribute(&mut self, name: &str, entries: &[(&str, &TensorValue)]) {
        self.text(name);
        self.global("torch.jit._pickle", "restore_type_tag");
        self.out.extend_from_slice(b"}("); // EMPTY_DICT MARK
        for (key, tensor) in entries {
            self.text(key);
            self.tensor(tensor);
        }
        self.out.push(b'u'); // SETITEMS
        self.text("Dict[str, Tensor]");
        self.out.extend_from_slice(b"\x86R"); // TUPLE2 REDUCE
    }

    fn tensor(&mut self, tensor: &TensorValue) {
        let data: &TensorData = tensor.data();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.out.extend_from_slice(b"(("); // MARK MARK
        self.text("storage");
        self.global("torch", data.data_type().storage_name());
        self.text(&self.storages.len().to_string());
        self.text("cpu");
        self.int(data.len() as i64);
        self.out.extend_from_slice(b"tQ"); // TUPLE BINPERSID
        self.int(0); // offset into the storage
        self.int_tuple(tensor.shape());
        self.int_tuple(&c_strides(tensor.shape()));
        self.out.push(0x89); // NEWFALSE: requires_grad
        self.global("collections", "OrderedDict"); // backward hooks: none
        self.out.extend_from_slice(b")RtR"); // EMPTY_TUPLE REDUCE TUPLE REDUCE
        self.storages.push(data.to_le_bytes());
    }

    fn int_tuple(&mut self, values: &[usize]) {
        self.out.push(b'('); // MARK
        for &value in values {
            self.int(value as i64);
        }
        self.out.push(b't'); // TUPLE
    }

    fn global(&mut self, module: &str, name: &str) {
        self.out.push(b'c');
        self.out.extend_from_slice(module.as_bytes());
        self.out.push(b'\n');
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'\n');
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'X');
        // Texts longer than the archive limit are refused before they get here.
        self.out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
    }

    fn int(&mut self, value: i64) {
        if let Ok(small) = u8::try_from(value) {
            self.out.extend_from_slice(&[b'K', small]);
        } else if let Ok(medium) = u16::try_from(value) {
            self.out.push(b'M');
            self.out.extend_from_slice(&medium.to_le_bytes());
        } else if let Ok(large) = i32::try_from(value) {
            self.out.push(b'J');
            self.out.extend_from_slice(&large.to_le_bytes());
        } else {
            self.out.extend_from_slice(&[0x8a, 8]); // LONG1
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }
}
