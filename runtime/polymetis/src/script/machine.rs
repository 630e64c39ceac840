//! Evaluates translated code.

use super::code::{Code, ModelMethod, Node, Step, StepKind, model_method};
use super::heap::{Heap, Kind, Outcome, Value};
use super::operators::{MAX_PARAMETERS, index, truth};
use super::{MAX_CALLS, MAX_STEPS, RobotModel, ScriptError};

/// Elements that an operator handles for one step.
const ELEMENTS_A_STEP: u64 = 64;

/// One call into a script.
pub struct Machine<'a> {
    pub code: &'a Code,
    pub heap: &'a mut Heap,
    pub model: &'a mut dyn RobotModel,
    steps: u64,
    calls: usize,
}

/// Where a block ended.
enum Flow {
    Next,
    Return(Value),
}

/// Why a call failed; the line is known from the statement.
enum Fault {
    /// Inside the present statement.
    Here(String),
    /// In a statement further down.
    At(ScriptError),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

type Result<T> = std::result::Result<T, Fault>;

impl<'a> Machine<'a> {
    pub fn new(code: &'a Code, heap: &'a mut Heap, model: &'a mut dyn RobotModel) -> Self {
        Self { code, heap, model, steps: 0, calls: 0 }
    }

    /// Calls a method of a module.
    ///
    /// # Errors
    /// [`ScriptError::Failed`] with the line that failed.
    pub fn run(
        &mut self,
        module: Value,
        function: usize,
        arguments: &[Value],
    ) -> std::result::Result<Value, ScriptError> {
        let base = self.heap.stack.len();
        self.heap.stack.push(module);
        self.heap.stack.extend_from_slice(arguments);
        self.enter(function, base).map_err(|fault| match fault {
            Fault::At(error) => error,
            Fault::Here(reason) => self.failed(function, 0, reason),
        })
    }

    fn failed(&self, function: usize, line: u32, reason: String) -> ScriptError {
        ScriptError::Failed { function: self.code.functions[function].name.clone(), line, reason }
    }

    /// Runs a function whose arguments lie on the stack from `base` on.
    fn enter(&mut self, number: usize, base: usize) -> Result<Value> {
        let code = self.code;
        let function = &code.functions[number];
        let given = self.heap.stack.len() - base;
        let missing = function.parameters.checked_sub(given);
        let Some(missing) = missing.filter(|missing| *missing <= function.defaults.len()) else {
            return Err(format!("{} takes {} arguments, {given} were given", function.name, function.parameters).into());
        };
        let defaults = &function.defaults[function.defaults.len() - missing..];
        self.heap.stack.extend_from_slice(defaults);
        self.heap.stack.resize(base + function.locals, Value::Absent);
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(format!("calls nest deeper than {MAX_CALLS}").into());
        }
        let flow = self.block(number, &function.body, base);
        self.calls -= 1;
        self.heap.stack.truncate(base);
        match flow? {
            Flow::Return(value) => Ok(value),
            Flow::Next => Ok(Value::None),
        }
    }

    fn block(&mut self, function: usize, steps: &[Step], base: usize) -> Result<Flow> {
        for step in steps {
            let flow = self.step(function, step, base).map_err(|fault| match fault {
                Fault::Here(reason) => Fault::At(self.failed(function, step.line, reason)),
                at => at,
            })?;
            if let Flow::Return(_) = flow {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn count(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(format!("more than {MAX_STEPS} steps").into());
        }
        Ok(())
    }

    fn step(&mut self, function: usize, step: &Step, base: usize) -> Result<Flow> {
        self.count()?;
        match &step.kind {
            StepKind::Set(slot, value) => {
                let value = self.eval(value, base)?;
                self.heap.stack[base + usize::from(*slot)] = value;
            }
            StepKind::SetAttribute(object, name, value) => {
                let object = self.eval(object, base)?;
                let value = self.eval(value, base)?;
                let Value::Module(id) = object else {
                    return Err(format!("{} has no attributes", object.kind()).into());
                };
                let place = self.attribute(id, *name)?;
                let old = self.heap.modules[id as usize].attributes[place];
                let optional = matches!(old, Value::None) || matches!(value, Value::None);
                if old.kind() != value.kind() && !optional {
                    let name = self.code.name(*name);
                    return Err(format!("attribute {name} is {}, not {}", old.kind(), value.kind()).into());
                }
                self.heap.modules[id as usize].attributes[place] = value;
            }
            StepKind::Unpack(slots, value) => {
                let value = self.eval(value, base)?;
                let (Value::Tuple(id) | Value::List(id)) = value else {
                    return Err(format!("{} is not taken apart", value.kind()).into());
                };
                let count = self.heap.items(id).len();
                if count != slots.len() {
                    return Err(format!("{count} values for {} names", slots.len()).into());
                }
                for (i, slot) in slots.iter().enumerate() {
                    self.heap.stack[base + usize::from(*slot)] = self.heap.items(id)[i];
                }
            }
            StepKind::Do(value) => {
                self.eval(value, base)?;
            }
            StepKind::Return(value) => return Ok(Flow::Return(self.eval(value, base)?)),
            StepKind::If(condition, then, otherwise) => {
                let branch = if truth(self.eval(condition, base)?)? { then } else { otherwise };
                return self.block(function, branch, base);
            }
            StepKind::While(condition, body) => {
                while truth(self.eval(condition, base)?)? {
                    self.count()?;
                    if let Flow::Return(value) = self.block(function, body, base)? {
                        return Ok(Flow::Return(value));
                    }
                }
            }
            StepKind::For(slot, range, body) => {
                let mut bounds = [0; 3];
                for (to, node) in bounds.iter_mut().zip(range) {
                    *to = self.eval(node, base)?.int()?;
                }
                let [mut at, end, step] = bounds;
                if step == 0 {
                    return Err("range() arg 3 must not be zero".to_owned().into());
                }
                while if step > 0 { at < end } else { at > end } {
                    self.count()?;
                    self.heap.stack[base + usize::from(*slot)] = Value::Int(at);
                    if let Flow::Return(value) = self.block(function, body, base)? {
                        return Ok(Flow::Return(value));
                    }
                    at = at.saturating_add(step);
                }
            }
        }
        Ok(Flow::Next)
    }

    fn attribute(&self, module: u32, name: u32) -> Outcome<usize> {
        let class = &self.code.classes[self.heap.modules[module as usize].class];
        class.slot(name).ok_or_else(|| format!("{} has no attribute {}", class.name, self.code.name(name)))
    }

    fn eval(&mut self, node: &Node, base: usize) -> Result<Value> {
        Ok(match node {
            Node::Constant(value) => *value,
            Node::Local(slot) => match self.heap.stack[base + usize::from(*slot)] {
                Value::Absent => return Err("a name is used before it is assigned".to_owned().into()),
                value => value,
            },
            Node::Attribute(object, name) => match self.eval(object, base)? {
                Value::Module(id) => {
                    let place = self.attribute(id, *name)?;
                    self.heap.modules[id as usize].attributes[place]
                }
                other => return Err(format!("{} has no attribute {}", other.kind(), self.code.name(*name)).into()),
            },
            Node::Index(object, key) => {
                let object = self.eval(object, base)?;
                let key = self.eval(key, base)?;
                index(self.heap, object, key)?
            }
            Node::Operator(operator, nodes) => {
                self.count()?;
                let mut values = [Value::Absent; MAX_PARAMETERS];
                for (to, node) in values.iter_mut().zip(nodes) {
                    *to = self.eval(node, base)?;
                    if let Value::Tensor(tensor) = to {
                        // Large tensors cost more than a step.
                        self.steps += tensor.len() as u64 / ELEMENTS_A_STEP;
                    }
                }
                (operator.run)(self.heap, &values[..nodes.len()])?
            }
            Node::Method(object, name, nodes) => {
                let object = self.eval(object, base)?;
                match object {
                    Value::Module(id) => {
                        let class = &self.code.classes[self.heap.modules[id as usize].class];
                        let function = class
                            .method(*name)
                            .ok_or_else(|| format!("{} has no method {}", class.name, self.code.name(*name)))?;
                        self.call(function, Some(object), nodes, base)?
                    }
                    Value::RobotModel => self.ask_model(*name, nodes, base)?,
                    other => return Err(format!("{} has no method {}", other.kind(), self.code.name(*name)).into()),
                }
            }
            Node::Function(function, nodes) => self.call(*function, None, nodes, base)?,
            Node::List(nodes) => {
                let list = self.heap.list(&[])?;
                if let Value::List(id) = list {
                    self.fill(id, nodes, base)?;
                }
                list
            }
            Node::Tuple(nodes) => {
                let tuple = self.heap.tuple(&[])?;
                if let Value::Tuple(id) = tuple {
                    self.fill(id, nodes, base)?;
                }
                tuple
            }
            Node::Dict(nodes) => {
                let dict = self.heap.dict(true)?;
                for entry in nodes.chunks_exact(2) {
                    let (key, value) = (self.eval(&entry[0], base)?, self.eval(&entry[1], base)?);
                    self.heap.dict_set(dict, key, value)?;
                }
                Value::Dict(dict)
            }
        })
    }

    fn fill(&mut self, container: u32, nodes: &[Node], base: usize) -> Result<()> {
        for node in nodes {
            let value = self.eval(node, base)?;
            self.heap.append(container, &[value])?;
        }
        Ok(())
    }

    fn call(&mut self, function: usize, object: Option<Value>, nodes: &[Node], base: usize) -> Result<Value> {
        let new_base = self.heap.stack.len();
        self.heap.stack.extend(object);
        for node in nodes {
            // The frame grows above the caller's locals; nested calls leave it as they found it.
            let value = self.eval(node, base)?;
            self.heap.stack.push(value);
        }
        self.enter(function, new_base)
    }

    /// The methods of the server's robot model: float64 results, as Pinocchio gives them.
    fn ask_model(&mut self, name: u32, nodes: &[Node], base: usize) -> Result<Value> {
        let known = model_method(self.code.name(name)).filter(|(_, arguments)| *arguments == nodes.len());
        let Some((method, _)) = known else {
            return Err(format!("RobotModelPinocchio has no method {}", self.code.name(name)).into());
        };
        let mut values = [Value::Absent; 3];
        for (to, node) in values.iter_mut().zip(nodes) {
            *to = self.eval(node, base)?;
        }
        Ok(match method {
            ModelMethod::Jacobian => {
                let q = self.joints(values[0])?;
                let jacobian = self.model.jacobian(&q, values[1].int()?)?;
                Value::Tensor(self.heap.filled(Kind::F64, &[6, 7], |i| jacobian[i / 7][i % 7])?)
            }
            ModelMethod::InverseDynamics => {
                let [q, v, a] = [self.joints(values[0])?, self.joints(values[1])?, self.joints(values[2])?];
                let torque = self.model.inverse_dynamics(&q, &v, &a)?;
                Value::Tensor(self.heap.filled(Kind::F64, &[7], |i| torque[i])?)
            }
            ModelMethod::LinkIndex => {
                let name = self.heap.text(values[0].text()?).clone();
                Value::Int(self.model.link_index(&name)?)
            }
        })
    }

    fn joints(&self, value: Value) -> Outcome<[f64; 7]> {
        let tensor = value.tensor()?;
        if tensor.len() != 7 {
            return Err(format!("the robot model wants 7 joints, found {}", tensor.len()));
        }
        Ok(std::array::from_fn(|i| self.heap.get(&tensor, i)))
    }
}
