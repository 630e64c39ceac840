//! A reader for the few YAML shapes that OpenCV and ROS write: mappings by indentation, numbers and words, flow lists over
//! several lines, block lists, comments, quotes. OpenCV's own files begin with `%YAML:1.0`, which no YAML library accepts.

/// A place in a file and what is wrong there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    /// From 1.
    pub line: usize,
    pub key: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(String),
    List(Vec<String>),
    Map(Map),
}

/// Keys in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Map {
    entries: Vec<Entry>,
    /// Line of the key that this is the value of; 1 for the whole file.
    line: usize,
    /// That key, with those above it: `camera_matrix.data`.
    path: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    key: String,
    line: usize,
    value: Value,
}

/// Deeper nesting than this is nobody's calibration file.
const MAX_DEPTH: usize = 8;

impl Map {
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let lines: Vec<Line<'_>> =
            text.lines().enumerate().filter_map(|(index, line)| Line::new(index + 1, line)).collect();
        let mut reader = Reader { lines: &lines, next: 0 };
        let indent = lines.first().map_or(0, |line| line.indent);
        let map = reader.map(indent, 0, "", 1)?;
        match reader.peek() {
            None => Ok(map),
            Some(line) => Err(line.fault("", "indented less than the lines before it")),
        }
    }

    fn full_key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// A fault at a key, or where it should be.
    pub fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        let line = self.entries.iter().find(|entry| entry.key == key).map_or(self.line, |entry| entry.line);
        Fault { line, key: self.full_key(key), message: message.into() }
    }

    fn entry(&self, key: &str) -> Result<&Value, Fault> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| &entry.value).ok_or_else(|| self.fault(key, "is missing"))
    }

    pub fn scalar(&self, key: &str) -> Result<&str, Fault> {
        match self.entry(key)? {
            Value::Scalar(text) => Ok(text),
            _ => Err(self.fault(key, "must be a single value")),
        }
    }

    pub fn map(&self, key: &str) -> Result<&Map, Fault> {
        match self.entry(key)? {
            Value::Map(map) => Ok(map),
            _ => Err(self.fault(key, "must have keys of its own (rows, cols, data)")),
        }
    }

    pub fn whole_number(&self, key: &str) -> Result<usize, Fault> {
        let text = self.scalar(key)?;
        text.parse().map_err(|_| self.fault(key, format!("{text:?} is not a whole number")))
    }

    pub fn numbers(&self, key: &str) -> Result<Vec<f64>, Fault> {
        let Value::List(items) = self.entry(key)? else {
            return Err(self.fault(key, "must be a list of numbers"));
        };
        items
            .iter()
            .map(|item| match item.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(self.fault(key, format!("{item:?} is not a finite number"))),
            })
            .collect()
    }
}

/// A line with something on it.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn new(number: usize, line: &'a str) -> Option<Self> {
        let line = without_comment(line).trim_end();
        let text = line.trim_start_matches(' ');
        let is_marker = line.starts_with('%') || line == "---" || line == "...";
        let indent = line.len() - text.len();
        (!text.is_empty() && !is_marker).then_some(Self { number, indent, text })
    }

    fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        Fault { line: self.number, key: key.to_owned(), message: message.into() }
    }
}

/// Cuts a comment: a # at the start or after a space, outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if character == '"' || character == '\'' => quote = Some(character),
            None if character == '#' && before.is_whitespace() => return &line[..at],
            None => {}
        }
        before = character;
    }
    line
}

struct Reader<'a> {
    lines: &'a [Line<'a>],
    next: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<Line<'a>> {
        self.lines.get(self.next).copied()
    }

    /// The keys indented by exactly `indent`.
    fn map(&mut self, indent: usize, depth: usize, path: &str, line: usize) -> Result<Map, Fault> {
        let mut map = Map { entries: Vec::new(), line, path: path.to_owned() };
        while let Some(line) = self.peek() {
            if line.indent < indent {
                break;
            }
            if depth > MAX_DEPTH {
                return Err(line.fault(path, "nested too deeply"));
            }
            if line.indent > indent {
                return Err(line.fault(path, "indented more than the lines before it"));
            }
            let (key, rest) = split_key(line.text).ok_or_else(|| {
                let shown: String = line.text.chars().take(30).collect();
                line.fault(path, format!("expected `key: value`, got {shown:?}"))
            })?;
            let full_key = map.full_key(&key);
            if map.has(&key) {
                return Err(line.fault(&full_key, "is given twice"));
            }
            self.next += 1;
            let value = self.value(rest, line, depth, &full_key)?;
            map.entries.push(Entry { key, line: line.number, value });
        }
        Ok(map)
    }

    fn value(&mut self, rest: &'a str, line: Line<'a>, depth: usize, key: &str) -> Result<Value, Fault> {
        let mut rest = rest.trim();
        if rest.starts_with('!') {
            // A type tag such as !!opencv-matrix: the keys below say the same.
            rest = rest.split_once(' ').map_or("", |(_, after)| after.trim());
        }
        if rest.starts_with('[') {
            return self.flow_list(rest, line, key);
        }
        if !rest.is_empty() {
            return Ok(Value::Scalar(unquoted(rest)));
        }
        match self.peek() {
            // A block list may stand as far left as its key.
            Some(next) if is_item(next.text) && next.indent >= line.indent => {
                let mut items = Vec::new();
                while let Some(item) = self.peek().filter(|item| is_item(item.text) && item.indent == next.indent) {
                    items.push(unquoted(item.text[1..].trim()));
                    self.next += 1;
                }
                Ok(Value::List(items))
            }
            Some(next) if next.indent > line.indent => {
                Ok(Value::Map(self.map(next.indent, depth + 1, key, line.number)?))
            }
            _ => Ok(Value::Scalar(String::new())),
        }
    }

    /// `[a, b, …]`, over as many lines as it takes.
    fn flow_list(&mut self, first: &'a str, line: Line<'a>, key: &str) -> Result<Value, Fault> {
        let mut items = Vec::new();
        let mut text = first[1..].trim();
        loop {
            let (inside, after) = match text.split_once(']') {
                Some((inside, after)) => (inside, Some(after)),
                None => (text, None),
            };
            if inside.contains('[') || inside.contains('{') {
                return Err(line.fault(key, "lists within lists are not expected here"));
            }
            items.extend(inside.split(',').map(str::trim).filter(|item| !item.is_empty()).map(unquoted));
            match after {
                Some(after) if after.trim().is_empty() => return Ok(Value::List(items)),
                Some(after) => {
                    let shown: String = after.trim().chars().take(20).collect();
                    return Err(line.fault(key, format!("unexpected {shown:?} after the list")));
                }
                None => {}
            }
            let Some(next) = self.peek() else {
                return Err(line.fault(key, "the list has no end (]): is the file cut short?"));
            };
            text = next.text;
            self.next += 1;
        }
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Key and what follows its colon.
fn split_key(text: &str) -> Option<(String, &str)> {
    let (key, rest) = match text.split_once(": ") {
        Some(parts) => parts,
        None => (text.strip_suffix(':')?, ""),
    };
    let key = unquoted(key.trim());
    (!key.is_empty() && !key.starts_with(['-', '[', '{'])).then_some((key, rest))
}

fn unquoted(text: &str) -> String {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    if text.len() >= 2 {
        if let Some(inner) = inside('"') {
            let mut out = String::with_capacity(inner.len());
            let mut characters = inner.chars();
            while let Some(character) = characters.next() {
                out.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
            }
            return out;
        }
        if let Some(inner) = inside('\'') {
            return inner.replace("''", "'");
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_shapes_are_read() {
        let text = "%YAML:1.0\n---\nimage_width: 1280 # px\nname: \"a \\\"b\\\" # c\"\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   \
                    data: [ 1., 2.5e+02,\n       -3 ]\nbinning:\n- 1\n- 2\nlast: 'it''s'\n";
        let map = Map::parse(text).unwrap();
        assert_eq!(map.whole_number("image_width"), Ok(1280));
        assert_eq!(map.scalar("name"), Ok("a \"b\" # c"));
        assert_eq!(map.map("camera_matrix").unwrap().numbers("data"), Ok(vec![1.0, 250.0, -3.0]));
        assert_eq!(map.numbers("binning"), Ok(vec![1.0, 2.0]));
        assert_eq!(map.scalar("last"), Ok("it's"));
    }

    #[test]
    fn faults_name_line_and_key() {
        let fault = |text: &str| Map::parse(text).unwrap_err();
        assert_eq!(fault("a: 1\nb: 2\na: 3\n"), Fault { line: 3, key: "a".into(), message: "is given twice".into() });
        assert_eq!(fault("m:\n  rows: 3\n  data: [1, 2\n").line, 3);
        assert_eq!(fault("m:\n  rows: 3\n  data: [1, 2\n").key, "m.data");
        assert_eq!(fault("a: 1\n   b: 2\n").line, 2);
        assert_eq!(fault("  a: 1\nb: 2\n").line, 2);
        assert_eq!(fault("a: 1\nnonsense\n").line, 2);
        let map = Map::parse("m:\n  data: [1, x]\n").unwrap();
        let fault = map.map("m").unwrap().numbers("data").unwrap_err();
        assert_eq!((fault.line, fault.key.as_str()), (2, "m.data"));
        assert!(fault.message.contains("\"x\""));
        assert_eq!(map.map("m").unwrap().numbers("rows").unwrap_err().key, "m.rows");
        // Endless nesting is refused before it fills the stack.
        let deep: String = (0..20_000).map(|n| format!("{}k:\n", " ".repeat(n % 5000))).collect();
        assert!(Map::parse(&deep).is_err());
    }
}
