//! All checks by name, each with the section of the specification (`polymetis.md`) that it is taken from.

use super::rig::Rig;
use super::verdict::Outcome;
use super::{controllers, destructive, measured, reading, tenon_law, updates};

/// What a check does to the robot, and so in which order they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Reads only.
    Read,
    /// Uploads that have to be refused while nothing runs.
    Refused,
    /// Controllers that hold the measured joints.
    Hold,
    /// Figures.
    Measure,
    /// Kills or silences what it talks to.
    Destructive,
}

impl Group {
    /// As it is listed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Refused => "refused",
            Self::Hold => "hold",
            Self::Measure => "measure",
            Self::Destructive => "destructive",
        }
    }
}

/// One check.
#[derive(Clone, Copy)]
pub struct Check {
    pub name: &'static str,
    pub spec: &'static str,
    pub group: Group,
    /// What has to be so; of a destructive one, what it will do.
    pub what: &'static str,
    pub run: fn(&mut Rig) -> Outcome,
}

const fn check(
    group: Group,
    name: &'static str,
    spec: &'static str,
    what: &'static str,
    run: fn(&mut Rig) -> Outcome,
) -> Check {
    Check { name, spec, group, what, run }
}

use Group::{Destructive, Hold, Measure, Read, Refused};

/// In the order in which they run.
pub const CHECKS: &[Check] = &[
    check(
        Read,
        "metadata",
        "2, 4.6",
        "the robot client's metadata: 7 joints, gains, URDF, default controller",
        reading::metadata,
    ),
    check(
        Read,
        "default-controller",
        "4.1, 6.4",
        "the default controller has the methods forward, is_terminated and reset",
        reading::default_controller,
    ),
    check(Read, "state", "2", "a state has its fields, finite, without an error", reading::state),
    check(Read, "state-moves", "4.5", "GetRobotState follows the robot", reading::state_moves),
    check(Read, "stream", "4.5", "states stream in order; rate and bursts are measured", reading::stream),
    check(Read, "stream-cancelled", "4.5", "cancelled streams leave the server answering", reading::stream_cancelled),
    check(Read, "log-of-one", "4.5", "a single index, forgotten or not", reading::log_of_one),
    check(Read, "episode", "4.4", "the episode's interval is one of the known kinds", reading::episode),
    check(Measure, "get-state", "4.5, 4.8", "GetRobotState: duration, age of the state", measured::get_state),
    check(
        Refused,
        "client-waits",
        "10.1",
        "our client sends no update before it has set a controller",
        tenon_law::client_waits_for_a_controller,
    ),
    check(
        Refused,
        "terminate-nothing",
        "4.4",
        "TerminateController with nothing running: CANCELLED",
        controllers::terminate_nothing,
    ),
    check(Refused, "set-not-an-archive", "4.2", "no archive is refused", controllers::set_not_an_archive),
    check(Refused, "set-empty", "4.2", "an empty stream is refused", controllers::set_empty),
    check(Refused, "set-truncated", "4.2", "a truncated archive is refused", controllers::set_truncated),
    check(
        Refused,
        "set-parameters",
        "4.2",
        "an update's archive is no controller: its warm-up fails",
        controllers::set_parameters,
    ),
    check(
        Refused,
        "set-raising",
        "4.2",
        "a controller that raises in its warm-up is refused",
        controllers::set_raising,
    ),
    check(Refused, "set-version", "6.1", "an archive of version 11 is refused", controllers::set_version),
    check(Hold, "set-pd", "4.2, 6.4", "joint PD runs, holds, is updated and ends", controllers::set_pd),
    check(
        Hold,
        "set-joint-impedance",
        "4.2, 5",
        "joint impedance runs, holds, is updated and ends",
        controllers::set_joint_impedance,
    ),
    check(
        Hold,
        "set-hybrid",
        "4.2, 5, 6.4",
        "hybrid joint impedance runs, holds, is updated and ends",
        controllers::set_hybrid,
    ),
    check(Hold, "set-tenon", "4.2, 6.4", "Tenon's waypoint law runs, holds and ends", controllers::set_tenon),
    check(Hold, "set-one-message", "4.2", "a controller in one message", controllers::set_one_message),
    check(
        Hold,
        "set-odd-chunks",
        "4.2",
        "a controller in chunks of any size, empty ones too",
        controllers::set_odd_chunks,
    ),
    check(
        Hold,
        "set-replaces",
        "4.2",
        "a new controller replaces the running one from one step to the next",
        controllers::set_replaces,
    ),
    check(
        Hold,
        "set-refused-leaves",
        "4.2",
        "a refused upload leaves the running controller alone",
        controllers::set_refused_leaves,
    ),
    check(
        Hold,
        "torques",
        "4.2, 5",
        "every logged step of the controller has its torque",
        controllers::torques_are_the_laws,
    ),
    check(
        Hold,
        "terminate",
        "4.4",
        "TerminateController: both indices, as GetEpisodeInterval; twice: CANCELLED",
        controllers::terminate,
    ),
    check(
        Hold,
        "update-after-terminate",
        "4.3",
        "an update with nothing running any more: CANCELLED",
        controllers::update_after_terminate,
    ),
    check(
        Hold,
        "default-holds",
        "4.1",
        "the default controller latches the joints after the hand-over",
        controllers::default_holds,
    ),
    check(
        Hold,
        "ends-itself",
        "4.4, 4.2",
        "a controller ends itself after its own steps; warm-up leaves no trace",
        controllers::ends_itself,
    ),
    check(
        Hold,
        "inputs",
        "5",
        "controllers are given time, joints and motor torques in their shapes",
        controllers::inputs,
    ),
    check(Hold, "replaced", "4.4", "another client may replace a controller; its start tells", controllers::replaced),
    check(
        Hold,
        "log-interval",
        "4.5",
        "the log's interval includes both ends; -1 reaches the newest",
        controllers::log_interval,
    ),
    check(Hold, "stream-is-log", "4.5", "the stream brings every state", controllers::stream_is_the_log),
    check(Hold, "update-float32", "4.3", "7 float32: OK, start grows", updates::float32),
    check(Hold, "update-float64", "4.3", "7 float64: OK", updates::float64),
    check(Hold, "update-chunks", "4.3", "updates in messages of any size", updates::any_chunks),
    check(Hold, "update-6", "4.3", "6 values: CANCELLED by the controller", updates::six),
    check(Hold, "update-row", "4.3", "shape [1, 7]: CANCELLED by the controller", updates::row),
    check(Hold, "update-unknown-key", "4.3", "an unknown key: CANCELLED by the controller", updates::unknown_key),
    check(Hold, "update-not-an-archive", "4.3", "no archive: CANCELLED, not loaded", updates::not_an_archive),
    check(Hold, "update-truncated", "4.3", "a truncated archive: CANCELLED, not loaded", updates::truncated),
    check(Hold, "update-empty", "4.3", "an empty stream: CANCELLED, not loaded", updates::empty),
    check(Hold, "update-version", "6.1", "version 11: CANCELLED, not loaded", updates::version),
    check(
        Hold,
        "update-arguments",
        "4.3",
        "a forward that takes arguments: UNKNOWN, the server lives",
        updates::wanting_arguments,
    ),
    check(
        Hold,
        "update-untagged",
        "6.1",
        "a dict without its type tag: CANCELLED by the controller",
        updates::untagged,
    ),
    check(Hold, "update-together", "4.1", "updates of several clients at once are all carried out", updates::together),
    check(
        Hold,
        "update-start",
        "4.3",
        "start is the first step of the new values (with --move)",
        updates::effective_from_start,
    ),
    check(Hold, "update-abandoned", "4.7", "a cancelled upload changes nothing", updates::abandoned),
    check(Hold, "update-late", "4.7", "deadlines that pass leave the controller running", updates::late),
    check(Hold, "tenon-plans", "6.4", "Tenon's law takes plans, doubled and old ones too", tenon_law::plans),
    check(
        Hold,
        "tenon-refuses",
        "4.3, 6.4",
        "what Tenon's law refuses is CANCELLED with its reason",
        tenon_law::plan_refused,
    ),
    check(
        Hold,
        "tenon-dead-man",
        "4.6, 6.4",
        "without plans Tenon's law brakes and holds by itself",
        tenon_law::dead_man,
    ),
    check(
        Hold,
        "samples",
        "6",
        "the sample archives of --samples are accepted, with the measured joints",
        tenon_law::samples,
    ),
    check(
        Measure,
        "updates",
        "4.8",
        "UpdateController in a row: duration, rate, what the control loop feels",
        measured::updates,
    ),
    check(Measure, "steady", "4.8", "50 updates a second", measured::steady),
    check(
        Destructive,
        "large",
        "4.2",
        "uploads an archive above 1 MiB, which may cost the control loop its time",
        destructive::set_large,
    ),
    check(
        Destructive,
        "log-far-end",
        "4.5",
        "asks for a log up to 2^31 - 1 and gives up: a thread spins meanwhile",
        destructive::log_far_end,
    ),
    check(
        Destructive,
        "broadcast",
        "4.3",
        "sends one value for seven to a law without stiffness: the arm is limp for an instant",
        destructive::broadcast,
    ),
    check(
        Destructive,
        "restart-noticed",
        "4.3, 10.1",
        "restarts the server under a running controller",
        destructive::restart_noticed,
    ),
    check(
        Destructive,
        "silent-robot",
        "4.3 - 4.6",
        "stops the robot client under a running controller",
        destructive::silent_robot,
    ),
    check(
        Destructive,
        "gap-drops",
        "4.6",
        "stops the robot client for more than a second: the controller is dropped",
        destructive::gap_drops,
    ),
    check(
        Destructive,
        "set-hangs",
        "4.2, 4.7",
        "sets a controller while the robot client is silent: all calls hang until it is back",
        destructive::set_hangs,
    ),
    check(
        Destructive,
        "terminate-hangs",
        "4.4, 4.7",
        "terminates while the robot client is silent: all calls hang until it is back",
        destructive::terminate_hangs,
    ),
    check(
        Destructive,
        "forward-raises",
        "4.6, 8",
        "lets a controller raise: the robot client's loop throws and the arm stops",
        destructive::forward_raises,
    ),
    check(Destructive, "nan", "4.3", "sends NaN: the torques become NaN", destructive::nan),
    check(
        Destructive,
        "update-before-set",
        "4.3",
        "kills the server by an update before any controller",
        destructive::update_before_set,
    ),
    check(
        Destructive,
        "empty-buffer",
        "4.5",
        "restarts the server without its robot client",
        destructive::empty_buffer,
    ),
    check(
        Destructive,
        "set-before-robot",
        "4.6",
        "kills the server by a controller before any robot client",
        destructive::set_before_robot,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_differ_and_what_is_dangerous_comes_last() {
        let names: HashSet<&str> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
        let first = CHECKS.iter().position(|check| check.group == Destructive).unwrap();
        assert!(CHECKS[first..].iter().all(|check| check.group == Destructive));
        let writes = CHECKS.iter().position(|check| check.group == Hold).unwrap();
        assert!(CHECKS[writes..].iter().all(|check| check.group != Read));
    }
}
