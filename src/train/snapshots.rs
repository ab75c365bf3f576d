//! Keeps the adapter as it was at some steps of a run.

use crate::error::{Error, Result};
use crate::lora::AdapterWeights;

/// At which steps of a run the adapter is kept: `count` of them, equally spaced over the last `1 − from` of it, the last one at
/// its end.
///
/// ```
/// use bayes_lora::train::Snapshots;
/// assert_eq!(Snapshots { count: 3, from: 0.4 }.steps(10), [6, 8, 10]);
/// assert!(Snapshots::default().steps(10).is_empty());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Snapshots {
    /// How many; 0 keeps none.
    pub count: usize,
    /// The share of the run before the first stretch, in [0, 1).
    pub from: f64,
}

/// The adapter after some step.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// How many steps were done.
    pub step: usize,
    /// The adapter then.
    pub weights: AdapterWeights,
}

impl Snapshots {
    /// Checks the bounds.
    ///
    /// # Errors
    /// If `from` is not in [0, 1).
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.from) {
            return Err(Error::config("snapshots.from", "in [0, 1)", self.from));
        }
        Ok(())
    }

    /// After how many steps of `total`, ascending; a run of fewer steps than snapshots has one after each.
    pub fn steps(&self, total: usize) -> Vec<usize> {
        let start = (self.from * total as f64).floor() as usize;
        let mut steps: Vec<usize> =
            (1..=self.count).map(|k| start + (k * (total - start)).div_ceil(self.count)).collect();
        steps.dedup();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_snapshot_is_at_the_end_and_no_step_is_kept_twice() {
        for (count, from, total) in [(1, 0.0, 7), (5, 0.5, 100), (9, 0.9, 20), (50, 0.0, 7), (4, 0.99, 3)] {
            let steps = Snapshots { count, from }.steps(total);
            assert_eq!(steps.last(), Some(&total));
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]) && steps.len() <= count, "{steps:?}");
            assert!(steps[0] > (from * total as f64) as usize, "{steps:?}");
        }
        assert_eq!(Snapshots { count: 50, from: 0.0 }.steps(7), [1, 2, 3, 4, 5, 6, 7]);
        let error = Snapshots { count: 1, from: 1.0 }.validate().unwrap_err().to_string();
        assert!(error.contains("snapshots.from") && error.contains('1'), "{error}");
    }
}
