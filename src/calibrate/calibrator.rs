//! Says what every repair of probabilities can do, so that it composes with any method.

use super::log_probabilities::log_probabilities;
use super::temperature::Temperature;
use super::vector::{DEFAULT_RIDGE, VectorScaling};
use crate::belief::{LogitBelief, log_softmax};
use crate::error::{Error, Result, check_finite};
use crate::search::SearchEnd;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

/// A map from probabilities to better ones, fitted to labelled held-out items.
///
/// "Laplace, then a temperature" is thus a value and no method of its own. A fitted calibrator is used behind
/// `dyn Calibrator`; [`Calibration`] chooses one.
///
/// ```
/// use bayes_lora::calibrate::{Calibrator, Temperature};
/// use ndarray::arr2;
///
/// // sure of class 0 four times, right three times
/// let averaged = arr2(&[[0.98, 0.02], [0.98, 0.02], [0.98, 0.02], [0.98, 0.02]]);
/// let fitted = Temperature::calibrated_on(averaged.view(), &[0, 0, 1, 0])?;
/// let honest = fitted.apply_to_probabilities(averaged.view())?;
/// assert!((honest[[0, 0]] - 0.75).abs() < 1e-9);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub trait Calibrator: std::fmt::Debug + Send + Sync {
    /// Fits the post form, which acts on averaged probabilities.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, lengths differ, a probability is negative or not finite, a row is all 0, or a label is not a
    /// class or has probability 0.
    fn calibrated_on(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Self>
    where
        Self: Sized;

    /// Maps a whole belief (pre form), which stays of its kind.
    ///
    /// # Errors
    /// If the belief does not suit the calibrator.
    fn apply(&self, belief: &LogitBelief) -> Result<LogitBelief>;

    /// Maps averaged probabilities (post form).
    ///
    /// What was known about the weights ends here: the result is a point, without mutual information.
    ///
    /// # Shapes
    /// - probabilities, output: `[n_items, n_classes]`.
    ///
    /// # Errors
    /// If a probability is negative or not finite, a row is all 0, or the classes do not suit the calibrator.
    fn apply_to_probabilities(&self, probabilities: ArrayView2<f64>) -> Result<Array2<f64>>;

    /// The post form on the logarithms of averaged probabilities, −∞ for a class that an item lacks: an answer that is hundreds of nats
    /// off keeps its size. By default through [`Calibrator::apply_to_probabilities`].
    ///
    /// # Errors
    /// As [`Calibrator::apply_to_probabilities`].
    fn apply_to_log_probabilities(&self, log_probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        Ok(self.apply_to_probabilities(log_probabilities.mapv(f64::exp).view())?.mapv_into(f64::ln))
    }

    /// The fitted numbers with their names.
    fn parameters(&self) -> Vec<(String, f64)>;

    /// Which of this crate's it is, to be saved with its parameters; `None`, the default, is one of your own.
    fn calibration(&self) -> Option<Calibration> {
        None
    }

    /// How the search for the fitted number ended, to be saved with it; `None`, the default, where none was sought between bounds.
    fn search_end(&self) -> Option<SearchEnd> {
        None
    }

    /// What a reader must know of the fit; nothing where it is as usual.
    fn caveat(&self) -> Option<&'static str> {
        None
    }
}

/// The choice of a calibrator.
///
/// ```
/// use bayes_lora::calibrate::Calibration;
/// use ndarray::arr2;
///
/// let averaged = arr2(&[[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]);
/// let fitted = Calibration::Temperature.fit(averaged.view(), &[0, 1, 1])?;
/// assert_eq!(fitted.parameters()[0].0, "inverse temperature");
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// [`Temperature`]
    Temperature,
    /// [`VectorScaling`] with [`DEFAULT_RIDGE`]
    VectorScaling,
}

impl Calibration {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::VectorScaling => "vector scaling",
        }
    }

    /// Fits it to averaged probabilities of labelled held-out items.
    ///
    /// # Errors
    /// As [`Calibrator::calibrated_on`].
    pub fn fit(self, probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Box<dyn Calibrator>> {
        Ok(match self {
            Self::Temperature => Box::new(Temperature::calibrated_on(probabilities, labels)?),
            Self::VectorScaling => Box::new(VectorScaling::calibrated_on(probabilities, labels)?),
        })
    }

    /// The same from the logarithms of averaged probabilities.
    ///
    /// # Errors
    /// As [`Calibrator::calibrated_on`].
    pub fn fit_logs(self, log_probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Box<dyn Calibrator>> {
        Ok(match self {
            Self::Temperature => Box::new(Temperature::fit(log_probabilities, labels)?.usable()?),
            Self::VectorScaling => Box::new(VectorScaling::fit(log_probabilities, labels, DEFAULT_RIDGE)?.scaling),
        })
    }

    /// The calibrator that has these numbers, in the order of [`Calibrator::parameters`], and was found so.
    ///
    /// # Errors
    /// If there are too few or too many, one is not finite, or an inverse temperature is not above 0.
    pub fn with_parameters(self, values: &[f64], end: Option<SearchEnd>) -> Result<Box<dyn Calibrator>> {
        let what = || format!("parameters of the {}", self.name());
        check_finite(what(), values.iter().map(|v| v.is_finite()))?;
        match (self, values) {
            (Self::Temperature, &[beta]) => {
                Ok(Box::new(Temperature { end: end.unwrap_or_default(), ..Temperature::new(beta)? }))
            }
            (Self::Temperature, _) => Err(Error::Count { what: what(), expected: 1, found: values.len() }),
            (Self::VectorScaling, _) if values.is_empty() || !values.len().is_multiple_of(2) => {
                Err(Error::config(format!("number of {}", what()), "even and above 0", values.len()))
            }
            (Self::VectorScaling, _) => {
                let (weight, bias) = values.split_at(values.len() / 2);
                Ok(Box::new(VectorScaling { weight: weight.to_vec(), bias: bias.to_vec() }))
            }
        }
    }
}

impl Calibrator for Temperature {
    fn calibrated_on(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Self> {
        Self::fit_probabilities(probabilities, labels)?.usable()
    }

    /// Means and draws are multiplied by β, covariances by β².
    fn apply(&self, belief: &LogitBelief) -> Result<LogitBelief> {
        Ok(belief.tempered(self.beta))
    }

    /// `p_c ∝ p̄_c^β`; a probability of 0 stays 0.
    fn apply_to_probabilities(&self, probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        self.raised(probabilities)
    }

    fn apply_to_log_probabilities(&self, log_probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        // −∞ · β is −∞: β is above 0
        Ok(log_softmax((&log_probabilities * self.beta).view()))
    }

    fn parameters(&self) -> Vec<(String, f64)> {
        vec![("inverse temperature".into(), self.beta)]
    }

    fn calibration(&self) -> Option<Calibration> {
        Some(Calibration::Temperature)
    }

    fn search_end(&self) -> Option<SearchEnd> {
        Some(self.end)
    }

    fn caveat(&self) -> Option<&'static str> {
        self.is_at_its_end().then_some(
            "the held-out labels would have the answers flatter still: these are nearly uniform, and say nothing of the method",
        )
    }
}

impl Calibrator for VectorScaling {
    /// Scales `ln p̄`, the logits of the averaged probabilities, with [`DEFAULT_RIDGE`].
    fn calibrated_on(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Self> {
        Ok(Self::fit(log_probabilities(probabilities)?.view(), labels, DEFAULT_RIDGE)?.scaling)
    }

    /// A covariance becomes `P W Σ W P` with `W = diag w` and `P = I − 11ᵀ/C`, centred again.
    fn apply(&self, belief: &LogitBelief) -> Result<LogitBelief> {
        self.scaled_belief(belief)
    }

    /// `p_c ∝ exp(w_c (ln p̄_c − mean ln p̄) + b_c)`
    fn apply_to_probabilities(&self, probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        let point = LogitBelief::Point { logits: log_probabilities(probabilities)? };
        self.apply(&point)?.probabilities(Default::default())
    }

    fn apply_to_log_probabilities(&self, log_probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        let point = LogitBelief::Point { logits: log_probabilities.to_owned() };
        self.apply(&point)?.log_probabilities(Default::default())
    }

    fn parameters(&self) -> Vec<(String, f64)> {
        let named = |name: &'static str, values: &[f64]| -> Vec<(String, f64)> {
            values.iter().enumerate().map(|(class, v)| (format!("{name} of class {class}"), *v)).collect()
        };
        [named("weight", &self.weight), named("bias", &self.bias)].concat()
    }

    fn calibration(&self) -> Option<Calibration> {
        Some(Calibration::VectorScaling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::softmax;
    use ndarray::arr2;

    fn example() -> (Array2<f64>, Vec<usize>) {
        let logits = Array2::from_shape_fn((30, 3), |(i, c)| ((i * 7 + c * 11) % 13) as f64 / 2.0);
        (softmax(logits.view()), (0..30).map(|i| (i * 5) % 3).collect())
    }

    #[test]
    fn a_temperature_without_a_bound_is_refused_and_not_used() {
        let all_right = arr2(&[[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]]);
        let error = Calibration::Temperature.fit(all_right.view(), &[0, 0, 1]).err().unwrap().to_string();
        assert!(error.contains("3 held-out items"), "{error}");
        assert!(Calibration::Temperature.fit(all_right.view(), &[0, 1, 1]).is_ok());
    }

    #[test]
    fn a_calibrator_chosen_at_run_time_is_the_one_fitted_by_hand() {
        let (p, labels) = example();
        let by_hand = Temperature::fit_probabilities(p.view(), &labels).unwrap().temperature;
        let chosen = Calibration::Temperature.fit(p.view(), &labels).unwrap();
        assert_eq!(chosen.parameters(), [("inverse temperature".to_string(), by_hand.beta)]);
        let powers = p.mapv(|p| p.powf(by_hand.beta));
        let q = chosen.apply_to_probabilities(p.view()).unwrap();
        for (raised, q) in powers.outer_iter().zip(q.outer_iter()) {
            // Powers against exponentials of logarithms below 10.
            assert!(raised.iter().zip(q).all(|(r, q)| (r / raised.sum() - q).abs() < 1e-14));
        }
    }

    #[test]
    fn vector_scaling_lowers_the_loss_and_shifts_of_the_logits_do_not_matter() {
        let (p, labels) = example();
        let chosen = Calibration::VectorScaling.fit(p.view(), &labels).unwrap();
        let q = chosen.apply_to_probabilities(p.view()).unwrap();
        let loss = |p: &Array2<f64>| -labels.iter().enumerate().map(|(i, y)| p[[i, *y]].ln()).sum::<f64>();
        assert!(loss(&q) < loss(&p));
        assert!(q.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-14));
        let point = LogitBelief::Point { logits: p.mapv(f64::ln) + 4.0 };
        let pre = chosen.apply(&point).unwrap().probabilities(Default::default()).unwrap();
        // Centring removes the 4 to rounding.
        assert!(pre.iter().zip(&q).all(|(a, b)| (a - b).abs() < 1e-13));
        assert_eq!(chosen.parameters().len(), 6);
        assert_eq!(chosen.parameters()[3].0, "bias of class 0");
    }

    #[test]
    fn in_logarithms_an_answer_800_nats_off_is_calibrated_like_any_other() {
        let mut logits = Array2::from_shape_fn((40, 2), |(i, c)| if c == 0 { 1.0 + i as f64 / 20.0 } else { 0.0 });
        logits[[0, 0]] = 800.0;
        let labels: Vec<usize> = (0..40).map(|i| usize::from(i % 4 == 0)).collect();
        let logs = log_softmax(logits.view());
        // through probabilities, in which it has become 0, the item seems to lack its class
        let lost = Calibration::Temperature.fit(logs.mapv(f64::exp).view(), &labels);
        assert!(lost.err().unwrap().to_string().contains("held-out item 0"));
        for calibration in [Calibration::Temperature, Calibration::VectorScaling] {
            let fitted = calibration.fit_logs(logs.view(), &labels).unwrap();
            let better = fitted.apply_to_log_probabilities(logs.view()).unwrap();
            assert!(better.iter().all(|l| l.is_finite()));
            assert!(better.mapv(f64::exp).sum_axis(ndarray::Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
            let loss = |logs: &Array2<f64>| crate::belief::item_losses(logs.view(), &labels).iter().sum::<f64>();
            assert!(loss(&better) < 0.2 * loss(&logs), "{calibration:?}");
        }
    }

    #[test]
    fn parameters_give_their_calibrator_back_or_are_refused() {
        let (p, labels) = example();
        for calibration in [Calibration::Temperature, Calibration::VectorScaling] {
            let fitted = calibration.fit(p.view(), &labels).unwrap();
            assert_eq!(fitted.calibration(), Some(calibration));
            let values: Vec<f64> = fitted.parameters().into_iter().map(|(_, value)| value).collect();
            let again = calibration.with_parameters(&values, fitted.search_end()).unwrap();
            assert_eq!((again.parameters(), again.search_end()), (fitted.parameters(), fitted.search_end()));
            let of = |calibrator: &dyn Calibrator| calibrator.apply_to_probabilities(p.view()).unwrap();
            assert_eq!(of(&*again), of(&*fitted));
            let error = calibration.with_parameters(&[f64::NAN], None).unwrap_err().to_string();
            assert!(error.contains(calibration.name()) && error.contains("1 of 1"), "{error}");
        }
        let wrong: [(Calibration, &[f64], &str); 5] = [
            (Calibration::Temperature, &[], "expected 1, found 0"),
            (Calibration::Temperature, &[1.0, 2.0], "expected 1, found 2"),
            (Calibration::Temperature, &[0.0], "beta"),
            (Calibration::VectorScaling, &[], "got 0"),
            (Calibration::VectorScaling, &[1.0, 1.0, 0.0], "got 3"),
        ];
        for (calibration, values, part) in wrong {
            let error = calibration.with_parameters(values, None).unwrap_err().to_string();
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn a_class_that_an_item_lacks_keeps_probability_0_or_is_refused() {
        let p = arr2(&[[0.7, 0.3, 0.0], [0.4, 0.6, 0.0], [0.2, 0.3, 0.5]]);
        let temperature = Calibration::Temperature.fit(p.view(), &[0, 0, 2]).unwrap();
        assert_eq!(temperature.apply_to_probabilities(p.view()).unwrap()[[0, 2]], 0.0);
        let error = Calibration::VectorScaling.fit(p.view(), &[0, 0, 2]).unwrap_err().to_string();
        assert_eq!(error, "logits for vector scaling: 2 of 9 values are not finite");
    }
}
