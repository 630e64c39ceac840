//! The wizard's decisions: what was answered or measured goes in, what to say and what to do next comes out. No camera, file,
//! clock or terminal is touched here.

use super::turn::{Arm, Ending, Input, Outlook, Plan, Question, Report, Task, Then, Turn};
use super::words;
use crate::rig::{Ended, Step};
use crate::steps::Grade;

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
    /// The cameras look at the base board.
    Resting,
    /// Waits for the person to guide the arm, and to say where it stands or that it stands. `tries`: how often this pose was
    /// refused.
    ArmAsked {
        step: Step,
        index: usize,
        tries: usize,
    },
    /// Waits for the person to put the parts elsewhere.
    PartsAsked {
        index: usize,
    },
    Posing {
        step: Step,
        index: usize,
        tries: usize,
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

/// A pose that was refused this often is given up.
const MAX_TRIES: usize = 5;

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
            State::ArmAsked { step, index, .. } => self.arm_question(step, index),
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
            (
                Question::GoOn(step)
                | Question::ArmPose { step, .. }
                | Question::ArmStill { step, .. }
                | Question::AfterFailure(step),
                "skip",
            ) => self.skip(asked, step, rest),
            (Question::PartsMoved { index }, "" | "y" | "yes" | "go") => self.take_pose(Step::Proof, index, None),
            (Question::ArmStill { step, index }, "" | "y" | "yes" | "go") => self.take_pose(step, index, None),
            (Question::GoOn(step), "" | "y" | "yes" | "go") => self.begin(step),
            (Question::ArmPose { step, index }, _) => match pose(answer) {
                Ok(text) => self.take_pose(step, index, Some(text)),
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
            (State::Resting, Report::Rest { lines }) => self.next_pose(Step::Place, 0, lines, &Outlook::Open),
            (State::Posing { step, index, .. }, Report::Pose { lines, outlook }) => {
                self.next_pose(step, index + 1, lines, &outlook)
            }
            (State::Posing { step, index, tries }, Report::PoseRefused(why)) => {
                // A script that answers Enter must come to an end.
                if tries + 1 >= MAX_TRIES {
                    let say = vec![why, format!("pose {} was refused {MAX_TRIES} times", index + 1)];
                    return self.fail(step, say);
                }
                self.state = State::ArmAsked { step, index, tries: tries + 1 };
                let say = vec![why, format!("  pose {} once more", index + 1)];
                Turn { say, then: Then::Ask(self.arm_question(step, index)) }
            }
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
            (State::Resting, Report::Failed(why)) => self.fail(Step::Place, vec![why]),
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
            // Before the arm moves, as the board must not be hidden by it.
            Step::Place => {
                self.state = State::Resting;
                self.run(Vec::new(), Task::Rest)
            }
            Step::Proof => self.next_pose(step, 0, Vec::new(), &Outlook::Open),
            Step::Latency => self.work(step, Vec::new(), Task::Latency),
            Step::Noise => self.work(step, Vec::new(), Task::Noise),
        }
    }

    /// The next pose of the arm, or the working out when there are enough. `outlook`: what the poses so far come to.
    fn next_pose(&mut self, step: Step, index: usize, mut say: Vec<String>, outlook: &Outlook) -> Turn {
        let (least, most) = match step {
            Step::Proof => (self.plan.proof_poses, self.plan.proof_poses),
            _ => (self.plan.arm_poses, self.plan.most_arm_poses),
        };
        // What nobody can judge ends with the least number of poses.
        let enough = index >= least && !matches!(outlook, Outlook::Seen { missing: Some(_), .. });
        if enough || index >= most {
            if index > 0 && step == Step::Place {
                say.push(words::poses_taken(index, outlook));
            }
            let task = if step == Step::Proof { Task::Proof } else { Task::Place };
            return self.work(step, say, task);
        }
        match self.plan.arm {
            Arm::Guided | Arm::Linked => {
                self.state = State::ArmAsked { step, index, tries: 0 };
                say.extend(words::arm_pose(step, index, [least, most], outlook));
                Turn { say, then: Then::Ask(self.arm_question(step, index)) }
            }
            Arm::None => {
                self.state = State::PartsAsked { index };
                say.push(words::parts_moved(index, most));
                Turn { say, then: Then::Ask(Question::PartsMoved { index }) }
            }
            Arm::Simulated | Arm::Recorded => {
                if step == Step::Place {
                    say.extend(words::suggestion(index, [least, most], outlook));
                }
                self.state = State::Posing { step, index, tries: 0 };
                self.run(say, Task::Pose { step, index, text: None })
            }
        }
    }

    fn arm_question(&self, step: Step, index: usize) -> Question {
        if self.plan.arm == Arm::Linked {
            Question::ArmStill { step, index }
        } else {
            Question::ArmPose { step, index }
        }
    }

    fn take_pose(&mut self, step: Step, index: usize, text: Option<[f64; 7]>) -> Turn {
        let tries = if let State::ArmAsked { tries, .. } = self.state { tries } else { 0 };
        self.state = State::Posing { step, index, tries };
        self.run(Vec::new(), Task::Pose { step, index, text })
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
