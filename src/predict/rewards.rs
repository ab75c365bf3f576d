//! Predicts rewards of texts, and which of two is preferred.

use super::linearized::predict_linearized;
use crate::belief::{LinkApprox, LogitBelief, LogitGauge, centre_covariance};
use crate::data::{BatchLimits, EncodedDataset};
use crate::error::{Error, Result};
use crate::models::{LanguageModel, RewardModel};
use crate::posterior::Laplace;
use crate::progress::Control;
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis};

/// Nodes of the integral over the difference of two rewards.
const POINTS: usize = 64;

/// What a posterior says about the rewards of texts: a joint Gaussian over the texts of each item.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardPrediction {
    /// Rewards of every item's texts, in the raw gauge; −∞ for texts that an item does not have.
    pub belief: LogitBelief,
}

/// Which of two texts of each item is preferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// `E[σ(r_A − r_B)]` over the posterior. `[n_items]`
    pub probability: Array1<f64>,
    /// The mutual information of the answer and the weights in nats: what more preferences could still tell. `[n_items]`
    pub epistemic: Array1<f64>,
}

/// Predicts the rewards of all texts of `data` with the network linearised around the trained adapter; an item may have any number of texts.
///
/// Texts that will be compared belong into one item, for their rewards have a covariance: a common part of two rewards, such as that of
/// their prompt, is no doubt about which is larger.
///
/// # Errors
/// As [`predict_linearized`].
pub fn predict_rewards<L: LanguageModel>(
    model: &RewardModel<L>,
    laplace: &Laplace,
    data: &EncodedDataset,
    limits: &BatchLimits,
    control: &Control,
) -> Result<RewardPrediction> {
    let model = model.clone().with_choices(data.n_classes);
    let belief = predict_linearized(&model, laplace, data, LogitGauge::Raw, limits, control)?;
    Ok(RewardPrediction { belief })
}

impl RewardPrediction {
    /// The rewards `r(x)`, `[n_items, n_texts]`; −∞ for texts that an item does not have.
    pub fn rewards(&self) -> Array2<f64> {
        self.belief.moments().0
    }

    /// Standard deviations of the rewards over the posterior, as they are: with the doubt about a common shift of all rewards, of which
    /// preferences say nothing and which stays as wide as the prior. `[n_items, n_texts]`
    pub fn deviations(&self) -> Array2<f64> {
        self.deviations_of(|_, covariance| covariance.to_owned())
    }

    /// Standard deviations of `r(x) − r̄`, r̄ the mean reward of the item's texts: no common shift enters. `[n_items, n_texts]`
    pub fn deviations_from_mean(&self) -> Array2<f64> {
        self.deviations_of(centre_covariance)
    }

    fn deviations_of(&self, of: impl Fn(ArrayView1<f64>, ArrayView2<f64>) -> Array2<f64>) -> Array2<f64> {
        let (mean, covariance) = self.belief.moments();
        let mut deviations = Array2::zeros(mean.dim());
        for ((mean, covariance), mut row) in
            mean.outer_iter().zip(covariance.axis_iter(Axis(0))).zip(deviations.outer_iter_mut())
        {
            // rounding may leave −1e-17 where texts are the same
            row.assign(&of(mean, covariance).diag().mapv(|variance| variance.max(0.0).sqrt()));
        }
        deviations
    }

    /// Which of the texts `a` and `b` of each item is preferred, averaged over the joint belief about both rewards.
    ///
    /// # Errors
    /// If an item lacks one of them, or the covariance is not positive semi-definite.
    pub fn preference(&self, a: usize, b: usize) -> Result<Preference> {
        let (mean, covariance) = self.belief.moments();
        let n_texts = mean.ncols();
        for (name, text) in [("first text", a), ("second text", b)] {
            let lacks = |item: &usize| text >= n_texts || !mean[[*item, text]].is_finite();
            if let Some(item) = (0..mean.nrows()).find(lacks) {
                return Err(Error::config(name, format!("one of the texts of item {item}"), text));
            }
        }
        let texts = [a, b];
        let pair = LogitBelief::Gaussian {
            mean: mean.select(Axis(1), &texts),
            covariance: Array3::from_shape_fn((mean.nrows(), 2, 2), |(i, p, q)| covariance[[i, texts[p], texts[q]]]),
            gauge: LogitGauge::Raw,
        };
        let link = LinkApprox::GaussHermite { points: POINTS };
        let probability = pair.probabilities(link)?.column(0).to_owned();
        Ok(Preference { probability, epistemic: pair.decompose(link)?.epistemic })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr2, arr3};

    /// `∫ σ(x) N(x; m, v)` and the mean entropy under it, by ten thousand steps over twelve deviations.
    fn by_steps(mean: f64, variance: f64) -> (f64, f64) {
        let (sd, steps) = (variance.sqrt(), 20_000);
        let entropy = |p: f64| if p > 0.0 && p < 1.0 { -p * p.ln() - (1.0 - p) * (1.0 - p).ln() } else { 0.0 };
        let (mut total, mut expected, mut weight) = (0.0, 0.0, 0.0);
        for k in 0..=steps {
            let z = -12.0 + 24.0 * k as f64 / steps as f64;
            let (w, p) = ((-0.5 * z * z).exp(), 1.0 / (1.0 + (-(mean + sd * z)).exp()));
            total += w * p;
            expected += w * entropy(p);
            weight += w;
        }
        let p = total / weight;
        (p, entropy(p) - expected / weight)
    }

    #[test]
    fn a_preference_is_of_the_joint_belief_and_a_common_doubt_is_none() {
        let belief = LogitBelief::Gaussian {
            mean: arr2(&[[1.2, 0.4, -0.3], [1.2, 0.4, f64::NEG_INFINITY]]),
            covariance: arr3(&[
                [[2.0, 1.5, 0.1], [1.5, 1.8, 0.3], [0.1, 0.3, 0.9]],
                [[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 0.0, 0.0]],
            ]),
            gauge: LogitGauge::Raw,
        };
        let all = RewardPrediction { belief };
        let found = all.preference(0, 1).unwrap();
        let (p, epistemic) = by_steps(0.8, 2.0 + 1.8 - 2.0 * 1.5);
        // 64 nodes of a function with poles at ±πi
        assert!((found.probability[0] - p).abs() < 1e-7 && (found.epistemic[0] - epistemic).abs() < 1e-7);
        // the second item's rewards are in doubt by 3 nats, together
        assert!((found.probability[1] - 1.0 / (1.0 + (-0.8f64).exp())).abs() < 1e-12);
        assert!(found.epistemic[1] < 1e-12);
        assert_eq!(all.deviations()[[1, 0]], 3.0);
        assert!(all.deviations_from_mean()[[1, 0]] < 1e-7);
        let other = all.preference(1, 0).unwrap();
        assert!((other.probability[0] + found.probability[0] - 1.0).abs() < 1e-12);
        let error = all.preference(0, 2).unwrap_err().to_string();
        assert!(error.contains("item 1") && error.contains('2'), "{error}");
    }
}
