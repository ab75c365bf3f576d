//! Gives every class its own weight and bias, fitted to held-out labels.

use super::held_out::{checked_logits, checked_targets, one_hot};
use super::vector_newton::{Objective, identity};
use crate::belief::{LogitBelief, LogitGauge};
use crate::error::{Error, Result, check_finite};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// The default precision of the pull towards `w = 1, b = 0`: weak against a single item, enough to keep separable data
/// finite.
pub const DEFAULT_RIDGE: f64 = 1e-3;

/// Vector scaling: a weight and a bias per class on the centred logits.
///
/// f'_c = w_c (f_c − f̄) + b_c,  f̄ = mean_c f_c,  Σ_c b_c = 0
///
/// The centring is this crate's: a common shift of an item's logits has no meaning (its probabilities stay), so it must
/// not change the result, and a belief's covariance is in the centred gauge. Guo et al. scale the raw logits.
/// With two classes only `w_1 + w_2` matters; the ridge then keeps the weights equal.
///
/// Guo et al. (2017), arXiv 1706.04599, section 4.2.
///
/// ```
/// use bayes_lora::calibrate::{DEFAULT_RIDGE, VectorScaling};
/// use ndarray::Array2;
///
/// // Logits that know nothing, labels of class 0 three times out of four: the biases learn the shares.
/// let fit = VectorScaling::fit(Array2::zeros((4, 2)).view(), &[0, 0, 1, 0], DEFAULT_RIDGE)?;
/// let bias = &fit.scaling.bias;
/// assert!((bias[0] - bias[1] - 3f64.ln()).abs() < 1e-2);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorScaling {
    /// w, one per class.
    pub weight: Vec<f64>,
    /// b, one per class, summing to 0.
    pub bias: Vec<f64>,
}

/// A fitted vector scaling, with how the fit went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorScalingFit {
    /// The weights and biases found.
    pub scaling: VectorScaling,
    /// Negative log-likelihood of the held-out items as they were, nats per item.
    pub nll_before: f64,
    /// The same with the scaling found, without the ridge.
    pub nll_after: f64,
    /// Number of held-out items.
    pub n_items: usize,
    /// Newton steps taken.
    pub iterations: usize,
}

impl VectorScaling {
    /// Minimises the negative log-likelihood of held-out labels plus a ridge.
    ///
    /// F(w, b) = −Σ_n ln softmax(w ∘ f_n + b)_y_n + (ridge/2) (‖w − 1‖² + ‖b‖²)
    ///
    /// The likelihood is **summed**, so `ridge` is the precision of a Gaussian prior whatever the number of items. F is
    /// strictly convex: Newton's method on 2C unknowns with a backtracking line search has one place to go.
    ///
    /// # Shapes
    /// - logits: `[n_items, n_classes]`, all finite; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, lengths differ, a logit is not finite (a class that some item lacks has no shared bias), a
    /// label is not a class, the ridge is not above 0, or Newton's method does not converge, which logits beyond 1e4 with
    /// errors among them can bring about.
    pub fn fit(logits: ArrayView2<f64>, labels: &[usize], ridge: f64) -> Result<VectorScalingFit> {
        let targets = one_hot(labels, logits.nrows(), logits.ncols())?;
        Self::fit_soft(logits, targets.view(), ridge)
    }

    /// [`fit`](Self::fit) for soft targets.
    ///
    /// # Shapes
    /// - logits, targets: `[n_items, n_classes]`.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), or if a row of the targets is not a distribution.
    pub fn fit_soft(logits: ArrayView2<f64>, targets: ArrayView2<f64>, ridge: f64) -> Result<VectorScalingFit> {
        if !(ridge.is_finite() && ridge > 0.0) {
            return Err(Error::config("ridge", "finite and above 0", ridge));
        }
        checked_logits(logits)?;
        let objective = Objective { logits: centred(logits)?, targets: checked_targets(targets, logits)?, ridge };
        let (unknowns, iterations) = objective.minimise()?;
        let n_items = logits.nrows();
        let n_classes = logits.ncols();
        let mean_nll = |unknowns: &[f64]| objective.nll(unknowns) / n_items as f64;
        let (weight, bias) = unknowns.split_at(n_classes);
        // The ridge puts Σb at 0 already; this removes the rounding.
        let shift = bias.iter().sum::<f64>() / n_classes as f64;
        Ok(VectorScalingFit {
            nll_before: mean_nll(&identity(n_classes)),
            nll_after: mean_nll(&unknowns),
            scaling: Self { weight: weight.to_vec(), bias: bias.iter().map(|b| b - shift).collect() },
            n_items,
            iterations,
        })
    }

    /// A covariance becomes `P W Σ W P` with `W = diag w` and `P = I − 11ᵀ/C`, centred again.
    pub(super) fn scaled_belief(&self, belief: &LogitBelief) -> Result<LogitBelief> {
        let n_classes = self.weight.len();
        if belief.n_classes() != n_classes || self.bias.len() != n_classes {
            return Err(Error::Count {
                what: "classes of the belief to scale".into(),
                expected: n_classes,
                found: belief.n_classes(),
            });
        }
        Ok(match belief {
            LogitBelief::Point { logits } => LogitBelief::Point { logits: self.scaled(logits.view())? },
            LogitBelief::Samples { logits, log_weights } => {
                let mut scaled = Array3::zeros(logits.dim());
                for (mut out, draw) in scaled.outer_iter_mut().zip(logits.outer_iter()) {
                    out.assign(&self.scaled(draw)?);
                }
                LogitBelief::Samples { logits: scaled, log_weights: log_weights.clone() }
            }
            LogitBelief::Gaussian { mean, covariance, .. } => {
                // M = P W P maps a logit vector in any gauge to the scaled one in the centred gauge.
                let n = n_classes as f64;
                let projector =
                    Array2::from_shape_fn((n_classes, n_classes), |(a, b)| f64::from(u8::from(a == b)) - 1.0 / n);
                let weight = Array1::from(self.weight.clone());
                let scaling = projector.dot(&(&projector * &weight.insert_axis(Axis(1))));
                let mut scaled = Array3::zeros(covariance.dim());
                for (mut out, item) in scaled.outer_iter_mut().zip(covariance.outer_iter()) {
                    out.assign(&scaling.dot(&item).dot(&scaling.t()));
                }
                let mean = self.scaled(mean.view())?;
                LogitBelief::Gaussian { mean, covariance: scaled, gauge: LogitGauge::Centred }
            }
        })
    }

    /// The scaled logits in the centred gauge.
    fn scaled(&self, logits: ArrayView2<f64>) -> Result<Array2<f64>> {
        let mut scaled = centred(logits)?;
        for mut row in scaled.rows_mut() {
            for ((v, w), b) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
                *v = w * *v + b;
            }
        }
        centred(scaled.view())
    }
}

/// Logits minus the mean of each item.
fn centred(logits: ArrayView2<f64>) -> Result<Array2<f64>> {
    check_finite("logits for vector scaling", logits.iter().map(|v| v.is_finite()))?;
    let mut centred = logits.to_owned();
    for mut row in centred.rows_mut() {
        let mean = row.sum() / row.len() as f64;
        row -= mean;
    }
    Ok(centred)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::softmax;
    use crate::calibrate::Calibrator;
    use ndarray::arr2;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    fn uniform(shape: (usize, usize), seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn(shape, || 4.0 * rng.random::<f64>() - 2.0)
    }

    fn labels(n: usize, n_classes: usize, seed: u64) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(0..n_classes)).collect()
    }

    fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
    }

    #[test]
    fn the_gradient_vanishes_and_the_biases_sum_to_zero() {
        let logits = uniform((200, 4), 3);
        let labels = labels(200, 4, 4);
        let fit = VectorScaling::fit(logits.view(), &labels, DEFAULT_RIDGE).unwrap();
        let objective = Objective {
            logits: centred(logits.view()).unwrap(),
            targets: one_hot(&labels, 200, 4).unwrap(),
            ridge: DEFAULT_RIDGE,
        };
        let unknowns = [&fit.scaling.weight[..], &fit.scaling.bias[..]].concat();
        let (gradient, _) = objective.derivatives(&unknowns);
        // 200 rounded terms of order 1; the last step of Newton is quadratic.
        assert!(near(&gradient, &[0.0; 8], 1e-10), "{gradient:?}");
        // Exact up to the subtraction of the mean.
        assert!(fit.scaling.bias.iter().sum::<f64>().abs() < 1e-14);
        assert!(fit.nll_after < fit.nll_before);
    }

    #[test]
    fn soft_targets_of_a_scaling_give_it_back() {
        let logits = centred(uniform((80, 4), 5).view()).unwrap();
        let scaling = VectorScaling { weight: vec![0.5, 1.5, 0.8, 2.0], bias: vec![0.3, -0.7, 0.5, -0.1] };
        let targets = softmax(scaling.scaled(logits.view()).unwrap().view());
        let fit = VectorScaling::fit_soft(logits.view(), targets.view(), 1e-9).unwrap();
        // The ridge pulls by about ridge · distance / curvature, 1e-9 · 1 / 1.
        assert!(near(&fit.scaling.weight, &scaling.weight, 1e-7));
        assert!(near(&fit.scaling.bias, &scaling.bias, 1e-7));
    }

    #[test]
    fn logits_without_information_give_the_log_shares() {
        let labels = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2];
        let fit = VectorScaling::fit(Array2::zeros((10, 3)).view(), &labels, 1e-9).unwrap();
        let logs = [0.5f64.ln(), 0.3f64.ln(), 0.2f64.ln()];
        let mean = logs.iter().sum::<f64>() / 3.0;
        // As above: 1e-9 over a curvature of about 2.
        assert!(near(&fit.scaling.bias, &logs.map(|l| l - mean), 1e-8));
        assert!(near(&fit.scaling.weight, &[1.0; 3], 1e-12));
        let entropy = -(0.5 * logs[0] + 0.3 * logs[1] + 0.2 * logs[2]);
        assert!((fit.nll_after - entropy).abs() < 1e-12);
    }

    #[test]
    fn a_common_shift_of_an_item_changes_nothing() {
        let logits = uniform((60, 3), 6);
        let mut shifted = logits.clone();
        for (i, mut row) in shifted.rows_mut().into_iter().enumerate() {
            row += i as f64;
        }
        let labels = labels(60, 3, 7);
        let a = VectorScaling::fit(logits.view(), &labels, DEFAULT_RIDGE).unwrap();
        let b = VectorScaling::fit(shifted.view(), &labels, DEFAULT_RIDGE).unwrap();
        // Shifts up to 60 lose two digits.
        assert!(near(&a.scaling.weight, &b.scaling.weight, 1e-11));
        assert!(near(&a.scaling.bias, &b.scaling.bias, 1e-11));
    }

    #[test]
    fn separable_data_stay_finite() {
        let logits = Array2::from_shape_fn((30, 3), |(i, c)| if i % 3 == c { 5.0 } else { 0.0 });
        let labels: Vec<usize> = (0..30).map(|i| i % 3).collect();
        let fit = VectorScaling::fit(logits.view(), &labels, DEFAULT_RIDGE).unwrap();
        assert!(fit.scaling.weight.iter().all(|w| w.is_finite() && *w > 1.0));
        assert!(fit.nll_after < fit.nll_before);
        // All wrong, and of large logits: the hardest start for Newton.
        let wrong: Vec<usize> = (0..30).map(|i| (i + 1) % 3).collect();
        let fit = VectorScaling::fit((&logits * 50.0).view(), &wrong, DEFAULT_RIDGE).unwrap();
        // No worse than uniform.
        assert!(fit.nll_after < 3f64.ln() + 1e-9);
    }

    #[test]
    fn two_classes_get_equal_weights() {
        let logits = uniform((50, 2), 8);
        let fit = VectorScaling::fit(logits.view(), &labels(50, 2, 9), DEFAULT_RIDGE).unwrap();
        let [a, b] = fit.scaling.weight[..] else { panic!("two classes were given") };
        // The ridge of 1e-3 alone holds the difference: 1e-16 · 50 / 1e-3 with room.
        assert!((a - b).abs() < 1e-9);
    }

    #[test]
    fn a_gaussian_is_scaled_as_its_samples_are() {
        let scaling = VectorScaling { weight: vec![0.5, 2.0, 1.2], bias: vec![0.3, -0.5, 0.2] };
        let draws = Array3::from_shape_fn((7, 2, 3), |(s, i, c)| ((s * 5 + i * 3 + c * 11) % 13) as f64 / 4.0);
        let samples =
            LogitBelief::Samples { logits: draws, log_weights: Array1::from_shape_fn(7, |s| s as f64 / 10.0) };
        let (mean, covariance) = samples.moments();
        let gaussian = LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Raw };
        let (mean, covariance) = scaling.apply(&samples).unwrap().moments();
        let (gaussian_mean, gaussian_covariance) = scaling.apply(&gaussian).unwrap().moments();
        // An affine map of the logits: equal up to the rounding of seven terms of order 10.
        assert!((&mean - &gaussian_mean).iter().all(|d| d.abs() < 1e-13));
        assert!((&covariance - &gaussian_covariance).iter().all(|d| d.abs() < 1e-13));
        // Centred: every row of the covariance sums to 0.
        assert!(gaussian_covariance.sum_axis(Axis(2)).iter().all(|d| d.abs() < 1e-13));
    }

    #[test]
    fn unit_weights_change_no_probability() {
        let logits = uniform((5, 3), 10);
        let scaling = VectorScaling { weight: vec![1.0; 3], bias: vec![0.0; 3] };
        let point = LogitBelief::Point { logits: logits.clone() };
        let LogitBelief::Point { logits: scaled } = scaling.apply(&point).unwrap() else {
            panic!("a point stays a point")
        };
        let (a, b) = (softmax(logits.view()), softmax(scaled.view()));
        // Two subtractions.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let absent = arr2(&[[0.0, f64::NEG_INFINITY]]);
        assert_eq!(
            VectorScaling::fit(absent.view(), &[0], 1e-3).unwrap_err().to_string(),
            "logits for vector scaling: 1 of 2 values are not finite"
        );
        let fine = arr2(&[[0.0, 1.0]]);
        for ridge in [0.0, -1.0, f64::NAN] {
            assert!(VectorScaling::fit(fine.view(), &[0], ridge).is_err());
        }
        assert!(VectorScaling::fit(fine.view(), &[2], 1e-3).is_err());
        assert!(VectorScaling::fit(fine.view(), &[0, 1], 1e-3).is_err());
        let scaling = VectorScaling { weight: vec![1.0; 3], bias: vec![0.0; 3] };
        let point = LogitBelief::Point { logits: fine };
        assert_eq!(
            scaling.apply(&point).unwrap_err().to_string(),
            "classes of the belief to scale: expected 3, found 2"
        );
    }
}
