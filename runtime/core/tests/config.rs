//! Shipped configurations parse; wrong ones say where and what.

use tenon_core::config::{ConfigError, RobotConfig, TaskConfig, Values, parse};

const ROBOT: &str = include_str!("../../../configs/robot.toml");
const TASKS: [(&str, &str); 3] = [
    ("avoid_m1", include_str!("../../../configs/tasks/avoid_m1.toml")),
    ("avoid_m2", include_str!("../../../configs/tasks/avoid_m2.toml")),
    ("avoid_m3", include_str!("../../../configs/tasks/avoid_m3.toml")),
];

fn robot_error(from: &str, to: &str) -> ConfigError {
    assert!(ROBOT.contains(from), "the shipped file has no {from}");
    parse::<RobotConfig>("robot.toml", &ROBOT.replace(from, to)).expect_err("a wrong value must not pass")
}

#[test]
fn shipped_configurations_are_valid() {
    let robot = parse::<RobotConfig>("robot.toml", ROBOT).expect("configs/robot.toml is valid");
    // As the file says; the issue allows 0.35 s.
    assert!((robot.safety_limits().longest_stop_s() - 0.2).abs() < 0.01);
    for (name, text) in TASKS {
        let task: TaskConfig = parse(name, text).expect("a shipped task is valid");
        assert_eq!(task.task.as_str(), name);
    }
}

#[test]
fn a_mistyped_key_names_file_line_and_the_nearest_key() {
    let e = robot_error("joint_reserve_rad", "joint_reserv_rad");
    let line = ROBOT.lines().position(|l| l.starts_with("joint_reserve_rad")).expect("the key is there") + 1;
    assert_eq!((e.file.as_str(), e.line), ("robot.toml", line));
    assert!(e.message.contains("`joint_reserv_rad`") && e.message.contains("`joint_reserve_rad`"), "{e}");
}

#[test]
fn a_value_out_of_range_names_its_line() {
    let e = robot_error("state_rate_hz = 200.0", "state_rate_hz = -50.0");
    let line = ROBOT.lines().position(|l| l.starts_with("state_rate_hz")).expect("the key is there") + 1;
    assert_eq!(e.line, line);
    assert!(e.to_string().contains("bridge.state_rate_hz: -50"), "{e}");
}

#[test]
fn a_wrong_type_and_a_missing_key_are_errors() {
    assert!(robot_error("state_rate_hz = 200.0", "state_rate_hz = \"fast\"").message.contains("string"));
    assert!(robot_error("state_rate_hz = 200.0", "").message.contains("state_rate_hz"));
    assert!(robot_error("model = \"fer\"", "model = \"fre\"").message.contains("`fer`"));
}

#[test]
fn nan_and_too_many_finetuned_steps_are_refused() {
    assert!(robot_error("abort_tcp_step_m = 0.11", "abort_tcp_step_m = nan").message.contains("positive"));
    let text = TASKS[0].1.replace("finetuned_steps = 10 ", "finetuned_steps = 21 ");
    let e = parse::<TaskConfig>("task.toml", &text).expect_err("K' > K");
    assert!(e.message.contains("policy.model.finetuned_steps"), "{e}");
}

/// Values of the paper stand beside the others and are laid over them, table by table.
#[test]
fn values_of_the_paper_are_laid_over_the_others() {
    let text = format!(
        "{}\n[paper.finetune]\nbatch_size = 6250\n[paper.finetune.diffusion]\ngamma_denoising = 0.5\n",
        TASKS[0].1
    );
    let latest = TaskConfig::parse("t.toml", &text, Values::Latest).unwrap();
    assert_eq!(latest, TaskConfig::parse("t.toml", TASKS[0].1, Values::Paper).unwrap(), "there are none");
    let paper = TaskConfig::parse("t.toml", &text, Values::Paper).unwrap();
    let (old, new) = (latest.finetune().unwrap(), paper.finetune().unwrap());
    assert_eq!((new.batch_size, new.diffusion.as_ref().unwrap().gamma_denoising), (6250, 0.5));
    assert_eq!((old.iterations, &old.critic), (new.iterations, &new.critic));
    // A mistake in them is one of the file, whichever values are asked for.
    let wrong = text.replace("gamma_denoising = 0.5", "gamma_denoising = 1.5");
    let e = TaskConfig::parse("t.toml", &wrong, Values::Paper).unwrap_err();
    assert!(e.file.contains("[paper]") && e.message.contains("gamma_denoising"), "{e}");
}

/// What a resumed run reads back is what the run was begun with.
#[test]
fn a_configuration_reads_back_as_it_was_written() {
    for (name, text) in TASKS {
        let task = TaskConfig::parse(name, text, Values::Latest).unwrap();
        let written = toml::to_string(&task).unwrap();
        assert_eq!(TaskConfig::parse(name, &written, Values::Latest).unwrap(), task);
    }
}

#[test]
fn a_key_is_found_below_a_header_with_a_comment() {
    assert!(ROBOT.lines().any(|line| line.starts_with("[safety] ") && line.contains('#')));
    let e = robot_error("joint_reserve_rad = 0.05", "joint_reserve_rad = 5.0");
    let line = ROBOT.lines().position(|l| l.starts_with("joint_reserve_rad")).expect("the key is there") + 1;
    assert_eq!(e.line, line, "{e}");
}

#[test]
fn limits_of_the_calibration_are_checked_with_their_line() {
    let e = robot_error("position_m = 0.003", "position_m = 0.3");
    let line = ROBOT.lines().position(|l| l.starts_with("position_m = ")).expect("the key is there") + 1;
    assert_eq!(e.line, line);
    assert!(e.message.contains("calibration.proof.position_m: 0.3"), "{e}");
    // A stop below the warning would never warn.
    assert!(robot_error("stop_m = 0.005", "stop_m = 0.001").message.contains("calibration.drift.stop_m"));
    assert!(robot_error("min_views = 12", "min_view = 12").message.contains("`min_views`"));
}

/// `robot.toml` with its `[cameras]` and `[fusion]` examples in force.
fn with_cameras() -> String {
    let (head, tail) = ROBOT.split_once("# [cameras]").expect("the example is there");
    let lines = tail
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = ") || l.starts_with('[')).unwrap_or(line));
    format!("{head}[cameras]{}", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_example_of_cameras_is_valid_once_its_comment_signs_are_gone() {
    let robot: RobotConfig = parse("robot.toml", &with_cameras()).expect("a valid example");
    let cameras = robot.cameras.expect("the table is in force");
    assert_eq!((cameras.rig.as_str(), cameras.rate_hz, cameras.realtime_priority), ("bench", 30.0, 40));
    assert_eq!(robot.fusion, Default::default(), "the example shows the defaults");
    let plain: RobotConfig = parse("robot.toml", ROBOT).expect("the shipped file");
    assert!(plain.cameras.is_none());
}

#[test]
fn wrong_cameras_are_named() {
    for (from, to, key) in [
        ("rig = \"bench\"", "rig = \"../bench\"", "cameras.rig"),
        ("rate_hz = 30.0", "rate_hz = 0.0", "cameras.rate_hz"),
        ("realtime_priority = 40", "realtime_priority = 80", "below control.realtime_priority"),
        ("max_age_s = 0.5", "max_age_s = -1.0", "fusion.max_age_s"),
        ("max_age_s = 0.5", "max_age = 0.5", "max_age_s"),
        ("ready_within_s", "ready_whithin_s", "ready_within_s"),
    ] {
        let text = with_cameras();
        assert!(text.contains(from), "{from}");
        let error = parse::<RobotConfig>("robot.toml", &text.replacen(from, to, 1)).expect_err(to);
        assert!(error.to_string().contains(key), "{error}");
    }
}

/// `robot.toml` with its `[gripper]` example in force.
fn with_gripper() -> String {
    let (head, rest) = ROBOT.split_once("# [gripper]").expect("the example is there");
    let (table, tail) = rest.split_once("\n\n").expect("the table ends");
    format!("{head}[gripper]{}\n\n{tail}", table.replace("\n# ", "\n"))
}

#[test]
fn the_example_of_a_gripper_is_the_authors_once_its_comment_signs_are_gone() {
    let robot: RobotConfig = parse("robot.toml", &with_gripper()).expect("a valid example");
    let gripper = robot.gripper.expect("the table is in force");
    assert_eq!(gripper.toggle(), tenon_core::gripper::ToggleSettings::default());
    assert_eq!((gripper.close_speed_m_s, gripper.close_force_n, gripper.monitor().timeout.as_secs()), (0.07, 70.0, 2));
    let plain: RobotConfig = parse("robot.toml", ROBOT).expect("the shipped file");
    assert!(plain.gripper.is_none(), "the rod of Avoid is held by rigid fingers");
}

#[test]
fn wrong_grippers_are_named_with_their_line() {
    for (from, to, key) in [
        ("server = \"127.0.0.1:50052\"", "server = \"127.0.0.1\"", "gripper.server"),
        ("open_width_m = 0.08 ", "open_width_m = 0.8 ", "gripper.open_width_m"),
        ("close_force_n = 70.0", "close_force_n = nan", "gripper.close_force_n"),
        ("timeout_s = 2.0 ", "timeout_s = 1.5 ", "1.60 s"),
        ("observed_max_m = 0.065", "observed_max_m = 0.0", "gripper.observed_max_m"),
        ("toggle_threshold = 0.25", "toggle_threshold = 1.0", "gripper.toggle_threshold"),
        ("toggle_min_actions", "toggle_min_action", "`toggle_min_actions`"),
        ("timeout_s = 2.0", "", "timeout_s"),
    ] {
        let text = with_gripper();
        // The line of the example, not one of another table.
        let (head, table) = text.split_once("[gripper]").expect("in force");
        assert!(table.contains(from), "{from}");
        let text = format!("{head}[gripper]{}", table.replacen(from, to, 1));
        let error = parse::<RobotConfig>("robot.toml", &text).expect_err(to);
        assert!(error.message.contains(key), "{error}");
        let line = text.lines().position(|line| line.starts_with(to)).expect("the key is there") + 1;
        // A key that is missing has no line of its own.
        assert!(to.is_empty() || error.line == line, "{error}, not line {line}");
    }
}
