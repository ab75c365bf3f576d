//! Sets the learning rate of every step: warm-up, then decay.

use crate::error::{Error, Result};
use std::f64::consts::PI;

/// What happens to the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Decay {
    /// Nothing.
    Constant,
    /// Falls linearly to zero at the last step.
    Linear,
    /// Falls to zero along half a cosine.
    Cosine,
}

/// A learning rate as a function of the step.
///
/// ```
/// use bayes_lora::train::{Decay, Schedule};
/// let schedule = Schedule::new(1e-3, 0.1, Decay::Linear, 100)?;
/// assert!(schedule.rate(0) > 0.0 && schedule.rate(0) < 1e-3);
/// assert_eq!(schedule.rate(10), 1e-3);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    peak: f64,
    warmup: usize,
    decay: Decay,
    total: usize,
}

impl Schedule {
    /// Rises linearly over the first `warmup_fraction` of `total` steps to `peak`, then decays.
    ///
    /// # Errors
    /// If the peak is not positive or the fraction not in [0, 1).
    pub fn new(peak: f64, warmup_fraction: f64, decay: Decay, total: usize) -> Result<Self> {
        if !(peak > 0.0 && peak.is_finite()) {
            return Err(Error::config("learning_rate", "positive and finite", peak));
        }
        if !(0.0..1.0).contains(&warmup_fraction) {
            return Err(Error::config("warmup_fraction", "in [0, 1)", warmup_fraction));
        }
        let warmup = (warmup_fraction * total as f64).round() as usize;
        Ok(Self { peak, warmup, decay, total })
    }

    /// The learning rate of step 0, 1, …
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let rest = self.total.saturating_sub(self.warmup).max(1);
        let passed = ((step - self.warmup) as f64 / rest as f64).min(1.0);
        self.peak
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear => 1.0 - passed,
                Decay::Cosine => 0.5 * (1.0 + (PI * passed).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_the_peak_and_fall_towards_zero() {
        for decay in [Decay::Linear, Decay::Cosine] {
            let s = Schedule::new(2.0, 0.2, decay, 50).unwrap();
            let rates: Vec<f64> = (0..50).map(|i| s.rate(i)).collect();
            assert!(rates[..11].windows(2).all(|w| w[0] < w[1]));
            assert!(rates[10..].windows(2).all(|w| w[0] > w[1]));
            assert_eq!(rates[10], 2.0);
            assert!(rates[49] > 0.0 && rates[49] < 0.1);
        }
    }
}
