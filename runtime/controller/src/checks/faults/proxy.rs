//! A TCP proxy that delays, cuts and swallows: the network of the runs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the server.
    Up,
    /// Back.
    Down,
}

/// What the proxy does to what it carries.
#[derive(Debug, Default)]
struct Mood {
    delay_us: AtomicU64,
    jitter_us: AtomicU64,
    cut: AtomicBool,
    swallow: [AtomicBool; 2],
    stop: AtomicBool,
}

type Connections = Arc<Mutex<Vec<TcpStream>>>;

/// Carries connections from a port of this machine to another address.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mood: Arc<Mood>,
    connections: Connections,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on `address` and carries what comes to `to`.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(address: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("the proxy at {address}"))?;
        let address = listener.local_addr().context("the proxy's address")?;
        // Looked at between two waits: a listener has no other way to be ended.
        listener.set_nonblocking(true).context("the proxy's socket")?;
        let (mood, connections) = (Arc::<Mood>::default(), Connections::default());
        let listening = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn({
                let (mood, connections) = (mood.clone(), connections.clone());
                move || listen(&listener, to, &mood, &connections)
            })
            .context("the proxy's thread")?;
        Ok(Self { address, mood, connections, listening: Some(listening) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything arrives `delay` later, in both directions, and up to `jitter` later still.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.mood.delay_us.store(micros(delay), Ordering::Relaxed);
        self.mood.jitter_us.store(micros(jitter), Ordering::Relaxed);
    }

    /// Breaks every connection; until it is healed, new ones are closed at once.
    pub fn cut(&self) {
        self.mood.cut.store(true, Ordering::Release);
        self.drop_connections();
    }

    /// What goes that way arrives nowhere, and nobody is told.
    pub fn swallow(&self, way: Way) {
        self.mood.swallow[way as usize].store(true, Ordering::Release);
    }

    /// Carries as it should. A connection of which bytes were swallowed is broken: behind a gap its stream means nothing.
    pub fn heal(&self) {
        self.delay(Duration::ZERO, Duration::ZERO);
        let swallowed = self.mood.swallow.each_ref().map(|swallow| swallow.swap(false, Ordering::AcqRel));
        if swallowed.contains(&true) {
            self.drop_connections();
        }
        self.mood.cut.store(false, Ordering::Release);
    }

    fn drop_connections(&self) {
        for stream in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that has ended already is what we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mood.stop.store(true, Ordering::Release);
        self.drop_connections();
        if let Some(listening) = self.listening.take() {
            // A panic there has been printed.
            let _ = listening.join();
        }
        // One that was accepted meanwhile.
        self.drop_connections();
    }
}

fn listen(listener: &TcpListener, to: SocketAddr, mood: &Arc<Mood>, connections: &Connections) {
    crate::processes::prefer();
    let mut count = 0;
    while !mood.stop.load(Ordering::Acquire) {
        let Ok((near, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        if mood.cut.load(Ordering::Acquire) {
            continue;
        }
        // Who connects sees it end where the other side is not there, as without us.
        let Ok(far) = TcpStream::connect(to) else { continue };
        count += 1;
        if carry(&near, &far, mood, count).is_ok() {
            connections.lock().unwrap_or_else(PoisonError::into_inner).extend([near, far]);
        }
    }
}

/// Starts the threads of one connection.
fn carry(near: &TcpStream, far: &TcpStream, mood: &Arc<Mood>, count: u64) -> std::io::Result<()> {
    for stream in [near, far] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
    }
    for (way, from, to) in [(Way::Up, near, far), (Way::Down, far, near)] {
        let (send, receive) = channel();
        let (reader, writer) = (from.try_clone()?, to.try_clone()?);
        let random = ChaCha8Rng::seed_from_u64(2 * count + way as u64);
        let mood = mood.clone();
        let name = || "proxy-carry".to_owned();
        std::thread::Builder::new().name(name()).spawn(move || take(reader, way, &mood, random, &send))?;
        std::thread::Builder::new().name(name()).spawn(move || give(writer, &receive))?;
    }
    Ok(())
}

/// Bytes, and when they may go on.
type Packet = (Instant, Vec<u8>);

fn take(mut from: TcpStream, way: Way, mood: &Mood, mut random: ChaCha8Rng, send: &Sender<Packet>) {
    crate::processes::prefer();
    let mut bytes = vec![0; 64 << 10];
    let mut last = Instant::now();
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes) else { return };
        if mood.swallow[way as usize].load(Ordering::Acquire) {
            continue;
        }
        let jitter = mood.jitter_us.load(Ordering::Relaxed);
        let jitter = if jitter == 0 { 0 } else { random.random_range(0..=jitter) };
        let delay = Duration::from_micros(mood.delay_us.load(Ordering::Relaxed) + jitter);
        // Never out of order: it is a stream.
        last = last.max(Instant::now() + delay);
        if send.send((last, bytes[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn give(mut to: TcpStream, receive: &Receiver<Packet>) {
    crate::processes::prefer();
    while let Ok((at, bytes)) = receive.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // What came from the other side has ended: this side ends too.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        stream.write_all(&bytes[..count]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn say(stream: &mut TcpStream) -> std::io::Result<Duration> {
        let begin = Instant::now();
        stream.write_all(b"x")?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        assert_eq!(&byte, b"x");
        Ok(begin.elapsed())
    }

    #[test]
    fn it_carries_delays_swallows_cuts_and_heals() {
        let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), echo()).unwrap();
        let connect = || {
            let stream = TcpStream::connect(proxy.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            stream
        };
        let mut stream = connect();
        say(&mut stream).unwrap();
        proxy.delay(Duration::from_millis(60), Duration::ZERO);
        assert!(say(&mut stream).unwrap() >= Duration::from_millis(120), "both ways");
        proxy.heal();
        say(&mut stream).unwrap();
        proxy.swallow(Way::Down);
        say(&mut stream).unwrap_err();
        proxy.heal();
        say(&mut stream).unwrap_err();
        let mut stream = connect();
        say(&mut stream).unwrap();
        proxy.cut();
        say(&mut stream).unwrap_err();
        say(&mut connect()).unwrap_err();
        proxy.heal();
        say(&mut connect()).unwrap();
    }
}
