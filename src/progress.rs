//! Lets a caller watch and stop long work.

use crate::checkpoints::{Checkpoints, FailureCount, SaveFailures, Saver};
use crate::error::{Error, Result};
use crate::memory::{ActivationBudget, GradientCheckpointing, Remarks, available_bytes};
use crate::outputs::claim_dir;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Handed to every long call: shows bars on a terminal if asked to, stops the call when another thread says so, and says
/// where unfinished work is kept.
///
/// ```
/// use bayes_lora::progress::Control;
/// let control = Control::silent();
/// let handle = control.clone();      // give this to another thread
/// handle.cancel();
/// assert!(control.check("fit", 3, 10).is_err());
/// ```
#[derive(Debug, Clone)]
pub struct Control {
    cancelled: Arc<AtomicBool>,
    #[cfg_attr(not(feature = "progress"), expect(dead_code, reason = "no bar can be drawn"))]
    bars: bool,
    workers: usize,
    gradient_checkpointing: GradientCheckpointing,
    memory_limit: Option<u64>,
    checkpoints: Option<Arc<Checkpoints>>,
    failures: FailureCount,
    remarks: Remarks,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            cancelled: Arc::default(),
            bars: false,
            workers: 1,
            gradient_checkpointing: GradientCheckpointing::default(),
            memory_limit: None,
            checkpoints: None,
            failures: FailureCount::default(),
            remarks: Remarks::default(),
        }
    }
}

impl Control {
    /// Shows nothing.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Shows progress bars on standard error where that is a terminal (with the feature `progress`). Elsewhere, such as in a log file, a
    /// long call writes a plain line at every tenth of its work, and no two within ten seconds.
    pub fn with_bars() -> Self {
        Self { bars: true, ..Self::default() }
    }

    /// The same without bars, such as for the parts of a call that shows one bar for all of them; to cancel one is to cancel both.
    pub fn without_bars(mut self) -> Self {
        self.bars = false;
        self
    }

    /// Lets curvature passes and predictions work on `workers` batches at once, and a training step on as many of its
    /// micro-batches (1 by default), with as many times the memory. Results are the same bits. On a CPU two or more keep
    /// all cores busy; a GPU needs one.
    ///
    /// # Errors
    /// If `workers` is 0.
    pub fn with_workers(mut self, workers: usize) -> Result<Self> {
        if workers == 0 {
            return Err(Error::config("workers", "at least 1", workers));
        }
        self.workers = workers;
        Ok(self)
    }

    /// Batches worked on at once.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Says whether training, curvature passes and linearised predictions hold the activations of all layers, or of one layer at a time.
    /// Results are the same bits.
    pub fn with_gradient_checkpointing(mut self, checkpointing: GradientCheckpointing) -> Self {
        self.gradient_checkpointing = checkpointing;
        self
    }

    /// Sets the most bytes that activations may take before [`GradientCheckpointing::Auto`] holds those of one layer at a time; `None` is
    /// what the system has free when a call begins.
    pub fn with_memory_limit(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_limit = bytes.into();
        self
    }

    /// How the passes of one call, `what`, are differentiated; `in_host_memory` says where tensors are.
    pub(crate) fn activation_budget(&self, what: &'static str, in_host_memory: bool) -> ActivationBudget {
        let free = || available_bytes().filter(|_| in_host_memory);
        let bytes = match self.gradient_checkpointing {
            GradientCheckpointing::Auto => self.memory_limit.or_else(free),
            GradientCheckpointing::Off | GradientCheckpointing::On => None,
        };
        ActivationBudget::new(self.gradient_checkpointing, bytes, (self.workers, what), self.remarks.clone())
    }

    /// What calls have decided by themselves so far, in words.
    pub fn remarks(&self) -> Vec<String> {
        self.remarks.all()
    }

    /// Keeps the unfinished work of training, of curvature passes and of predictions in a directory, which is made at once, and takes
    /// it up from there.
    ///
    /// # Errors
    /// As [`Checkpoints::validate`], and if the directory cannot be made or written.
    pub fn with_checkpoints(mut self, checkpoints: Checkpoints) -> Result<Self> {
        checkpoints.validate()?;
        claim_dir(&checkpoints.dir, 0)?;
        self.checkpoints = Some(Arc::new(checkpoints));
        Ok(self)
    }

    /// Keeps nothing on disk.
    pub fn without_checkpoints(mut self) -> Self {
        self.checkpoints = None;
        self
    }

    /// Where unfinished work is kept.
    pub fn checkpoints(&self) -> Option<&Checkpoints> {
        self.checkpoints.as_deref()
    }

    /// Lets SIGINT (Ctrl-C) and SIGTERM ask the running call to stop: it ends its step or batch, keeps its work where
    /// [`Control::with_checkpoints`] says, and answers with [`Error::Cancelled`]. A second Ctrl-C ends the process at once; a second
    /// SIGTERM does not, because `timeout` sends two.
    ///
    /// Signals belong to a whole process: call it once, from a program rather than a library.
    ///
    /// # Errors
    /// If the system refuses.
    #[cfg(feature = "signals")]
    pub fn with_signals(self) -> Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        /// As shells report a process that SIGINT ended.
        const STATUS: i32 = 130;
        // in this order, so that the first signal finds the flag still down
        flag::register_conditional_shutdown(SIGINT, STATUS, self.cancelled.clone())
            .and_then(|_| flag::register(SIGINT, self.cancelled.clone()))
            .and_then(|_| flag::register(SIGTERM, self.cancelled.clone()))
            .map_err(|e| Error::Incompatible(format!("signals cannot be caught: {e}")))?;
        Ok(self)
    }

    /// Checkpoints and lines of a training log that could not be written, of all calls so far.
    pub fn save_failures(&self) -> SaveFailures {
        self.failures.get()
    }

    /// Counts a save that failed.
    pub(crate) fn count_save_failure(&self, reason: &Error) {
        self.failures.add(reason);
    }

    /// Where unfinished work is kept, with a clock for it.
    pub(crate) fn saver(&self) -> Option<(&Checkpoints, Saver)> {
        let checkpoints = self.checkpoints()?;
        Some((checkpoints, Saver::new(checkpoints.every, self.failures.clone())))
    }

    /// Asks the running call to stop; it answers with [`Error::Cancelled`] after its present batch.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// True after [`Control::cancel`].
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Passes unless the caller asked to stop.
    ///
    /// # Errors
    /// [`Error::Cancelled`] after [`Control::cancel`]; it says where the unfinished work is.
    pub fn check(&self, what: &str, done: usize, total: usize) -> Result<()> {
        if !self.is_cancelled() {
            return Ok(());
        }
        let what = match &self.checkpoints {
            None => what.into(),
            Some(checkpoints) => format!("{what} (unfinished work is kept in {})", checkpoints.dir.display()),
        };
        Err(Error::Cancelled { what, done, total })
    }

    /// Opens a bar of `total` units.
    pub(crate) fn bar(&self, what: &'static str, total: usize) -> Bar {
        Bar {
            #[cfg(feature = "progress")]
            inner: self.bars.then(|| drawn_bar(what, total)),
            #[cfg(feature = "progress")]
            lines: Lines { last: std::time::Instant::now(), tenths: 0 },
            #[cfg(feature = "progress")]
            start: std::time::Instant::now(),
            control: self.clone(),
            what,
            total,
            done: 0,
        }
    }
}

#[cfg(feature = "progress")]
fn drawn_bar(what: &'static str, total: usize) -> indicatif::ProgressBar {
    let style = "{prefix:>10} {bar:30} {pos}/{len} [{elapsed}<{eta}] {msg}";
    let bar = indicatif::ProgressBar::new(total as u64).with_prefix(what);
    match indicatif::ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Time between two lines of a log.
#[cfg(feature = "progress")]
const LINE_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// When a log has a line: at every tenth of the work, and not too often.
#[cfg(feature = "progress")]
#[derive(Debug)]
struct Lines {
    last: std::time::Instant,
    tenths: usize,
}

#[cfg(feature = "progress")]
impl Lines {
    /// True once a further tenth is done and the last line is `every` old.
    fn is_due(&mut self, done: usize, total: usize, every: std::time::Duration) -> bool {
        let tenths = 10 * done / total.max(1);
        let is_due = tenths > self.tenths && self.last.elapsed() >= every;
        if is_due {
            *self = Self { last: std::time::Instant::now(), tenths };
        }
        is_due
    }
}

/// One bar; finished when dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    #[cfg(feature = "progress")]
    inner: Option<indicatif::ProgressBar>,
    #[cfg(feature = "progress")]
    lines: Lines,
    #[cfg(feature = "progress")]
    start: std::time::Instant,
    control: Control,
    what: &'static str,
    total: usize,
    done: usize,
}

impl Bar {
    /// Counts `units` as done before this call.
    pub(crate) fn skip(&mut self, units: usize) {
        self.done += units;
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.inner {
            bar.inc(units as u64);
            bar.reset_eta();
        }
    }

    /// Counts `units` more as done and says `message`; fails if the caller asked to stop.
    pub(crate) fn advance(&mut self, units: usize, message: impl FnOnce() -> String) -> Result<()> {
        self.done += units;
        #[cfg(feature = "progress")]
        match &self.inner {
            None => {}
            Some(bar) if !bar.is_hidden() => {
                bar.inc(units as u64);
                bar.set_message(message());
            }
            Some(_) if self.lines.is_due(self.done, self.total, LINE_EVERY) => {
                let (message, seconds) = (message(), self.start.elapsed().as_secs());
                let comma = if message.is_empty() { "" } else { ", " };
                eprintln!("{}: {} of {} after {seconds} s{comma}{message}", self.what, self.done, self.total);
            }
            Some(_) => {}
        }
        #[cfg(not(feature = "progress"))]
        let _ = message;
        self.control.check(self.what, self.done, self.total)
    }
}

#[cfg(feature = "progress")]
impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.inner {
            bar.finish_and_clear();
        }
    }
}

#[cfg(all(test, feature = "progress"))]
mod tests {
    use super::Lines;
    use std::time::{Duration, Instant};

    #[test]
    fn a_log_has_a_line_at_every_tenth_and_none_too_early() {
        let mut lines = Lines { last: Instant::now(), tenths: 0 };
        let due: Vec<usize> = (1..=50).filter(|&done| lines.is_due(done, 50, Duration::ZERO)).collect();
        assert_eq!(due, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
        let mut lines = Lines { last: Instant::now(), tenths: 0 };
        assert!((1..=50).all(|done| !lines.is_due(done, 50, Duration::from_secs(3600))));
        assert!(!Lines { last: Instant::now(), tenths: 0 }.is_due(0, 0, Duration::ZERO));
    }
}
