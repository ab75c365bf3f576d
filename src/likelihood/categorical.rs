//! One class of several, by softmax.

use super::density::Likelihood;
use super::moments::{TargetMoments, check_one_each};
use super::target::{Target, TargetSpace};
use crate::belief::{LinkApprox, LogitBelief, class_at, log_softmax, softmax};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis};
use rand::{Rng, RngExt};

/// `p(y | f) = softmax(f)_y`; `Λ = diag(p) − p pᵀ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Categorical;

impl Categorical {
    pub(super) const NAME: &str = "categorical";
}

impl Likelihood for Categorical {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn target_space(&self) -> TargetSpace {
        TargetSpace::Classes
    }

    fn is_shift_invariant(&self) -> bool {
        true
    }

    fn check_target(&self, item: &str, target: &Target, present: &[bool]) -> Result<()> {
        if let Target::Values(values) = target {
            return Err(Error::Incompatible(format!(
                "a categorical likelihood needs a class as target; item `{item}` has {} values",
                values.len()
            )));
        }
        target.check(item, present)
    }

    fn log_density(&self, outputs: ArrayView1<f64>, target: &Target) -> f64 {
        let log_p = log_softmax(outputs.insert_axis(Axis(0)));
        target.class().and_then(|class| log_p.get([0, class]).copied()).unwrap_or(f64::NAN)
    }

    fn score(&self, outputs: ArrayView1<f64>, target: &Target) -> Array1<f64> {
        let p = probabilities(outputs);
        match target.class() {
            // 1 − p as the sum of the others, which keeps its digits where the model is sure
            Some(class) => {
                let others = |c: usize| p.iter().enumerate().filter(|(k, _)| *k != c).map(|(_, v)| v).sum::<f64>();
                Array1::from_shape_fn(p.len(), |c| if c == class { others(c) } else { -p[c] })
            }
            None => p * f64::NAN,
        }
    }

    fn fisher(&self, outputs: ArrayView1<f64>) -> Array2<f64> {
        categorical_fisher(probabilities(outputs).view())
    }

    fn sample(&self, outputs: ArrayView1<f64>, rng: &mut dyn Rng) -> Target {
        let u: f64 = rng.random();
        Target::Class(class_at(probabilities(outputs).view(), u))
    }

    fn moments(&self, outputs: ArrayView1<f64>) -> (Array1<f64>, Array2<f64>) {
        let p = probabilities(outputs);
        let covariance = categorical_fisher(p.view());
        (p, covariance)
    }

    /// A class drawn from averaged probabilities `p̄` has covariance `diag(p̄) − p̄ p̄ᵀ`, whatever was averaged.
    fn target_moments(&self, belief: &LogitBelief, link: LinkApprox) -> Result<TargetMoments> {
        let mean = belief.probabilities(link)?;
        let (n, c) = mean.dim();
        let mut covariance = Array3::zeros((n, c, c));
        for (p, mut item) in mean.outer_iter().zip(covariance.outer_iter_mut()) {
            item.assign(&categorical_fisher(p));
        }
        Ok(TargetMoments { mean, covariance })
    }

    fn log_predictive(&self, belief: &LogitBelief, targets: &[Target], link: LinkApprox) -> Result<Vec<f64>> {
        check_one_each(belief, targets)?;
        let log_p = belief.log_probabilities(link)?;
        let of = |(item, target): (usize, &Target)| target.class().and_then(|c| log_p.get([item, c]).copied());
        Ok(targets.iter().enumerate().map(|target| of(target).unwrap_or(f64::NAN)).collect())
    }
}

fn probabilities(outputs: ArrayView1<f64>) -> Array1<f64> {
    softmax(outputs.insert_axis(Axis(0))).index_axis_move(Axis(0), 0)
}

/// `Λ = diag(p) − p pᵀ`, the Fisher information of a categorical label in logit space. `[n_classes, n_classes]`
///
/// The diagonal is `p_i Σ_{k≠i} p_k`: `p_i − p_i²` would lose all digits where the model is sure.
pub fn categorical_fisher(p: ArrayView1<f64>) -> Array2<f64> {
    Array2::from_shape_fn((p.len(), p.len()), |(i, j)| {
        if i == j {
            let others: f64 = p.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, v)| v).sum();
            p[i] * others
        } else {
            -p[i] * p[j]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::semidefinite_cholesky;
    use ndarray::arr1;
    use rand::{SeedableRng, rngs::ChaCha8Rng};

    #[test]
    fn a_saturated_model_still_has_a_semidefinite_fisher() {
        for small in [1e-6, 1e-11, 1e-15, 1e-30] {
            let fisher = categorical_fisher(arr1(&[1.0 - small, small * 0.7, small * 0.3]).view());
            let factor = semidefinite_cholesky(fisher.view()).unwrap();
            let error = (&factor.dot(&factor.t()) - &fisher).mapv(f64::abs).sum();
            assert!(error <= 1e-9 * fisher.diag().sum()); // relative to its own tiny scale
        }
    }

    #[test]
    fn a_class_that_an_item_lacks_is_never_drawn() {
        let outputs = arr1(&[f64::NEG_INFINITY, 0.3, f64::NEG_INFINITY, -0.2, f64::NEG_INFINITY]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let class = Categorical.sample(outputs.view(), &mut rng).class();
            assert!(matches!(class, Some(1 | 3)), "{class:?}");
        }
    }

    #[test]
    fn real_values_are_refused_as_the_target_of_a_class() {
        let error = Categorical.check_target("q1", &Target::Values(vec![0.5, 0.5]), &[true, true]).unwrap_err();
        assert_eq!(error.to_string(), "a categorical likelihood needs a class as target; item `q1` has 2 values");
        assert!(Categorical.log_density(arr1(&[0.0, 0.0]).view(), &Target::Values(vec![0.5, 0.5])).is_nan());
    }
}
