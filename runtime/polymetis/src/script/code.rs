//! From text to what runs: names become slots and indices, and every operator is looked up.
//!
//! Only what the entry points can reach is translated, so a class may carry helpers that nobody calls. Whatever is
//! reachable and not known is refused here, with its name and its line, before anything runs.

use std::collections::HashMap;

use super::heap::{Heap, Value};
use super::operators::{self, MAX_PARAMETERS, Operator};
use super::syntax::{self, Expression, ExpressionKind, Statement, StatementKind};
use super::{MAX_NESTING, ScriptError};

/// The server's custom class for robot models.
const ROBOT_MODEL_METHODS: [(&str, ModelMethod, usize); 3] = [
    ("compute_jacobian", ModelMethod::Jacobian, 2),
    ("inverse_dynamics", ModelMethod::InverseDynamics, 3),
    ("get_link_idx_from_name", ModelMethod::LinkIndex, 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelMethod {
    Jacobian,
    InverseDynamics,
    LinkIndex,
}

/// An expression that is ready to be evaluated.
pub enum Node {
    Constant(Value),
    Local(u16),
    Attribute(Box<Node>, u32),
    Index(Box<Node>, Box<Node>),
    Operator(&'static Operator, Box<[Node]>),
    /// A method of a module of this archive or of a robot model, told apart when it runs.
    Method(Box<Node>, u32, Box<[Node]>),
    Function(usize, Box<[Node]>),
    List(Box<[Node]>),
    Tuple(Box<[Node]>),
    /// Keys and values in turn.
    Dict(Box<[Node]>),
}

/// A statement that is ready to run.
pub struct Step {
    pub line: u32,
    pub kind: StepKind,
}

pub enum StepKind {
    Set(u16, Node),
    SetAttribute(Node, u32, Node),
    Unpack(Box<[u16]>, Node),
    Do(Node),
    Return(Node),
    If(Node, Box<[Step]>, Box<[Step]>),
    While(Node, Box<[Step]>),
    /// Slot, start, end and step of `range`.
    For(u16, [Node; 3], Box<[Step]>),
}

/// A translated function or method; `self` is the first parameter.
pub struct Function {
    /// Dotted name, for messages.
    pub name: String,
    pub parameters: usize,
    /// Default values of the last parameters.
    pub defaults: Vec<Value>,
    pub locals: usize,
    pub body: Box<[Step]>,
}

/// A class of the archive.
pub struct Class {
    pub name: String,
    /// Attribute names in the order of their slots.
    pub attributes: Vec<String>,
    /// Slot of an attribute by the number of its name.
    slots: Vec<Option<u16>>,
    /// Index of a method in [`Code::functions`] by the number of its name.
    methods: Vec<Option<usize>>,
    /// Attributes whose value is in the text.
    pub constants: Vec<(u16, Value)>,
}

impl Class {
    pub fn slot(&self, name: u32) -> Option<usize> {
        self.slots.get(name as usize).copied().flatten().map(usize::from)
    }

    pub fn method(&self, name: u32) -> Option<usize> {
        self.methods.get(name as usize).copied().flatten()
    }
}

/// Everything translated.
#[derive(Default)]
pub struct Code {
    pub classes: Vec<Class>,
    pub functions: Vec<Function>,
    names: Vec<String>,
    name_numbers: HashMap<String, u32>,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let classes: Vec<_> = self.classes.iter().map(|class| &class.name).collect();
        formatter.debug_struct("Code").field("classes", &classes).finish_non_exhaustive()
    }
}

impl Code {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.name_numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.name_numbers.insert(name.to_owned(), number);
        number
    }

    /// The number of a name that occurs in the code.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.name_numbers.get(name).copied()
    }

    pub fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    pub fn class(&self, name: &str) -> Option<usize> {
        self.classes.iter().position(|class| class.name == name)
    }
}

pub fn model_method(name: &str) -> Option<(ModelMethod, usize)> {
    ROBOT_MODEL_METHODS.iter().find(|(known, ..)| *known == name).map(|(_, method, arguments)| (*method, *arguments))
}

/// A function or method of the text that is being translated.
struct Source<'a> {
    file: &'a str,
    name: String,
    function: &'a syntax::Function,
    class: Option<usize>,
}

/// Translates what the methods `entries` of any class can reach. Texts go into `heap`.
pub fn translate(sources: &[(String, String)], entries: &[&str], heap: &mut Heap) -> Result<Code, ScriptError> {
    let files: Vec<(&str, syntax::File)> = sources
        .iter()
        .map(|(name, text)| Ok((name.as_str(), syntax::parse(name, text)?)))
        .collect::<Result<_, ScriptError>>()?;
    let mut code = Code::default();
    let mut candidates = Vec::new();
    for (file, parsed) in &files {
        for class in &parsed.classes {
            let index = code.classes.len();
            let name = format!("{file}.{}", class.name);
            let mut translated = Class {
                name: name.clone(),
                attributes: Vec::new(),
                slots: Vec::new(),
                methods: Vec::new(),
                constants: Vec::new(),
            };
            for (attribute, value) in &class.attributes {
                let number = code.number(attribute) as usize;
                let slot = translated.attributes.len() as u16;
                if translated.slots.len() <= number {
                    translated.slots.resize(number + 1, None);
                }
                if translated.slots[number].replace(slot).is_some() || translated.attributes.len() >= 1 << 12 {
                    return Err(unsupported(file, class.line, format!("attribute {attribute} again, or too many")));
                }
                translated.attributes.push(attribute.clone());
                if let Some(value) = value {
                    translated.constants.push((slot, literal(file, value, heap)?));
                }
            }
            code.classes.push(translated);
            candidates.extend(class.methods.iter().map(|function| Source {
                file,
                name: format!("{name}.{}", function.name),
                function,
                class: Some(index),
            }));
        }
        candidates.extend(parsed.functions.iter().map(|function| Source {
            file,
            name: format!("{file}.{}", function.name),
            function,
            class: None,
        }));
    }
    let mut translator =
        Translator { code, heap, candidates: &candidates, places: HashMap::new(), waiting: Vec::new() };
    for entry in entries {
        translator.want_method(entry);
    }
    while let Some((place, candidate)) = translator.waiting.pop() {
        let function = translator.function(&candidates[candidate])?;
        translator.code.functions[place] = function;
    }
    Ok(translator.code)
}

fn unsupported(file: &str, line: u32, what: String) -> ScriptError {
    ScriptError::Unsupported { file: file.to_owned(), line, what }
}

fn literal(file: &str, expression: &Expression, heap: &mut Heap) -> Result<Value, ScriptError> {
    Ok(match &expression.kind {
        ExpressionKind::None => Value::None,
        ExpressionKind::Bool(b) => Value::Bool(*b),
        ExpressionKind::Int(i) => Value::Int(*i),
        ExpressionKind::Float(x) => Value::Float(*x),
        ExpressionKind::Text(text) => Value::Text(heap.intern(text)),
        _ => return Err(unsupported(file, expression.line, "a constant that is no plain value".into())),
    })
}

/// `a.b.c` as text, where it is only names and dots.
fn dotted(expression: &Expression) -> Option<String> {
    match &expression.kind {
        ExpressionKind::Name(name) => Some(name.clone()),
        ExpressionKind::Attribute(object, name) => Some(format!("{}.{name}", dotted(object)?)),
        _ => None,
    }
}

struct Translator<'a> {
    code: Code,
    heap: &'a mut Heap,
    candidates: &'a [Source<'a>],
    /// Where a candidate's translation goes.
    places: HashMap<usize, usize>,
    waiting: Vec<(usize, usize)>,
}

/// Names of one function.
#[derive(Default)]
struct Scope {
    slots: HashMap<String, u16>,
    /// Locals that stand for a free function.
    aliases: HashMap<String, String>,
    locals: usize,
}

impl Scope {
    fn slot(&mut self, name: &str) -> u16 {
        let next = self.locals as u16;
        *self.slots.entry(name.to_owned()).or_insert_with(|| {
            self.locals += 1;
            next
        })
    }
}

impl Translator<'_> {
    fn want(&mut self, candidate: usize) -> usize {
        if let Some(&place) = self.places.get(&candidate) {
            return place;
        }
        let place = self.code.functions.len();
        let source = &self.candidates[candidate];
        self.code.functions.push(Function {
            name: source.name.clone(),
            parameters: source.function.parameters.len(),
            defaults: Vec::new(),
            locals: 0,
            body: Box::default(),
        });
        self.places.insert(candidate, place);
        self.waiting.push((place, candidate));
        if let Some(class) = source.class {
            let number = self.code.number(&source.function.name) as usize;
            let methods = &mut self.code.classes[class].methods;
            if methods.len() <= number {
                methods.resize(number + 1, None);
            }
            methods[number] = Some(place);
        }
        place
    }

    /// Translates this method of every class that has it; says whether any has.
    fn want_method(&mut self, name: &str) -> bool {
        let candidates = self.candidates;
        let mut found = false;
        for (index, source) in candidates.iter().enumerate() {
            if source.class.is_some() && source.function.name == name {
                self.want(index);
                found = true;
            }
        }
        found
    }

    fn function(&mut self, source: &Source<'_>) -> Result<Function, ScriptError> {
        let mut scope = Scope::default();
        let mut defaults = Vec::new();
        for (name, default) in &source.function.parameters {
            scope.slot(name);
            match default {
                Some(value) => defaults.push(literal(source.file, value, self.heap)?),
                None if !defaults.is_empty() => {
                    let what = format!("parameter {name} without a default after one with");
                    return Err(unsupported(source.file, source.function.line, what));
                }
                None => {}
            }
        }
        if scope.locals != source.function.parameters.len() {
            return Err(unsupported(source.file, source.function.line, "two parameters of one name".into()));
        }
        let parameters = scope.locals;
        let body = self.block(source, &mut scope, &source.function.body)?;
        Ok(Function { name: source.name.clone(), parameters, defaults, locals: scope.locals, body })
    }

    fn block(
        &mut self,
        source: &Source<'_>,
        scope: &mut Scope,
        statements: &[Statement],
    ) -> Result<Box<[Step]>, ScriptError> {
        let mut steps = Vec::with_capacity(statements.len());
        for statement in statements {
            if let Some(kind) = self.statement(source, scope, statement)? {
                steps.push(Step { line: statement.line, kind });
            }
            if scope.locals > 4096 {
                return Err(unsupported(source.file, statement.line, "more than 4096 names in a function".into()));
            }
        }
        Ok(steps.into())
    }

    fn statement(
        &mut self,
        source: &Source<'_>,
        scope: &mut Scope,
        statement: &Statement,
    ) -> Result<Option<StepKind>, ScriptError> {
        let refuse = |what: &str| unsupported(source.file, statement.line, what.to_owned());
        Ok(Some(match &statement.kind {
            StatementKind::Pass => return Ok(None),
            StatementKind::Return(None) => StepKind::Return(Node::Constant(Value::None)),
            StatementKind::Return(Some(value)) => StepKind::Return(self.node(source, scope, value)?),
            StatementKind::Expression(value) => StepKind::Do(self.node(source, scope, value)?),
            StatementKind::Assign { targets, unpack: false, value } => {
                if let (ExpressionKind::Name(name), Some(path)) = (&targets[0].kind, dotted(value))
                    && path.starts_with("__torch__.")
                {
                    scope.aliases.insert(name.clone(), path);
                    return Ok(None);
                }
                let value = self.node(source, scope, value)?;
                match &targets[0].kind {
                    ExpressionKind::Name(name) => StepKind::Set(scope.slot(name), value),
                    ExpressionKind::Attribute(object, name) => {
                        let object = self.node(source, scope, object)?;
                        StepKind::SetAttribute(object, self.code.number(name), value)
                    }
                    _ => return Err(refuse("only names and attributes are assigned to")),
                }
            }
            StatementKind::Assign { targets, unpack: true, value } => {
                let value = self.node(source, scope, value)?;
                let slots = targets
                    .iter()
                    .map(|target| match &target.kind {
                        ExpressionKind::Name(name) => Ok(scope.slot(name)),
                        _ => Err(refuse("a tuple is taken apart into names only")),
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                StepKind::Unpack(slots.into(), value)
            }
            StatementKind::If { condition, then, otherwise } => StepKind::If(
                self.node(source, scope, condition)?,
                self.block(source, scope, then)?,
                self.block(source, scope, otherwise)?,
            ),
            StatementKind::While { condition, body } => {
                let condition = self.node(source, scope, condition)?;
                StepKind::While(condition, self.block(source, scope, body)?)
            }
            StatementKind::For { variable, range, body } => {
                let ExpressionKind::Call { function, arguments, keywords } = &range.kind else {
                    return Err(refuse("only range(…) is looped over"));
                };
                if dotted(function).as_deref() != Some("range") || !keywords.is_empty() {
                    return Err(refuse("only range(…) is looped over"));
                }
                let mut nodes = Vec::new();
                for argument in arguments {
                    nodes.push(self.node(source, scope, argument)?);
                }
                let number = |i| Node::Constant(Value::Int(i));
                let mut nodes = nodes.into_iter();
                let range = match (nodes.next(), nodes.next(), nodes.next(), nodes.next()) {
                    (Some(end), None, ..) => [number(0), end, number(1)],
                    (Some(start), Some(end), None, _) => [start, end, number(1)],
                    (Some(start), Some(end), Some(step), None) => [start, end, step],
                    _ => return Err(refuse("range takes one to three arguments")),
                };
                let slot = scope.slot(variable);
                StepKind::For(slot, range, self.block(source, scope, body)?)
            }
        }))
    }

    fn nodes(
        &mut self,
        source: &Source<'_>,
        scope: &mut Scope,
        expressions: &[Expression],
    ) -> Result<Box<[Node]>, ScriptError> {
        expressions.iter().map(|expression| self.node(source, scope, expression)).collect()
    }

    fn node(&mut self, source: &Source<'_>, scope: &mut Scope, e: &Expression) -> Result<Node, ScriptError> {
        let refuse = |what: String| unsupported(source.file, e.line, what);
        Ok(match &e.kind {
            ExpressionKind::None
            | ExpressionKind::Bool(_)
            | ExpressionKind::Int(_)
            | ExpressionKind::Float(_)
            | ExpressionKind::Text(_) => Node::Constant(literal(source.file, e, self.heap)?),
            ExpressionKind::Name(name) => match scope.slots.get(name) {
                Some(&slot) => Node::Local(slot),
                None => return Err(refuse(format!("{name} is not assigned before"))),
            },
            ExpressionKind::Attribute(object, name) => {
                if let Some(path) = dotted(e)
                    && let Some(root) = path.split('.').next()
                    && !scope.slots.contains_key(root)
                {
                    return Err(refuse(format!("{path} is not known here")));
                }
                Node::Attribute(Box::new(self.node(source, scope, object)?), self.code.number(name))
            }
            ExpressionKind::Index(object, keys) => match keys.as_slice() {
                [key] => {
                    Node::Index(Box::new(self.node(source, scope, object)?), Box::new(self.node(source, scope, key)?))
                }
                _ => return Err(refuse("one index at a time".into())),
            },
            ExpressionKind::List(items) => Node::List(self.nodes(source, scope, items)?),
            ExpressionKind::Tuple(items) => Node::Tuple(self.nodes(source, scope, items)?),
            ExpressionKind::Dict(entries) => {
                let mut nodes = Vec::with_capacity(2 * entries.len());
                for (key, value) in entries {
                    nodes.push(self.node(source, scope, key)?);
                    nodes.push(self.node(source, scope, value)?);
                }
                Node::Dict(nodes.into())
            }
            ExpressionKind::Negative(value) => {
                let operator = operators::find("torch.neg").expect("torch.neg is in the table");
                Node::Operator(operator, [self.node(source, scope, value)?].into())
            }
            ExpressionKind::Call { function, arguments, keywords } => {
                self.call(source, scope, e.line, function, arguments, keywords)?
            }
        })
    }

    fn call(
        &mut self,
        source: &Source<'_>,
        scope: &mut Scope,
        line: u32,
        function: &Expression,
        arguments: &[Expression],
        keywords: &[(String, Expression)],
    ) -> Result<Node, ScriptError> {
        let refuse = |what: String| unsupported(source.file, line, what);
        let path = dotted(function).filter(|path| {
            let root = path.split('.').next().unwrap_or("");
            !scope.slots.contains_key(root)
        });
        if let Some(path) = path {
            let path = scope.aliases.get(&path).cloned().unwrap_or(path);
            return match (path.as_str(), arguments) {
                // Types have been checked by who wrote the archive.
                ("annotate" | "unchecked_cast", [_, value]) if keywords.is_empty() => self.node(source, scope, value),
                ("uninitialized", [_]) if keywords.is_empty() => Ok(Node::Constant(Value::Absent)),
                ("getattr", [object, name]) if keywords.is_empty() => match &name.kind {
                    ExpressionKind::Text(name) => {
                        let object = self.node(source, scope, object)?;
                        Ok(Node::Attribute(Box::new(object), self.code.number(name)))
                    }
                    _ => Err(refuse("getattr of a name that is computed".into())),
                },
                _ => match operators::find(&path) {
                    Some(operator) => self.operator(source, scope, line, operator, arguments, keywords),
                    None => {
                        let candidate =
                            self.candidates.iter().position(|source| source.class.is_none() && source.name == path);
                        let Some(candidate) = candidate else {
                            let what = path.clone();
                            return Err(ScriptError::UnknownOperator {
                                name: what,
                                file: source.file.to_owned(),
                                line,
                            });
                        };
                        if !keywords.is_empty() {
                            return Err(refuse(format!("{path} with named arguments")));
                        }
                        let place = self.want(candidate);
                        Ok(Node::Function(place, self.nodes(source, scope, arguments)?))
                    }
                },
            };
        }
        let ExpressionKind::Attribute(object, name) = &function.kind else {
            return Err(refuse("only functions and methods are called".into()));
        };
        if !keywords.is_empty() {
            return Err(refuse(format!("method {name} with named arguments")));
        }
        if arguments.len() + 1 > MAX_NESTING {
            return Err(refuse(format!("method {name} with {} arguments", arguments.len())));
        }
        let of_model = model_method(name).is_some_and(|(_, wanted)| wanted == arguments.len());
        if !(self.want_method(name) || of_model) {
            return Err(ScriptError::UnknownOperator { name: format!(".{name}"), file: source.file.to_owned(), line });
        }
        let object = Box::new(self.node(source, scope, object)?);
        Ok(Node::Method(object, self.code.number(name), self.nodes(source, scope, arguments)?))
    }

    fn operator(
        &mut self,
        source: &Source<'_>,
        scope: &mut Scope,
        line: u32,
        operator: &'static Operator,
        arguments: &[Expression],
        keywords: &[(String, Expression)],
    ) -> Result<Node, ScriptError> {
        let refuse = |what: String| unsupported(source.file, line, what);
        let count = operator.parameters.len();
        if arguments.len() > count {
            return Err(refuse(format!("{} with {} arguments", operator.name, arguments.len())));
        }
        let mut nodes: [Option<Node>; MAX_PARAMETERS] = std::array::from_fn(|_| None);
        for (to, argument) in nodes.iter_mut().zip(arguments) {
            *to = Some(self.node(source, scope, argument)?);
        }
        for (name, value) in keywords {
            let at = operator
                .parameters
                .iter()
                .position(|parameter| parameter == name)
                .filter(|&at| nodes[at].is_none())
                .ok_or_else(|| refuse(format!("{} with argument {name}", operator.name)))?;
            nodes[at] = Some(self.node(source, scope, value)?);
        }
        if nodes[..operator.required].iter().any(Option::is_none) {
            return Err(refuse(format!("{} without its {} arguments", operator.name, operator.required)));
        }
        let nodes = nodes.into_iter().take(count).map(|node| node.unwrap_or(Node::Constant(Value::Absent)));
        Ok(Node::Operator(operator, nodes.collect()))
    }
}
