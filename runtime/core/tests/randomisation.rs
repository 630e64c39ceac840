//! Domain randomisation: the noise that is drawn is that of the table, and nothing else moves.

use nalgebra::{Quaternion, UnitQuaternion, Vector3};
use std::f64::consts::FRAC_1_SQRT_2;
use tenon_core::config::rig::{NoiseRecord, RigCalibration};
use tenon_core::config::{FieldNoise, PartNoise, RandomisationConfig, TaskConfig, Values, parse};
use tenon_core::fusion::quat_xyzw;
use tenon_core::geometry::{rotation_from_6d, rotation_to_6d};
use tenon_core::noise::SeededNoise;
use tenon_core::randomisation::{
    DEFAULT_POSITION_STD_M, DEFAULT_ROTATION_STD_RAD, ObservationNoise, Randomisation, RandomisationError,
    default_table, measured_table, parts_of,
};
use tenon_core::spec::{ObservationField, PART_NUMBERS};
use tenon_core::task::TaskName;

/// Standard errors that a statistic may be off. Of a normal distribution 1 in 1.7 million lies farther out; a test looks at some
/// hundred statistics, so one in ten thousand seeds would fail it.
const LEVEL: f64 = 5.0;
const LAMP: TaskName = TaskName::LampLow;
/// Values of the robot before the parts.
const ROBOT: usize = 16;

/// Mean and standard deviation are `mean` and `std`, to the level.
fn assert_normal(what: &str, values: &[f64], mean: f64, std: f64) {
    let n = values.len() as f64;
    let found = values.iter().sum::<f64>() / n;
    let spread = (values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    assert!((found - mean).abs() <= LEVEL * std / n.sqrt(), "{what}: mean {found}, not {mean} (σ {std})");
    // The standard error of a standard deviation is σ / √(2n).
    assert!((spread - std).abs() <= LEVEL * std / (2.0 * n).sqrt(), "{what}: σ {spread}, not {std}");
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>();
    sum(&|i| (a[i] - ma) * (b[i] - mb)) / (sum(&|i| (a[i] - ma).powi(2)) * sum(&|i| (b[i] - mb).powi(2))).sqrt()
}

/// An observation of the lamp: the base near the seam w = 0, the others anywhere.
fn observation() -> Vec<f64> {
    let mut x: Vec<f64> = (0..ROBOT).map(|i| 0.1 * i as f64 - 0.7).collect();
    x.splice(3..9, rotation_to_6d(&UnitQuaternion::from_euler_angles(0.3, -1.2, 2.5)));
    for (p, q) in [
        (
            [0.0, 0.24, -0.0156],
            UnitQuaternion::from_quaternion(Quaternion::new(1e-4, 0.0, -FRAC_1_SQRT_2, FRAC_1_SQRT_2)),
        ),
        ([0.1, 0.30, -0.02], UnitQuaternion::from_euler_angles(0.2, 0.1, -0.4)),
        ([-0.2, 0.15, -0.03], UnitQuaternion::from_euler_angles(-1.0, 0.5, 1.4)),
    ] {
        x.extend(p);
        x.extend(quat_xyzw(&q));
    }
    // The bar as published: its sign is the data's.
    x.extend([0.0, 0.38, -0.015, -1.0, 0.0, 0.0, 0.0]);
    assert_eq!(x.len(), LAMP.observation_dim());
    x
}

fn part(name: &str, position_std_m: [f64; 3], rotation_std_rad: [f64; 3]) -> PartNoise {
    PartNoise { part: name.into(), position_std_m, rotation_std_rad }
}

/// What a rig's calibration would have of two of the three parts that it sees.
fn table() -> Vec<PartNoise> {
    vec![
        part("lamp_hood", [4e-4, 3e-4, 9e-4], [3e-3, 5e-3, 2e-3]),
        part("lamp_base", [2e-3, 1e-3, 3e-3], [0.02, 0.035, 0.01]),
    ]
}

fn noise(parts: &[PartNoise], fields: &[FieldNoise], bias_share: f64) -> ObservationNoise {
    ObservationNoise::new(&LAMP.observation(), parts_of(LAMP), parts, fields, bias_share).unwrap()
}

/// The displacement of a part as the calibration measures it: in april axes, about the part's origin.
fn displacement(before: &[f64], after: &[f64]) -> [f64; 6] {
    let rotation = |x: &[f64]| UnitQuaternion::from_quaternion(Quaternion::new(x[6], x[3], x[4], x[5]));
    let turn = (rotation(after) * rotation(before).inverse()).scaled_axis();
    [after[0] - before[0], after[1] - before[1], after[2] - before[2], turn.x, turn.y, turn.z]
}

fn place(part: &str) -> usize {
    ROBOT + PART_NUMBERS * parts_of(LAMP).iter().position(|name| *name == part).unwrap()
}

/// `displacements[number][episode][step]` of a part.
fn displacements(noise: &ObservationNoise, part: &str, episodes: usize, steps: usize) -> Vec<Vec<Vec<f64>>> {
    let (mut stream, before, at) = (SeededNoise::new(4, 0), observation(), place(part));
    let mut bias = vec![0.0; noise.bias_len()];
    let mut all = vec![vec![Vec::new(); episodes]; 6];
    for episode in 0..episodes {
        noise.draw_bias(&mut stream, &mut bias);
        for _ in 0..steps {
            let mut x = before.clone();
            noise.disturb(&bias, &mut stream, &mut x);
            let d = displacement(&before[at..][..PART_NUMBERS], &x[at..][..PART_NUMBERS]);
            all.iter_mut().zip(d).for_each(|(number, d)| number[episode].push(d));
        }
    }
    all
}

#[test]
fn displacements_have_the_standard_deviations_of_the_table_whatever_the_split() {
    for share in [0.0, 0.3, 0.5, 1.0] {
        let noise = noise(&table(), &[], share);
        for entry in table() {
            let all = displacements(&noise, &entry.part, 6000, 2);
            let stds = [entry.position_std_m, entry.rotation_std_rad].concat();
            let first: Vec<Vec<f64>> = all.iter().map(|number| number.iter().map(|steps| steps[0]).collect()).collect();
            for (number, std) in stds.into_iter().enumerate() {
                let what = format!("{}, number {number}, share {share}", entry.part);
                assert_normal(&what, &first[number], 0.0, std);
                // Two steps of an episode share the bias, so their correlation is its share of the variance, which r estimates to
                // (1 − ρ²)/√n.
                let second: Vec<f64> = all[number].iter().map(|steps| steps[1]).collect();
                let r = correlation(&first[number], &second);
                // Rotation vectors and rounding to doubles leave 1e-6.
                let allowed = LEVEL * (1.0 - share * share) / 6000f64.sqrt() + 1e-6;
                assert!((r - share).abs() <= allowed, "{what}: {r} of the variance is bias");
            }
            for (a, b) in [(0, 1), (0, 3), (1, 4), (2, 5), (3, 4), (4, 5)] {
                let r = correlation(&first[a], &first[b]);
                assert!(r.abs() <= LEVEL / 6000f64.sqrt(), "{}: {a} and {b} go together, {r}", entry.part);
            }
        }
    }
}

#[test]
fn poses_stay_poses_and_what_has_no_entry_stays_to_the_bit() {
    let noise = noise(&table(), &[], 0.5);
    let (mut stream, before) = (SeededNoise::new(5, 0), observation());
    let mut bias = vec![0.0; noise.bias_len()];
    let (mut flips, moved) = (0, [place("lamp_base"), place("lamp_hood")]);
    for _ in 0..2000 {
        noise.draw_bias(&mut stream, &mut bias);
        let mut x = before.clone();
        noise.disturb(&bias, &mut stream, &mut x);
        for at in moved {
            let q = &x[at + 3..at + PART_NUMBERS];
            assert!((q.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12 && q[3] >= 0.0, "{q:?}");
        }
        // Across the seam all four signs flip, as they do on the robot.
        flips += usize::from(x[moved[0] + 4] > 0.0);
        for i in (0..x.len()).filter(|i| !moved.iter().any(|at| (*at..at + PART_NUMBERS).contains(i))) {
            assert_eq!(x[i].to_bits(), before[i].to_bits(), "value {i}");
        }
    }
    assert!((600..1400).contains(&flips), "{flips} of 2000 at the seam");
}

#[test]
fn entries_in_any_order_draw_the_same_and_a_stream_repeats_itself() {
    let mut turned_round = table();
    turned_round.reverse();
    let (a, b) = (noise(&table(), &[], 0.5), noise(&turned_round, &[], 0.5));
    assert_eq!(displacements(&a, "lamp_base", 3, 3), displacements(&b, "lamp_base", 3, 3));
    // Entries of zero draw nothing.
    let mut more = table();
    more.push(part("lamp_bulb", [0.0; 3], [0.0; 3]));
    assert_eq!(noise(&more, &[], 0.5), a);
}

#[test]
fn fields_of_the_robot_have_their_noise_in_their_own_units() {
    let field = |name: &str, std: &[f64]| FieldNoise { name: name.into(), std: std.to_vec() };
    let fields =
        [field("gripper_width", &[1e-3]), field("tcp_rotation6d", &[0.01]), field("tcp_position", &[1e-3, 0.0, 2e-3])];
    let noise = noise(&[], &fields, 0.5);
    let (mut stream, before) = (SeededNoise::new(6, 0), observation());
    let mut bias = vec![0.0; noise.bias_len()];
    let mut found = vec![Vec::new(); 7];
    for _ in 0..6000 {
        noise.draw_bias(&mut stream, &mut bias);
        let mut x = before.clone();
        noise.disturb(&bias, &mut stream, &mut x);
        let rotation = |x: &[f64]| rotation_from_6d(&std::array::from_fn(|i| x[3 + i])).unwrap();
        let turn: Vector3<f64> = (rotation(&x) * rotation(&before).inverse()).scaled_axis();
        let values = [x[0] - before[0], x[1] - before[1], x[2] - before[2], turn.x, turn.y, turn.z, x[15] - before[15]];
        found.iter_mut().zip(values).for_each(|(all, v)| all.push(v));
        assert!((x[3..6].iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12, "a row of a rotation");
        assert_eq!(x[9..15], before[9..15]);
        assert_eq!(x[16..], before[16..]);
    }
    for (number, std) in [(0, 1e-3), (2, 2e-3), (3, 0.01), (4, 0.01), (5, 0.01), (6, 1e-3)] {
        assert_normal(&format!("number {number}"), &found[number], 0.0, std);
    }
    assert!(found[1].iter().all(|v| *v == 0.0));
}

fn rig(noise: Vec<PartNoise>) -> RigCalibration {
    let mut rig = RigCalibration::empty("bench", "0.1.0", "2026-01-31T12:34:56Z".into());
    rig.noise = noise
        .into_iter()
        .map(|n| NoiseRecord {
            part: n.part,
            samples: 300,
            duration_s: 10.0,
            mean: [0.0; 7],
            min: [0.0; 7],
            max: [0.0; 7],
            std: [0.0; 7],
            position_std_m: n.position_std_m,
            rotation_std_rad: n.rotation_std_rad,
            date: "2026-01-31T12:34:56Z".into(),
        })
        .collect();
    rig
}

#[test]
fn the_table_of_a_rig_is_what_was_measured_on_it() {
    let text = toml::to_string_pretty(&rig(table())).unwrap();
    let read: RigCalibration = parse("calibration.toml", &text).unwrap();
    assert_eq!(measured_table(&read).unwrap(), table());
    let error = measured_table(&rig(Vec::new())).unwrap_err();
    assert!(error.to_string().contains("tenon-calibrate noise"), "{error}");
}

#[test]
fn the_default_table_is_the_specifications_and_leaves_the_bar() {
    for (task, seen) in [(TaskName::OneLegLow, 5), (TaskName::LampMed, 3), (TaskName::RoundTableLow, 3)] {
        let table = default_table(parts_of(task));
        assert_eq!(table.len(), seen);
        assert!(table.iter().all(|n| n.part != "fixture_front_bar"));
        assert!(table.iter().all(|n| n.position_std_m == [0.002, 0.002, 0.003]));
        assert!(table.iter().flat_map(|n| n.rotation_std_rad).all(|r| (r.to_degrees() - 2.0).abs() < 1e-12));
    }
    assert_eq!((DEFAULT_POSITION_STD_M[2], DEFAULT_ROTATION_STD_RAD.to_degrees().round()), (0.003, 2.0));
}

/// A shipped task's file with a `[randomisation]`.
fn with(task: &str, randomisation: &str) -> Result<TaskConfig, String> {
    let file = match task {
        "avoid" => include_str!("../../../configs/tasks/avoid_m1.toml"),
        _ => include_str!("../../../configs/paper/lamp_low/diffusion_mlp.pretrain.toml"),
    };
    TaskConfig::parse("task.toml", &format!("{file}\n{randomisation}"), Values::Latest).map_err(|e| e.to_string())
}

#[test]
fn a_configuration_becomes_numbers_that_read_back_as_they_were_written() {
    let mut config = with("lamp", "[randomisation]\nnoise = \"rigs/bench/current/calibration.toml\"").unwrap();
    let mut default = with("lamp", "[randomisation]\nnoise = \"default\"\nbias_share = 0.25").unwrap();
    let of = |config: &TaskConfig| {
        Randomisation::new(config.randomisation.as_ref().unwrap(), &LAMP.observation(), parts_of(LAMP))
    };
    // A table that has not been read is never taken for none.
    assert!(matches!(of(&config), Err(RandomisationError::Unread { .. })));
    assert!(matches!(of(&default), Err(RandomisationError::Unread { .. })));

    let randomisation = config.randomisation.as_mut().unwrap();
    randomisation.take_default(LAMP);
    assert_eq!(randomisation.file(), Some("rigs/bench/current/calibration.toml"));
    randomisation.take_measured(&rig(table()), "abc".into()).unwrap();
    assert_eq!(randomisation.part, table());
    let origin = randomisation.origin.clone().unwrap();
    assert_eq!((origin.sha256.as_deref(), origin.rig.as_deref()), (Some("abc"), Some("bench")));
    assert_eq!(of(&config).unwrap().observation, noise(&table(), &[], 0.5));

    default.randomisation.as_mut().unwrap().take_default(LAMP);
    assert_eq!(of(&default).unwrap().observation, noise(&default_table(parts_of(LAMP)), &[], 0.25));
    for config in [config, default] {
        let written = toml::to_string(&config).unwrap();
        assert_eq!(TaskConfig::parse("config.toml", &written, Values::Latest).unwrap(), config);
    }
}

#[test]
fn an_empty_table_does_nothing() {
    let config = with("avoid", "[randomisation]\n").unwrap();
    let empty: RandomisationConfig = config.randomisation.unwrap();
    let randomisation = Randomisation::new(&empty, &TaskName::AvoidM1.observation(), &[]).unwrap();
    assert!(randomisation.leaves_rollouts() && randomisation.leaves_cloning() && !randomisation.evaluation);
    assert!(with("avoid", "").unwrap().randomisation.is_none());
}

#[test]
fn what_is_wrong_is_named_with_its_key() {
    let entry = |part: &str| {
        format!(
            "[[randomisation.part]]\npart = \"{part}\"\nposition_std_m = [0, 0, 1e-3]\nrotation_std_rad = [0, 0, 0]\n"
        )
    };
    for (task, text, parts) in [
        ("lamp", entry("square_table_top"), &["task.toml", "no part `square_table_top`", "lamp_base, lamp_bulb"][..]),
        ("avoid", entry("lamp_base"), &["no part `lamp_base`", "its parts are none"]),
        ("avoid", "[randomisation]\nnoise = \"default\"".into(), &["randomisation.noise", "shows no parts"]),
        ("lamp", entry("lamp_base") + &entry("lamp_base"), &["`lamp_base` is listed twice"]),
        ("lamp", "[randomisation]\nnoise = \"default\"\n".to_string() + &entry("lamp_base"), &["not both"]),
        ("lamp", entry("lamp_base").replace("1e-3", "-1e-3"), &["lamp_base: -0.001 must be finite"]),
        ("lamp", "[randomisation]\naction_std = nan".into(), &["randomisation.action_std: NaN"]),
        ("lamp", "[randomisation]\nbias_share = 1.5".into(), &["randomisation.bias_share: 1.5", "between 0 and 1"]),
        ("lamp", "[randomisation]\nnoise_std = 1".into(), &["unknown key `noise_std`"]),
        ("lamp", "[randomisation]\norigin = { noise = \"default\" }".into(), &["randomisation.origin"]),
        (
            "avoid",
            "[[randomisation.field]]\nname = \"gripper_width\"\nstd = [1e-3]".into(),
            &["no field `gripper_width`", "commanded_position2, tcp_position2"],
        ),
        (
            "avoid",
            "[[randomisation.field]]\nname = \"tcp_position2\"\nstd = [1e-3, 1e-3, 1e-3]".into(),
            &["`tcp_position2` takes one standard deviation for all of its values or 2, not 3"],
        ),
        (
            "lamp",
            "[[randomisation.field]]\nname = \"part_poses\"\nstd = [1e-3]".into(),
            &["randomisation.field", "a table of their own"],
        ),
    ] {
        let error = with(task, &text).expect_err(&text);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    // The line is that of the key.
    let error = with("avoid", "[randomisation]\nbias_share = 1.5").unwrap_err();
    let file = include_str!("../../../configs/tasks/avoid_m1.toml");
    assert!(error.starts_with(&format!("task.toml:{}:", file.lines().count() + 3)), "{error}");
    let fields = [ObservationField::PartPoses(2)];
    let beyond = ObservationNoise::new(&fields, &["a", "b", "c"], &[part("c", [1.0; 3], [0.0; 3])], &[], 0.5);
    assert!(matches!(beyond, Err(RandomisationError::UnknownPart { .. })), "the block ends before it");
}
