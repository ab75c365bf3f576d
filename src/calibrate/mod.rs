//! Repairs the confidence of predictions with labelled held-out items.
//!
//! - [`Temperature`]: one number that flattens or sharpens every prediction; never changes which class is on top.
//! - [`VectorScaling`]: a weight and a bias per class; can change it.
//! - [`ConformalSets`]: sets of classes that hold the true one with a chosen probability; changes no probability.
//! - [`Abstention`]: the confidence below which answers would be wrong too often; no answer is given there.
//!
//! The first two are a [`Calibrator`], the others a [`SetPredictor`]; both take averaged probabilities of any method.
//!
//! All spend **labels** that neither training nor the evidence of a posterior has seen. Fit them on a split that the
//! adapter was not trained on, and never on the items on which the result is scored.
//!
//! ```
//! use bayes_lora::calibrate::{Calibrator, Temperature};
//! use ndarray::arr2;
//!
//! // Four held-out items at the same margin, three of them right: the honest confidence is ¾.
//! let logits = arr2(&[[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]]);
//! let fit = Temperature::fit(logits.view(), &[0, 0, 1, 1])?;
//! assert!(fit.search.is_inside());
//! assert!((fit.temperature.beta - 3f64.ln() / 4.0).abs() < 1e-12);
//!
//! let overconfident = arr2(&[[0.98, 0.02]]);
//! let honest = fit.temperature.apply_to_probabilities(overconfident.view())?;
//! assert!(honest[[0, 0]] < 0.98);
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod abstention;
mod calibrator;
mod conformal;
mod held_out;
mod log_probabilities;
mod set_predictor;
mod temperature;
mod temperature_search;
mod threshold;
mod vector;
mod vector_newton;

pub use abstention::Abstention;
pub use calibrator::{Calibration, Calibrator};
pub use conformal::{ConformalScore, ConformalSets};
pub use set_predictor::{AbstentionSettings, ConformalSettings, SetAnswer, SetPredictor, SetTally, halves};
pub use temperature::{Temperature, TemperatureFit};
pub use vector::{DEFAULT_RIDGE, VectorScaling, VectorScalingFit};
