//! Carries lines between a person, or a script, and the wizard.

use std::io::{BufRead, Write};

use super::machine::Wizard;
use super::turn::{Ending, Input, Then};
use super::words;
use super::worker::Worker;

/// Where answers come from.
pub enum Answers<'a> {
    /// Lines of a terminal or a file; their end is `quit`.
    Lines(&'a mut dyn BufRead),
    /// Every question gets its safe answer: Enter.
    Yes,
}

/// A script that is asked the same thing this often without a sensible answer is given up.
const MAX_QUESTIONS: usize = 10_000;

/// Runs a session to its end. `out`: what is said and asked.
pub fn talk(
    wizard: &mut Wizard,
    worker: &mut Worker<'_>,
    answers: &mut Answers<'_>,
    out: &mut dyn Write,
) -> anyhow::Result<Ending> {
    let mut turn = wizard.step(Input::Begin);
    let mut questions = 0;
    loop {
        for line in &turn.say {
            writeln!(out, "{line}")?;
        }
        turn = match turn.then {
            Then::End(ending) => return Ok(ending),
            Then::Do(task) => {
                out.flush()?;
                let report = worker.work(&task);
                wizard.step(Input::Report(report))
            }
            Then::Ask(question) => {
                questions += 1;
                write!(out, "{}", words::prompt(question))?;
                out.flush()?;
                let line = match answers {
                    Answers::Yes => {
                        writeln!(out)?;
                        String::new()
                    }
                    Answers::Lines(input) => {
                        let mut line = String::new();
                        let ended = input.read_line(&mut line)? == 0;
                        if ended || questions > MAX_QUESTIONS { "quit".to_owned() } else { line }
                    }
                };
                wizard.step(Input::Answer(&line))
            }
        };
    }
}
