//! Puts an interval around a share: Beta posterior and Wilson interval.

use crate::error::{Error, Result};
use crate::number::significant;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF, Normal};

/// A number with its interval.
///
/// `value` is the statistic of the observed items; `low` and `high` are the equal-tailed bounds at the level asked for.
/// The value may lie outside: a share of exactly 0 or 1 always does under a Beta posterior, and a statistic that grows
/// with noise, such as the ECE, can (see [`ece`](crate::metrics::ece)).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The statistic of the items at hand.
    pub value: f64,
    /// Lower bound of the interval.
    pub low: f64,
    /// Upper bound of the interval.
    pub high: f64,
}

/// `0.467 [0.439, 0.495]`, padded as a text is.
///
/// ```
/// use bayes_lora::metrics::Estimate;
///
/// let accuracy = Estimate { value: 0.75, low: 0.7102, high: 0.7859 };
/// assert_eq!(format!("{accuracy:>24}"), "   0.75 [0.7102, 0.7859]");
/// ```
impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [value, low, high] = [self.value, self.low, self.high].map(significant);
        f.pad(&format!("{value} [{low}, {high}]"))
    }
}

/// Observed share `k/n` with the equal-tailed interval of its Beta posterior under a uniform prior.
///
/// θ | k, n ~ Beta(1 + k, 1 + n − k)
///
/// # Errors
/// If there is no trial, there are more successes than trials, or the level is not strictly between 0 and 1.
///
/// Bowyer, Aitchison & Ivanova (2025), arXiv 2503.01747.
///
/// ```
/// use bayes_lora::metrics::beta_interval;
///
/// let accuracy = beta_interval(375, 500, 0.95)?;
/// assert_eq!(accuracy.value, 0.75);
/// assert!((accuracy.low - 0.7102).abs() < 1e-4 && (accuracy.high - 0.7859).abs() < 1e-4);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn beta_interval(successes: usize, trials: usize, level: f64) -> Result<Estimate> {
    let (k, n) = checked_share(successes, trials)?;
    let tail = checked_tail(level)?;
    let posterior = Beta::new(1.0 + k, 1.0 + n - k).map_err(|e| Error::numerical("Beta posterior of a share", e))?;
    Ok(Estimate { value: k / n, low: posterior.inverse_cdf(tail), high: posterior.inverse_cdf(1.0 - tail) })
}

/// Observed share `p = k/n` with Wilson's score interval, good down to a handful of trials.
///
/// (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n),  z = Φ⁻¹((1 + level)/2)
///
/// # Errors
/// If there is no trial, there are more successes than trials, or the level is not strictly between 0 and 1.
///
/// Wilson (1927), JASA 22.
///
/// ```
/// use bayes_lora::metrics::wilson_interval;
///
/// let share = wilson_interval(5, 5, 0.95)?;
/// assert!(share.low > 0.56 && share.high == 1.0);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub fn wilson_interval(successes: usize, trials: usize, level: f64) -> Result<Estimate> {
    let (k, n) = checked_share(successes, trials)?;
    let z = Normal::standard().inverse_cdf(1.0 - checked_tail(level)?);
    let (p, z2) = (k / n, z * z);
    let centre = p + z2 / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // At k = 0 and k = n one bound is exact; rounding must not push it out of [0, 1].
    Ok(Estimate {
        value: p,
        low: if successes == 0 { 0.0 } else { (centre - half) / scale },
        high: if successes == trials { 1.0 } else { (centre + half) / scale },
    })
}

/// Refuses a share that is not above 0 and at most 1.
pub(crate) fn check_share(name: &str, share: f64) -> Result<()> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(Error::config(name, "above 0 and at most 1", share))
}

/// Mass of one tail, `(1 − level)/2`.
pub(super) fn checked_tail(level: f64) -> Result<f64> {
    if level > 0.0 && level < 1.0 {
        Ok((1.0 - level) / 2.0)
    } else {
        Err(Error::config("level", "strictly between 0 and 1", level))
    }
}

fn checked_share(successes: usize, trials: usize) -> Result<(f64, f64)> {
    if trials == 0 {
        return Err(Error::empty("set of trials"));
    }
    if successes > trials {
        return Err(Error::config("successes", format!("at most {trials}, the number of trials"), successes));
    }
    Ok((successes as f64, trials as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::function::beta::beta_reg;

    #[test]
    fn beta_interval_meets_known_numbers() {
        // mpmath at 40 digits, bisection on the regularised incomplete beta function.
        let known = [
            (8, 10, 0.482244147639827, 0.939782265827093),
            (375, 500, 0.710197777972091, 0.78593109262558),
            (0, 20, 0.001204883448363, 0.161097615219079),
            (20, 20, 0.83890238478092, 0.998795116551636),
            (840, 1200, 0.673454790858579, 0.725250314257607),
            (1199, 1200, 0.9953696497622, 0.99979826333263),
        ];
        for (k, n, low, high) in known {
            let estimate = beta_interval(k, n, 0.95).unwrap();
            // statrs inverts by a Newton iteration; 1e-9 is far below any use of an interval.
            assert!((estimate.low - low).abs() < 1e-9, "{k}/{n} {estimate:?}");
            assert!((estimate.high - high).abs() < 1e-9, "{k}/{n} {estimate:?}");
        }
    }

    #[test]
    fn beta_quantiles_invert_the_incomplete_beta_function() {
        for n in [1, 2, 7, 50, 333, 1200, 20_000] {
            for k in [0, n / 3, n / 2, n - 1, n] {
                for level in [0.5, 0.9, 0.95, 0.999] {
                    let estimate = beta_interval(k, n, level).unwrap();
                    let (a, b) = (1.0 + k as f64, 1.0 + (n - k) as f64);
                    let tail = (1.0 - level) / 2.0;
                    // statrs stops at an absolute step of the quantile, so the error in probability grows with n: it is
                    // 1e-13 at n = 50 and 1e-8 at n = 20,000, far below what an interval can mean.
                    assert!((beta_reg(a, b, estimate.low) - tail).abs() < 1e-7, "{k}/{n}");
                    assert!((beta_reg(a, b, estimate.high) - 1.0 + tail).abs() < 1e-7, "{k}/{n}");
                }
            }
        }
    }

    #[test]
    fn wilson_interval_meets_known_numbers() {
        // The closed form in mpmath with z = 1.95996398454005…
        let known = [
            (8, 10, 0.490162471536641, 0.943317848545624),
            (0, 5, 0.0, 0.434482464783174),
            (5, 5, 0.565517535216825, 1.0),
        ];
        for (k, n, low, high) in known {
            let estimate = wilson_interval(k, n, 0.95).unwrap();
            // z itself is good to about 1e-13.
            assert!((estimate.low - low).abs() < 1e-12, "{k}/{n} {estimate:?}");
            assert!((estimate.high - high).abs() < 1e-12, "{k}/{n} {estimate:?}");
        }
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let message = |e: Error| e.to_string();
        assert_eq!(
            message(beta_interval(3, 2, 0.95).unwrap_err()),
            "successes: must be at most 2, the number of trials, got 3"
        );
        assert_eq!(message(wilson_interval(0, 0, 0.95).unwrap_err()), "set of trials is empty");
        for level in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(beta_interval(1, 2, level).is_err());
        }
    }
}
