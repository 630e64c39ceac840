//! Watching a run: what a loop records is kept as lines of JSON, for TensorBoard and as a page.
//!
//! A loop opens a [`Watcher`], hands it a record (anything that serialises to an object) after each step and says at
//! the end what came out. [`History`] is the metrics as columns, [`Run`] a run on the disk; [`report`], [`compare`] and
//! [`text_chart`] show them; [`episode`] shows one demonstration. The list of metrics is the only truth: event file and page are made from it.

mod axis;
mod card;
mod chart;
pub mod compare;
pub mod episode;
mod history;
mod metric;
pub(crate) mod page;
pub mod report;
mod runs;
mod tensorboard;
mod text_chart;

use std::time::{Duration, Instant};

use serde::Serialize;

pub use card::{CARD_FILE, Card};
pub use compare::{Comparison, columns};
pub use history::{History, Row, Series, TIME_KEY};
pub use metric::{Metric, number};
pub use runs::{Run, State, find};
pub use text_chart::{exact_text_chart, text_chart};

use crate::error::TrainError;
use crate::run_dir::{Metrics, RunDir, replace_text};
use crate::wall_clock::unix_seconds;
use report::REPORT_FILE;
use tensorboard::EventWriter;

/// Least time between two writings of the page.
const PAGE_INTERVAL: Duration = Duration::from_secs(5);
/// Share of the time that writing the page may take: a long run's page is written less often.
const PAGE_SHARE: u32 = 200;

/// Keeps the records of a run while it goes on.
#[derive(Debug)]
pub struct Watcher {
    metrics: Metrics,
    events: EventWriter,
    run: Run,
    page_written: Instant,
    page_took: Duration,
}

/// A record with the time of writing.
#[derive(Serialize)]
struct Stamped<'a, T: Serialize> {
    #[serde(flatten)]
    record: &'a T,
    unix_seconds: f64,
}

impl Watcher {
    /// Begins or continues to watch a run of which `done` steps are kept in its checkpoint: records of later steps,
    /// which an interrupted run left, are dropped. `card` says what the run is; when it began is kept on continuing.
    pub fn open(folder: &RunDir, mut card: Card, done: u64) -> Result<Self, TrainError> {
        let path = folder.path();
        if done > 0
            && let Ok(before) = Card::read(path)
        {
            card.continued_unix_seconds = Some(card.begun_unix_seconds);
            card.begun_unix_seconds = before.begun_unix_seconds;
            card.results = before.results;
        }
        let metrics = Metrics::open(path, &card.counter, done)?;
        let history = History::read(path, &card.counter)?;
        let events = EventWriter::create(path, &history, unix_seconds())?;
        card.write(path)?;
        let config = runs::config_of(path);
        let run = Run { folder: path.to_owned(), card, history, state: State::Running, config };
        let mut this = Self { metrics, events, run, page_written: Instant::now(), page_took: Duration::ZERO };
        this.write_page()?;
        Ok(this)
    }

    /// Keeps the record of one step: any struct that serialises to an object with the run's counter in it.
    pub fn record(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        let line = self.metrics.append(&Stamped { record, unix_seconds: unix_seconds() })?;
        let row = Row::parse(&line, &self.run.history.counter).map_err(|e| self.bad_record(&e))?;
        self.events.append(&row)?;
        self.run.history.push(row).map_err(|e| self.bad_record(&e))?;
        if self.page_written.elapsed() >= PAGE_INTERVAL.max(self.page_took * PAGE_SHARE) {
            self.write_page()?;
        }
        Ok(())
    }

    /// What was recorded so far, by earlier sessions too.
    pub fn history(&self) -> &History {
        &self.run.history
    }

    /// Notes something that came out, as text for people; a second note of the same name replaces the first.
    pub fn result(&mut self, name: &str, text: &str) -> Result<(), TrainError> {
        let results = &mut self.run.card.results;
        results.retain(|(known, _)| known != name);
        results.push((name.into(), text.into()));
        self.run.card.write(&self.run.folder)?;
        self.write_page()
    }

    /// Notes that everything is done.
    pub fn finish(mut self) -> Result<(), TrainError> {
        self.run.card.finished = true;
        self.run.state = State::Finished;
        self.run.card.write(&self.run.folder)?;
        self.write_page()
    }

    fn write_page(&mut self) -> Result<(), TrainError> {
        let begun = Instant::now();
        let text = report::render(&self.run, unix_seconds());
        replace_text(&self.run.folder.join(REPORT_FILE), &text)?;
        self.page_took = begun.elapsed();
        self.page_written = Instant::now();
        Ok(())
    }

    fn bad_record(&self, why: &str) -> TrainError {
        TrainError::file(self.run.folder.join(crate::run_dir::METRICS_FILE), format!("a record cannot be kept: {why}"))
    }
}

impl Drop for Watcher {
    /// The page of a run that ends before its time says so.
    fn drop(&mut self) {
        if self.run.state == State::Running {
            self.run.state = State::Interrupted;
            // The run is ending because of something that matters more than its page.
            let _ = self.write_page();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_dir::{KeepCheckpoints, METRICS_FILE};
    use std::collections::BTreeMap;
    use std::path::Path;

    #[derive(Serialize)]
    struct Record {
        epoch: u64,
        loss: f64,
        clip_fraction_per_step: [f64; 2],
        seconds_update: f64,
    }

    fn record(epoch: u64) -> Record {
        Record { epoch, loss: 1.0 / epoch as f64, clip_fraction_per_step: [0.1, f64::NAN], seconds_update: 0.5 }
    }

    fn hold(folder: &Path) -> RunDir {
        RunDir::hold(folder, KeepCheckpoints { last: 1, every: 0 }).unwrap()
    }

    fn card() -> Card {
        let provenance = BTreeMap::from([("commit".into(), "<abc>".into()), ("old.config".into(), "a = 1\nb".into())]);
        Card::new("pretrain", "avoid_m1", 42, ("epoch", 8), &provenance)
    }

    fn page(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(REPORT_FILE)).unwrap()
    }

    #[test]
    fn a_run_is_watched_through_an_interruption_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let run_dir = hold(folder);
        let mut watcher = Watcher::open(&run_dir, card(), 0).unwrap();
        assert!(page(folder).contains(">running<") && page(folder).contains("http-equiv=\"refresh\""));
        (1..=5).for_each(|epoch| watcher.record(&record(epoch)).unwrap());
        watcher.result("final loss", "0.2").unwrap();
        assert_eq!(Run::read(folder).unwrap().state, State::Running);
        drop((watcher, run_dir));
        assert!(page(folder).contains(">interrupted<") && !page(folder).contains("http-equiv"));
        let interrupted = Run::read(folder).unwrap();
        assert_eq!((interrupted.state, interrupted.history.done()), (State::Interrupted, 5));

        // The last checkpoint is that of epoch 3.
        let run_dir = hold(folder);
        let mut watcher = Watcher::open(&run_dir, card(), 3).unwrap();
        (4..=8).for_each(|epoch| watcher.record(&record(epoch)).unwrap());
        watcher.finish().unwrap();
        drop(run_dir);
        let run = Run::read(folder).unwrap();
        assert_eq!((run.state, &run.history.steps[..]), (State::Finished, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!(run.card.begun_unix_seconds, interrupted.card.begun_unix_seconds);
        assert!(run.card.continued_unix_seconds.is_some());
        let page = page(folder);
        for part in
            ["finished", "8 of 8", "Loss", "Clip fraction by denoising step", "Time of each phase", "&lt;abc&gt;"]
        {
            assert!(page.contains(part), "{part} is missing");
        }
        for foreign in ["http://", "https://", "src="] {
            let own = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
            assert!(!own.contains(foreign), "the page needs {foreign}");
        }
    }

    #[test]
    fn a_run_that_begins_anew_forgets_the_old_results() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = hold(folder.path());
        let mut watcher = Watcher::open(&run_dir, card(), 0).unwrap();
        watcher.record(&record(1)).unwrap();
        watcher.result("final loss", "0.2").unwrap();
        drop(watcher);
        let watcher = Watcher::open(&run_dir, card(), 0).unwrap();
        assert_eq!(watcher.history().done(), 0);
        assert!(watcher.run.card.results.is_empty() && watcher.run.card.continued_unix_seconds.is_none());
    }

    #[test]
    fn a_record_without_the_counter_is_refused() {
        #[derive(Serialize)]
        struct Wrong {
            loss: f64,
        }
        let folder = tempfile::tempdir().unwrap();
        let run_dir = hold(folder.path());
        let mut watcher = Watcher::open(&run_dir, card(), 0).unwrap();
        let error = watcher.record(&Wrong { loss: 1.0 }).unwrap_err().to_string();
        assert!(error.contains(METRICS_FILE) && error.contains("`epoch`"), "{error}");
    }

    /// Long curves are thinned, so that a page stays one that a browser opens at once.
    #[test]
    fn the_page_of_a_long_run_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = hold(folder.path());
        drop(Watcher::open(&run_dir, card(), 0).unwrap());
        let mut run = Run::read(folder.path()).unwrap();
        for step in 1..=20_000 {
            let values = (0..12).map(|i| (format!("m{i}"), ((step * (i + 7)) % 101) as f64)).collect();
            run.history.push(Row { step, unix_seconds: step as f64, values }).unwrap();
        }
        let page = report::render(&run, 0.0);
        assert!(page.len() < 12 * 30_000, "{} bytes", page.len());
    }
}
