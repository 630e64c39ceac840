//! MJCF text of the arm: kinematic chain, masses, inertias, ranges, motors, hand, fingers and tool.
//!
//! The arm has no geoms but those of the tool: in our scenes nothing else can touch (specification of the
//! simulation tasks, section 4), and what is not there costs no time.

use std::fmt::Write;

use super::{
    FLANGE_BODY, FLANGE_OFFSET_M, HAND_BODY, JOINT_FRAMES, JOINT_NAMES, JOINT_RANGES_RAD, JOINTS, MOTOR_NAMES,
    QuarterTurn, ROD_GEOM, TCP_SITE, TORQUE_LIMITS_NM,
};

/// How far each finger stands from the middle, metres. The fingers are held open for the whole of a task, so they are
/// rigid: two degrees of freedom fewer to simulate.
pub const FINGER_OPENING_M: f64 = 0.04;

/// Finger origins along the hand's z axis, metres.
const FINGER_OFFSET_M: f64 = 0.0584;
/// Finger tip in the finger's frame, metres.
const FINGER_TIP_M: [f64; 3] = [0.0, 0.0085, 0.056];

/// Mass, centre of mass (metres), principal moments (kg m²) and their axes (wxyz) in the link's frame.
struct Inertial {
    mass_kg: f64,
    center_m: [f64; 3],
    moments: [f64; 3],
    quat_wxyz: [f64; 4],
}

const LINKS: [Inertial; JOINTS] = [
    Inertial {
        mass_kg: 2.77281,
        center_m: [1.14e-5, -0.0312655, -0.0693733],
        moments: [0.0164224, 0.0153969, 0.00546286],
        quat_wxyz: [0.98466, 0.174481, -0.000101815, 0.000347662],
    },
    Inertial {
        mass_kg: 2.7996,
        center_m: [-1.32e-5, -0.0703216, 0.0311782],
        moments: [0.016787, 0.0157415, 0.00553027],
        quat_wxyz: [0.57484, 0.818266, -6.06e-5, -6.62e-5],
    },
    Inertial {
        mass_kg: 2.14603,
        center_m: [0.0443483, 0.0249283, -0.03813],
        moments: [0.00915257, 0.00896477, 0.00384742],
        quat_wxyz: [0.0615263, 0.349824, 0.234291, 0.904956],
    },
    Inertial {
        mass_kg: 2.18807,
        center_m: [-0.0385503, 0.0395256, 0.0247162],
        moments: [0.00946899, 0.00928491, 0.00396694],
        quat_wxyz: [0.813566, 0.465041, 0.309792, 0.160858],
    },
    Inertial {
        mass_kg: 3.19545,
        center_m: [-6.37e-5, 0.0384124, -0.10997],
        moments: [0.0278873, 0.0268823, 0.00569569],
        quat_wxyz: [0.990767, -0.135571, 0.000963106, 0.000694406],
    },
    Inertial {
        mass_kg: 1.35761,
        center_m: [0.0510023, 0.00693267, 0.00616899],
        moments: [0.00412168, 0.0033698, 0.00213304],
        quat_wxyz: [-0.0460841, 0.754362, 0.044494, 0.653325],
    },
    Inertial {
        mass_kg: 0.417345,
        center_m: [0.0103614, 0.0103596, 0.0791078],
        moments: [0.000637671, 0.000528056, 0.000279577],
        quat_wxyz: [0.63547, 0.278021, -0.670462, 0.263369],
    },
];

const FLANGE: Inertial =
    Inertial { mass_kg: 0.1, center_m: [0.0; 3], moments: [0.1; 3], quat_wxyz: [1.0, 0.0, 0.0, 0.0] };

const HAND: Inertial = Inertial {
    mass_kg: 0.670782,
    center_m: [-2.77e-6, -0.00061547, 0.0239295],
    moments: [0.00227632, 0.00206087, 0.000456542],
    quat_wxyz: [0.697945, 0.716151, -0.000242485, 8.48e-5],
};

/// The specification gives masses only; center and moments are those of D3IL's published arm (`panda_rod.xml`).
const FINGER: Inertial = Inertial {
    mass_kg: 0.0218754,
    center_m: [-2.42335e-05, 0.0119585, 0.0237816],
    moments: [5.69661e-06, 5.56035e-06, 1.55183e-06],
    quat_wxyz: [0.996177, 0.0868631, -2.79377e-05, -0.00926642],
};

/// The moments are those of D3IL's published arm: a thousand times a real finger tip's, but the recorded demonstrations
/// were made with them.
const FINGER_TIP: Inertial =
    Inertial { mass_kg: 0.01, center_m: [0.0; 3], moments: [0.01; 3], quat_wxyz: [1.0, 0.0, 0.0, 0.0] };

/// A cylinder held by the hand along its z axis, its far end rounded by a ball that has mass but touches nothing (D3IL's
/// published arm). The cylinder can touch geoms whose `conaffinity` has bit 0 set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rod {
    pub radius_m: f64,
    pub half_length_m: f64,
    /// Middle of the rod along the hand's z, from the hand body, metres.
    pub center_from_hand_m: f64,
}

/// The parts of a model that make the arm; a scene puts them into its `worldbody` and `actuator` sections.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmMjcf {
    /// Elements for `<worldbody>`: the arm's base is the world's origin.
    pub bodies: String,
    /// Elements for `<actuator>`: motors in joint order.
    pub actuators: String,
}

/// Writes the arm with fingers held open and, if wanted, a rod in the hand.
///
/// `tcp_from_hand_m`: where the site [`TCP_SITE`] stands along the hand's z axis, metres.
/// The text is for a model with `compiler angle="radian" autolimits="true"`.
pub fn arm_mjcf(tcp_from_hand_m: f64, rod: Option<Rod>) -> ArmMjcf {
    arm(tcp_from_hand_m, rod, Shapes::ToolOnly)
}

/// The same arm with something to see for each link: for a model that is drawn and never stepped.
pub fn drawn_arm_mjcf(tcp_from_hand_m: f64, rod: Option<Rod>) -> ArmMjcf {
    arm(tcp_from_hand_m, rod, Shapes::All)
}

/// Which geoms the arm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shapes {
    ToolOnly,
    All,
}

/// What is seen of each link: capsules along the lines from joint to joint (metres, link's frame), thinner than the real
/// arm so that the tool stays visible.
const LINK_SHAPES: [&str; JOINTS] = [
    r#"<geom type="capsule" fromto="0 0 -0.333 0 0 0" size="0.055"/>"#,
    r#"<geom type="capsule" fromto="0 0 0 0 -0.316 0" size="0.05"/>"#,
    r#"<geom type="capsule" fromto="0 0 0 0.0825 0 0" size="0.05"/>"#,
    r#"<geom type="capsule" fromto="0 0 0 -0.0825 0.384 0" size="0.045"/>"#,
    r#"<geom type="sphere" size="0.05"/>"#,
    r#"<geom type="capsule" fromto="0 0 0 0.088 0 0" size="0.045"/>"#,
    r#"<geom type="capsule" fromto="0 0 0 0 0 0.107" size="0.035"/>"#,
];
const HAND_SHAPE: &str = r#"<geom type="box" pos="0 0 0.033" size="0.02 0.1 0.033"/>"#;
const FINGER_SHAPE: &str = r#"<geom type="box" pos="0 0.01 0.027" size="0.01 0.008 0.027"/>"#;

fn arm(tcp_from_hand_m: f64, rod: Option<Rod>, shapes: Shapes) -> ArmMjcf {
    let mut bodies = String::new();
    let mut actuators = String::new();
    let result = write_arm(&mut bodies, &mut actuators, tcp_from_hand_m, rod, shapes);
    result.expect("writing to a String cannot fail");
    ArmMjcf { bodies, actuators }
}

fn write_arm(
    bodies: &mut String,
    actuators: &mut String,
    tcp_from_hand_m: f64,
    rod: Option<Rod>,
    shapes: Shapes,
) -> std::fmt::Result {
    let shape = |bodies: &mut String, text: &str| match shapes {
        Shapes::ToolOnly => Ok(()),
        Shapes::All => writeln!(bodies, "{text}"),
    };
    let half = std::f64::consts::FRAC_1_SQRT_2;
    for joint in 0..JOINTS {
        let frame = &JOINT_FRAMES[joint];
        let turn = match frame.turn {
            QuarterTurn::None => [1.0, 0.0, 0.0, 0.0],
            QuarterTurn::Plus => [half, half, 0.0, 0.0],
            QuarterTurn::Minus => [half, -half, 0.0, 0.0],
        };
        let name = format!("panda_link{}", joint + 1);
        open_body(bodies, &name, frame.offset_m, turn, &LINKS[joint])?;
        shape(bodies, LINK_SHAPES[joint])?;
        let [low, high] = JOINT_RANGES_RAD[joint];
        let joint_name = JOINT_NAMES[joint];
        writeln!(bodies, r#"<joint name="{joint_name}" type="hinge" axis="0 0 1" range="{low} {high}"/>"#)?;
        let (motor, limit) = (MOTOR_NAMES[joint], TORQUE_LIMITS_NM[joint]);
        writeln!(actuators, r#"<motor name="{motor}" joint="{joint_name}" forcerange="-{limit} {limit}"/>"#)?;
    }
    open_body(bodies, FLANGE_BODY, [0.0, 0.0, FLANGE_OFFSET_M], [1.0, 0.0, 0.0, 0.0], &FLANGE)?;
    let eighth = std::f64::consts::FRAC_PI_8;
    open_body(bodies, HAND_BODY, [0.0; 3], [eighth.cos(), 0.0, 0.0, -eighth.sin()], &HAND)?;
    shape(bodies, HAND_SHAPE)?;
    writeln!(bodies, r#"<site name="{TCP_SITE}" pos="0 0 {tcp_from_hand_m}"/>"#)?;
    if let Some(rod) = rod {
        // A body of its own: on one with a given inertia the geom's mass would not count.
        let Rod { radius_m, half_length_m, center_from_hand_m } = rod;
        writeln!(bodies, r#"<body name="{ROD_GEOM}" pos="0 0 {center_from_hand_m}">"#)?;
        writeln!(
            bodies,
            r#"<geom name="{ROD_GEOM}" type="cylinder" size="{radius_m} {half_length_m}" contype="1" conaffinity="0"/>"#
        )?;
        writeln!(
            bodies,
            r#"<geom type="sphere" pos="0 0 {half_length_m}" size="{radius_m}" contype="0" conaffinity="0"/>"#
        )?;
        writeln!(bodies, "</body>")?;
    }
    // The right finger is the left one turned by half a turn about z.
    for (side, sign, turn) in [("left", 1.0, [1.0, 0.0, 0.0, 0.0]), ("right", -1.0, [0.0, 0.0, 0.0, 1.0])] {
        let origin = [0.0, sign * FINGER_OPENING_M, FINGER_OFFSET_M];
        open_body(bodies, &format!("panda_{side}finger"), origin, turn, &FINGER)?;
        shape(bodies, FINGER_SHAPE)?;
        let tip_name = format!("panda_{side}finger_tip");
        open_body(bodies, &tip_name, FINGER_TIP_M, [1.0, 0.0, 0.0, 0.0], &FINGER_TIP)?;
        bodies.push_str("</body>\n</body>\n");
    }
    for _ in 0..JOINTS + 2 {
        bodies.push_str("</body>\n");
    }
    Ok(())
}

fn open_body(
    text: &mut String,
    name: &str,
    position_m: [f64; 3],
    quat_wxyz: [f64; 4],
    inertial: &Inertial,
) -> std::fmt::Result {
    writeln!(text, r#"<body name="{name}" pos="{}" quat="{}">"#, numbers(&position_m), numbers(&quat_wxyz))?;
    writeln!(
        text,
        r#"<inertial mass="{}" pos="{}" diaginertia="{}" quat="{}"/>"#,
        inertial.mass_kg,
        numbers(&inertial.center_m),
        numbers(&inertial.moments),
        numbers(&inertial.quat_wxyz)
    )
}

/// Values separated by blanks; Rust's shortest form reads back as the same double.
pub(crate) fn numbers(values: &[f64]) -> String {
    let words: Vec<String> = values.iter().map(f64::to_string).collect();
    words.join(" ")
}
