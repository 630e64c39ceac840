//! What keeps a workstation busy while a policy runs: networks, memory, files. At normal priority, on every processor.

use std::hint::black_box;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

/// Side of the matrices that are multiplied, like the layers of a policy.
const SIDE: usize = 192;
/// Memory that is streamed through, beyond any cache.
const STREAM: usize = 32 << 20;
/// What is written, made safe and read back again.
const FILE: usize = 4 << 20;

/// Runs until it is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// One computing thread for each processor, and one that writes files in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self { stop: Arc::clone(&stop), threads: Vec::new() };
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let stop = Arc::clone(&stop);
            load.spawn(move || compute(&stop))?;
        }
        let mut file = tempfile_in(folder)?;
        load.spawn(move || {
            // A full disk ends this part of the load, not the bench.
            let _ = write_and_read(&mut file, &stop);
        })?;
        Ok(load)
    }

    fn spawn(&mut self, act: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name("bench-load".into()).spawn(act);
        self.threads.push(thread.context("starting a thread of the load")?);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A panic has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn compute(stop: &AtomicBool) {
    let (a, b) = (vec![0.5_f32; SIDE * SIDE], vec![0.25_f32; SIDE * SIDE]);
    let mut c = vec![0.0_f32; SIDE * SIDE];
    let from = vec![1_u8; STREAM];
    let mut to = vec![0_u8; STREAM];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..4 {
            c.fill(0.0);
            for i in 0..SIDE {
                for k in 0..SIDE {
                    let x = a[i * SIDE + k];
                    let row = &b[k * SIDE..(k + 1) * SIDE];
                    c[i * SIDE..(i + 1) * SIDE].iter_mut().zip(row).for_each(|(c, b)| *c += x * b);
                }
            }
            black_box(&c);
        }
        to.copy_from_slice(black_box(&from));
        black_box(&to);
    }
}

/// A file without a name: whatever becomes of this process, it leaves nothing.
fn tempfile_in(folder: &Path) -> Result<std::fs::File> {
    let path = folder.join("load");
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.with_context(|| format!("creating {} for the load", path.display()))?;
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(file)
}

fn write_and_read(file: &mut std::fs::File, stop: &AtomicBool) -> std::io::Result<()> {
    let mut bytes = vec![3_u8; FILE];
    while !stop.load(Ordering::Relaxed) {
        file.rewind()?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        file.rewind()?;
        file.read_exact(&mut bytes)?;
    }
    Ok(())
}
