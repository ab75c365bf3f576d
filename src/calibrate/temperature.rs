//! Rescales all logits by one number, fitted to held-out labels.

use super::held_out::{checked_logits, checked_targets, one_hot};
use super::log_probabilities::log_probabilities;
use super::temperature_search::{Objective, Outcome};
use crate::belief::softmax;
use crate::error::{Error, Result};
use crate::search::{Search, SearchEnd};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// Temperature scaling: every logit multiplied by the inverse temperature `beta = 1/T`.
///
/// p_c ∝ exp(β f_c)
///
/// β < 1 flattens, β > 1 sharpens; the ranking of the classes stays. Two ways to apply it:
/// - **post**, [`apply_to_probabilities`](super::Calibrator::apply_to_probabilities): `p ∝ p̄^β` on the averaged probabilities.
///   It serves every method; its β comes from [`fit_probabilities`](Self::fit_probabilities).
/// - **pre**, [`apply`](super::Calibrator::apply): the whole belief is scaled, then averaged as usual. With a β from
///   [`fit`](Self::fit) it is exact for a point belief; for samples and Gaussians a β fitted to the mean logits is not
///   the best one for their average.
///
/// Guo et al. (2017), arXiv 1706.04599, section 4.2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// Inverse temperature 1/T, above 0.
    pub beta: f64,
    /// How the search for it ended; inside where it was given.
    pub end: SearchEnd,
}

/// A fitted temperature, with how the fit went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemperatureFit {
    /// The inverse temperature found.
    pub temperature: Temperature,
    /// How the search for it ended: inside at the unique minimum; at the lower end where the logits tell less than nothing about the
    /// labels, and uniform answers are best; at the upper end where sharper is always better, as when every held-out answer is
    /// right; undetermined at β = 1 where all logits of every item are equal. Its bounds are relative to the scale of the logits.
    pub search: Search,
    /// Negative log-likelihood of the held-out items at β = 1, nats per item.
    pub nll_before: f64,
    /// The same at the β found.
    pub nll_after: f64,
    /// Number of held-out items.
    pub n_items: usize,
    /// Evaluations of the derivatives.
    pub iterations: usize,
    /// Standard error of β, `1/√(Σ_n Var_p[f_n])` at its value: how well so many items know it, if the labels follow
    /// `softmax β f`. None where β is no minimum.
    pub standard_error: Option<f64>,
}

impl TemperatureFit {
    /// The temperature, if the items could tell one.
    ///
    /// # Errors
    /// If sharper is always better ([`SearchEnd::AtUpper`]), as when every answer to the held-out items is right: what was written for β
    /// is the end of the search, under which one wrong answer costs hundreds of nats.
    pub fn usable(self) -> Result<Temperature> {
        if self.temperature.end == SearchEnd::AtUpper {
            self.search.inside()?;
        }
        Ok(self.temperature)
    }

    /// The same with β at most 1: for answers to items that were trained on, whose labels have shaped the logits even where the item itself
    /// is left out. They show overconfidence, but no reason to be more confident.
    pub fn without_sharpening(mut self) -> Self {
        if self.temperature.beta > 1.0 {
            self.temperature = Temperature { beta: 1.0, end: SearchEnd::AtUpper };
            (self.search.value, self.search.high, self.search.end) = (1.0, 1.0, SearchEnd::AtUpper);
            self.search.meaning =
                format!("{} training items give no reason for sharper answers than these", self.n_items);
            (self.nll_after, self.standard_error) = (self.nll_before, None);
        }
        self
    }

    /// Central interval of level `level` for β: β ± z times its standard error, of a normal distribution. None where β is no
    /// minimum.
    ///
    /// # Errors
    /// If the level is not in (0, 1).
    pub fn interval(&self, level: f64) -> Result<Option<(f64, f64)>> {
        if !(level > 0.0 && level < 1.0) {
            return Err(Error::config("level", "in (0, 1)", level));
        }
        let z = Normal::standard().inverse_cdf(0.5 + 0.5 * level);
        let beta = self.temperature.beta;
        Ok(self.standard_error.map(|error| (beta - z * error, beta + z * error)))
    }
}

impl Temperature {
    /// True where the fit ended at the smallest β ([`SearchEnd::AtLower`]): the answers are nearly uniform, and differences between
    /// methods that ended there mean nothing.
    pub fn is_at_its_end(&self) -> bool {
        self.end == SearchEnd::AtLower
    }

    /// Checks an inverse temperature.
    ///
    /// # Errors
    /// If it is not finite or not above 0.
    pub fn new(beta: f64) -> Result<Self> {
        if beta.is_finite() && beta > 0.0 {
            Ok(Self { beta, end: SearchEnd::Inside })
        } else {
            Err(Error::config("beta", "finite and above 0", beta))
        }
    }

    /// Minimises the negative log-likelihood of held-out labels over β.
    ///
    /// NLL(β) = Σ_n [logsumexp(β f_n) − β f_n,y_n]
    ///
    /// The sum is convex in β (not in T), with derivative `Σ_n (E_p[f_n] − f_n,y)` and curvature `Σ_n Var_p[f_n]`:
    /// Newton steps inside a shrinking bracket, bisection where a step leaves it or gains too little.
    ///
    /// # Shapes
    /// - logits: `[n_items, n_classes]`, −∞ for a class that an item does not have; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, lengths differ, a logit is NaN or +∞, an item has no finite logit, a label is not a class
    /// or has the logit −∞.
    pub fn fit(logits: ArrayView2<f64>, labels: &[usize]) -> Result<TemperatureFit> {
        let targets = one_hot(labels, logits.nrows(), logits.ncols())?;
        Self::fit_soft(logits, targets.view())
    }

    /// [`fit`](Self::fit) for soft targets: minimises the cross-entropy `−Σ_n Σ_c t_nc ln p_nc`.
    ///
    /// # Shapes
    /// - logits, targets: `[n_items, n_classes]`.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), or if a row of the targets is not a distribution.
    pub fn fit_soft(logits: ArrayView2<f64>, targets: ArrayView2<f64>) -> Result<TemperatureFit> {
        checked_logits(logits)?;
        let targets = checked_targets(targets, logits)?;
        let objective = Objective::new(logits, targets.view());
        let Outcome { beta, bounds, end, iterations } = objective.minimise()?;
        Ok(TemperatureFit {
            temperature: Self { beta, end },
            search: Search::new("inverse temperature", beta, bounds, end).with_meaning(meaning(end, logits.nrows())),
            nll_before: objective.nll(1.0),
            nll_after: objective.nll(beta),
            n_items: logits.nrows(),
            iterations,
            standard_error: (end == SearchEnd::Inside).then(|| objective.derivatives(beta).1.sqrt().recip()),
        })
    }

    /// Fits the β of the post form `p ∝ p̄^β` to averaged probabilities.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, lengths differ, a probability is negative or not finite, a row is all 0, or a label is not a
    /// class or has probability 0.
    pub fn fit_probabilities(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<TemperatureFit> {
        Self::fit(log_probabilities(probabilities)?.view(), labels)
    }

    /// `p_c ∝ p̄_c^β`
    pub(super) fn raised(&self, probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        let mut logits = log_probabilities(probabilities)?;
        // −∞ · β is −∞: β is above 0.
        logits *= self.beta;
        Ok(softmax(logits.view()))
    }
}

/// What an end says about the held-out items.
fn meaning(end: SearchEnd, n_items: usize) -> String {
    match end {
        SearchEnd::Inside => String::new(),
        SearchEnd::AtLower => format!("{n_items} held-out items are answered best by uniform probabilities"),
        SearchEnd::AtUpper => {
            format!("{n_items} held-out items set no bound to it, as none of them speaks against sharper answers")
        }
        SearchEnd::Undetermined => format!("all logits of each of {n_items} held-out items are equal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::{LogitBelief, LogitGauge};
    use crate::calibrate::Calibrator;
    use ndarray::{Array1, Array3, arr2};
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};
    use statrs::distribution::{Binomial, DiscreteCDF};

    /// Logits from a uniform distribution over ±3 and labels drawn from softmax(β f).
    fn example(n_items: usize, n_classes: usize, beta: f64) -> (Array2<f64>, Vec<usize>) {
        drawn(5, n_items, n_classes, beta)
    }

    fn drawn(seed: u64, n_items: usize, n_classes: usize, beta: f64) -> (Array2<f64>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let logits = Array2::from_shape_simple_fn((n_items, n_classes), || 6.0 * rng.random::<f64>() - 3.0);
        let p = softmax((&logits * beta).view());
        let labels = p.rows().into_iter().map(|row| {
            let mut left = rng.random::<f64>();
            let drawn = row.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            drawn.unwrap_or(n_classes - 1)
        });
        let labels = labels.collect();
        (logits, labels)
    }

    #[test]
    fn at_the_optimum_the_label_logits_sum_to_their_expectation() {
        let (logits, labels) = example(300, 4, 0.4);
        let fit = Temperature::fit(logits.view(), &labels).unwrap();
        assert!(fit.search.is_inside());
        let p = softmax((&logits * fit.temperature.beta).view());
        let expected: f64 = (&p * &logits).sum();
        let observed: f64 = labels.iter().enumerate().map(|(i, &y)| logits[[i, y]]).sum();
        // The stopping rule of the design: 1e-10 per item.
        assert!((expected - observed).abs() < 1e-10 * 300.0);
        assert!(fit.nll_after < fit.nll_before);
    }

    #[test]
    fn scaled_logits_give_the_inverse_scale_and_the_same_probabilities() {
        let (logits, labels) = example(200, 3, 0.7);
        let fit = Temperature::fit(logits.view(), &labels).unwrap();
        for scale in [0.05, 3.0, 40.0] {
            let scaled = &logits * scale;
            let other = Temperature::fit(scaled.view(), &labels).unwrap();
            let ratio = other.temperature.beta * scale / fit.temperature.beta;
            // Both are found to about 1e-14.
            assert!((ratio - 1.0).abs() < 1e-11, "{scale} {ratio}");
            let a = softmax((&logits * fit.temperature.beta).view());
            let b = softmax((&scaled * other.temperature.beta).view());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-11));
        }
    }

    #[test]
    fn soft_targets_of_a_temperature_give_it_back() {
        let (logits, _) = example(50, 5, 1.0);
        for beta in [0.01, 0.3, 1.0, 2.5, 20.0] {
            let targets = softmax((&logits * beta).view());
            let fit = Temperature::fit_soft(logits.view(), targets.view()).unwrap();
            assert!(fit.search.is_inside());
            // methods.md, section 1, exactness (iii).
            assert!((fit.temperature.beta / beta - 1.0).abs() < 1e-10, "{beta}");
        }
    }

    #[test]
    fn the_factor_by_which_labels_are_overconfident_lies_in_its_interval_as_often_as_promised() {
        let (repetitions, level) = (200, 0.9);
        for beta in [0.25, 0.6, 1.5] {
            let held = (0..repetitions).filter(|&repetition| {
                let (logits, labels) = drawn(100 + repetition, 400, 4, beta);
                let fit = Temperature::fit(logits.view(), &labels).unwrap();
                let (low, high) = fit.interval(level).unwrap().unwrap();
                assert!(low < fit.temperature.beta && fit.temperature.beta < high);
                low < beta && beta < high
            });
            let binomial = Binomial::new(level, repetitions).unwrap();
            // one in ten thousand on either side
            let bounds = binomial.inverse_cdf(1e-4)..=binomial.inverse_cdf(1.0 - 1e-4);
            let held = held.count() as u64;
            assert!(bounds.contains(&held), "{beta}: {held} of {repetitions}, not in {bounds:?}");
        }
    }

    #[test]
    fn the_standard_error_of_equal_margins_has_a_closed_form() {
        // C = 2, margin a: the sum of variances is n a² π(1 − π)
        let logits = Array2::from_shape_fn((20, 2), |(_, c)| if c == 0 { 2.0 } else { 0.0 });
        let labels: Vec<usize> = (0..20).map(|i| usize::from(i >= 15)).collect();
        let fit = Temperature::fit(logits.view(), &labels).unwrap();
        let expected = 1.0 / (20.0 * 4.0 * 0.75 * 0.25f64).sqrt();
        assert!((fit.standard_error.unwrap() / expected - 1.0).abs() < 1e-12);
        assert!(fit.interval(1.0).unwrap_err().to_string().contains("level"));
        let hopeless = Temperature::fit(logits.view(), &[1; 20]).unwrap();
        assert_eq!((hopeless.standard_error, hopeless.interval(0.9).unwrap()), (None, None));
        assert!(hopeless.temperature.is_at_its_end() && !fit.temperature.is_at_its_end());
    }

    #[test]
    fn a_temperature_without_sharpening_is_one_where_the_items_ask_for_more() {
        let (logits, labels) = example(300, 4, 2.0);
        let fit = Temperature::fit(logits.view(), &labels).unwrap();
        assert!(fit.temperature.beta > 1.5);
        let bounded = fit.without_sharpening();
        assert_eq!((bounded.temperature.beta, bounded.nll_after), (1.0, bounded.nll_before));
        assert!(bounded.search.remark().unwrap().contains("300 training items give no reason"), "{}", bounded.search);
        let (logits, labels) = example(300, 4, 0.5);
        let fit = Temperature::fit(logits.view(), &labels).unwrap();
        assert_eq!(fit.clone().without_sharpening(), fit);
    }

    #[test]
    fn equal_margins_have_a_closed_form() {
        // C = 2, margins ±a, a share π right: β = ln(π/(1 − π))/a.
        for (margin, n_right) in [(4.0, 15), (0.5, 12), (30.0, 19)] {
            let logits = Array2::from_shape_fn((20, 2), |(i, c)| if (i % 2 == 0) == (c == 0) { margin } else { 0.0 });
            let labels: Vec<usize> = (0..20).map(|i| if i < n_right { i % 2 } else { 1 - i % 2 }).collect();
            let fit = Temperature::fit(logits.view(), &labels).unwrap();
            let odds = n_right as f64 / (20 - n_right) as f64;
            let expected = odds.ln() / margin;
            // Newton's last step is below 1e-14, the slope's rounding adds its share.
            assert!((fit.temperature.beta / expected - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn absent_classes_change_nothing() {
        let (logits, labels) = example(60, 3, 0.5);
        let mut wider = Array2::from_elem((60, 5), f64::NEG_INFINITY);
        // Item by item the present classes sit at other places.
        let place = |i: usize, c: usize| if i.is_multiple_of(2) { c } else { c + 2 };
        for ((i, c), &v) in logits.indexed_iter() {
            wider[[i, place(i, c)]] = v;
        }
        let moved: Vec<usize> = labels.iter().enumerate().map(|(i, &y)| place(i, y)).collect();
        let narrow = Temperature::fit(logits.view(), &labels).unwrap();
        let wide = Temperature::fit(wider.view(), &moved).unwrap();
        // The same numbers in the same order.
        assert_eq!(narrow, wide);
        let p = wide.temperature.apply_to_probabilities(softmax(wider.view()).view()).unwrap();
        assert!(p.iter().all(|p| p.is_finite()));
        assert_eq!(p[[0, 3]], 0.0);
    }

    #[test]
    fn post_form_is_the_tempered_softmax() {
        let (logits, labels) = example(40, 4, 0.6);
        let p = softmax(logits.view());
        let from_logits = Temperature::fit(logits.view(), &labels).unwrap().temperature;
        let from_p = Temperature::fit_probabilities(p.view(), &labels).unwrap().temperature;
        // Logits and log-probabilities differ by a shift per item, and in rounding.
        assert!((from_p.beta / from_logits.beta - 1.0).abs() < 1e-12);
        let direct = softmax((&logits * from_p.beta).view());
        let post = from_p.apply_to_probabilities(p.view()).unwrap();
        assert!(direct.iter().zip(&post).all(|(a, b)| (a - b).abs() < 1e-13));
        let unchanged = Temperature::new(1.0).unwrap().apply_to_probabilities(p.view()).unwrap();
        assert!(unchanged.iter().zip(&p).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn beliefs_are_scaled_whole() {
        let temperature = Temperature::new(0.5).unwrap();
        let gaussian = LogitBelief::Gaussian {
            mean: arr2(&[[2.0, f64::NEG_INFINITY]]),
            covariance: Array3::from_elem((1, 2, 2), 4.0),
            gauge: LogitGauge::Raw,
        };
        let expected = LogitBelief::Gaussian {
            mean: arr2(&[[1.0, f64::NEG_INFINITY]]),
            covariance: Array3::from_elem((1, 2, 2), 1.0),
            gauge: LogitGauge::Raw,
        };
        assert_eq!(temperature.apply(&gaussian).unwrap(), expected);
        let samples = LogitBelief::Samples { logits: Array3::from_elem((3, 1, 2), 2.0), log_weights: Array1::zeros(3) };
        let LogitBelief::Samples { logits, .. } = temperature.apply(&samples).unwrap() else {
            panic!("samples stay samples")
        };
        assert_eq!(logits, Array3::from_elem((3, 1, 2), 1.0));
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let logits = arr2(&[[0.0, f64::NEG_INFINITY]]);
        assert!(Temperature::fit(logits.view(), &[1]).is_err());
        assert!(Temperature::fit(logits.view(), &[2]).is_err());
        assert!(Temperature::fit(logits.view(), &[]).is_err());
        assert!(Temperature::fit(Array2::zeros((0, 2)).view(), &[]).is_err());
        let temperature = Temperature::new(1.0).unwrap();
        let error = temperature.apply_to_probabilities(arr2(&[[1.5, -0.5]]).view());
        assert_eq!(error.unwrap_err().to_string(), "probabilities[0, 1]: must be finite and at least 0, got -0.5");
        assert!(temperature.apply_to_probabilities(arr2(&[[0.0, 0.0]]).view()).is_err());
        for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Temperature::new(beta).is_err());
        }
    }
}
