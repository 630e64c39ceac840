//! The text of a source file as a tree: tokens, expressions, statements.
//!
//! This is the dialect that TorchScript serialises to, not Python: no operators between operands, one statement a line,
//! every argument typed. What is not in it is refused with its line.

mod tokens;

use super::{MAX_NESTING, MAX_SOURCE_BYTES, ScriptError};
use tokens::{Token, tokenize};

/// An expression and the line it starts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    pub line: u32,
    pub kind: ExpressionKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExpressionKind {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Name(String),
    Attribute(Box<Expression>, String),
    Index(Box<Expression>, Vec<Expression>),
    Call { function: Box<Expression>, arguments: Vec<Expression>, keywords: Vec<(String, Expression)> },
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Negative(Box<Expression>),
}

/// A statement and its line.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub line: u32,
    pub kind: StatementKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum StatementKind {
    /// One target, or several that a tuple is taken apart into.
    Assign {
        targets: Vec<Expression>,
        unpack: bool,
        value: Expression,
    },
    Return(Option<Expression>),
    If {
        condition: Expression,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    While {
        condition: Expression,
        body: Vec<Statement>,
    },
    For {
        variable: String,
        range: Expression,
        body: Vec<Statement>,
    },
    Expression(Expression),
    Pass,
}

/// A function or method.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub line: u32,
    pub name: String,
    /// Name and default value.
    pub parameters: Vec<(String, Option<Expression>)>,
    pub body: Vec<Statement>,
}

/// A class: its declared attributes in order and its methods.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    pub line: u32,
    pub name: String,
    /// Attribute names; a constant (`name : Final[int] = 17`) has its value with it.
    pub attributes: Vec<(String, Option<Expression>)>,
    pub methods: Vec<Function>,
}

/// What a source file defines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct File {
    pub classes: Vec<Class>,
    pub functions: Vec<Function>,
}

/// Parses a source file; `name` is its module path, for messages.
pub fn parse(name: &str, text: &str) -> Result<File, ScriptError> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(ScriptError::Limit { what: "source text", limit: MAX_SOURCE_BYTES });
    }
    let tokens = tokenize(text).map_err(|(line, what)| syntax(name, line, what))?;
    let mut parser = Parser { file: name, tokens: &tokens, at: 0, depth: 0 };
    parser.file()
}

fn syntax(file: &str, line: u32, what: String) -> ScriptError {
    ScriptError::Syntax { file: file.to_owned(), line, what }
}

/// Positional and named arguments of a call.
type Arguments = (Vec<Expression>, Vec<(String, Expression)>);

struct Parser<'a> {
    file: &'a str,
    tokens: &'a [(Token, u32)],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn fault(&self, what: impl Into<String>) -> ScriptError {
        syntax(self.file, self.line(), what.into())
    }

    /// The next token; the last one, `End`, is never passed.
    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        if found {
            self.next();
        }
        found
    }

    fn take_sign(&mut self, sign: char) -> bool {
        self.take(&Token::Sign(sign))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Name(name) if name == word);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), ScriptError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    fn expect_sign(&mut self, sign: char) -> Result<(), ScriptError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("{sign:?}"))) }
    }

    fn unexpected(&self, wanted: &str) -> ScriptError {
        let found = match self.peek() {
            Token::Name(name) => format!("{name:?}"),
            Token::Int(i) => i.to_string(),
            Token::Float(x) => x.to_string(),
            Token::Text(_) => "a string".into(),
            Token::Sign(c) => format!("{c:?}"),
            Token::Arrow => "\"->\"".into(),
            Token::NewLine => "the end of the line".into(),
            Token::Indent => "a deeper indent".into(),
            Token::Dedent => "the end of the block".into(),
            Token::End => "the end of the text".into(),
        };
        self.fault(format!("{wanted} is wanted, found {found}"))
    }

    fn name(&mut self, what: &str) -> Result<String, ScriptError> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ScriptError>) -> Result<T, ScriptError> {
        if self.depth >= MAX_NESTING {
            return Err(self.fault(format!("nests deeper than {MAX_NESTING}")));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn file(&mut self) -> Result<File, ScriptError> {
        let mut file = File::default();
        loop {
            let line = self.line();
            if self.take(&Token::End) {
                return Ok(file);
            } else if self.take_word("class") {
                file.classes.push(self.class(line)?);
            } else if self.take_word("def") {
                file.functions.push(self.function(line)?);
            } else if self.take_word("op_version_set") {
                self.expect_sign('=')?;
                self.next();
                self.expect(&Token::NewLine, "the end of the line")?;
            } else {
                return Err(self.unexpected("a class or a function"));
            }
        }
    }

    fn class(&mut self, line: u32) -> Result<Class, ScriptError> {
        let name = self.name("a class name")?;
        if self.take_sign('(') && !self.take_sign(')') {
            let base = self.name("a base class")?;
            if base != "Module" {
                return Err(self.fault(format!("class {name} derives from {base}; only Module is read")));
            }
            self.expect_sign(')')?;
        }
        self.open_block()?;
        let mut class = Class { line, name, attributes: Vec::new(), methods: Vec::new() };
        while !self.take(&Token::Dedent) {
            let line = self.line();
            if self.take_word("def") {
                class.methods.push(self.function(line)?);
            } else if self.take_word("pass") {
                self.expect(&Token::NewLine, "the end of the line")?;
            } else {
                self.class_line(&mut class)?;
            }
        }
        Ok(class)
    }

    /// `name : type`, `name : Final[type] = value`, or a list of names such as `__parameters__ = ["w", ]`.
    fn class_line(&mut self, class: &mut Class) -> Result<(), ScriptError> {
        let name = self.name("an attribute")?;
        if self.take_sign(':') {
            self.expression()?;
            let value = if self.take_sign('=') { Some(self.expression()?) } else { None };
            class.attributes.push((name, value));
        } else if matches!(name.as_str(), "__parameters__" | "__buffers__" | "__annotations__") {
            self.expect_sign('=')?;
            self.expression()?;
        } else {
            return Err(self.unexpected("a type"));
        }
        self.expect(&Token::NewLine, "the end of the line")
    }

    fn open_block(&mut self) -> Result<(), ScriptError> {
        self.expect_sign(':')?;
        self.expect(&Token::NewLine, "the end of the line")?;
        self.expect(&Token::Indent, "a block")
    }

    fn function(&mut self, line: u32) -> Result<Function, ScriptError> {
        let name = self.name("a function name")?;
        self.expect_sign('(')?;
        let mut parameters = Vec::new();
        while !self.take_sign(')') {
            let parameter = self.name("a parameter")?;
            if self.take_sign(':') {
                self.expression()?;
            }
            let default = if self.take_sign('=') { Some(self.expression()?) } else { None };
            parameters.push((parameter, default));
            if !self.take_sign(',') && *self.peek() != Token::Sign(')') {
                return Err(self.unexpected("\",\" or \")\""));
            }
        }
        if self.take(&Token::Arrow) {
            self.expression()?;
        }
        Ok(Function { line, name, parameters, body: self.block()? })
    }

    fn block(&mut self) -> Result<Vec<Statement>, ScriptError> {
        self.open_block()?;
        self.deeper(|parser| {
            let mut statements = Vec::new();
            while !parser.take(&Token::Dedent) {
                statements.push(parser.statement()?);
            }
            Ok(statements)
        })
    }

    fn statement(&mut self) -> Result<Statement, ScriptError> {
        let line = self.line();
        if self.take_word("if") {
            let condition = self.expression()?;
            let then = self.block()?;
            let otherwise = if self.take_word("else") { self.block()? } else { Vec::new() };
            return Ok(Statement { line, kind: StatementKind::If { condition, then, otherwise } });
        }
        if self.take_word("while") {
            let condition = self.expression()?;
            return Ok(Statement { line, kind: StatementKind::While { condition, body: self.block()? } });
        }
        if self.take_word("for") {
            let variable = self.name("a loop variable")?;
            if !self.take_word("in") {
                return Err(self.unexpected("\"in\""));
            }
            let range = self.expression()?;
            return Ok(Statement { line, kind: StatementKind::For { variable, range, body: self.block()? } });
        }
        let kind = if self.take_word("return") {
            let value = if *self.peek() == Token::NewLine { None } else { Some(self.expression()?) };
            StatementKind::Return(value)
        } else if self.take_word("pass") {
            StatementKind::Pass
        } else {
            self.assignment()?
        };
        self.expect(&Token::NewLine, "the end of the line")?;
        Ok(Statement { line, kind })
    }

    /// `a = x`, `a, b, = x`, or an expression alone.
    fn assignment(&mut self) -> Result<StatementKind, ScriptError> {
        let first = self.expression()?;
        let mut targets = vec![first];
        let mut unpack = false;
        while self.take_sign(',') {
            unpack = true;
            if *self.peek() == Token::Sign('=') {
                break;
            }
            targets.push(self.expression()?);
        }
        if self.take_sign('=') {
            return Ok(StatementKind::Assign { targets, unpack, value: self.expression()? });
        }
        match targets.pop() {
            Some(only) if !unpack => Ok(StatementKind::Expression(only)),
            _ => Err(self.unexpected("\"=\"")),
        }
    }

    fn expression(&mut self) -> Result<Expression, ScriptError> {
        self.deeper(Self::signed)
    }

    fn signed(&mut self) -> Result<Expression, ScriptError> {
        let line = self.line();
        if !self.take_sign('-') {
            return self.postfix();
        }
        let kind = match self.expression()?.kind {
            ExpressionKind::Int(i) => ExpressionKind::Int(-i),
            ExpressionKind::Float(x) => ExpressionKind::Float(-x),
            kind => ExpressionKind::Negative(Box::new(Expression { line, kind })),
        };
        Ok(Expression { line, kind })
    }

    fn postfix(&mut self) -> Result<Expression, ScriptError> {
        let mut expression = self.primary()?;
        // A chain is a nest on the left: bound it like any other.
        for _ in 0..MAX_NESTING {
            let line = self.line();
            let kind = if self.take_sign('.') {
                ExpressionKind::Attribute(Box::new(expression), self.name("a name")?)
            } else if self.take_sign('(') {
                let (arguments, keywords) = self.arguments()?;
                ExpressionKind::Call { function: Box::new(expression), arguments, keywords }
            } else if self.take_sign('[') {
                ExpressionKind::Index(Box::new(expression), self.list(']')?.0)
            } else {
                return Ok(expression);
            };
            expression = Expression { line, kind };
        }
        Err(self.fault(format!("nests deeper than {MAX_NESTING}")))
    }

    fn arguments(&mut self) -> Result<Arguments, ScriptError> {
        let (mut arguments, mut keywords) = (Vec::new(), Vec::new());
        while !self.take_sign(')') {
            let is_keyword = matches!(self.peek(), Token::Name(_))
                && matches!(self.tokens.get(self.at + 1), Some((Token::Sign('='), _)));
            if is_keyword {
                let name = self.name("a name")?;
                self.expect_sign('=')?;
                keywords.push((name, self.expression()?));
            } else {
                arguments.push(self.expression()?);
            }
            if !self.take_sign(',') && *self.peek() != Token::Sign(')') {
                return Err(self.unexpected("\",\" or \")\""));
            }
        }
        Ok((arguments, keywords))
    }

    /// Expressions up to a closing sign, and whether a comma was among them.
    fn list(&mut self, close: char) -> Result<(Vec<Expression>, bool), ScriptError> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.take_sign(close) {
            items.push(self.expression()?);
            if self.take_sign(',') {
                comma = true;
            } else if *self.peek() != Token::Sign(close) {
                return Err(self.unexpected(&format!("\",\" or {close:?}")));
            }
        }
        Ok((items, comma))
    }

    fn primary(&mut self) -> Result<Expression, ScriptError> {
        let line = self.line();
        let kind = match self.peek() {
            Token::Name(_) | Token::Int(_) | Token::Float(_) | Token::Text(_) => match self.next() {
                Token::Name(name) => match name.as_str() {
                    "None" => ExpressionKind::None,
                    "True" => ExpressionKind::Bool(true),
                    "False" => ExpressionKind::Bool(false),
                    _ => ExpressionKind::Name(name),
                },
                Token::Int(i) => ExpressionKind::Int(i),
                Token::Float(x) => ExpressionKind::Float(x),
                Token::Text(text) => ExpressionKind::Text(text),
                _ => return Err(self.unexpected("a value")),
            },
            Token::Sign('(') => {
                self.next();
                let (mut items, comma) = self.list(')')?;
                match items.pop() {
                    Some(only) if items.is_empty() && !comma => return Ok(only),
                    last => {
                        items.extend(last);
                        ExpressionKind::Tuple(items)
                    }
                }
            }
            Token::Sign('[') => {
                self.next();
                ExpressionKind::List(self.list(']')?.0)
            }
            Token::Sign('{') => {
                self.next();
                let mut entries = Vec::new();
                while !self.take_sign('}') {
                    let key = self.expression()?;
                    self.expect_sign(':')?;
                    entries.push((key, self.expression()?));
                    if !self.take_sign(',') && *self.peek() != Token::Sign('}') {
                        return Err(self.unexpected("\",\" or \"}\""));
                    }
                }
                ExpressionKind::Dict(entries)
            }
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Expression { line, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_with_branches_and_loops_is_read() {
        let text = "class A(Module):
  __parameters__ = [\"w\", ]
  w : Tensor
  k : Final[int] = 17
  sub : __torch__.B
  def forward(self: __torch__.A,
    s: Dict[str, Tensor], n: int=3) -> Tuple[Tensor, int]:
    a, b, = (self.sub).split(s[\"q\"], -1.5e-3, alpha=2)
    if torch.gt(n, 0):
      _0 = torch.add(a, b)
    else:
      _0 = a
    for _1 in range(torch.len(s)):
      torch.append([1, 2], _1)
    return (_0, n)
";
        let file = parse("__torch__", text).unwrap();
        let class = &file.classes[0];
        assert_eq!(class.attributes.len(), 3);
        assert_eq!(class.attributes[1].1.as_ref().unwrap().kind, ExpressionKind::Int(17));
        let forward = &class.methods[0];
        assert_eq!(forward.parameters.len(), 3);
        assert_eq!(forward.body.len(), 4);
        assert!(
            matches!(&forward.body[0].kind, StatementKind::Assign { targets, unpack: true, .. } if targets.len() == 2)
        );
    }

    #[test]
    fn what_is_not_the_dialect_is_refused_with_its_line() {
        let refused = |body: &str| match parse("m", &format!("def f(x: int) -> int:\n  a = x\n  {body}\n")) {
            Err(ScriptError::Syntax { line, what, .. }) => (line, what),
            other => panic!("{body}: {other:?}"),
        };
        for body in [
            "b = a + x",
            "b = a == x",
            "b = (a",
            "import os",
            "del a",
            "b = \"open",
            "return a if x else 1",
            "b = lambda: 1",
            "b = [i for i in a]",
            "a, b",
            "with a:",
            "b = 1x",
            "   b = 1",
            "b = a]",
        ] {
            assert_eq!(refused(body).0, 3, "{body}");
        }
        assert!(parse("m", "import os\n").is_err());
        assert!(parse("m", "class A(NamedTuple):\n  x : int\n").is_err());
        let deep = format!("def f(x: int) -> int:\n  return {}x{}\n", "(".repeat(3000), ")".repeat(3000));
        assert!(matches!(parse("m", &deep), Err(ScriptError::Syntax { line: 2, .. })));
        let chain = format!("def f(x: int) -> int:\n  return x{}\n", ".a".repeat(3000));
        assert!(parse("m", &chain).is_err());
    }
}
