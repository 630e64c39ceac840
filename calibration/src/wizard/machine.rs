//! The wizard's decisions: what was answered or measured goes in, what to say and what to do next comes out. No camera, file,
//! clock or terminal is touched here.

use std::collections::BTreeMap;

use super::words;
use crate::rig::{Ended, Step};
use crate::steps::Grade;

/// What the wizard has to work with.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub rig: String,
    pub cameras: Vec<String>,
    pub arm: Arm,
    /// Views of the board for each camera's intrinsics, at least.
    pub board_views: usize,
    /// Poses of the arm for the placing, and other ones for the proof; 0 where there is no arm.
    pub arm_poses: usize,
    pub proof_poses: usize,
    /// Steps of the draft that have ended already.
    pub ended: BTreeMap<Step, Ended>,
    /// Cameras whose intrinsics the draft has already, and board views that are kept of each camera.
    pub solved: Vec<bool>,
    pub views: Vec<usize>,
    /// How the proof ended, if it has: the draft's entry.
    pub proof_passed: Option<bool>,
}

/// How the arm gets to its poses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// There is none: cameras are placed in the frame of the base board.
    None,
    /// It moves by itself, because it is simulated.
    Simulated,
    /// A person guides it by hand and says where it stands.
    Guided,
    /// Its poses were recorded together with the pictures.
    Recorded,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// The beginning.
    Begin,
    /// A line of the person at the terminal.
    Answer(&'a str),
    /// What a task came to.
    Report(Report),
}

/// What a task came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A view of the board was kept (or not, with the reason in `lines`).
    View {
        kept: bool,
        lines: Vec<String>,
        /// What the views so far still lack, in words; `None`: nothing.
        missing: Option<String>,
        /// There are no more pictures.
        last: bool,
    },
    /// The arm's pose was taken with all cameras.
    Pose {
        lines: Vec<String>,
    },
    /// A step was worked out, with its numbers and limits as lines.
    Result {
        grade: Grade,
        lines: Vec<String>,
    },
    /// A step could not be worked out.
    Failed(String),
    Published {
        lines: Vec<String>,
    },
}

/// What the wizard wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Look through a camera for the board and keep the view if it is good.
    BoardView {
        camera: usize,
    },
    /// Work out a camera's intrinsics.
    Intrinsics {
        camera: usize,
    },
    /// Take pictures with the arm at a pose (all of `arm_poses` or `proof_poses` where they are recorded). `text`: the pose, where a
    /// person gave it.
    Pose {
        step: Step,
        index: usize,
        text: Option<[f64; 7]>,
    },
    Place,
    Proof,
    Latency,
    Noise,
    /// Write down that a step was left out.
    Skip {
        step: Step,
        reason: String,
    },
    /// Throw away what was taken for a step, to take it anew.
    Forget {
        step: Step,
    },
    /// Write the report and make the draft a version; take it into use or not.
    Publish {
        take_into_use: bool,
    },
}

/// A question, and what an empty answer (or `--yes`) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Enter goes on.
    GoOn(Step),
    /// A pose of the arm: seven numbers.
    ArmPose {
        step: Step,
        index: usize,
    },
    /// Enter says that the parts lie at another place.
    PartsMoved {
        index: usize,
    },
    /// After a failure: again, skip, back, keep.
    AfterFailure(Step),
    TakeIntoUse,
}

/// What comes out: lines for the person, then one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub say: Vec<String>,
    pub then: Then,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    Ask(Question),
    Do(Task),
    End(Ending),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A version is there and in use.
    InUse,
    /// A version is there, but not in use.
    Kept,
    /// The draft is kept; the wizard goes on there.
    Paused,
}

/// Where the wizard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Start,
    /// A step was explained and waits for its beginning.
    Offered(Step),
    Collecting {
        camera: usize,
    },
    Solving {
        camera: usize,
    },
    /// Waits for the person to say where the arm stands.
    ArmAsked {
        step: Step,
        index: usize,
    },
    /// Waits for the person to put the parts elsewhere.
    PartsAsked {
        index: usize,
    },
    Posing {
        step: Step,
        index: usize,
    },
    Working(Step),
    Skipping(Step),
    Forgetting(Step),
    Failed(Step),
    Deciding,
    Publishing {
        take_into_use: bool,
    },
    Ended(Ending),
}

/// The wizard.
#[derive(Debug, Clone)]
pub struct Wizard {
    plan: Plan,
    state: State,
    /// The proof's verdict in this draft; `None` while it was left out.
    proof_passed: Option<bool>,
}

impl Wizard {
    pub fn new(plan: Plan) -> Self {
        let proof_passed = plan.proof_passed;
        Self { plan, state: State::Start, proof_passed }
    }

    /// The plan as it stands, with the steps that have ended.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// One turn. An input that does not belong to the present state changes nothing and is answered by the question again.
    pub fn step(&mut self, input: Input<'_>) -> Turn {
        match (self.state.clone(), input) {
            (State::Start, _) => {
                let mut turn = self.offer_next();
                let mut say = words::welcome(&self.plan);
                say.append(&mut turn.say);
                Turn { say, ..turn }
            }
            (State::Ended(ending), _) => Turn { say: Vec::new(), then: Then::End(ending) },
            (_, Input::Answer(answer)) => self.answer(answer.trim()),
            (state, Input::Report(report)) => self.report(state, report),
            (_, Input::Begin) => self.answer(""),
        }
    }

    fn answer(&mut self, answer: &str) -> Turn {
        let word = answer.split_whitespace().next().unwrap_or_default().to_lowercase();
        let rest = answer.get(word.len()..).unwrap_or_default().trim();
        let asked = match self.state {
            State::Offered(step) => Question::GoOn(step),
            State::ArmAsked { step, index } => Question::ArmPose { step, index },
            State::PartsAsked { index } => Question::PartsMoved { index },
            State::Failed(step) => Question::AfterFailure(step),
            State::Deciding => Question::TakeIntoUse,
            // A task is under way: there is nothing to answer.
            _ => return Turn { say: Vec::new(), then: Then::End(self.pause()) },
        };
        if matches!(word.as_str(), "quit" | "q" | "exit") {
            let say = words::paused(&self.plan);
            return Turn { say, then: Then::End(self.pause()) };
        }
        match (asked, word.as_str()) {
            (Question::PartsMoved { .. }, "skip") => self.skip(asked, Step::Proof, rest),
            (Question::GoOn(step) | Question::ArmPose { step, .. } | Question::AfterFailure(step), "skip") => {
                self.skip(asked, step, rest)
            }
            (Question::PartsMoved { index }, "" | "y" | "yes" | "go") => {
                self.state = State::Posing { step: Step::Proof, index };
                self.run(Vec::new(), Task::Pose { step: Step::Proof, index, text: None })
            }
            (Question::GoOn(step), "" | "y" | "yes" | "go") => self.begin(step),
            (Question::ArmPose { step, index }, _) => match pose(answer) {
                Ok(text) => {
                    self.state = State::Posing { step, index };
                    self.run(Vec::new(), Task::Pose { step, index, text: Some(text) })
                }
                Err(why) => self.again(asked, &why),
            },
            (Question::AfterFailure(step), "again" | "a") => {
                self.state = State::Forgetting(step);
                self.run(Vec::new(), Task::Forget { step })
            }
            (Question::AfterFailure(Step::Proof), "back" | "b") => {
                self.state = State::Forgetting(Step::Place);
                self.run(Vec::new(), Task::Forget { step: Step::Place })
            }
            (Question::AfterFailure(Step::Proof), "" | "keep" | "k") if self.proof_passed == Some(false) => {
                self.plan.ended.insert(Step::Proof, Ended::Done { date: String::new() });
                self.offer_next()
            }
            // Without a person there is no use in trying the same again.
            (Question::AfterFailure(step), "") => {
                self.state = State::Skipping(step);
                let reason = "it could not be done, and nobody was there to ask".to_owned();
                self.run(Vec::new(), Task::Skip { step, reason })
            }
            (Question::TakeIntoUse, "y" | "yes") => self.publish(true),
            (Question::TakeIntoUse, "n" | "no") => self.publish(false),
            (Question::TakeIntoUse, "") => self.publish(self.proof_passed == Some(true)),
            _ => self.again(asked, "that is not understood"),
        }
    }

    fn skip(&mut self, asked: Question, step: Step, reason: &str) -> Turn {
        if reason.is_empty() {
            return self.again(asked, "say why, for whoever reads the report: skip REASON");
        }
        self.state = State::Skipping(step);
        self.run(Vec::new(), Task::Skip { step, reason: reason.to_owned() })
    }

    fn report(&mut self, state: State, report: Report) -> Turn {
        match (state, report) {
            (State::Collecting { camera }, Report::View { kept, lines, missing, last }) => {
                self.plan.views[camera] += usize::from(kept);
                let (views, wanted) = (self.plan.views[camera], self.plan.board_views);
                let mut say = lines;
                if last || (views >= wanted && missing.is_none()) {
                    say.push(format!("{}: {views} views, working them out", self.plan.cameras[camera]));
                    self.state = State::Solving { camera };
                    return self.run(say, Task::Intrinsics { camera });
                }
                if let Some(missing) = missing {
                    say.push(format!("  next: {missing}"));
                }
                self.run(say, Task::BoardView { camera })
            }
            (State::Solving { camera }, Report::Result { grade, mut lines }) => {
                if grade == Grade::Fail {
                    return self.fail(Step::Intrinsics, lines);
                }
                self.plan.solved[camera] = true;
                let mut turn = self.begin(Step::Intrinsics);
                lines.append(&mut turn.say);
                Turn { say: lines, ..turn }
            }
            (State::Posing { step, index }, Report::Pose { lines }) => self.next_pose(step, index + 1, lines),
            (State::Working(step), Report::Result { grade, lines }) => {
                if step == Step::Proof {
                    self.proof_passed = Some(grade != Grade::Fail);
                }
                if grade == Grade::Fail {
                    return self.fail(step, lines);
                }
                self.ended(step, Ended::Done { date: String::new() }, lines)
            }
            (State::Skipping(step), Report::Result { lines, .. }) => {
                if step == Step::Proof {
                    self.proof_passed = None;
                }
                self.ended(step, Ended::Skipped { date: String::new(), reason: String::new() }, lines)
            }
            (State::Forgetting(step), Report::Result { lines, .. }) => {
                self.plan.ended.retain(|other, _| *other < step);
                if step == Step::Intrinsics {
                    // Cameras that are done stay done.
                    for (views, solved) in self.plan.views.iter_mut().zip(&self.plan.solved) {
                        *views = if *solved { *views } else { 0 };
                    }
                }
                self.proof_passed = None;
                let mut turn = self.offer_next();
                let mut say = lines;
                say.append(&mut turn.say);
                Turn { say, ..turn }
            }
            (State::Publishing { take_into_use }, Report::Published { mut lines }) => {
                let ending = if take_into_use { Ending::InUse } else { Ending::Kept };
                lines.extend(words::published(&self.plan, ending));
                self.state = State::Ended(ending);
                Turn { say: lines, then: Then::End(ending) }
            }
            (State::Publishing { .. }, Report::Failed(why)) => {
                let say = [vec![why], words::paused(&self.plan)].concat();
                Turn { say, then: Then::End(self.pause()) }
            }
            (State::Collecting { .. } | State::Solving { .. }, Report::Failed(why)) => {
                self.fail(Step::Intrinsics, vec![why])
            }
            (State::Posing { step, .. } | State::Working(step), Report::Failed(why)) => self.fail(step, vec![why]),
            (State::Skipping(step) | State::Forgetting(step), Report::Failed(why)) => self.fail(step, vec![why]),
            // A report that nobody asked for: go on as if it had not come.
            (_, _) => Turn { say: Vec::new(), then: Then::End(self.pause()) },
        }
    }

    /// Begins a step, or goes on in it.
    fn begin(&mut self, step: Step) -> Turn {
        match step {
            Step::Intrinsics => match self.plan.solved.iter().position(|solved| !solved) {
                Some(camera) => {
                    self.state = State::Collecting { camera };
                    let say = words::before_camera(&self.plan, camera);
                    self.run(say, Task::BoardView { camera })
                }
                None => self.ended(step, Ended::Done { date: String::new() }, Vec::new()),
            },
            Step::Place | Step::Proof => self.next_pose(step, 0, Vec::new()),
            Step::Latency => self.work(step, Vec::new(), Task::Latency),
            Step::Noise => self.work(step, Vec::new(), Task::Noise),
        }
    }

    /// The next pose of the arm, or the working out when all are taken.
    fn next_pose(&mut self, step: Step, index: usize, say: Vec<String>) -> Turn {
        let poses = if step == Step::Proof { self.plan.proof_poses } else { self.plan.arm_poses };
        if index >= poses {
            let task = if step == Step::Proof { Task::Proof } else { Task::Place };
            return self.work(step, say, task);
        }
        if self.plan.arm == Arm::Guided {
            self.state = State::ArmAsked { step, index };
            let mut say = say;
            say.push(words::arm_pose(step, index, poses));
            return Turn { say, then: Then::Ask(Question::ArmPose { step, index }) };
        }
        if self.plan.arm == Arm::None {
            self.state = State::PartsAsked { index };
            let mut say = say;
            say.push(words::parts_moved(index, poses));
            return Turn { say, then: Then::Ask(Question::PartsMoved { index }) };
        }
        self.state = State::Posing { step, index };
        self.run(say, Task::Pose { step, index, text: None })
    }

    fn work(&mut self, step: Step, say: Vec<String>, task: Task) -> Turn {
        self.state = State::Working(step);
        self.run(say, task)
    }

    fn ended(&mut self, step: Step, how: Ended, mut say: Vec<String>) -> Turn {
        self.plan.ended.retain(|other, _| *other < step);
        self.plan.ended.insert(step, how);
        let mut turn = self.offer_next();
        say.append(&mut turn.say);
        Turn { say, ..turn }
    }

    /// Explains the first step that has not ended, or asks for the end.
    fn offer_next(&mut self) -> Turn {
        let Some(step) = Step::ALL.into_iter().find(|step| !self.plan.ended.contains_key(step)) else {
            if self.proof_passed == Some(false) {
                // Nobody is asked: what failed is kept for study and not used.
                return self.publish(false);
            }
            self.state = State::Deciding;
            return Turn { say: words::deciding(self.proof_passed), then: Then::Ask(Question::TakeIntoUse) };
        };
        self.state = State::Offered(step);
        Turn { say: words::before_step(&self.plan, step), then: Then::Ask(Question::GoOn(step)) }
    }

    fn publish(&mut self, take_into_use: bool) -> Turn {
        let mut say = Vec::new();
        let take_into_use = take_into_use && self.proof_passed != Some(false);
        if self.proof_passed == Some(false) {
            say.push("The proof failed: this version is kept, with its report, and not taken into use.".to_owned());
        }
        self.state = State::Publishing { take_into_use };
        self.run(say, Task::Publish { take_into_use })
    }

    fn fail(&mut self, step: Step, mut say: Vec<String>) -> Turn {
        self.state = State::Failed(step);
        say.extend(words::after_failure(step, self.proof_passed == Some(false)));
        Turn { say, then: Then::Ask(Question::AfterFailure(step)) }
    }

    fn pause(&mut self) -> Ending {
        self.state = State::Ended(Ending::Paused);
        Ending::Paused
    }

    fn again(&self, question: Question, why: &str) -> Turn {
        let say = vec![format!("{why}: {}", words::understood(question, self.proof_passed == Some(false)))];
        Turn { say, then: Then::Ask(question) }
    }

    fn run(&self, say: Vec<String>, task: Task) -> Turn {
        Turn { say, then: Then::Do(task) }
    }
}

/// Seven numbers: x, y, z in m, then the quaternion w, x, y, z.
fn pose(text: &str) -> Result<[f64; 7], String> {
    let numbers: Vec<f64> = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|field| !field.is_empty())
        .map(|field| field.parse().map_err(|_| format!("{field:?} is not a number")))
        .collect::<Result<_, _>>()?;
    let pose =
        <[f64; 7]>::try_from(numbers.as_slice()).map_err(|_| format!("{} numbers, 7 are wanted", numbers.len()))?;
    if !pose[..3].iter().all(|v| v.abs() < 5.0) {
        return Err(format!("position {:?} is not within 5 m", &pose[..3]));
    }
    let norm = pose[3..].iter().map(|v| v * v).sum::<f64>().sqrt();
    // Also where it is not a number.
    if !((norm - 1.0).abs() < 0.01) {
        return Err(format!("the quaternion has length {norm:.3}, it should be 1"));
    }
    Ok(pose)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
