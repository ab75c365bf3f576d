//! How far an answering is, and how fast: a bar on a terminal, a line at each tenth elsewhere.

use bayes_lora::number::significant;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Instant;

pub struct Rate {
    what: &'static str,
    bar: Option<ProgressBar>,
    /// Says a line at each tenth of so many.
    tenths_of: Option<usize>,
    done: usize,
    /// Of `done`, by an earlier run.
    skipped: usize,
    begin: Instant,
}

impl Rate {
    /// Of so many lines, where that is known; silent unless somebody watches.
    pub fn new(n_lines: Option<usize>, is_watched: bool) -> Self {
        Self::of("predict", n_lines, is_watched)
    }

    /// The same for other work.
    pub fn of(what: &'static str, n_lines: Option<usize>, is_watched: bool) -> Self {
        let is_terminal = stderr().is_terminal();
        let bar = (is_watched && is_terminal).then(|| bar(what, n_lines));
        let tenths_of = n_lines.filter(|_| is_watched && !is_terminal);
        Self { what, bar, tenths_of, done: 0, skipped: 0, begin: Instant::now() }
    }

    /// Lines that were answered now.
    pub fn advance(&mut self, n: usize) {
        let before = self.done;
        self.done += n;
        if let Some(bar) = &self.bar {
            bar.inc(n as u64);
        }
        let Some(all) = self.tenths_of else { return };
        let tenth = |done: usize| 10 * done / all.max(1);
        if tenth(before) < tenth(self.done) && self.done < all {
            let rate = (self.done - self.skipped) as f64 / self.begin.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            eprintln!("{}: {} of {all} lines ({} a second)", self.what, self.done, significant(rate));
        }
    }

    /// Lines that an earlier run has answered.
    pub fn skip(&mut self, n: usize) {
        self.done += n;
        self.skipped += n;
        if let Some(bar) = &self.bar {
            bar.inc(n as u64);
            bar.reset_eta();
        }
    }
}

fn bar(what: &'static str, n_lines: Option<usize>) -> ProgressBar {
    let (bar, style) = match n_lines {
        Some(n) => (ProgressBar::new(n as u64), "{prefix:>10} {bar:30} {pos}/{len} [{elapsed}<{eta}] {per_sec}"),
        None => (ProgressBar::no_length(), "{prefix:>10} {spinner} {pos} [{elapsed}] {per_sec}"),
    };
    let bar = bar.with_prefix(what);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Drop for Rate {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
