//! Every command explains itself: `--help` ends well, shows an example, and names every option that the example uses.

use std::process::Command;

use crate::programs::program;

const PROGRAMS: [&str; 5] = ["tenon", "tenon-train", "tenon-calibrate", "tenon-bridge", "tenon-sim-server"];

fn help(program_name: &str, path: &[&str]) -> String {
    let output = Command::new(program(program_name)).args(path).arg("--help").output().expect("it starts");
    assert!(output.status.success(), "{program_name} {path:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

/// The names under "Commands:".
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Continued descriptions stand further to the right.
    let entries = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    entries.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(String::from).collect()
}

/// Lines of the help that call the program, with continued ones joined.
fn examples(help: &str, program_name: &str) -> Vec<Vec<String>> {
    let text = help.split_once("Example").or_else(|| help.split_once("A whole run:")).map_or("", |(_, text)| text);
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut open = false;
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace().take_while(|word| !matches!(*word, "&" | "|"));
        match words.next() {
            Some(first) if PROGRAMS.contains(&first) => {
                open = first == program_name;
                if open {
                    found.push(words.map(String::from).collect());
                }
            }
            // clap breaks long lines at the width of the terminal.
            Some(first) if open && line.starts_with("  ") => {
                let last = found.last_mut().expect("open");
                last.push(first.to_string());
                last.extend(words.map(String::from));
            }
            _ => open = false,
        }
    }
    found
}

fn check(program_name: &str, path: &[&str]) -> usize {
    let text = help(program_name, path);
    let examples = examples(&text, program_name);
    assert!(!examples.is_empty(), "{program_name} {path:?} --help shows no example:\n{text}");
    for example in &examples {
        // An example of a command that has subcommands may show one of them.
        let names: Vec<&str> = example.iter().map(String::as_str).take_while(|w| !w.starts_with('-')).collect();
        let mut target = Vec::new();
        let mut explained = help(program_name, &[]);
        for name in names {
            if !subcommands(&explained).iter().any(|s| s == name) {
                break;
            }
            target.push(name);
            explained = help(program_name, &target);
        }
        assert!(target.starts_with(path), "{program_name} {path:?} --help shows another command: {example:?}");
        // `bench` is one by itself, and has subcommands too.
        let mut usage =
            explained.lines().skip_while(|line| !line.starts_with("Usage:")).take_while(|line| !line.is_empty());
        assert!(usage.any(|line| !line.contains("<COMMAND>")), "{example:?} is not a whole command");
        for option in example.iter().filter(|w| w.starts_with("--")) {
            assert!(explained.contains(option), "{program_name} {target:?} has no {option}, its example has");
        }
    }
    let nested = subcommands(&text);
    1 + nested.iter().map(|name| check_nested(program_name, path, name)).sum::<usize>()
}

fn check_nested(program_name: &str, path: &[&str], name: &str) -> usize {
    // These hand over to the programs of their own.
    if program_name == "tenon" && matches!(name, "train" | "calibrate") {
        return 0;
    }
    check(program_name, &[path, &[name]].concat())
}

#[test]
fn every_command_shows_an_example_with_options_that_it_has() {
    let commands: usize = PROGRAMS.iter().map(|name| check(name, &[])).sum();
    assert!(commands >= 18, "only {commands} commands were found");
}
