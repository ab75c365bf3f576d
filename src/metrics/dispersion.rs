//! Says whether a posterior is too wide or too narrow, by what held-out labels make of its covariance.

use crate::belief::{LinkApprox, LogitBelief};
use crate::error::{Error, Result};
use crate::metrics::bootstrap::BayesianBootstrap;
use crate::metrics::interval::Estimate;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// Multipliers run over `2^±OCTAVES`.
const OCTAVES: f64 = 10.0;
/// Multipliers an octave.
const PER_OCTAVE: f64 = 4.0;

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
    /// Scores `belief` (a Gaussian) at 81 multipliers from 2⁻¹⁰ to 2¹⁰ on the same labels.
    ///
    /// # Errors
    /// If the belief is not a Gaussian, labels and items differ in number, or a label is out of range.
    pub fn diagnose(
        belief: &LogitBelief,
        labels: &[usize],
        link: LinkApprox,
        bootstrap: &BayesianBootstrap,
    ) -> Result<Self> {
        let (n, n_classes) = (belief.n_items(), belief.n_classes());
        if labels.len() != n {
            return Err(Error::Count { what: "labels".into(), expected: n, found: labels.len() });
        }
        if let Some((item, &label)) = labels.iter().enumerate().find(|(_, label)| **label >= n_classes) {
            return Err(Error::LabelOutOfRange { item: item.to_string(), label, n_classes });
        }
        let means = belief.moments().0;
        if let Some((item, &label)) =
            labels.iter().enumerate().find(|(item, label)| !means[[*item, **label]].is_finite())
        {
            let n_classes = means.row(item).iter().filter(|v| v.is_finite()).count();
            return Err(Error::LabelOutOfRange { item: item.to_string(), label, n_classes });
        }
        let count = (2.0 * OCTAVES * PER_OCTAVE) as usize + 1;
        let log2: Vec<f64> = (0..count).map(|i| i as f64 / PER_OCTAVE - OCTAVES).collect();
        let losses = |belief: &LogitBelief| -> Result<Vec<f64>> {
            let p = belief.probabilities(link)?;
            Ok(labels.iter().enumerate().map(|(item, &label)| -p[[item, label]].ln()).collect())
        };
        let mut all = Array2::zeros((count, n));
        for (log2, mut row) in log2.iter().zip(all.outer_iter_mut()) {
            row.assign(&ndarray::Array1::from(losses(&belief.widened(log2.exp2())?)?));
        }
        let point = losses(&LogitBelief::Point { logits: means })?;
        let least = |weights: &[f64]| {
            let means = all.dot(&ndarray::ArrayView1::from(weights));
            // of equals, the one that changes least
            let order =
                |&a: &usize, &b: &usize| means[a].total_cmp(&means[b]).then(log2[a].abs().total_cmp(&log2[b].abs()));
            let best = (0..count).min_by(order).unwrap_or(0);
            log2[best]
        };
        let best_log2 = bootstrap.estimate(n, least)?;
        let verdict = if best_log2.high < 0.0 {
            DispersionVerdict::TooWide
        } else if best_log2.low > 0.0 {
            DispersionVerdict::TooNarrow
        } else {
            DispersionVerdict::Matched
        };
        Ok(Self {
            multipliers: log2.iter().map(|v| v.exp2()).collect(),
            mean_nll: all.mean_axis(ndarray::Axis(1)).map(|m| m.to_vec()).unwrap_or_default(),
            best_log2,
            point_nll: point.iter().sum::<f64>() / n as f64,
            verdict,
        })
    }
}

impl std::fmt::Display for Dispersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Estimate { value, low, high } = self.best_log2;
        let range = format!("best multiplier {:.3} [{:.3}, {:.3}]", value.exp2(), low.exp2(), high.exp2());
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
    use ndarray::Array3;
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
