//! Each fault, done to the bench and mended again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tenon_core::avoid::START_JOINTS_RAD;
use tenon_core::message::{JointTarget, Request};
use tenon_core::time::MonotonicTime;
use tenon_link::codec::{TARGET_BYTES, encode_request, encode_target};
use tenon_link::{DEFAULT_ROBOT, Endpoint, RobotKeys, Stranger};

use super::bench::{Bench, Folders};
use super::cameras::{self, Struck};
use super::kinds::{Kind, Times};
use super::proxy::{Proxy, Way};
use crate::clock;
use crate::service::protocol::Status;

/// How long a cut lasts, or a part is dead.
const GONE: Duration = Duration::from_millis(1200);
/// How long a delay lasts.
const SLOW: Duration = Duration::from_millis(1500);

/// A fault that was done.
#[derive(Debug)]
pub struct Injected {
    pub at: MonotonicTime,
    /// What caused it was mended then.
    pub healed_at: MonotonicTime,
    /// What the service said of itself before that.
    pub status: Option<Status>,
    /// What was drawn, for people.
    pub detail: String,
    /// Where cameras failed.
    pub struck: Struck,
}

/// Does what `kind` is about, and mends it: what died is started again. The arm is left as it is.
///
/// # Errors
/// It cannot be done, or what was mended does not come up again.
pub fn inject(kind: Kind, bench: &mut Bench, times: &Times, random: &mut ChaCha8Rng) -> Result<Injected> {
    let at = clock::now();
    let mut detail = String::new();
    let mut struck = Struck::default();
    match kind {
        Kind::CameraGone
        | Kind::CameraFrozen
        | Kind::CamerasGone
        | Kind::CamerasFrozen
        | Kind::CamerasHang
        | Kind::CamerasHangShortly
        | Kind::CamerasEnded
        | Kind::CamerasClock => {
            struck = cameras::strike(kind, bench, times, random)?;
            detail.clone_from(&struck.detail);
        }
        Kind::ServiceKilled => service(bench)?.kill()?,
        Kind::BridgeKilled => bridge(bench)?.kill()?,
        Kind::ServerKilled => server(bench)?.kill()?,
        Kind::ServiceStopped | Kind::BridgeStopped | Kind::ServerStopped => {
            let stopped = Duration::from_secs_f64(random.random_range(1.0..3.0));
            detail = format!("for {:.1} s", stopped.as_secs_f64());
            let process = match kind {
                Kind::ServiceStopped => service(bench)?,
                Kind::BridgeStopped => bridge(bench)?,
                _ => server(bench)?,
            };
            process.signal(libc::SIGSTOP)?;
            std::thread::sleep(stopped);
        }
        Kind::ServiceRestarted => service(bench)?.signal(libc::SIGTERM)?,
        Kind::BridgeRestarted => bridge(bench)?.signal(libc::SIGTERM)?,
        Kind::ServerRestarted => server(bench)?.signal(libc::SIGTERM)?,
        Kind::RobotSilentShortly | Kind::RobotSilent => {
            let file = bench.silence();
            std::fs::write(&file, "").with_context(|| format!("writing {}", file.display()))?;
            std::thread::sleep(Duration::from_millis(if kind == Kind::RobotSilent { 1500 } else { 300 }));
        }
        Kind::LinkCut => link(bench)?.cut(),
        Kind::LinkHalfOpenUp => link(bench)?.swallow(Way::Up),
        Kind::LinkHalfOpenDown => link(bench)?.swallow(Way::Down),
        Kind::LinkLate => link(bench)?.delay(Duration::from_millis(400), Duration::ZERO),
        Kind::LinkSlow5 => link(bench)?.delay(Duration::from_millis(5), Duration::ZERO),
        Kind::LinkSlow50 => link(bench)?.delay(Duration::from_millis(50), Duration::ZERO),
        Kind::LinkJitter => link(bench)?.delay(Duration::ZERO, Duration::from_millis(40)),
        Kind::LinkProxyKilled => drop(bench.link.take()),
        Kind::WireCut => wire(bench)?.cut(),
        Kind::WireHalfOpenUp => wire(bench)?.swallow(Way::Up),
        Kind::WireHalfOpenDown => wire(bench)?.swallow(Way::Down),
        Kind::WireLate => wire(bench)?.delay(Duration::from_millis(400), Duration::ZERO),
        Kind::WireSlow5 => wire(bench)?.delay(Duration::from_millis(5), Duration::ZERO),
        Kind::WireSlow50 => wire(bench)?.delay(Duration::from_millis(50), Duration::ZERO),
        Kind::SecondCommander => second_commander(bench, random)?,
        Kind::Garbage => detail = garbage(bench, random)?,
        Kind::DiskFull | Kind::DiskReserve => {
            let folder = bench.folders().out.clone();
            detail = fill(&folder, (kind == Kind::DiskReserve).then_some(RESERVE_FILLER))?;
            std::thread::sleep(GONE);
        }
        Kind::NetworkDown => super::namespace::set_down(true)?,
        Kind::NetworkLate => super::namespace::delay(Some(Duration::from_millis(400)))?,
        Kind::ClockForward | Kind::ClockBack | Kind::StateFrozen => bail!("{} is not done to processes", kind.name()),
    }
    let lasts = match kind {
        _ if kind.is_of_cameras() => Duration::ZERO,
        Kind::ServiceStopped | Kind::BridgeStopped | Kind::ServerStopped => Duration::ZERO,
        Kind::RobotSilent | Kind::RobotSilentShortly | Kind::SecondCommander | Kind::Garbage => Duration::ZERO,
        Kind::DiskFull | Kind::DiskReserve => Duration::ZERO,
        Kind::LinkLate | Kind::WireLate | Kind::NetworkLate => SLOW,
        Kind::LinkSlow5 | Kind::LinkSlow50 | Kind::LinkJitter | Kind::WireSlow5 | Kind::WireSlow50 => SLOW,
        _ => GONE,
    };
    std::thread::sleep(lasts);
    // A stopped service answers nobody, and a dead one neither.
    let silent = matches!(kind, Kind::ServiceKilled | Kind::ServiceStopped | Kind::ServiceRestarted);
    let status = if silent { None } else { Some(bench.status()?) };
    let healed_at = clock::now();
    mend(kind, bench)?;
    Ok(Injected { at, healed_at, status, detail, struck })
}

fn mend(kind: Kind, bench: &mut Bench) -> Result<()> {
    match kind {
        _ if kind.is_of_cameras() => cameras::mend(kind, bench)?,
        Kind::ServiceStopped => service(bench)?.signal(libc::SIGCONT)?,
        Kind::BridgeStopped => bridge(bench)?.signal(libc::SIGCONT)?,
        Kind::ServerStopped => server(bench)?.signal(libc::SIGCONT)?,
        // Told to end, a process ends in order.
        Kind::ServiceRestarted => service(bench)?.wait()?,
        Kind::BridgeRestarted => bridge(bench)?.wait()?,
        Kind::ServerRestarted => server(bench)?.wait()?,
        Kind::RobotSilentShortly | Kind::RobotSilent => {
            let file = bench.silence();
            std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
        Kind::LinkProxyKilled => {
            let (near, far) = bench.link_addresses()?;
            bench.link = Some(Proxy::start(near, far)?);
        }
        Kind::NetworkDown => super::namespace::set_down(false)?,
        Kind::NetworkLate => super::namespace::delay(None)?,
        _ => {
            for proxy in [&bench.link, &bench.wire].into_iter().flatten() {
                proxy.heal();
            }
        }
    }
    Ok(())
}

fn there<'a, T>(part: &'a mut Option<T>, name: &str) -> Result<&'a mut T> {
    part.as_mut().with_context(|| format!("the bench has no {name}"))
}

fn service(bench: &mut Bench) -> Result<&mut super::process::Process> {
    there(&mut bench.service, "service")
}

fn bridge(bench: &mut Bench) -> Result<&mut super::process::Process> {
    there(&mut bench.bridge, "bridge")
}

fn server(bench: &mut Bench) -> Result<&mut super::process::Process> {
    there(&mut bench.server, "server")
}

fn link(bench: &mut Bench) -> Result<&mut Proxy> {
    there(&mut bench.link, "proxy of the link")
}

fn wire(bench: &mut Bench) -> Result<&mut Proxy> {
    there(&mut bench.wire, "proxy of the wire")
}

fn stranger(bench: &Bench) -> Result<Stranger> {
    let keys = RobotKeys::new(DEFAULT_ROBOT)?;
    Ok(Stranger::connect(&Endpoint::of_config(&bench.config.link)?, &keys, Duration::from_secs(2))?)
}

/// Another session wants the arm, and sends targets as if it had it.
fn second_commander(bench: &Bench, random: &mut ChaCha8Rng) -> Result<()> {
    let stranger = stranger(bench)?;
    let session = random.random::<u64>().max(1);
    for sequence in 1..=50 {
        stranger.put_request(&encode_request(&Request::Arm { session }))?;
        let target = JointTarget::still(session, sequence, clock::now(), START_JOINTS_RAD);
        stranger.put_target(&encode_target(&target))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What no peer of this version sends, some of it in the name of who has the lease.
fn garbage(bench: &Bench, random: &mut ChaCha8Rng) -> Result<String> {
    let status = bench.status()?;
    let session = status.bridge.and_then(|bridge| bridge.session);
    let session = session.and_then(|digits| u64::from_str_radix(&digits, 16).ok()).context("the lease in force")?;
    let stranger = stranger(bench)?;
    let mut count = 0;
    for round in 0..50 {
        let sound = encode_target(&JointTarget::still(session, u64::MAX / 2, clock::now(), START_JOINTS_RAD));
        let mut other_version = sound;
        other_version[0] = other_version[0].wrapping_add(1 + round);
        let mut not_a_number = sound;
        // Behind version, kind, session, sequence and instant come the joints.
        let joint = TARGET_BYTES - 8 * random.random_range(1..=21);
        not_a_number[joint..joint + 8].copy_from_slice(&f64::NAN.to_le_bytes());
        let short = &sound[..random.random_range(0..sound.len())];
        let mut noise = vec![0; random.random_range(1..2000)];
        random.fill(&mut noise[..]);
        // Noise of the right version and kind by chance would be a target.
        noise[0] = 0xee;
        for bytes in [&other_version[..], &not_a_number[..], short, &noise[..]] {
            stranger.put_target(bytes)?;
            stranger.put_request(bytes)?;
            count += 2;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(format!("{count} messages"))
}

/// With this on the disk there is less room than the recorder leaves free, bytes.
const RESERVE_FILLER: u64 = 256 << 20;

/// Fills the disk of `folder`, or a part of it.
fn fill(folder: &Path, bytes: Option<u64>) -> Result<String> {
    use std::io::Write;
    let path = folder.join("filler");
    let mut file = std::fs::File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut block = vec![0xa5; 1 << 20];
    let mut written = 0;
    while bytes.is_none_or(|bytes| written < bytes) && !block.is_empty() {
        match file.write(&block) {
            Ok(count @ 1..) => written += count as u64,
            // Smaller and smaller blocks, down to the last byte.
            Ok(0) | Err(_) => block.truncate(block.len() / 2),
        }
    }
    Ok(format!("{written} bytes written"))
}

/// A small disk in memory, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Mounts one of `bytes` bytes at `folder`.
    ///
    /// # Errors
    /// It may not be mounted here.
    pub fn mount(folder: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let size = format!("size={bytes}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tenon-faults"]).arg(folder).output();
        let output = output.context("running mount")?;
        if !output.status.success() {
            bail!("a small disk cannot be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Self(folder.to_owned()))
    }

    pub fn folders(&self) -> Folders {
        Folders { out: self.0.join("service"), records: self.0.join("records") }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A file of it may still be open: it goes when that is closed.
        match Command::new("umount").arg("-l").arg(&self.0).status() {
            Ok(status) if status.success() => {}
            _ => eprintln!("warning: {} is still mounted", self.0.display()),
        }
    }
}
