//! `tenon bench chain`: every part measures something and says so in lines of JSON.

use std::process::Command;

use crate::programs::{program, stderr};

#[test]
fn the_chain_is_measured_through_the_bridge_and_without_it() {
    let mut command = Command::new(program("tenon"));
    command.args(["bench", "chain", "--part", "bridge", "--quick", "--json", "--config"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/robot.toml"));
    let output = command.output().expect("tenon starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let names: Vec<&str> = lines.iter().filter_map(|line| line["bench"].as_str()).collect();
    assert_eq!(names, ["chain/bridge", "chain/bridge/call", "chain/bridge/ours"]);
    let ms = |line: usize, key: &str| lines[line][key].as_f64().unwrap_or_else(|| panic!("{key}: {}", lines[line]));
    for line in 0..3 {
        assert_eq!(lines[line]["n"], 300);
        assert!(0.0 < ms(line, "p50") && ms(line, "p50") <= ms(line, "p99") && ms(line, "p99") <= ms(line, "max"));
    }
    // The server takes what it was told to: most calls more than 2 ms, which no other call here needs.
    assert!(ms(0, "peer_p50") > 2.0 && ms(1, "p50") > 2.0, "{text}");
    // The whole of a target contains its call and what is ours.
    assert!(ms(0, "max") >= ms(1, "max") && ms(0, "max") >= ms(2, "max"), "{text}");
    assert!(lines[2]["of_server"].as_f64().is_some_and(|share| share > 0.0), "{text}");
}
