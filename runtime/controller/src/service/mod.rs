//! `tenon serve`: cameras, policy and controller up and Disarmed, until a person says otherwise.
//!
//! ```text
//! tenon arm | start | hold | stop | status ── control.sock ──► answering threads ─┬─ hold, stop ──► gate ──► control thread
//!                                                                                └─ arm, start ──► sequencer (this thread) ─┘
//! ```
//!
//! Nothing arms by itself: not at the start, not after a fault, not when a part that crashed is there again. The service may therefore
//! start with the machine and be started again after a crash.

pub mod client;
pub mod protocol;
mod socket;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use tenon_core::time::MonotonicTime;

use crate::machine::Phase;
use crate::run::session::Standing;
use crate::run::stage::connect_patiently;
use crate::run::{Planned, Setup, Stage};
use crate::shadow::ShadowReport;
use crate::{clock, report, run};
use protocol::{Ask, BridgeReport, Happening, SCHEMA, State, Status};
use socket::{Asked, Desk, Socket};

/// How often the sequencer looks around when it has nothing in hand.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the service until it is told to end (Ctrl-C, SIGTERM), or until the policy fails.
pub fn serve(setup: &Setup, interrupted: &Arc<AtomicBool>) -> Result<ExitCode> {
    let planned = Planned::new(setup.clone())?;
    let (send, asked) = bounded(1);
    let desk = Desk {
        status: Arc::new(Mutex::new(first_status(setup, &planned.spec.task))),
        gate: Arc::default(),
        asked: send,
        busy: Arc::default(),
    };
    // Before anything is opened: a second service must not take cameras away from the first.
    let socket = Socket::listen(&protocol::socket_path()?, desk.clone())?;
    let waits = || {
        feed();
        if interrupted.load(Ordering::Acquire) { Err(anyhow::anyhow!("told to end")) } else { Ok(()) }
    };
    let stage = Stage::raise(planned, interrupted, |connect| {
        connect_patiently(connect, waits, |error| {
            eprintln!("waiting: {error}");
            ready("waiting for the bridge");
        })
    });
    let mut stage = match stage {
        Ok(stage) => stage,
        Err(_) if interrupted.load(Ordering::Acquire) => return Ok(ExitCode::from(130)),
        Err(error) => return Err(error),
    };
    let service = Service { asked, desk: desk.clone(), episodes: Arc::default(), episode: Arc::default() };
    service.watch(&mut stage);
    ready("disarmed");
    eprintln!("ready: the arm is disarmed. `tenon arm` takes it, `tenon start` runs the policy.");
    let ended = service.run(&mut stage, &setup.out);
    drop(socket);
    let (task, truth) = (stage.spec.task.clone(), stage.truth.clone());
    let lowered = stage.lower()?;
    let interrupted = interrupted.load(Ordering::Acquire);
    let fault = if interrupted { None } else { ended.err().map(|error| format!("{error:#}")) };
    let report = run::report(setup, task, &truth, lowered, fault)?;
    report::write_json(&setup.out.join("run.json"), &report)?;
    Ok(match report.fault {
        None => ExitCode::from(130),
        Some(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    })
}

/// systemd shows `status` beside the unit.
fn ready(status: &str) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
}

fn feed() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
}

fn first_status(setup: &Setup, task: &str) -> Status {
    Status {
        schema: SCHEMA.to_owned(),
        state: State::WaitingForBridge,
        fault: None,
        robot: setup.robot,
        bundle: setup.bundle.display().to_string(),
        task: task.to_owned(),
        episodes: 0,
        episode: None,
        bridge: None,
        arm_state_age_ms: None,
        ticks: 0,
        record: None,
        shadow: None,
        cameras: Vec::new(),
        happenings: Vec::new(),
        pid: std::process::id(),
    }
}

/// The sequencer.
struct Service {
    asked: Receiver<Asked>,
    desk: Desk,
    episodes: Arc<AtomicU64>,
    /// The one that runs, from 1; 0 for none.
    episode: Arc<AtomicU64>,
}

impl Service {
    /// From now on the desk knows what the control thread knows.
    fn watch(&self, stage: &mut Stage) {
        *self.desk.gate.lock().unwrap_or_else(PoisonError::into_inner) = Some(stage.session.gate());
        let shared = self.desk.status.clone();
        let (episodes, episode) = (self.episodes.clone(), self.episode.clone());
        let record = stage.record_folder.clone();
        let shadow = stage.shadow_watch();
        let mut looks = 0u32;
        stage.session.narrate();
        stage.session.watch(Box::new(move |standing| {
            let mut status = shared.lock().unwrap_or_else(PoisonError::into_inner);
            fill(&mut status, standing);
            status.episodes = episodes.load(Ordering::Relaxed);
            status.episode = Some(episode.load(Ordering::Relaxed)).filter(|&episode| episode > 0);
            if status.record.is_none() {
                status.record.clone_from(&record);
            }
            // Its numbers change with every chunk only.
            if looks.is_multiple_of(50) {
                status.shadow = shadow.as_ref().map(|shadow| -> ShadowReport { shadow() });
            }
            looks = looks.wrapping_add(1);
        }));
    }

    /// Until an error ends it: told to end, or the policy has failed.
    fn run(&self, stage: &mut Stage, out: &Path) -> Result<()> {
        loop {
            stage.session.attend()?;
            stage.session.look();
            let Asked { ask, by, times, answer } = match self.asked.recv_timeout(LOOK) {
                Ok(asked) => asked,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the thread that answers has ended"),
            };
            self.desk.busy.store(true, Ordering::Release);
            let released = stage.session.gate().release(times).map_err(|taken| taken.0.to_owned());
            match (ask, released) {
                // Somebody said hold or stop after this was asked.
                (_, Err(how)) => {
                    self.rest();
                    let _ = answer.send(Err(how));
                }
                (Ask::Arm, Ok(())) => {
                    eprintln!("arm by {by}");
                    let armed = self.arm(stage);
                    stage.session.attend()?;
                    // Before the answer: who has it may ask for the next thing at once.
                    self.rest();
                    let _ = answer.send(armed);
                }
                (Ask::Start { episodes }, Ok(())) => {
                    eprintln!("start by {by}");
                    let may = self.may_start(stage);
                    let starts = may.is_ok();
                    if !starts {
                        self.rest();
                    }
                    let _ = answer.send(may);
                    if starts {
                        self.episodes(stage, episodes, out)?;
                    }
                }
                (Ask::Status | Ask::Hold | Ask::Stop, Ok(())) => {
                    // Answered where they are heard.
                    let _ = answer.send(Err("not for the sequencer".to_owned()));
                }
            }
            self.rest();
        }
    }

    /// Nothing is in hand.
    fn rest(&self) {
        self.episode.store(0, Ordering::Relaxed);
        self.desk.busy.store(false, Ordering::Release);
    }

    fn arm(&self, stage: &mut Stage) -> Result<String, String> {
        match stage.session.view().phase {
            Phase::Disarmed | Phase::Fault(_) => {}
            phase => return Err(format!("the arm is armed already ({:?})", State::of(&phase)).to_lowercase()),
        }
        stage.session.arm().map_err(|error| format!("{error:#}"))?;
        Ok("armed: the arm holds its position".to_owned())
    }

    fn may_start(&self, stage: &mut Stage) -> Result<String, String> {
        match stage.session.view().phase {
            Phase::Holding => {}
            Phase::Disarmed => return Err("the arm is not armed: `tenon arm` first".to_owned()),
            Phase::Fault(cause) => return Err(format!("{cause}: mend it, then `tenon arm`")),
            phase => return Err(format!("the arm is {:?}", State::of(&phase)).to_lowercase()),
        }
        stage.session.await_parts().map_err(|error| format!("{error:#}"))?;
        Ok("started".to_owned())
    }

    /// An episode that fails ends them; the service goes on.
    fn episodes(&self, stage: &mut Stage, wanted: u64, out: &Path) -> Result<()> {
        let mut index = 0;
        while wanted == 0 || index < wanted {
            index += 1;
            self.episode.store(index, Ordering::Relaxed);
            let Stage { session, spec, program, settings, .. } = stage;
            let began = clock::now();
            let ended = session.episode(spec, program, &settings.safety.workspace);
            // What a policy saw is in the record; here it would fill the memory of a service that runs for weeks.
            session.windows.clear();
            log_episode(out, began, &ended);
            session.attend()?;
            match ended {
                Ok(_) => self.episodes.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    session.note(clock::now(), format!("episode {index}: {error:#}"));
                    return Ok(());
                }
            };
        }
        Ok(())
    }
}

/// One line of `episodes.jsonl`; a disk that is full does not end the service.
fn log_episode(out: &Path, began: MonotonicTime, ended: &Result<Duration>) {
    #[derive(serde::Serialize)]
    struct Line {
        began_ns: i64,
        took_s: Option<f64>,
        ended_by: Option<String>,
    }
    let line = Line {
        began_ns: began.as_nanos(),
        took_s: ended.as_ref().ok().map(Duration::as_secs_f64),
        ended_by: ended.as_ref().err().map(|error| format!("{error:#}")),
    };
    let path = out.join("episodes.jsonl");
    let written = serde_json::to_string(&line).context("plain data").and_then(|line| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(file.write_all((line + "\n").as_bytes())?)
    });
    if let Err(error) = written {
        eprintln!("warning: {}: {error:#}", path.display());
    }
}

fn fill(status: &mut Status, standing: &Standing) {
    let &Standing { view, ticks, happenings, cameras } = standing;
    let now = clock::now();
    let ms = |at: MonotonicTime| now.since(at).as_secs_f64() * 1e3;
    status.state = State::of(&view.phase);
    status.fault = match view.phase {
        Phase::Fault(cause) => Some(cause.to_string()),
        _ => None,
    };
    status.arm_state_age_ms = view.state_at.map(ms);
    status.bridge = view.status.map(|status| BridgeReport {
        state: status.value.state,
        fault: status.value.fault,
        session: Some(status.value.session).filter(|&session| session != 0).map(|session| format!("{session:016x}")),
        ours: status.value.session != 0 && status.value.session == view.session,
        age_ms: ms(status.time),
    });
    status.ticks = ticks;
    status.cameras = cameras.to_vec();
    let of = |(at, text): &(MonotonicTime, String)| Happening { seconds_ago: ms(*at) * 1e-3, text: text.clone() };
    status.happenings = happenings.iter().map(of).collect();
}
