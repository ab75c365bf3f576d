//! Gives any statistic of weighted items a posterior: the Bayesian bootstrap.

use super::interval::{Estimate, checked_tail};
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use rand_distr::{Distribution, Exp1};
use serde::{Deserialize, Serialize};

/// The Bayesian bootstrap: a posterior for any statistic that can be computed from weights of the items.
///
/// w ~ Dirichlet(1, …, 1) over the n items;  the posterior draws are statistic(w)
///
/// It needs no normal approximation and treats the items as the sample that they are. Draws depend on the seed and the
/// number of items only, so two methods scored with the same bootstrap see the **same** weights.
///
/// Rubin (1981), Annals of Statistics 9.
///
/// ```
/// use bayes_lora::metrics::BayesianBootstrap;
///
/// let losses = [0.2, 0.4, 0.1, 0.9, 0.3];
/// let estimate = BayesianBootstrap::default().mean(&losses)?;
/// assert!((estimate.value - 0.38).abs() < 1e-12);
/// assert!(estimate.low < 0.38 && 0.38 < estimate.high);
/// let of_the_first = BayesianBootstrap::default().estimate(losses.len(), |weights| weights[0] * losses[0])?;
/// assert!((of_the_first.value - 0.04).abs() < 1e-12);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BayesianBootstrap {
    /// Number of draws of the weights, at least 1.
    pub n_draws: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Mass of the interval, strictly between 0 and 1.
    pub level: f64,
}

impl Default for BayesianBootstrap {
    /// 1,000 draws, seed 0, 95 %.
    fn default() -> Self {
        Self { n_draws: 1000, seed: 0, level: 0.95 }
    }
}

impl BayesianBootstrap {
    /// Estimates one statistic; its value is the statistic at equal weights `1/n`.
    ///
    /// The statistic receives non-negative weights `[n_items]` that sum to 1.
    ///
    /// # Errors
    /// If there is no item or no draw, the level is not strictly between 0 and 1, or the statistic is NaN.
    pub fn estimate(&self, n_items: usize, mut statistic: impl FnMut(&[f64]) -> f64) -> Result<Estimate> {
        let [estimate] = self.estimates(n_items, |weights| [statistic(weights)])?;
        Ok(estimate)
    }

    /// Estimates the mean of the items' values.
    ///
    /// # Errors
    /// As [`estimate`](Self::estimate).
    pub fn mean(&self, values: &[f64]) -> Result<Estimate> {
        self.estimate(values.len(), |weights| weighted_sum(weights, values))
    }

    /// Estimates several statistics from the same draws.
    ///
    /// # Errors
    /// As [`estimate`](Self::estimate).
    pub fn estimates<const K: usize>(
        &self,
        n_items: usize,
        mut statistics: impl FnMut(&[f64]) -> [f64; K],
    ) -> Result<[Estimate; K]> {
        let draws = self.draws(n_items, &mut statistics)?;
        let values = statistics(&equal_weights(n_items));
        let mut estimates = [Estimate { value: 0.0, low: 0.0, high: 0.0 }; K];
        for (k, estimate) in estimates.iter_mut().enumerate() {
            *estimate = self.summarise(values[k], draws.iter().map(|draw| draw[k]))?;
        }
        Ok(estimates)
    }

    /// Draws the statistics `n_draws` times.
    ///
    /// # Errors
    /// If there is no item or no draw.
    pub fn draws<const K: usize>(
        &self,
        n_items: usize,
        mut statistics: impl FnMut(&[f64]) -> [f64; K],
    ) -> Result<Vec<[f64; K]>> {
        if n_items == 0 {
            return Err(Error::empty("set of items to bootstrap"));
        }
        if self.n_draws == 0 {
            return Err(Error::config("n_draws", "at least 1", self.n_draws));
        }
        let mut weights = vec![0.0; n_items];
        let draws = (0..self.n_draws).map(|draw| {
            let mut rng = generator(self.seed, Purpose::Bootstrap, 0, draw as u64);
            // Independent exponentials divided by their sum are Dirichlet(1, …, 1).
            let mut sum = 0.0;
            for weight in &mut weights {
                *weight = Exp1.sample(&mut rng);
                sum += *weight;
            }
            weights.iter_mut().for_each(|weight| *weight /= sum);
            statistics(&weights)
        });
        Ok(draws.collect())
    }

    /// The value with the equal-tailed interval of its draws.
    pub(super) fn summarise(&self, value: f64, draws: impl Iterator<Item = f64>) -> Result<Estimate> {
        let tail = checked_tail(self.level)?;
        let mut sorted: Vec<f64> = draws.collect();
        let not_finite = sorted.iter().filter(|v| !v.is_finite()).count();
        if not_finite > 0 || !value.is_finite() {
            return Err(Error::NonFinite {
                what: "bootstrapped statistic".into(),
                count: not_finite + usize::from(!value.is_finite()),
                total: sorted.len() + 1,
            });
        }
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Estimate { value, low: quantile(&sorted, tail), high: quantile(&sorted, 1.0 - tail) })
    }
}

/// Weights `1/n` of n items.
pub(super) fn equal_weights(n_items: usize) -> Vec<f64> {
    vec![1.0 / n_items as f64; n_items]
}

/// Σ_i w_i v_i.
pub(super) fn weighted_sum(weights: &[f64], values: &[f64]) -> f64 {
    weights.iter().zip(values).map(|(w, v)| w * v).sum()
}

/// Quantile of sorted values, linear between order statistics (type 7 of Hyndman & Fan).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_of_a_mean_has_the_dirichlet_variance() {
        let values: Vec<f64> = (0..40).map(|i| ((i * 37) % 40) as f64 / 7.0).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let bootstrap = BayesianBootstrap { n_draws: 20_000, ..Default::default() };
        let draws = bootstrap.draws(values.len(), |w| [weighted_sum(w, &values)]).unwrap();
        let m = draws.len() as f64;
        let centre = draws.iter().map(|d| d[0]).sum::<f64>() / m;
        let spread = draws.iter().map(|d| (d[0] - centre).powi(2)).sum::<f64>() / m;
        let expected = variance / (n + 1.0);
        // Four standard errors: sd/√m of the mean, and √(2/m) relative of a near-normal variance.
        assert!((centre - mean).abs() < 4.0 * (expected / m).sqrt());
        assert!((spread / expected - 1.0).abs() < 4.0 * (2.0 / m).sqrt());
    }

    #[test]
    fn weights_are_a_distribution_and_repeat_with_the_seed() {
        let bootstrap = BayesianBootstrap { n_draws: 5, seed: 7, level: 0.9 };
        let mut first = Vec::new();
        let mut second = Vec::new();
        for store in [&mut first, &mut second] {
            bootstrap
                .draws(30, |w| {
                    assert!(w.iter().all(|&w| w >= 0.0));
                    // Thirty rounded divisions.
                    assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-14);
                    store.extend_from_slice(w);
                    []
                })
                .unwrap();
        }
        assert_eq!(first, second);
        let other = BayesianBootstrap { seed: 8, ..bootstrap };
        other
            .draws(30, |w| {
                assert_ne!(w, &first[..30]);
                []
            })
            .unwrap();
    }

    #[test]
    fn quantiles_are_linear_between_order_statistics() {
        let sorted = [1.0, 2.0, 4.0];
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 0.25), 1.5);
        assert_eq!(quantile(&sorted, 0.75), 3.0);
        assert_eq!(quantile(&sorted, 1.0), 4.0);
        assert_eq!(quantile(&[5.0], 0.3), 5.0);
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let bootstrap = BayesianBootstrap::default();
        assert!(bootstrap.estimate(0, |_| 0.0).is_err());
        assert!(bootstrap.estimate(3, |_| f64::NAN).is_err());
        let message = |bootstrap: BayesianBootstrap| {
            let refused = bootstrap.estimate(3, |w| w[0]);
            refused.unwrap_err().to_string()
        };
        let n_draws = 0;
        assert_eq!(message(BayesianBootstrap { n_draws, ..bootstrap }), "n_draws: must be at least 1, got 0");
        let level = 1.0;
        assert_eq!(message(BayesianBootstrap { level, ..bootstrap }), "level: must be strictly between 0 and 1, got 1");
    }
}
