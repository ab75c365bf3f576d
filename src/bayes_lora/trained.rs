//! A trained adapter whose posterior failed: it is handed back with the reason.

use crate::error::{Error, Result};
use crate::lora::{LoraConfig, save_peft};
use crate::models::Classifier;
use crate::train::TrainReport;
use std::fmt;
use std::path::Path;

/// A trained adapter without a posterior.
#[derive(Debug, Clone)]
pub struct Trained<M> {
    /// The model at the trained adapter.
    pub model: M,
    /// The model at the epoch with the best validation NLL, where there was validation.
    pub best_validation: Option<M>,
    /// What happened during training, where there was any.
    pub report: Option<TrainReport>,
    /// The adapter's configuration.
    pub lora: LoraConfig,
}

impl<M: Classifier> Trained<M> {
    /// Saves the adapter as PEFT does; `base_model` is the name under which PEFT finds the base.
    ///
    /// # Errors
    /// As [`save_peft`].
    pub fn save(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        save_peft(&self.model, &self.lora, base_model, dir)
    }
}

/// Why there is no posterior, with the adapter if it was trained by then: a curvature that is zero, a memory limit or a disk must not
/// cost the hours before.
///
/// `?` turns it into a boxed error; [`FitError::into_reason`] into the [`Error`] alone, where nobody wants the adapter.
///
/// ```
/// # use bayes_lora::{BayesLoraConfig, curvature::CurvatureConfig, lora::LoraConfig};
/// # use bayes_lora::models::{MlpConfig, Points};
/// # fn run(out: &std::path::Path) -> bayes_lora::Result<()> {
/// # #[cfg(feature = "flex")] {
/// # let model = MlpConfig::new([2, 4, 2]).init(&burn::tensor::Device::flex())?;
/// # let points = Points::new(ndarray::array![[0.0, 1.0], [1.0, 0.0]], vec![0, 1])?;
/// let tight = CurvatureConfig::default().with_memory_limit(1);
/// let bayes = BayesLoraConfig::new(LoraConfig::new(1)).with_curvature(tight).init()?;
/// let error = bayes.fit(model, &points).err().expect("one byte is too little");
/// let trained = error.trained.expect("the training went well");
/// trained.save(out, "a perceptron")?;
/// # }
/// # Ok(()) }
/// # let out = std::env::temp_dir().join(format!("bayes-lora-trained-{}", std::process::id()));
/// # run(&out)?;
/// # std::fs::remove_dir_all(&out).ok();
/// # Ok::<(), bayes_lora::Error>(())
/// ```
pub struct FitError<M> {
    /// What went wrong.
    pub reason: Error,
    /// The adapter, unless it failed before it was trained.
    pub trained: Option<Box<Trained<M>>>,
}

impl<M> FitError<M> {
    /// The reason alone, for `map_err`; the adapter is dropped. There is no `From` for it: a second source of [`Error`] would leave `?`
    /// ambiguous in every closure that names no type.
    pub fn into_reason(self) -> Error {
        self.reason
    }
}

impl<M> fmt::Display for FitError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trained {
            None => write!(f, "{}", self.reason),
            Some(_) => write!(f, "the adapter is trained, but has no posterior: {}", self.reason),
        }
    }
}

impl<M> fmt::Debug for FitError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_trained = self.trained.is_some();
        f.debug_struct("FitError").field("reason", &self.reason).field("is_trained", &is_trained).finish()
    }
}

impl<M> std::error::Error for FitError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl<M> From<Error> for FitError<M> {
    /// Of a failure before there was a trained adapter.
    fn from(reason: Error) -> Self {
        Self { reason, trained: None }
    }
}
