//! The text of a source file as tokens, with the lines that they stand in.

use super::super::MAX_NESTING;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Float(f64),
    Text(String),
    /// One of `( ) [ ] { } , : . = -` or `>` (for `->`).
    Sign(char),
    Arrow,
    NewLine,
    Indent,
    Dedent,
    End,
}

pub(super) type Fault = (u32, String);

pub(super) fn tokenize(text: &str) -> Result<Vec<(Token, u32)>, Fault> {
    let mut tokens = Vec::new();
    let mut indents = vec![0_usize];
    let mut open = 0_usize;
    for (index, line) in text.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let content = line.trim_start_matches(' ');
        if open == 0 {
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let indent = line.len() - content.len();
            let current = *indents.last().expect("the outermost indent is never popped");
            if indent > current {
                if indents.len() > MAX_NESTING {
                    return Err((number, format!("blocks nest deeper than {MAX_NESTING}")));
                }
                indents.push(indent);
                tokens.push((Token::Indent, number));
            }
            while indent < *indents.last().expect("the outermost indent is never popped") {
                indents.pop();
                tokens.push((Token::Dedent, number));
            }
            if indent != *indents.last().expect("the outermost indent is never popped") {
                return Err((number, "is indented like no block around it".into()));
            }
        }
        let mut characters = content.char_indices().peekable();
        while let Some((start, c)) = characters.next() {
            let token = match c {
                ' ' => continue,
                '#' => break,
                '(' | '[' | '{' => {
                    open += 1;
                    Token::Sign(c)
                }
                ')' | ']' | '}' => {
                    open = open.checked_sub(1).ok_or_else(|| (number, format!("{c} closes nothing")))?;
                    Token::Sign(c)
                }
                ',' | ':' | '=' => Token::Sign(c),
                '-' if characters.peek().is_some_and(|(_, next)| *next == '>') => {
                    characters.next();
                    Token::Arrow
                }
                '-' => Token::Sign('-'),
                '.' if !characters.peek().is_some_and(|(_, next)| next.is_ascii_digit()) => Token::Sign('.'),
                '"' | '\'' => Token::Text(string(c, &mut characters).map_err(|what| (number, what))?),
                _ if c.is_ascii_digit() || c == '.' => {
                    let mut end = start + 1;
                    let mut before = c;
                    while let Some((at, next)) = characters.peek().copied() {
                        let of_number = next.is_ascii_alphanumeric()
                            || next == '.'
                            || (matches!(next, '-' | '+') && matches!(before, 'e' | 'E'));
                        if !of_number {
                            break;
                        }
                        (end, before) = (at + 1, next);
                        characters.next();
                    }
                    number_of(&content[start..end])
                        .ok_or_else(|| (number, format!("{} is no number", &content[start..end])))?
                }
                _ if c.is_alphabetic() || c == '_' => {
                    let mut end = start + c.len_utf8();
                    while let Some((at, next)) = characters.peek().copied() {
                        if !(next.is_alphanumeric() || next == '_') {
                            break;
                        }
                        end = at + next.len_utf8();
                        characters.next();
                    }
                    Token::Name(content[start..end].to_owned())
                }
                _ => return Err((number, format!("{c:?} is not part of the serialised dialect"))),
            };
            tokens.push((token, number));
        }
        if open == 0 {
            tokens.push((Token::NewLine, number));
        }
    }
    let last = tokens.last().map_or(1, |(_, line)| *line);
    if open > 0 {
        return Err((last, "a bracket stays open".into()));
    }
    for _ in 1..indents.len() {
        tokens.push((Token::Dedent, last));
    }
    tokens.push((Token::End, last));
    Ok(tokens)
}

fn number_of(text: &str) -> Option<Token> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Token::Int);
    }
    text.parse().ok().map(Token::Float)
}

/// A string literal after its opening quote.
fn string(quote: char, characters: &mut std::iter::Peekable<std::str::CharIndices<'_>>) -> Result<String, String> {
    let mut text = String::new();
    let mut next = || characters.next().map(|(_, c)| c).ok_or_else(|| "a string stays open".to_owned());
    loop {
        let c = next()?;
        if c == quote {
            return Ok(text);
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            c @ ('\\' | '"' | '\'') => c,
            other => return Err(format!("\\{other} in a string is not read")),
        });
    }
}
