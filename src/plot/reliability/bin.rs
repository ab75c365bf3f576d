//! Checks a bin and places its bar.

use crate::error::{Error, Result};
use crate::metrics::ReliabilityBin;
use crate::plot::axes::Axes;
use crate::plot::canvas::Rect;

/// Side of the square diagram.
pub(super) const PLOT: f64 = 280.0;

/// Rounding errors that a probability may carry, those of sums in single precision.
const SLACK: f64 = 1e-6;

/// A bin that holds items.
pub(super) struct Filled {
    pub edges: (f64, f64),
    pub count: usize,
    /// `count` over all items.
    pub share: f64,
    pub confidence: f64,
    pub accuracy: f64,
    /// Of the accuracy.
    pub interval: Option<(f64, f64)>,
}

impl Filled {
    /// Checks a bin of `n` items; an empty one is `None`.
    pub fn new(bin: &ReliabilityBin, n: usize, place: &str) -> Result<Option<Self>> {
        check_unit(place, "lower", bin.lower)?;
        check_unit(place, "upper", bin.upper)?;
        if bin.lower > bin.upper {
            return Err(Error::config(format!("{place}, lower"), format!("at most {}", bin.upper), bin.lower));
        }
        if bin.count == 0 {
            return Ok(None);
        }
        let (Some(confidence), Some(accuracy)) = (bin.mean_confidence, bin.accuracy) else {
            let reason = format!("holds {} items but lacks an accuracy or a mean confidence", bin.count);
            return Err(Error::format(place, reason));
        };
        let interval = bin.accuracy_low.zip(bin.accuracy_high);
        let ends = interval.map(|(low, high)| [low, high]);
        for value in [confidence, accuracy].iter().chain(ends.iter().flatten()) {
            check_unit(place, "confidence and accuracy", *value)?;
        }
        Ok(Some(Self {
            edges: (bin.lower, bin.upper),
            count: bin.count,
            share: bin.count as f64 / n as f64,
            confidence,
            accuracy,
            interval,
        }))
    }

    /// Width in drawing units.
    pub fn pixels(&self) -> f64 {
        (self.edges.1 - self.edges.0) * PLOT
    }

    /// The bar from zero to `height`.
    pub fn bar(&self, axes: &Axes, height: f64) -> Rect {
        let (x, y) = (axes.px(self.edges.0), axes.py(height));
        Rect {
            x,
            y,
            // A bin of tied confidences has no width, but must be seen.
            width: self.pixels().max(0.5),
            height: axes.frame.bottom() - y,
        }
    }
}

/// Refuses what is no probability.
pub(super) fn check_unit(place: &str, what: &str, value: f64) -> Result<()> {
    if (-SLACK..=1.0 + SLACK).contains(&value) {
        return Ok(());
    }
    Err(Error::config(format!("{place}, {what}"), "between 0 and 1", value))
}
