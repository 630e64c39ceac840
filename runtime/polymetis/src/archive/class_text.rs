//! Looks at TorchScript class text far enough to check an archive: declared attributes, the shape of
//! a method. It does not interpret methods.
//!
//! The text is in the serialised dialect: two-space indent, `class Name(Module):`, attribute lines
//! `name : type`, methods whose `self` is annotated with the dotted class name.

/// One class of a source file.
#[derive(Debug, Clone, Copy)]
pub struct ClassText<'a> {
    lines: &'a str,
}

/// A method's head and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method<'a> {
    /// Arguments after `self`, each `name: type`.
    pub arguments: Vec<&'a str>,
    /// Return type.
    pub returns: &'a str,
    /// Trimmed lines of the body.
    pub body: Vec<&'a str>,
}

impl<'a> ClassText<'a> {
    /// Finds a class in a source file by its name without module.
    pub fn find(source: &'a str, name: &str) -> Option<Self> {
        let mut offset = 0;
        let mut start = None;
        for line in source.split_inclusive('\n') {
            if let Some(head) = line.strip_prefix("class ") {
                if let Some(start) = start {
                    return Some(Self { lines: &source[start..offset] });
                }
                if head.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')) {
                    start = Some(offset + line.len());
                }
            }
            offset += line.len();
        }
        start.map(|start| Self { lines: &source[start..] })
    }

    /// The attributes declared before the first method, `(name, type)`.
    pub fn attributes(&self) -> Vec<(&'a str, &'a str)> {
        self.lines
            .lines()
            .take_while(|line| !line.trim_start().starts_with("def "))
            .filter_map(|line| line.split_once(" : "))
            .map(|(name, kind)| (name.trim(), kind.trim()))
            .collect()
    }

    /// Finds a method by name.
    pub fn method(&self, name: &str) -> Option<Method<'a>> {
        let head = format!("\n  def {name}(");
        let start =
            if self.lines.starts_with(&head[1..]) { head.len() - 1 } else { self.lines.find(&head)? + head.len() };
        let rest = &self.lines[start..];
        // Argument types nest square brackets only, so the first round one closes the list.
        let (arguments, rest) = rest.split_once(')')?;
        let (returns, rest) = rest.split_once(":\n")?;
        let returns = returns.trim().strip_prefix("->")?.trim();
        let arguments = split_at_commas(arguments);
        let body = rest
            .lines()
            .take_while(|line| line.starts_with("    ") || line.trim().is_empty())
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let (_self, arguments) = arguments.split_first()?;
        Some(Method { arguments: arguments.to_vec(), returns, body })
    }
}

/// Splits at commas outside square brackets.
fn split_at_commas(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut parts = Vec::new();
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "class A(Module):
  x : int
  y : Dict[str, Tensor]
  def forward(self: __torch__.A,
    s: Dict[str, Tensor], t: int) -> Dict[str, Tensor]:
    a = s[\"q\"]
    return self.y
  def empty(self: __torch__.A) -> NoneType:
    return None
class AB(Module):
  def forward(self: __torch__.AB) -> int:
    return 1
";

    #[test]
    fn attributes_and_methods_are_found() {
        let class = ClassText::find(TEXT, "A").unwrap();
        assert_eq!(class.attributes(), [("x", "int"), ("y", "Dict[str, Tensor]")]);
        let forward = class.method("forward").unwrap();
        assert_eq!(forward.arguments, ["s: Dict[str, Tensor]", "t: int"]);
        assert_eq!(forward.returns, "Dict[str, Tensor]");
        assert_eq!(forward.body, ["a = s[\"q\"]", "return self.y"]);
        let empty = class.method("empty").unwrap();
        assert!(empty.arguments.is_empty());
        assert_eq!(empty.body, ["return None"]);
        assert!(class.method("missing").is_none());
    }

    #[test]
    fn class_is_found_by_its_whole_name() {
        let class = ClassText::find(TEXT, "AB").unwrap();
        assert_eq!(class.method("forward").unwrap().body, ["return 1"]);
        assert!(ClassText::find(TEXT, "B").is_none());
        assert!(ClassText::find("", "B").is_none());
    }
}
