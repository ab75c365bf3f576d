//! Counts on which of the same items two methods are right, and asks which one is more accurate.

use super::bootstrap::BayesianBootstrap;
use super::interval::Estimate;
use super::predictions::Predictions;
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use ndarray::ArrayView2;
use rand_distr::{Distribution, Gamma};
use serde::{Deserialize, Serialize};
use statrs::function::beta::beta_reg;

/// How two methods answered the same items.
///
/// ```
/// use bayes_lora::metrics::PairedTable;
///
/// let table = PairedTable { both_right: 310, only_a: 65, only_b: 45, both_wrong: 80 };
/// assert!((table.p_better_accuracy() - 0.971).abs() < 5e-4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedTable {
    /// S: items that both answered rightly.
    pub both_right: usize,
    /// T: items that only A answered rightly.
    pub only_a: usize,
    /// U: items that only B answered rightly.
    pub only_b: usize,
    /// V: items that both answered wrongly.
    pub both_wrong: usize,
}

impl PairedTable {
    /// Counts the answers of both methods.
    ///
    /// # Shapes
    /// - probabilities_a, probabilities_b: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If the shapes differ, there is no item, a row is not a distribution or a label is not a class.
    pub fn new(probabilities_a: ArrayView2<f64>, probabilities_b: ArrayView2<f64>, labels: &[usize]) -> Result<Self> {
        let (a, b) = checked_pair(probabilities_a, probabilities_b, labels)?;
        Ok(Self::count(&a, &b))
    }

    /// Number of items.
    pub fn n_items(&self) -> usize {
        self.both_right + self.only_a + self.only_b + self.both_wrong
    }

    /// P(A has the higher accuracy), see [`p_better_accuracy`].
    pub fn p_better_accuracy(&self) -> f64 {
        p_better_accuracy(self.only_a, self.only_b)
    }

    /// Accuracy of A minus that of B, with the interval of its Dirichlet posterior.
    ///
    /// The interval is from draws of (θ_T, θ_U, rest) ~ Dirichlet(1 + T, 1 + U, 2 + S + V).
    ///
    /// # Errors
    /// If the table is empty or a setting of the bootstrap is out of its bounds.
    pub fn accuracy_difference(&self, bootstrap: &BayesianBootstrap) -> Result<Estimate> {
        if self.n_items() == 0 {
            return Err(Error::empty("paired table"));
        }
        if bootstrap.n_draws == 0 {
            return Err(Error::config("n_draws", "at least 1", bootstrap.n_draws));
        }
        let gamma = |shape: usize| {
            Gamma::new(shape as f64, 1.0).map_err(|e| Error::numerical("Gamma distribution of a paired table", e))
        };
        let only_a = gamma(1 + self.only_a)?;
        let only_b = gamma(1 + self.only_b)?;
        let rest = gamma(2 + self.both_right + self.both_wrong)?;
        let draws = (0..bootstrap.n_draws).map(|draw| {
            let mut rng = generator(bootstrap.seed, Purpose::PairedTable, 0, draw as u64);
            let (a, b) = (only_a.sample(&mut rng), only_b.sample(&mut rng));
            (a - b) / (a + b + rest.sample(&mut rng))
        });
        let value = (self.only_a as f64 - self.only_b as f64) / self.n_items() as f64;
        bootstrap.summarise(value, draws)
    }

    pub(super) fn count(a: &Predictions, b: &Predictions) -> Self {
        let count = |right_a, right_b| {
            let pairs = a.correct.iter().zip(&b.correct);
            pairs.filter(|&(&a, &b)| (a, b) == (right_a, right_b)).count()
        };
        Self {
            both_right: count(true, true),
            only_a: count(true, false),
            only_b: count(false, true),
            both_wrong: count(false, false),
        }
    }
}

/// P(A is more accurate than B) from the items on which they disagree, in closed form.
///
/// (θ_S, θ_T, θ_U, θ_V) ~ Dirichlet(1 + S, 1 + T, 1 + U, 1 + V)
/// ⇒ P(θ_A > θ_B) = P(θ_T > θ_U) = P(Beta(1 + T, 1 + U) > ½) = I_½(1 + U, 1 + T)
///
/// T items were answered rightly by A only, U by B only; items on which both agree tell nothing.
///
/// The question is that of Bowyer, Aitchison & Ivanova (2025), arXiv 2503.01747; their importance sampler collapses at
/// a few hundred items, this form has no sampling at all.
///
/// ```
/// use bayes_lora::metrics::p_better_accuracy;
///
/// assert_eq!(p_better_accuracy(12, 12), 0.5);
/// assert!(p_better_accuracy(20, 5) > 0.99);
/// ```
pub fn p_better_accuracy(only_a: usize, only_b: usize) -> f64 {
    if only_a == only_b {
        return 0.5; // By symmetry, without the last digit of the series.
    }
    beta_reg(1.0 + only_b as f64, 1.0 + only_a as f64, 0.5)
}

/// Checks two sets of predictions of the same items.
pub(super) fn checked_pair<'a>(
    probabilities_a: ArrayView2<'a, f64>,
    probabilities_b: ArrayView2<'a, f64>,
    labels: &'a [usize],
) -> Result<(Predictions<'a>, Predictions<'a>)> {
    if probabilities_a.dim() != probabilities_b.dim() {
        return Err(Error::Shape {
            what: "probabilities of method B".into(),
            expected: probabilities_a.shape().to_vec(),
            found: probabilities_b.shape().to_vec(),
        });
    }
    Ok((Predictions::new(probabilities_a, labels)?, Predictions::new(probabilities_b, labels)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn equal_disagreements_give_exactly_one_half() {
        for k in [0, 1, 7, 500] {
            assert_eq!(p_better_accuracy(k, k), 0.5);
        }
    }

    #[test]
    fn the_published_case_gives_0_971() {
        let table = PairedTable { both_right: 310, only_a: 65, only_b: 45, both_wrong: 80 };
        // I_½(46, 66) in mpmath at 40 digits; the continued fraction of statrs is good to about 1e-13.
        assert!((table.p_better_accuracy() - 0.971418177376699).abs() < 1e-12);
    }

    #[test]
    fn closed_form_equals_the_posterior_on_a_fine_grid() {
        for (t, u) in [(3usize, 1usize), (0, 4), (12, 9)] {
            // P(θ_T > θ_U) is an integral over r = θ_T/(θ_T + θ_U) with density r^T (1 − r)^U.
            let n = 200_000;
            let density = |r: f64| r.powi(t as i32) * (1.0 - r).powi(u as i32);
            let (mut above, mut all) = (0.0, 0.0);
            for i in 0..n {
                let r = (f64::from(i) + 0.5) / f64::from(n);
                all += density(r);
                above += if r > 0.5 { density(r) } else { 0.0 };
            }
            // The midpoint rule on a polynomial: error of order 1/n².
            assert!((p_better_accuracy(t, u) - above / all).abs() < 1e-8);
            let sum = p_better_accuracy(t, u) + p_better_accuracy(u, t);
            assert!((sum - 1.0).abs() < 1e-13);
        }
    }

    #[test]
    fn the_accuracy_interval_has_the_dirichlet_moments() {
        let table = PairedTable { both_right: 50, only_a: 30, only_b: 10, both_wrong: 10 };
        let bootstrap = BayesianBootstrap { n_draws: 20_000, ..Default::default() };
        let difference = table.accuracy_difference(&bootstrap).unwrap();
        // 0.2 observed; posterior mean 20/104, variance [(t + u) − (t − u)²]/105 with t = 31/104, u = 11/104.
        let (t, u) = (31.0 / 104.0, 11.0 / 104.0);
        let (mean, sd) = (t - u, f64::sqrt((t + u - (t - u) * (t - u)) / 105.0));
        assert_eq!(difference.value, 0.2);
        // Skewness and 20,000 draws move the quantiles by a few percent of a standard deviation.
        assert!((difference.low - (mean - 1.96 * sd)).abs() < 0.1 * sd);
        assert!((difference.high - (mean + 1.96 * sd)).abs() < 0.1 * sd);
    }

    #[test]
    fn shapes_that_differ_are_refused_with_both() {
        let a = arr2(&[[0.5, 0.5]]);
        let b = arr2(&[[0.5, 0.25, 0.25]]);
        let error = PairedTable::new(a.view(), b.view(), &[0]).unwrap_err();
        assert_eq!(error.to_string(), "probabilities of method B: expected shape [1, 2], found [1, 3]");
        let empty = PairedTable { both_right: 0, only_a: 0, only_b: 0, both_wrong: 0 };
        assert!(empty.accuracy_difference(&BayesianBootstrap::default()).is_err());
    }
}
