//! How far an answering is, and how fast: a bar on a terminal, a line in the end elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

pub struct Rate {
    bar: ProgressBar,
}

impl Rate {
    /// Of so many lines, where that is known; hidden unless somebody watches.
    pub fn new(n_lines: Option<usize>, is_watched: bool) -> Self {
        Self::of("predict", n_lines, is_watched)
    }

    /// The same for other work.
    pub fn of(what: &'static str, n_lines: Option<usize>, is_watched: bool) -> Self {
        if !is_watched {
            return Self { bar: ProgressBar::hidden() };
        }
        let (bar, style) = match n_lines {
            Some(n) => (ProgressBar::new(n as u64), "{prefix:>10} {bar:30} {pos}/{len} [{elapsed}<{eta}] {per_sec}"),
            None => (ProgressBar::no_length(), "{prefix:>10} {spinner} {pos} [{elapsed}] {per_sec}"),
        };
        let bar = bar.with_prefix(what);
        match ProgressStyle::with_template(style) {
            Ok(style) => Self { bar: bar.with_style(style) },
            Err(_) => Self { bar },
        }
    }

    /// Lines that were answered now.
    pub fn advance(&mut self, n: usize) {
        self.bar.inc(n as u64);
    }

    /// Lines that an earlier run has answered.
    pub fn skip(&mut self, n: usize) {
        self.bar.inc(n as u64);
        self.bar.reset_eta();
    }
}

impl Drop for Rate {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
