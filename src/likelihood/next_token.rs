//! The rest of a text, token by token.

use super::density::Likelihood;
use super::moments::{OneMoments, TargetMoments, check_one_each, log_mean_densities};
use super::target::{Target, TargetSpace};
use crate::belief::{LinkApprox, LogitBelief};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1};
use rand::Rng;

/// `p(y | x) = Π_t p(y_t | x, y_<t)` over the scored tokens of a text.
///
/// The model reads its targets in the text itself ([`Target::OfInput`]), and its only output is `ℓ = Σ_t log p(y_t | x, y_<t)`: a
/// vocabulary of outputs for every token would be too many to leave the head. So `log p = ℓ` and the score is 1. The Fisher
/// information is not a function of ℓ: its targets are drawn inside the model ([`Likelihood::draws_in_model`]), one a scored token.
///
/// Means are taken over scored tokens, whose number is [`crate::models::Dataset::units`]; `exp` of a mean loss is the perplexity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextToken;

impl NextToken {
    pub(super) const NAME: &str = "next-token";

    fn nothing_in_output_space(what: &str) -> Error {
        Error::Incompatible(format!(
            "the likelihood `{}` has no {what}: its outputs are log-likelihoods of texts, and another text is another output",
            Self::NAME
        ))
    }
}

impl Likelihood for NextToken {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn unit(&self) -> &'static str {
        "token"
    }

    fn target_space(&self) -> TargetSpace {
        TargetSpace::Discrete
    }

    fn draws_in_model(&self) -> bool {
        true
    }

    fn check_target(&self, item: &str, target: &Target, present: &[bool]) -> Result<()> {
        match target {
            Target::OfInput if present.len() == 1 => Ok(()),
            Target::OfInput => {
                let what = format!("outputs for item `{item}`: the log-likelihood of a text");
                Err(Error::Count { what, expected: 1, found: present.len() })
            }
            Target::Class(_) | Target::Values(_) => Err(Error::Incompatible(format!(
                "the likelihood `{}` finds its targets in the text; item `{item}` has a label or values",
                Self::NAME
            ))),
        }
    }

    /// The output itself.
    fn log_density(&self, outputs: ArrayView1<f64>, target: &Target) -> f64 {
        match (target, outputs.first()) {
            (Target::OfInput, Some(log_likelihood)) => *log_likelihood,
            _ => f64::NAN,
        }
    }

    fn score(&self, outputs: ArrayView1<f64>, _target: &Target) -> Array1<f64> {
        Array1::ones(outputs.len())
    }

    /// NaN: it is not a function of the output.
    fn fisher(&self, outputs: ArrayView1<f64>) -> Array2<f64> {
        Array2::from_elem((outputs.len(), outputs.len()), f64::NAN)
    }

    /// # Errors
    /// Always.
    fn fisher_root(&self, _outputs: ArrayView1<f64>) -> Result<Array2<f64>> {
        Err(Self::nothing_in_output_space("exact Fisher information there"))
    }

    /// What the model draws is its own.
    fn sample(&self, _outputs: ArrayView1<f64>, _rng: &mut dyn Rng) -> Target {
        Target::OfInput
    }

    /// NaN: a text has no mean.
    fn moments(&self, outputs: ArrayView1<f64>) -> OneMoments {
        (Array1::from_elem(outputs.len(), f64::NAN), self.fisher(outputs))
    }

    /// # Errors
    /// Always.
    fn target_moments(&self, _belief: &LogitBelief, _link: LinkApprox) -> Result<TargetMoments> {
        Err(Self::nothing_in_output_space("mean and covariance of targets"))
    }

    /// `ln (1/S) Σ_s p_s(y | x)` over draws of the model.
    ///
    /// # Errors
    /// For a Gaussian belief: under `ℓ ~ N(m, v)` the mean of `exp ℓ` is `exp(m + v/2)`, which grows with v beyond 1 and is no
    /// probability.
    fn log_predictive(&self, belief: &LogitBelief, targets: &[Target], link: LinkApprox) -> Result<Vec<f64>> {
        check_one_each(belief, targets)?;
        if let LogitBelief::Gaussian { .. } = belief {
            return Err(Self::nothing_in_output_space("mean probability under a Gaussian belief"));
        }
        log_mean_densities(belief, targets, link, |outputs, target| self.log_density(outputs, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::LogitGauge;
    use crate::likelihood::{Categorical, Gaussian};
    use ndarray::{Array3, arr1, arr2};

    #[test]
    fn the_output_is_the_log_density_and_only_a_text_is_its_target() {
        let output = arr1(&[-3.5]);
        assert_eq!(NextToken.log_density(output.view(), &Target::OfInput), -3.5);
        assert_eq!(NextToken.score(output.view(), &Target::OfInput), arr1(&[1.0]));
        assert!(NextToken.log_density(output.view(), &Target::Class(0)).is_nan());
        NextToken.check_target("q1", &Target::OfInput, &[true]).unwrap();
        for (target, present) in [(Target::Class(0), 1), (Target::Values(vec![1.0]), 1), (Target::OfInput, 2)] {
            let error = NextToken.check_target("q1", &target, &vec![true; present]).unwrap_err().to_string();
            assert!(error.contains("q1"), "{error}");
        }
        let others: [&dyn Likelihood; 2] = [&Categorical, &Gaussian { noise_variance: 1.0 }];
        for other in others {
            let error = other.check_target("q1", &Target::OfInput, &[true]).unwrap_err().to_string();
            assert!(error.contains("`q1`") && error.contains("text"), "{error}");
        }
    }

    #[test]
    fn what_needs_another_text_is_refused_by_name() {
        let gaussian = LogitBelief::Gaussian {
            mean: arr2(&[[-2.0]]),
            covariance: Array3::from_elem((1, 1, 1), 9.0),
            gauge: LogitGauge::Raw,
        };
        let link = LinkApprox::default();
        let errors = [
            NextToken.fisher_root(arr1(&[-1.0]).view()).err(),
            NextToken.target_moments(&gaussian, link).err(),
            NextToken.log_predictive(&gaussian, &[Target::OfInput], link).err(),
        ];
        assert!(errors.into_iter().all(|error| error.unwrap().to_string().contains("`next-token`")));
        // of draws it is the logarithm of the mean probability
        let logits = arr2(&[[-1.0], [-3.0]]).insert_axis(ndarray::Axis(1));
        let draws = LogitBelief::Samples { logits, log_weights: Array1::zeros(2) };
        let found = NextToken.log_predictive(&draws, &[Target::OfInput], link).unwrap();
        let expected = (0.5 * ((-1f64).exp() + (-3f64).exp())).ln();
        assert!((found[0] - expected).abs() < 1e-14); // rounding of two exponentials
    }
}
