//! Real targets with Gaussian noise.

use super::density::Likelihood;
use super::moments::{TargetMoments, check_one_each, log_mean_densities};
use super::settings::Settings;
use super::target::{Target, TargetSpace};
use crate::belief::{LinkApprox, LogitBelief};
use crate::error::{Error, Result};
use crate::linalg::eigh;
use crate::search::Line;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::f64::consts::TAU;

/// `p(y | f) = N(y; f, σ² I)` over the outputs that the unit has; `Λ = I/σ²` there.
///
/// The normalising constant is `−½ ln 2πσ²` for each output that the unit has. A class as target stands for its one-hot vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaussian {
    /// Noise variance σ² > 0.
    pub noise_variance: f64,
}

/// How the logarithm of the noise variance is sought, from that of the mean squared error on: a belief that doubts its outputs leaves less to
/// the noise, and never more by much.
const SOUGHT: Line = Line { step: 0.5, width: 1e-7, level: 1e-9, limit: 40.0 };
/// What is searched in any case.
const SPAN: (f64, f64) = (-6.0, 2.0);

/// True if the unit has the output; NaN is an output that went wrong, not one that is missing.
fn has(output: f64) -> bool {
    output != f64::NEG_INFINITY
}

impl Gaussian {
    pub(super) const NAME: &str = "gaussian";
    const NOISE_VARIANCE: &str = "noise_variance";

    pub(super) fn restore(settings: &Settings) -> Result<Self> {
        Ok(Self { noise_variance: settings.number(Self::NOISE_VARIANCE)? })
    }

    /// `ln N(y; m, Σ + σ²I)` over the outputs present. Eigenvalues of Σ that rounding made negative count as zero, so that σ² is
    /// never lost beside a large Σ.
    fn log_marginal(&self, mean: ArrayView1<f64>, covariance: ArrayView2<f64>, target: &Target) -> Result<f64> {
        let present: Vec<usize> = (0..mean.len()).filter(|&c| has(mean[c])).collect();
        let eigen = eigh(covariance.select(Axis(0), &present).select(Axis(1), &present).view())?;
        let rest: Array1<f64> = present.iter().map(|&c| target.component(c) - mean[c]).collect();
        let variances = eigen.values.mapv(|e| e.max(0.0) + self.noise_variance);
        let rotated = eigen.vectors.t().dot(&rest);
        Ok(-0.5 * rotated.iter().zip(&variances).map(|(r, v)| r * r / v + (TAU * v).ln()).sum::<f64>())
    }

    /// The mean squared error of the belief's mean outputs: the most probable noise where it does not doubt them.
    fn squared_error(belief: &LogitBelief, targets: &[Target]) -> Result<f64> {
        check_one_each(belief, targets)?;
        let (mean, _) = belief.moments();
        let outputs = mean.indexed_iter().filter(|(_, f)| has(**f));
        let errors: Vec<f64> = outputs.map(|((item, c), f)| (targets[item].component(c) - f).powi(2)).collect();
        let error = errors.iter().sum::<f64>() / errors.len() as f64;
        if error > 0.0 && error.is_finite() {
            return Ok(error);
        }
        Err(Error::numerical(
            "noise variance",
            format!("the mean squared error is {error}, and no noise suits it best"),
        ))
    }
}

impl Likelihood for Gaussian {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn settings(&self) -> Vec<(&'static str, f64)> {
        vec![(Self::NOISE_VARIANCE, self.noise_variance)]
    }

    fn check(&self) -> Result<()> {
        if self.noise_variance > 0.0 && self.noise_variance.is_finite() {
            return Ok(());
        }
        Err(Error::config(Self::NOISE_VARIANCE, "positive and finite", self.noise_variance))
    }

    fn target_space(&self) -> TargetSpace {
        TargetSpace::Continuous
    }

    fn log_density(&self, outputs: ArrayView1<f64>, target: &Target) -> f64 {
        let density = |(c, f): (usize, &f64)| {
            -0.5 * ((f - target.component(c)).powi(2) / self.noise_variance + (TAU * self.noise_variance).ln())
        };
        outputs.iter().enumerate().filter(|(_, f)| has(**f)).map(density).sum()
    }

    fn score(&self, outputs: ArrayView1<f64>, target: &Target) -> Array1<f64> {
        Array1::from_shape_fn(outputs.len(), |c| {
            if has(outputs[c]) { (target.component(c) - outputs[c]) / self.noise_variance } else { 0.0 }
        })
    }

    fn fisher(&self, outputs: ArrayView1<f64>) -> Array2<f64> {
        Array2::from_diag(&outputs.mapv(|f| if has(f) { 1.0 / self.noise_variance } else { 0.0 }))
    }

    fn sample(&self, outputs: ArrayView1<f64>, rng: &mut dyn Rng) -> Target {
        let sd = self.noise_variance.sqrt();
        let one = |f: &f64| {
            let z: f64 = StandardNormal.sample(rng);
            if has(*f) { f + sd * z } else { 0.0 }
        };
        Target::Values(outputs.iter().map(one).collect())
    }

    fn moments(&self, outputs: ArrayView1<f64>) -> (Array1<f64>, Array2<f64>) {
        (outputs.to_owned(), Array2::from_diag(&outputs.mapv(|f| if has(f) { self.noise_variance } else { 0.0 })))
    }

    /// Mean and covariance of the outputs, with σ² on the diagonal.
    fn target_moments(&self, belief: &LogitBelief, _link: LinkApprox) -> Result<TargetMoments> {
        if let LogitBelief::Gaussian { gauge, .. } = belief {
            gauge.check_raw()?;
        }
        let (mean, mut covariance) = belief.moments();
        for ((item, a, b), value) in covariance.indexed_iter_mut() {
            if !(has(mean[[item, a]]) && has(mean[[item, b]])) {
                *value = 0.0;
            } else if a == b {
                *value += self.noise_variance;
            }
        }
        Ok(TargetMoments { mean, covariance })
    }

    /// In closed form for a Gaussian belief, `ln N(y; m, Σ + σ²I)`; of samples the mixture.
    fn log_predictive(&self, belief: &LogitBelief, targets: &[Target], link: LinkApprox) -> Result<Vec<f64>> {
        check_one_each(belief, targets)?;
        match belief {
            LogitBelief::Gaussian { mean, covariance, gauge } => {
                gauge.check_raw()?;
                let of = |(i, target)| self.log_marginal(mean.row(i), covariance.index_axis(Axis(0), i), target);
                targets.iter().enumerate().map(of).collect()
            }
            _ => log_mean_densities(belief, targets, link, |outputs, target| self.log_density(outputs, target)),
        }
    }

    /// With the noise variance that suits the targets best: of a point the mean squared error.
    fn tuned(&self, belief: &LogitBelief, targets: &[Target], link: LinkApprox) -> Result<Option<Box<dyn Likelihood>>> {
        let error = Self::squared_error(belief, targets)?;
        if let LogitBelief::Point { .. } = belief {
            return Ok(Some(Box::new(Self { noise_variance: error })));
        }
        let nll = |log: f64| -> Result<f64> {
            let all = Self { noise_variance: error * log.exp() }.log_predictive(belief, targets, link)?;
            Ok(-all.iter().sum::<f64>() / all.len() as f64)
        };
        let found = SOUGHT.minimize(SPAN, nll)?;
        Ok(Some(Box::new(Self { noise_variance: error * found.at.exp() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr1, arr2, arr3};

    const NOISE: Gaussian = Gaussian { noise_variance: 0.3 };

    #[test]
    fn what_an_item_lacks_leaves_the_likelihood_of_fewer_outputs() {
        let (whole, target) = (arr1(&[0.4, f64::NEG_INFINITY, -1.2, f64::NEG_INFINITY]), vec![1.0, 7.0, -1.0, 9.0]);
        let (own, own_target) = (arr1(&[0.4, -1.2]), Target::Values(vec![1.0, -1.0]));
        let target = Target::Values(target);
        assert_eq!(NOISE.log_density(whole.view(), &target), NOISE.log_density(own.view(), &own_target));
        let (score, expected) = (NOISE.score(whole.view(), &target), NOISE.score(own.view(), &own_target));
        assert_eq!(score, arr1(&[expected[0], 0.0, expected[1], 0.0]));
        let fisher = NOISE.fisher(whole.view());
        assert_eq!(fisher.diag().sum(), NOISE.fisher(own.view()).diag().sum());
        let root = NOISE.fisher_root(whole.view()).unwrap();
        assert!((&root.dot(&root.t()) - &fisher).iter().all(|d| d.abs() < 1e-14)); // a square root squared
    }

    #[test]
    fn tuned_noise_is_the_error_of_a_point_and_what_a_doubt_leaves_of_it() {
        let errors = [0.3, -1.1, 0.8, 0.2, -0.5];
        let n = errors.len();
        let targets: Vec<Target> = errors.iter().map(|e| Target::Values(vec![1.0 + e])).collect();
        let mean = ndarray::Array2::ones((n, 1));
        let noise = |belief: &LogitBelief| {
            NOISE.tuned(belief, &targets, LinkApprox::default()).unwrap().unwrap().settings()[0].1
        };
        let error = errors.iter().map(|e| e * e).sum::<f64>() / n as f64;
        assert!((noise(&LogitBelief::Point { logits: mean.clone() }) / error - 1.0).abs() < 1e-14);
        // equal doubts: y − m ~ N(0, v + σ²), whose variance is the error
        let gaussian = |v: f64| LogitBelief::Gaussian {
            mean: mean.clone(),
            covariance: ndarray::Array3::from_elem((n, 1, 1), v),
            gauge: crate::belief::LogitGauge::Raw,
        };
        // a golden section finds the least of a parabola to the root of the rounding errors
        assert!((noise(&gaussian(0.2)) / (error - 0.2) - 1.0).abs() < 1e-6);
        // a doubt of more than the error leaves nothing
        assert!(noise(&gaussian(2.0 * error)) < 1e-6 * error);
        let exact: Vec<Target> = (0..n).map(|_| Target::Values(vec![1.0])).collect();
        let refused = NOISE.tuned(&gaussian(0.1), &exact, LinkApprox::default()).unwrap_err().to_string();
        assert!(refused.contains("noise variance") && refused.contains("is 0"), "{refused}");
    }

    #[test]
    fn a_gaussian_belief_has_its_predictive_density_in_closed_form() {
        let belief = LogitBelief::Gaussian {
            mean: arr2(&[[0.4, -1.2], [0.1, f64::NEG_INFINITY]]),
            covariance: arr3(&[[[0.5, 0.2], [0.2, 0.8]], [[0.5, 9.0], [9.0, 9.0]]]),
            gauge: crate::belief::LogitGauge::Raw,
        };
        let targets = [Target::Values(vec![0.0, 0.5]), Target::Values(vec![1.0, 0.0])];
        let found = NOISE.log_predictive(&belief, &targets, LinkApprox::default()).unwrap();
        // ln N(y; m, S) of two dimensions and of one, written out
        let (a, b, c) = (0.5 + 0.3, 0.2, 0.8 + 0.3);
        let (det, r) = (a * c - b * b, [-0.4, 1.7]);
        let square = (c * r[0] * r[0] - 2.0 * b * r[0] * r[1] + a * r[1] * r[1]) / det;
        assert!((found[0] + 0.5 * (square + (TAU * TAU * det).ln())).abs() < 1e-13); // rounding of a dozen terms
        assert!((found[1] + 0.5 * (0.81 / 0.8 + (TAU * 0.8).ln())).abs() < 1e-13);
        // the mixture over draws, which knows no closed form, tends to it: 40,000 draws of a density below 0.3
        let link = LinkApprox::MonteCarlo { n_samples: 40_000, seed: 1 };
        let sampled = log_mean_densities(&belief, &targets, link, |f, y| NOISE.log_density(f, y)).unwrap();
        for (found, sampled) in found.iter().zip(&sampled) {
            assert!((found - sampled).abs() < 0.02, "{found} against {sampled}");
        }
        let moments = NOISE.target_moments(&belief, link).unwrap();
        assert_eq!(moments.covariance, arr3(&[[[a, b], [b, c]], [[0.8, 0.0], [0.0, 0.0]]]));
        let drawn = TargetMoments::over_draws(&belief, link, |outputs| NOISE.moments(outputs)).unwrap();
        // standard errors of variances below 1.2 from 40,000 draws are below 0.01
        assert!((&drawn.covariance - &moments.covariance).iter().all(|d| d.abs() < 0.05));
        let error = NOISE.log_predictive(&belief, &targets[1..], link).unwrap_err().to_string();
        assert!(error.contains("expected 2, found 1"), "{error}");
    }
}
