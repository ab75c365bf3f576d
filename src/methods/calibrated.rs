//! A calibrator behind any belief is a belief again: "Laplace, then a temperature" is a value and no method of its own.

use super::belief::{Belief, Needs};
use super::keep::{Keep, Kept};
use crate::belief::LogitBelief;
use crate::calibrate::{Calibration, Calibrator};
use crate::data::BatchLimits;
use crate::error::Result;
use crate::models::{Classifier, Dataset, known_labels};
use crate::progress::Control;
use ndarray::{Array1, Axis, CowArray};

/// A belief whose averaged probabilities go through a calibrator (its post form).
///
/// f = ln g(p̄),  p̄ = E[softmax f] of the belief within
///
/// What was known about the weights ends there: the answer is a [`LogitBelief::Point`], without mutual information. All is done in
/// logarithms, in which only a class that the item lacks is −∞. Averages are taken with the link of the belief within.
///
/// It is saved if the belief is, and the calibrator is one of [`Calibration`]; one that was calibrated twice is not.
///
/// ```
/// use bayes_lora::calibrate::Calibration;
/// use bayes_lora::data::BatchLimits;
/// use bayes_lora::methods::{Belief, CalibratedBelief, PointBelief};
/// use bayes_lora::models::{Mlp, MlpConfig, Points};
/// use bayes_lora::progress::Control;
/// use ndarray::arr2;
///
/// # #[cfg(feature = "flex")] {
/// let model = MlpConfig::new([2, 8, 2]).init(&burn::tensor::Device::flex())?;
/// let (limits, control) = (BatchLimits { max_items: 8, max_tokens: 100 }, Control::silent());
/// // one point with both labels: the honest confidence is ½
/// let held_out = Points::new(arr2(&[[0.3, 1.0], [0.3, 1.0]]), vec![0, 1])?;
/// let belief = Box::new(PointBelief);
/// let honest =
///     CalibratedBelief::<Mlp, Points>::fit(belief, &model, &held_out, Calibration::Temperature, &limits, &control)?;
/// let p = honest.believe(&model, &held_out, &limits, &control)?.probabilities(honest.link())?;
/// assert!((p[[0, 0]] - 0.5).abs() < 0.01);
/// # }
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
///
/// Guo et al. (2017), arXiv 1706.04599.
pub struct CalibratedBelief<M: Classifier, D: Dataset<Input = M::Input>> {
    /// What is calibrated.
    pub belief: Box<dyn Belief<M, D>>,
    /// The map g from its averaged probabilities to better ones.
    pub calibrator: Box<dyn Calibrator>,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> CalibratedBelief<M, D> {
    /// Asks `belief` about labelled items that neither training nor the choice of anything else has seen, and fits a calibrator
    /// to its answers.
    ///
    /// The labels are spent: do not score on these items, and count them in [`Spent::labelled`](super::Spent::labelled).
    ///
    /// # Errors
    /// If an item has no label or one that is no class, or as [`Belief::believe`] and [`Calibration::fit`].
    pub fn fit(
        belief: Box<dyn Belief<M, D>>,
        model: &M,
        held_out: &D,
        calibration: Calibration,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Self> {
        let labels = known_labels(held_out, model.n_classes())?;
        let averaged = belief.believe(model, held_out, limits, control)?.log_probabilities(belief.link())?;
        let calibrator = calibration.fit_logs(averaged.view(), &labels)?;
        Ok(Self { belief, calibrator })
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Belief<M, D> for CalibratedBelief<M, D> {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        let averaged = self.belief.believe(model, data, limits, control)?.log_probabilities(self.belief.link())?;
        Ok(LogitBelief::Point { logits: self.calibrator.apply_to_log_probabilities(averaged.view())? })
    }

    fn needs(&self, data: &D, n_classes: usize) -> Needs {
        self.belief.needs(data, n_classes)
    }

    // `linearized` stays `None`: what is predicted around that posterior would not go through the calibrator.
}

/// What a calibrated belief is, `of` the kind of the belief within.
pub(super) const CALIBRATED: &str = "calibrated answers";
const CALIBRATION: &str = "calibration";
const PARAMETERS: &str = "parameters of the calibrator";
const END: &str = "end of the calibrator's search";

impl<M: Classifier, D: Dataset<Input = M::Input>> Keep for CalibratedBelief<M, D> {
    fn keep(&self) -> Option<Kept<'_>> {
        let calibration = self.calibrator.calibration()?;
        let kept = self.belief.keep().filter(|kept| !kept.kind.starts_with(CALIBRATED))?;
        let kept = kept.within(CALIBRATED).with_setting(CALIBRATION, calibration);
        let mut kept = kept.with_setting(END, self.calibrator.search_end());
        let parameters: Array1<f64> = self.calibrator.parameters().into_iter().map(|(_, value)| value).collect();
        kept.matrices.insert(PARAMETERS.into(), CowArray::from(parameters.insert_axis(Axis(0))));
        Some(kept)
    }
}

/// Takes the calibrator out of what a calibrated belief keeps; the belief within is left.
///
/// # Errors
/// If it is missing or out of range.
pub(super) fn take_calibrator(kept: &mut Kept) -> Result<Box<dyn Calibrator>> {
    let (calibration, end): (Calibration, _) = (kept.take_setting(CALIBRATION)?, kept.take_setting(END)?);
    calibration.with_parameters(&kept.take_matrix(PARAMETERS)?.into_flat().to_vec(), end)
}
