//! Says whether a posterior is too wide or too narrow, by what held-out labels make of its covariance.

use super::bootstrap::BayesianBootstrap;
use super::interval::Estimate;
use crate::belief::{LinkApprox, LogitBelief};
use crate::error::Result;
use crate::number::significant;
use crate::search::{Line, Search, SearchEnd};
use serde::{Deserialize, Serialize};

/// Multipliers run over `2^±OCTAVES` at least, a quarter of an octave apart; variances 1e18 times as large or small are the most.
const OCTAVES: f64 = 10.0;
const LINE: Line = Line { step: 0.25, width: 0.25, level: 1e-7, limit: 60.0 };

/// Held-out negative log-likelihood as a function of a multiplier on the logit covariance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    /// Multipliers κ, ascending.
    pub multipliers: Vec<f64>,
    /// Mean NLL of the labels under `N(m, κΣ)`, in nats.
    pub mean_nll: Vec<f64>,
    /// log₂ of the multiplier with the least NLL, with its interval over the items (Bayesian bootstrap).
    pub best_log2: Estimate,
    /// Mean NLL of the means alone, κ → 0.
    pub point_nll: f64,
    /// How the search for the multiplier with the least mean NLL ended.
    pub search: Search,
    /// What follows.
    pub verdict: DispersionVerdict,
}

/// Whether a posterior is as wide as the labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DispersionVerdict {
    /// The interval of the best multiplier contains 1.
    Matched,
    /// A smaller covariance predicts better: under-confident.
    TooWide,
    /// A larger covariance predicts better: over-confident.
    TooNarrow,
}

impl Dispersion {
    /// Scores `belief` (a Gaussian) at 81 multipliers from 2⁻¹⁰ to 2¹⁰ on the same labels, and at further ones, up to 2^±60, while the
    /// best is the last and the mean NLL still changes.
    ///
    /// # Errors
    /// If the belief is not a Gaussian, labels and items differ in number, or a label is no class of its item.
    pub fn diagnose(
        belief: &LogitBelief,
        labels: &[usize],
        link: LinkApprox,
        bootstrap: &BayesianBootstrap,
    ) -> Result<Self> {
        let n = belief.n_items();
        let point = LogitBelief::Point { logits: belief.moments().0 }.losses(labels, link)?;
        let mut losses: Vec<(f64, Vec<f64>)> = Vec::new();
        let grid = LINE.grid((-OCTAVES, OCTAVES), |log2| {
            let found = belief.widened(log2.exp2())?.losses(labels, link)?;
            let mean = mean(&found);
            losses.push((log2, found));
            Ok(mean)
        })?;
        losses.sort_by(|a, b| a.0.total_cmp(&b.0));
        let weighted = |weights: &[f64], losses: &[f64]| weights.iter().zip(losses).map(|(w, l)| w * l).sum::<f64>();
        let best_log2 = bootstrap.estimate(n, |weights| least(&losses, |losses| weighted(weights, losses)))?;
        let verdict = if best_log2.high < 0.0 {
            DispersionVerdict::TooWide
        } else if best_log2.low > 0.0 {
            DispersionVerdict::TooNarrow
        } else {
            DispersionVerdict::Matched
        };
        let (low, high) = grid.bounds();
        let value = match grid.end {
            SearchEnd::AtLower | SearchEnd::AtUpper => grid.points[grid.best].0,
            SearchEnd::Inside | SearchEnd::Undetermined => best_log2.value,
        };
        let bounds = (low.exp2(), high.exp2());
        let search = Search::new("multiplier of the covariance", value.exp2(), bounds, grid.end);
        Ok(Self {
            multipliers: grid.points.iter().map(|(log2, _)| log2.exp2()).collect(),
            mean_nll: grid.points.iter().map(|(_, mean)| *mean).collect(),
            best_log2,
            point_nll: mean(&point),
            search: search.with_meaning(match grid.end {
                SearchEnd::Inside => "",
                SearchEnd::AtLower => "the labels ask for the means alone",
                SearchEnd::AtUpper => "the labels ask for no trust in the means",
                SearchEnd::Undetermined => "no multiplier changes the answers",
            }),
            verdict,
        })
    }
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// log₂ of the multiplier with the least loss; of equals, of the one that changes least.
fn least(all: &[(f64, Vec<f64>)], loss: impl Fn(&[f64]) -> f64) -> f64 {
    let values = all.iter().map(|(log2, losses)| (loss(losses), *log2));
    let order = |a: &(f64, f64), b: &(f64, f64)| a.0.total_cmp(&b.0).then(a.1.abs().total_cmp(&b.1.abs()));
    values.min_by(order).map_or(0.0, |(_, log2)| log2)
}

impl std::fmt::Display for Dispersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Estimate { value, low, high } = self.best_log2;
        let [value, low, high] = [value, low, high].map(|log2| significant(log2.exp2()));
        let end = self.search.remark().map_or(String::new(), |remark| format!("; {remark}"));
        let range = format!("best multiplier {value} [{low}, {high}]{end}");
        match self.verdict {
            DispersionVerdict::Matched => write!(f, "the posterior is about as wide as the labels say ({range})"),
            DispersionVerdict::TooWide => {
                write!(f, "over-dispersed: the posterior is too wide, predictions are under-confident ({range})")
            }
            DispersionVerdict::TooNarrow => {
                write!(f, "under-dispersed: the posterior is too narrow, predictions are over-confident ({range})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::LogitGauge;
    use ndarray::{Array2, Array3};
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
    use rand_distr::{Distribution, StandardNormal};

    /// Labels drawn from `E[softmax f]` under `f ~ N(m, κΣ)`.
    fn world(kappa: f64) -> (LogitBelief, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let n = 3000;
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let mean = Array2::from_shape_fn((n, 2), |_| 3.0 * normal());
        let covariance = Array3::from_shape_fn((n, 2, 2), |(_, a, b)| if a == b { 2.0 } else { 0.0 });
        let belief = LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Raw };
        let truth = belief.widened(kappa).unwrap().probabilities(LinkApprox::GaussHermite { points: 32 }).unwrap();
        let labels = truth.outer_iter().map(|p| usize::from(rng.random::<f64>() > p[0])).collect();
        (belief, labels)
    }

    #[test]
    fn the_true_multiplier_lies_in_the_interval_and_the_verdict_follows() {
        let link = LinkApprox::GaussHermite { points: 32 };
        let bootstrap = BayesianBootstrap { n_draws: 200, ..BayesianBootstrap::default() };
        for (kappa, verdict) in
            [(1.0, DispersionVerdict::Matched), (8.0, DispersionVerdict::TooNarrow), (0.02, DispersionVerdict::TooWide)]
        {
            let (belief, labels) = world(kappa);
            let found = Dispersion::diagnose(&belief, &labels, link, &bootstrap).unwrap();
            assert_eq!(found.verdict, verdict, "{found}");
            if kappa > 0.1 {
                let (low, high) = (found.best_log2.low - 0.25, found.best_log2.high + 0.25); // a step of the grid
                assert!((low..high).contains(&f64::log2(kappa)), "{found}");
            }
        }
    }

    #[test]
    fn one_item_800_nats_off_does_not_turn_the_verdict() {
        let (belief, mut labels) = world(0.02);
        let LogitBelief::Gaussian { mut mean, covariance, gauge } = belief else { panic!("a Gaussian") };
        // wrong by 800 nats, with a covariance that no multiplier of the rest would repair
        mean.row_mut(0).assign(&ndarray::arr1(&[800.0, 0.0]));
        labels[0] = 1;
        let belief = LogitBelief::Gaussian { mean, covariance, gauge };
        let link = LinkApprox::PairwiseProbit;
        let bootstrap = BayesianBootstrap { n_draws: 20, ..BayesianBootstrap::default() };
        let found = Dispersion::diagnose(&belief, &labels, link, &bootstrap).unwrap();
        assert!(found.mean_nll.iter().all(|v| v.is_finite()) && found.point_nll.is_finite());
        // the item costs 800/3000 nats at κ → 0, not an infinity or 708
        let others: Vec<usize> = (1..3000).collect();
        let without = Dispersion::diagnose(&belief.select(&others), &labels[1..], link, &bootstrap).unwrap();
        assert!((found.point_nll * 3000.0 - without.point_nll * 2999.0 - 800.0).abs() < 1e-6);
    }

    #[test]
    fn multipliers_go_on_until_the_best_is_inside_or_nothing_changes() {
        let diagnose = |mean: f64, variance: f64, labels: &[usize]| {
            let n = labels.len();
            let belief = LogitBelief::Gaussian {
                mean: Array2::from_shape_fn((n, 2), |(_, c)| if c == 0 { mean } else { 0.0 }),
                covariance: Array3::from_shape_fn((n, 2, 2), |(_, a, b)| if a == b { variance } else { 0.0 }),
                gauge: LogitGauge::Raw,
            };
            let bootstrap = BayesianBootstrap { n_draws: 20, ..BayesianBootstrap::default() };
            Dispersion::diagnose(&belief, labels, LinkApprox::PairwiseProbit, &bootstrap).unwrap()
        };
        // three of four right at a margin of 40 with variances of 1e-6: far more than 2¹⁰ times as wide
        let found = diagnose(40.0, 1e-6, &[0, 0, 0, 1]);
        assert!(found.search.is_inside() && found.best_log2.value > 20.0, "{found}");
        let right = diagnose(4.0, 2.0, &[0, 0, 0, 0]);
        assert_eq!(right.search.end, SearchEnd::AtLower);
        assert!((right.mean_nll[0] - right.point_nll).abs() < LINE.level, "{right}");
        let wrong = diagnose(4.0, 2.0, &[1, 1, 1, 1]);
        assert_eq!(wrong.search.end, SearchEnd::AtUpper);
        assert!(wrong.to_string().contains("upper end of its search"), "{wrong}");
        assert!((wrong.mean_nll.last().unwrap() - 2f64.ln()).abs() < 1e-3, "{wrong}");
    }

    #[test]
    fn other_beliefs_and_bad_labels_are_refused() {
        let (belief, labels) = world(1.0);
        let check = |belief: &LogitBelief, labels: &[usize]| {
            Dispersion::diagnose(belief, labels, LinkApprox::PairwiseProbit, &BayesianBootstrap::default())
                .unwrap_err()
                .to_string()
        };
        assert!(check(&LogitBelief::Point { logits: belief.moments().0 }, &labels).contains("Gaussian"));
        assert!(check(&belief, &labels[1..]).contains("expected 3000, found 2999"));
        assert!(check(&belief, &vec![2; 3000]).contains("label 2"));
    }
}
