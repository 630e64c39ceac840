//! The service's ear: a socket of this machine, one thread for each who asks.
//!
//! `hold` and `stop` do not wait for the sequencer: they go through the gate into the control thread's queue at once.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Sender, TrySendError, bounded};

use super::protocol::{Answer, Ask, MAX_LINE, State, Status};
use crate::machine::Order;
use crate::run::gate::Gate;

/// How long the arm may take to come to rest and be given back.
const REST: Duration = Duration::from_secs(3);
/// Longest wait for the sequencer's answer: arming takes up to 8 s.
const ANSWER: Duration = Duration::from_secs(12);
/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(5);

/// What only the sequencer can do, and where its answer goes.
pub struct Asked {
    pub ask: Ask,
    pub by: String,
    /// Of [`Gate::times`], when it was asked.
    pub times: u64,
    pub answer: Sender<Result<String, String>>,
}

/// What those who answer share with the sequencer.
#[derive(Clone)]
pub struct Desk {
    pub status: Arc<Mutex<Status>>,
    /// There once the controller is.
    pub gate: Arc<Mutex<Option<Gate>>>,
    pub asked: Sender<Asked>,
    /// The sequencer has something in hand.
    pub busy: Arc<AtomicBool>,
}

impl Desk {
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn gate(&self) -> Option<Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The socket; it is removed when this is dropped.
pub struct Socket {
    path: PathBuf,
    /// Holds the lock as long as the service lives, and a moment longer than the socket.
    _lock: File,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next service removes it otherwise.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Socket {
    /// Listens at `path` and answers on threads of its own.
    ///
    /// # Errors
    /// Another service has it, or it cannot be made there.
    pub fn listen(path: &Path, desk: Desk) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o660)
            .open(&lock_path)
            .with_context(|| format!("opening {}", lock_path.display()))?;
        // SAFETY: the descriptor is open; no pointers are involved.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            bail!(
                "another Tenon service holds {}: `tenon status` shows it, `systemctl stop 'tenon@*'` ends it",
                lock_path.display()
            );
        }
        // Whoever left it is gone: it would hold the lock.
        if path.exists() {
            std::fs::remove_file(path).with_context(|| format!("removing the old {}", path.display()))?;
        }
        let listener = UnixListener::bind(path).with_context(|| {
            format!("listening at {} (a path of at most 107 bytes; TENON_STATE names a shorter one)", path.display())
        })?;
        // Group: people who may command the arm. Nobody else.
        std::fs::set_permissions(path, Permissions::from_mode(0o660))
            .with_context(|| format!("setting the permissions of {}", path.display()))?;
        std::thread::Builder::new()
            .name("tenon-ask".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else {
                        // Out of descriptors, say; the next one may do.
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    let desk = desk.clone();
                    // Without a thread the client sees its connection end, and says so.
                    let _ =
                        std::thread::Builder::new().name("tenon-answer".into()).spawn(move || serve(&stream, &desk));
                }
            })
            .context("starting the thread that answers")?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

/// One question, one answer.
fn serve(stream: &UnixStream, desk: &Desk) {
    let _ = stream.set_read_timeout(Some(ASKING));
    let _ = stream.set_write_timeout(Some(ASKING));
    let mut line = String::new();
    let read = BufReader::new(Read::take(stream, MAX_LINE)).read_line(&mut line);
    let answer = match read.map(|_| serde_json::from_str::<Ask>(&line)) {
        Ok(Ok(ask)) => answer(&ask, &peer(stream), desk),
        Ok(Err(error)) => refused(desk, format!("not understood ({error}): use the `tenon` of the same release")),
        Err(error) => refused(desk, format!("not read: {error}")),
    };
    if let Ok(mut text) = serde_json::to_vec(&answer) {
        text.push(b'\n');
        // Who has gone does not want it.
        let mut stream = stream;
        let _ = stream.write_all(&text);
    }
}

fn refused(desk: &Desk, why: String) -> Answer {
    Answer::Refused { why, status: Box::new(desk.status()) }
}

fn answer(ask: &Ask, by: &str, desk: &Desk) -> Answer {
    let done = |text: String| Answer::Done { text, status: Box::new(desk.status()) };
    match ask {
        Ask::Status => done(String::new()),
        Ask::Hold | Ask::Stop => {
            let Some(gate) = desk.gate() else { return done("the arm is not armed".to_owned()) };
            eprintln!("{} by {by}", if *ask == Ask::Hold { "hold" } else { "stop" });
            if *ask == Ask::Hold {
                gate.take("held by hand", &[Order::Hold]);
            } else {
                gate.take("stopped by hand", &[Order::Hold, Order::Disarm]);
            }
            let rests = |state: State| match ask {
                Ask::Hold => matches!(state, State::Holding | State::Disarmed | State::Fault),
                _ => state == State::Disarmed,
            };
            let until = Instant::now() + REST;
            // The status is that of some milliseconds ago: the first look must not find what was before the order.
            std::thread::sleep(Duration::from_millis(60));
            while Instant::now() < until {
                let state = desk.status().state;
                if rests(state) {
                    return done(
                        match state {
                            State::Holding => "the arm holds, still armed",
                            State::Fault => "the arm holds, in a fault",
                            _ => "the arm is given back",
                        }
                        .to_owned(),
                    );
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            refused(desk, format!("the arm has not come to rest within {REST:?}: use the emergency stop"))
        }
        Ask::Arm | Ask::Start { .. } => {
            let Some(gate) = desk.gate() else {
                return refused(desk, "the bridge does not answer yet: start tenon-bridge, or wait".to_owned());
            };
            if desk.busy.load(Ordering::Acquire) {
                return refused(desk, "an order is being carried out: `tenon hold` ends it".to_owned());
            }
            let (send, receive) = bounded(1);
            let asked = Asked { ask: ask.clone(), by: by.to_owned(), times: gate.times(), answer: send };
            match desk.asked.try_send(asked) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return refused(desk, "another order is being carried out".to_owned()),
                Err(TrySendError::Disconnected(_)) => return refused(desk, "the service ends".to_owned()),
            }
            match receive.recv_timeout(ANSWER) {
                Ok(Ok(text)) => done(text),
                Ok(Err(why)) => refused(desk, why),
                Err(_) => refused(desk, format!("the service has not answered within {ANSWER:?}")),
            }
        }
    }
}

/// Who asks, for the log.
fn peer(stream: &UnixStream) -> String {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` and `len` are valid for writes and of the sizes that they say.
    let rc = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len)
    };
    if rc == 0 { format!("user {} (process {})", peer.uid, peer.pid) } else { "an unknown user".to_owned() }
}
