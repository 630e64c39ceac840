//! Runs an uploaded controller: a small evaluator of the TorchScript text in its archive.
//!
//! What runs is what was uploaded. The text is parsed (`syntax`), translated to slots and looked-up operators
//! (`code`) and evaluated (`machine`) over small tensors (`heap`); nothing else is ever executed. An operator or a
//! statement that is not known is refused with its name and line when the archive is loaded, not when it is reached. A
//! script is bounded in text, nesting, calls, steps, tensors and elements, so every call ends.
//!
//! Differences from PyTorch, all in the last digits: sums inside a matrix product or a norm are formed in double
//! precision, and so are `exp`, `sin`, `cos`, `tanh` and `pow` before they are rounded to the tensor's type.
//!
//! Terms: an *entry point* is a method that the server calls (`forward`, `update`, `is_terminated`, `reset`).

mod code;
mod heap;
mod machine;
mod operators;
mod syntax;

use std::collections::HashMap;
use std::sync::Arc;

use tenon_pickle::{Object, TensorValue, Value as Pickled};

use crate::archive::{Archive, ArchiveError, read_controller};
use code::Code;
use heap::{Heap, Kind, Module, Outcome, Tensor, Value};
use machine::Machine;

/// Largest source file.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Deepest nest of expressions, and of blocks.
const MAX_NESTING: usize = 40;
/// Deepest nest of calls.
const MAX_CALLS: usize = 16;
/// Most statements and operators in one call from outside.
const MAX_STEPS: u64 = 1_000_000;
/// Most tensors at a time.
const MAX_TENSORS: usize = 1 << 16;
/// Most lists, dicts and tuples at a time, and items in one.
const MAX_CONTAINERS: usize = 1 << 16;
/// Most elements in all tensors at a time. Ten minutes of a trajectory executor are 8.4 million.
const MAX_ELEMENTS: usize = 1 << 24;
/// Most texts of a script, with the names of all parameters that it was ever given.
const MAX_TEXTS: usize = 1 << 16;
/// Calls of `forward` that the server tries an upload with.
pub const WARM_UP_CALLS: usize = 5;

const ENTRY_POINTS: [&str; 4] = ["forward", "update", "is_terminated", "reset"];
/// The custom class for robot models.
const ROBOT_MODEL: &str = "__torch__.torch.classes.torchscript_pinocchio.RobotModelPinocchio";
const TENSOR_DICT: &str = "Dict[str, Tensor]";

/// Why a script was refused or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The archive around the text.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The text is not the serialised dialect.
    #[error("{file} line {line}: {what}")]
    Syntax {
        /// Module path of the source file.
        file: String,
        /// Line in it, from 1.
        line: u32,
        /// What is wrong.
        what: String,
    },
    /// An operator, function or method that is not known here.
    #[error("{file} line {line}: unknown operator {name}")]
    UnknownOperator {
        /// Its name; a method's begins with a dot.
        name: String,
        /// Module path of the source file.
        file: String,
        /// Line in it, from 1.
        line: u32,
    },
    /// Known words in a way that is not.
    #[error("{file} line {line}: not supported: {what}")]
    Unsupported {
        /// Module path of the source file.
        file: String,
        /// Line in it, from 1.
        line: u32,
        /// What is not supported.
        what: String,
    },
    /// The text or the object is larger than any controller.
    #[error("{what} beyond {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The module in the archive does not fit its text.
    #[error("{0}")]
    Module(String),
    /// An entry point does not exist.
    #[error("{class} has no method {method}")]
    NoMethod {
        /// Dotted class name.
        class: String,
        /// The method.
        method: &'static str,
    },
    /// It ran and failed, by an exception of its own or by a value that an operator refuses.
    #[error("{function} line {line}: {reason}")]
    Failed {
        /// Dotted name of the function.
        function: String,
        /// Line of the statement, from 1.
        line: u32,
        /// What happened.
        reason: String,
    },
}

/// What the server's custom class for robot models computes; the uploaded text asks for it.
pub trait RobotModel {
    /// The 6×7 Jacobian at a frame, linear rows first, base axes (LOCAL_WORLD_ALIGNED).
    ///
    /// # Errors
    /// The text of the exception.
    fn jacobian(&mut self, q: &[f64; 7], frame: i64) -> Result<[[f64; 7]; 6], String>;

    /// Joint torques for a motion, gravity included, N·m.
    ///
    /// # Errors
    /// The text of the exception.
    fn inverse_dynamics(&mut self, q: &[f64; 7], v: &[f64; 7], a: &[f64; 7]) -> Result<[f64; 7], String>;

    /// Index of a link's frame.
    ///
    /// # Errors
    /// The text of the exception.
    fn link_index(&mut self, name: &str) -> Result<i64, String> {
        match name {
            "panda_link8" => Ok(crate::archive::PANDA_LINK8_FRAME),
            other => Err(format!("link {other} is not known")),
        }
    }
}

/// For scripts that use no robot model.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRobotModel;

impl RobotModel for NoRobotModel {
    fn jacobian(&mut self, _: &[f64; 7], _: i64) -> Result<[[f64; 7]; 6], String> {
        Err("there is no robot model here".to_owned())
    }

    fn inverse_dynamics(&mut self, _: &[f64; 7], _: &[f64; 7], _: &[f64; 7]) -> Result<[f64; 7], String> {
        Err("there is no robot model here".to_owned())
    }
}

/// The state that a controller is given at every step (spec `polymetis.md` §5).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ControllerState {
    /// Seconds and nanoseconds.
    pub timestamp: [i32; 2],
    pub joint_positions: [f32; 7],
    pub joint_velocities: [f32; 7],
    pub motor_torques_measured: [f32; 7],
    pub motor_torques_external: [f32; 7],
}

/// A loaded module: its code and its values. A clone is a deep copy that shares only the code.
#[derive(Debug, Clone)]
struct Script {
    code: Arc<Code>,
    heap: Heap,
    root: Value,
    class: Arc<str>,
}

impl Script {
    fn load(archive: &Archive, entries: &[&str]) -> Result<Self, ScriptError> {
        let mut heap = Heap::default();
        let code = code::translate(&archive.sources, entries, &mut heap)?;
        let mut importer = Importer { code: &code, heap: &mut heap, tensors: HashMap::new(), others: HashMap::new() };
        let root = importer.object(&archive.root).map_err(ScriptError::Module)?;
        Ok(Self { code: Arc::new(code), heap, root, class: archive.root.class.clone() })
    }

    fn method(&self, name: &'static str) -> Result<usize, ScriptError> {
        let class = match self.root {
            Value::Module(id) => Some(&self.code.classes[self.heap.modules[id as usize].class]),
            _ => None,
        };
        class
            .and_then(|class| class.method(self.code.find(name)?))
            .ok_or_else(|| ScriptError::NoMethod { class: self.class.to_string(), method: name })
    }

    /// Calls an entry point and reads its result before what it made is taken back.
    fn call<T>(
        &mut self,
        function: usize,
        argument: Option<Value>,
        model: &mut dyn RobotModel,
        read: impl FnOnce(&Heap, Value) -> Result<T, ScriptError>,
    ) -> Result<T, ScriptError> {
        let arguments = argument.as_slice();
        let result = Machine::new(&self.code, &mut self.heap, model).run(self.root, function, arguments);
        let result = result.and_then(|value| read(&self.heap, value));
        self.heap.sweep();
        result
    }

    fn failed(&self, function: usize, reason: String) -> ScriptError {
        ScriptError::Failed { function: self.code.functions[function].name.clone(), line: 0, reason }
    }
}

/// Turns the pickled tree into values of the heap, sharing what is shared.
struct Importer<'a> {
    code: &'a Code,
    heap: &'a mut Heap,
    tensors: HashMap<*const TensorValue, Tensor>,
    others: HashMap<*const (), Value>,
}

impl Importer<'_> {
    fn value(&mut self, value: &Pickled) -> Outcome<Value> {
        Ok(match value {
            Pickled::None => Value::None,
            Pickled::Bool(b) => Value::Bool(*b),
            Pickled::Int(i) => Value::Int(*i),
            Pickled::Float(x) => Value::Float(*x),
            Pickled::Str(text) => Value::Text(self.heap.intern(text)),
            Pickled::Bytes(_) => return Err("bytes are not computed with".to_owned()),
            Pickled::Tensor(tensor) => match self.tensors.get(&Arc::as_ptr(tensor)) {
                Some(known) => Value::Tensor(*known),
                None => {
                    let imported = self.heap.import(tensor)?;
                    self.tensors.insert(Arc::as_ptr(tensor), imported);
                    Value::Tensor(imported)
                }
            },
            Pickled::Tuple(items) => {
                let items = items.iter().map(|item| self.value(item)).collect::<Outcome<Vec<_>>>()?;
                self.heap.tuple(&items)?
            }
            Pickled::List(list) => {
                let key = Arc::as_ptr(list).cast();
                if let Some(known) = self.others.get(&key) {
                    return Ok(*known);
                }
                let items = list.items.iter().map(|item| self.value(item)).collect::<Outcome<Vec<_>>>()?;
                let value = self.heap.list(&items)?;
                self.others.insert(key, value);
                value
            }
            Pickled::Dict(dict) => {
                let key = Arc::as_ptr(dict).cast();
                if let Some(known) = self.others.get(&key) {
                    return Ok(*known);
                }
                let id = self.heap.dict(dict.type_tag.as_deref() == Some(TENSOR_DICT))?;
                for (key, value) in &dict.entries {
                    let (key, value) = (self.value(key)?, self.value(value)?);
                    self.heap.dict_set(id, key, value)?;
                }
                self.others.insert(key, Value::Dict(id));
                Value::Dict(id)
            }
            Pickled::Object(object) => self.object(object)?,
        })
    }

    fn object(&mut self, object: &Arc<Object>) -> Outcome<Value> {
        let key = Arc::as_ptr(object).cast();
        if let Some(known) = self.others.get(&key) {
            return Ok(*known);
        }
        if &*object.class == ROBOT_MODEL {
            return match &object.state {
                Pickled::Str(_) => Ok(Value::RobotModel),
                _ => Err("the robot model's state is not URDF text".to_owned()),
            };
        }
        let code = self.code;
        let number = code.class(&object.class).ok_or_else(|| format!("class {} has no text here", object.class))?;
        let class = &code.classes[number];
        let mut attributes = Vec::with_capacity(class.attributes.len());
        for (slot, name) in class.attributes.iter().enumerate() {
            let constant = class.constants.iter().find(|(of, _)| usize::from(*of) == slot);
            attributes.push(match (constant, object.attribute(name)) {
                (Some((_, value)), _) => *value,
                (None, Some(value)) => self.value(value)?,
                (None, None) => return Err(format!("attribute {name} of {} is not in the pickle", class.name)),
            });
        }
        let id = self.heap.modules.len() as u32;
        self.heap.modules.push(Module { class: number, attributes });
        self.others.insert(key, Value::Module(id));
        Ok(Value::Module(id))
    }
}

/// An uploaded controller that is ready to run.
#[derive(Debug, Clone)]
pub struct ScriptedController {
    script: Script,
    forward: usize,
    is_terminated: usize,
    update: Option<usize>,
    reset: Option<usize>,
    /// Names of the entries of a state and of the result.
    texts: [Value; 6],
}

impl ScriptedController {
    /// Loads a controller archive.
    ///
    /// # Errors
    /// [`ScriptError`]; an operator or a statement that is not known here is refused now, with its name and line.
    pub fn load(archive: &[u8]) -> Result<Self, ScriptError> {
        let controller = read_controller(archive)?;
        let mut script = Script::load(controller.archive(), &ENTRY_POINTS)?;
        let forward = script.method("forward")?;
        let is_terminated = script.method("is_terminated")?;
        let (update, reset) = (script.method("update").ok(), script.method("reset").ok());
        let texts = [
            "timestamp",
            "joint_positions",
            "joint_velocities",
            "motor_torques_measured",
            "motor_torques_external",
            "joint_torques",
        ]
        .map(|text| Value::Text(script.heap.intern(text)));
        Ok(Self { script, forward, is_terminated, update, reset, texts })
    }

    /// One control step: the joint torques, N·m.
    ///
    /// # Errors
    /// [`ScriptError::Failed`]; the module may have changed before it failed, as on the real server.
    pub fn forward(&mut self, state: &ControllerState, model: &mut dyn RobotModel) -> Result<[f32; 7], ScriptError> {
        let dict = self.state(state).map_err(|reason| self.script.failed(self.forward, reason))?;
        let wanted = self.texts[5];
        let torques = self.script.call(self.forward, Some(dict), model, |heap, value| {
            let torques = match value {
                Value::Dict(id) => heap.dict_get(id, wanted).and_then(|value| value.tensor().ok()),
                _ => None,
            };
            Ok(torques
                .filter(|tensor| tensor.len() >= 7)
                .map(|tensor| std::array::from_fn(|i| heap.get(&tensor, i) as f32)))
        })?;
        torques
            .ok_or_else(|| self.script.failed(self.forward, "the result has no joint_torques of 7 joints".to_owned()))
    }

    fn state(&mut self, state: &ControllerState) -> Outcome<Value> {
        let heap = &mut self.script.heap;
        let dict = heap.dict(true)?;
        let stamp = heap.filled(Kind::I32, &[2], |i| f64::from(state.timestamp[i]))?;
        heap.dict_set(dict, self.texts[0], Value::Tensor(stamp))?;
        let vectors = [
            &state.joint_positions,
            &state.joint_velocities,
            &state.motor_torques_measured,
            &state.motor_torques_external,
        ];
        for (name, values) in self.texts[1..5].iter().zip(vectors) {
            let tensor = heap.filled(Kind::F32, &[7], |i| f64::from(values[i]))?;
            heap.dict_set(dict, *name, Value::Tensor(tensor))?;
        }
        Ok(Value::Dict(dict))
    }

    /// What the server tries an upload with: a few calls of `forward` on a copy.
    ///
    /// # Errors
    /// [`ScriptError::Failed`]
    pub fn warm_up(&self, state: &ControllerState, model: &mut dyn RobotModel) -> Result<(), ScriptError> {
        let mut copy = self.clone();
        (0..WARM_UP_CALLS).try_for_each(|_| copy.forward(state, model).map(|_| ()))
    }

    /// Whether the controller has ended itself.
    ///
    /// # Errors
    /// [`ScriptError::Failed`]
    pub fn is_terminated(&mut self) -> Result<bool, ScriptError> {
        let ended = self.script.call(self.is_terminated, None, &mut NoRobotModel, |_, value| match value {
            Value::Bool(ended) => Ok(Some(ended)),
            _ => Ok(None),
        })?;
        ended.ok_or_else(|| self.script.failed(self.is_terminated, "the result is not a bool".to_owned()))
    }

    /// Hands parameters to the controller's `update`.
    ///
    /// # Errors
    /// [`ScriptError::NoMethod`], [`ScriptError::Failed`]; what it changed before it failed stays changed.
    pub fn update(&mut self, parameters: &[(String, TensorValue)]) -> Result<(), ScriptError> {
        let function = self
            .update
            .ok_or_else(|| ScriptError::NoMethod { class: self.script.class.to_string(), method: "update" })?;
        let dict = parameters_dict(&mut self.script.heap, parameters).map_err(|e| self.script.failed(function, e))?;
        self.script.call(function, Some(dict), &mut NoRobotModel, |_, _| Ok(()))
    }

    /// Calls `reset`, which default controllers have.
    ///
    /// # Errors
    /// [`ScriptError::NoMethod`], [`ScriptError::Failed`]
    pub fn reset(&mut self) -> Result<(), ScriptError> {
        let function = self
            .reset
            .ok_or_else(|| ScriptError::NoMethod { class: self.script.class.to_string(), method: "reset" })?;
        self.script.call(function, None, &mut NoRobotModel, |_, _| Ok(()))
    }

    /// A number or tensor attribute of the root module as it stands now; a number has shape `[]`.
    pub fn attribute(&self, name: &str) -> Option<TensorValue> {
        let Value::Module(root) = self.script.root else { return None };
        let module = &self.script.heap.modules[root as usize];
        let slot = self.script.code.classes[module.class].slot(self.script.code.find(name)?)?;
        match module.attributes[slot] {
            Value::Tensor(tensor) => Some(self.script.heap.export(&tensor)),
            other => {
                let (x, _) = other.number()?;
                TensorValue::new(Vec::new(), tenon_pickle::TensorData::F64(vec![x])).ok()
            }
        }
    }
}

fn parameters_dict(heap: &mut Heap, parameters: &[(String, TensorValue)]) -> Outcome<Value> {
    let dict = heap.dict(true)?;
    for (name, tensor) in parameters {
        if heap.texts() >= MAX_TEXTS {
            return Err(format!("more than {MAX_TEXTS} different names"));
        }
        let key = Value::Text(heap.intern(name));
        let tensor = heap.import(tensor)?;
        heap.dict_set(dict, key, Value::Tensor(tensor))?;
    }
    Ok(Value::Dict(dict))
}

/// Runs `forward` of an update archive: the tensors that it returns, in order.
///
/// # Errors
/// [`ArchiveError::ForwardNeedsArguments`] where `forward` wants arguments (the real server answers `UNKNOWN`),
/// [`ArchiveError::UntaggedDict`] where it returns a dict without its tag (the real server fails in `update`), any other
/// [`ScriptError`].
pub fn evaluate_parameters(archive: &[u8]) -> Result<Vec<(String, TensorValue)>, ScriptError> {
    let archive = Archive::parse(archive)?;
    let class = archive.root.class.to_string();
    let mut script = Script::load(&archive, &["forward"])?;
    let forward = script.method("forward")?;
    let function = &script.code.functions[forward];
    if function.parameters - function.defaults.len() > 1 {
        return Err(ArchiveError::ForwardNeedsArguments { class }.into());
    }
    let refuse = |reason: &str| ArchiveError::NotParameters { class: class.clone(), reason: reason.to_owned() };
    script.call(forward, None, &mut NoRobotModel, |heap, value| {
        let Value::Dict(dict) = value else { return Err(refuse("forward returns no dict").into()) };
        if !heap.is_of_tensors(dict) {
            let (attribute, tag) = ("forward()".to_owned(), "otherwise".to_owned());
            return Err(ArchiveError::UntaggedDict { attribute, tag }.into());
        }
        heap.items(dict)
            .chunks_exact(2)
            .map(|entry| match entry {
                [Value::Text(name), Value::Tensor(tensor)] => Ok((heap.text(*name).to_string(), heap.export(tensor))),
                _ => Err(refuse("forward returns a dict of something else than tensors by name").into()),
            })
            .collect()
    })
}
