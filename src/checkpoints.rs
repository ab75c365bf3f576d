//! Keeps unfinished work on disk, so that a crash, a signal or a full disk costs little of it.
//!
//! ```
//! use bayes_lora::{checkpoints::Checkpoints, progress::Control};
//! use std::time::Duration;
//!
//! # let dir = std::env::temp_dir().join(format!("bayes-lora-checkpoints-{}", std::process::id()));
//! # let out = || dir.join("unfinished");
//! let checkpoints = Checkpoints::new(out()).with_every(Duration::from_secs(300));
//! let control = Control::silent().with_checkpoints(checkpoints)?; // for Trainer::fit, fit_curvature, predict …
//! assert_eq!(control.save_failures().to_string(), "no save failed");
//! # std::fs::remove_dir_all(&dir).ok();
//! # Ok::<(), bayes_lora::Error>(())
//! ```

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a save is tried before it counts as failed.
const ATTEMPTS: u32 = 3;
/// Wait after the first failure; each further one is [`BACKOFF`] times as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const BACKOFF: u32 = 4;

/// Where long calls keep their unfinished work, and how often. The same call with the same settings, model and data goes on
/// from there, to the same bits.
///
/// Hand it to [`crate::progress::Control::with_checkpoints`]. A save that fails is tried again twice (after 50 and 200 ms),
/// then counted ([`crate::progress::Control::save_failures`]) and left: it never stops the work. Files are replaced in one step;
/// the directory can be removed once the results are kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// The directory; made by [`crate::progress::Control::with_checkpoints`].
    pub dir: PathBuf,
    /// Least time between two saves; zero saves after every step or batch.
    pub every: Duration,
    /// How many checkpoints of a training run stay, the newest ones.
    pub keep: usize,
}

impl Checkpoints {
    /// In `dir`, a save a minute, two checkpoints of training.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), every: Duration::from_secs(60), keep: 2 }
    }

    /// Sets the least time between two saves.
    pub fn with_every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets how many checkpoints of a training run stay.
    pub fn with_keep(mut self, keep: usize) -> Self {
        self.keep = keep;
        self
    }

    /// The file of work that is known by a hash of all that it depends on.
    pub(crate) fn file(&self, kind: &str, hash: u64) -> PathBuf {
        self.dir.join(kind).join(format!("{hash:016x}.safetensors"))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        if self.keep == 0 {
            return Err(Error::config("keep", "at least 1", self.keep));
        }
        Ok(())
    }
}

/// Saves that were given up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SaveFailures {
    /// How many.
    pub count: usize,
    /// What the last of them said.
    pub last: Option<String>,
}

impl std::fmt::Display for SaveFailures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.last.as_deref().unwrap_or("unknown");
        match self.count {
            0 => f.write_str("no save failed"),
            1 => write!(f, "1 save of unfinished work or of a log failed: {last}"),
            n => write!(f, "{n} saves of unfinished work or of a log failed, the last one: {last}"),
        }
    }
}

/// Counts failures of all calls that share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailureCount(Arc<Mutex<SaveFailures>>);

impl FailureCount {
    pub(crate) fn get(&self) -> SaveFailures {
        self.lock().clone()
    }

    pub(crate) fn add(&self, reason: &Error) {
        let mut failures = self.lock();
        failures.count += 1;
        failures.last = Some(reason.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, SaveFailures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says when the next save is due, and counts the saves that fail.
#[derive(Debug)]
pub(crate) struct Saver {
    every: Duration,
    last: Instant,
    failures: FailureCount,
}

impl Saver {
    pub(crate) fn new(every: Duration, failures: FailureCount) -> Self {
        Self { every, last: Instant::now(), failures }
    }

    /// True once the time between two saves has passed.
    pub(crate) fn is_due(&self) -> bool {
        self.last.elapsed() >= self.every
    }

    /// Saves to `path`, in a directory that is made where it is missing, with retries; a failure is counted, not returned.
    pub(crate) fn save(&mut self, path: &Path, mut save: impl FnMut(&Path) -> Result<()>) {
        let outcome = with_retries(|| {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
            }
            save(path)
        });
        if let Err(reason) = outcome {
            self.failures.add(&reason);
        }
        self.last = Instant::now();
    }
}

fn with_retries(mut save: impl FnMut() -> Result<()>) -> Result<()> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        if save().is_ok() {
            return Ok(());
        }
        std::thread::sleep(wait);
        wait *= BACKOFF;
    }
    save()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_is_tried_three_times_and_a_failure_is_counted() {
        for (failing, saved) in [(0, true), (2, true), (3, false)] {
            let failures = FailureCount::default();
            let mut calls = 0;
            let dir = tempfile::tempdir().unwrap();
            Saver::new(Duration::ZERO, failures.clone()).save(&dir.path().join("new/file"), |path| {
                assert!(path.parent().unwrap().is_dir());
                calls += 1;
                if calls <= failing { Err(Error::empty(format!("disk, call {calls}"))) } else { Ok(()) }
            });
            let SaveFailures { count, last } = failures.get();
            assert_eq!((calls, count), ((failing + 1).min(3), usize::from(!saved)));
            assert!(saved && last.is_none() || last.unwrap().contains("call 3"));
        }
    }

    #[test]
    fn saves_are_due_once_their_time_has_passed() {
        assert!(Saver::new(Duration::ZERO, FailureCount::default()).is_due());
        assert!(!Saver::new(Duration::from_secs(3600), FailureCount::default()).is_due());
        assert!(Checkpoints::new("x").with_keep(0).validate().is_err());
    }
}
