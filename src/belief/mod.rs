//! Holds what a method says about the logits of a batch of items.
//!
//! Every way of predicting answers with one value, [`LogitBelief`]; metrics, calibration and plots read only that.
//!
//! ```
//! use bayes_lora::belief::{LinkApprox, LogitBelief, LogitGauge};
//! use ndarray::{arr2, arr3};
//!
//! let belief = LogitBelief::Gaussian {
//!     mean: arr2(&[[2.0, 0.0]]),
//!     covariance: arr3(&[[[4.0, 0.0], [0.0, 4.0]]]),
//!     gauge: LogitGauge::Raw,
//! };
//! let p = belief.probabilities(LinkApprox::GaussHermite { points: 32 })?;
//! let confident = LogitBelief::Point { logits: arr2(&[[2.0, 0.0]]) };
//! let q = confident.probabilities(LinkApprox::default())?;
//! assert!(p[[0, 0]] < q[[0, 0]]); // uncertainty lowers confidence
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod entropy;
mod gauge;
mod link;
mod loss;
mod output_draws;
mod softmax;

pub use entropy::Decomposition;
pub(crate) use entropy::entropy;
pub(crate) use gauge::pad_classes;
pub use gauge::{LogitGauge, centre_covariance, contrasts_to_classes};
pub use link::LinkApprox;
pub use loss::{item_loss, item_losses};
pub(crate) use softmax::{class_at, log_sum_exp};
pub use softmax::{log_softmax, softmax, top_class};

use crate::error::{Error, Result};
use ndarray::{Array1, Array2, Array3, Axis, concatenate, s};

/// What a method says about the logits of `n_items` items over `n_classes` classes.
///
/// A class that an item does not have carries the logit −∞ (and zero covariance).
#[derive(Debug, Clone, PartialEq)]
pub enum LogitBelief {
    /// One value: the network at one setting of its weights.
    Point {
        /// `[n_items, n_classes]`
        logits: Array2<f64>,
    },
    /// Weighted draws of the whole network.
    Samples {
        /// `[n_samples, n_items, n_classes]`
        logits: Array3<f64>,
        /// `[n_samples]`, unnormalised log weights.
        log_weights: Array1<f64>,
    },
    /// A Gaussian over the logits of each item. A common shift of an item's logits does not change its probabilities, so that
    /// the covariance may be that of `f − mean_c f_c` alone: its gauge says so.
    Gaussian {
        /// `[n_items, n_classes]`
        mean: Array2<f64>,
        /// `[n_items, n_classes, n_classes]`
        covariance: Array3<f64>,
        /// Which covariance it is.
        gauge: LogitGauge,
    },
}

impl LogitBelief {
    /// Number of items.
    pub fn n_items(&self) -> usize {
        match self {
            Self::Point { logits } => logits.nrows(),
            Self::Samples { logits, .. } => logits.len_of(Axis(1)),
            Self::Gaussian { mean, .. } => mean.nrows(),
        }
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        match self {
            Self::Point { logits } => logits.ncols(),
            Self::Samples { logits, .. } => logits.len_of(Axis(2)),
            Self::Gaussian { mean, .. } => mean.ncols(),
        }
    }

    /// Mean `[n_items, n_classes]` and covariance `[n_items, n_classes, n_classes]` of the logits.
    ///
    /// Of samples these are the weighted empirical moments (divided by the total weight, no small-sample correction);
    /// a point has zero covariance.
    pub fn moments(&self) -> (Array2<f64>, Array3<f64>) {
        match self {
            Self::Point { logits } => {
                let (n, c) = logits.dim();
                (logits.clone(), Array3::zeros((n, c, c)))
            }
            Self::Gaussian { mean, covariance, .. } => (mean.clone(), covariance.clone()),
            Self::Samples { logits, log_weights } => {
                let weights = softmax(log_weights.view().insert_axis(Axis(0)));
                let (n_samples, n, c) = logits.dim();
                let mut mean = Array2::zeros((n, c));
                // a draw without weight may hold −∞, and 0·−∞ is not a number
                let weighted: Vec<usize> = (0..n_samples).filter(|&k| weights[[0, k]] > 0.0).collect();
                for &k in &weighted {
                    mean.scaled_add(weights[[0, k]], &logits.slice(s![k, .., ..]));
                }
                let mut covariance = Array3::zeros((n, c, c));
                for &k in &weighted {
                    for i in 0..n {
                        for a in (0..c).filter(|&a| mean[[i, a]].is_finite()) {
                            for b in (0..c).filter(|&b| mean[[i, b]].is_finite()) {
                                covariance[[i, a, b]] += weights[[0, k]]
                                    * (logits[[k, i, a]] - mean[[i, a]])
                                    * (logits[[k, i, b]] - mean[[i, b]]);
                            }
                        }
                    }
                }
                (mean, covariance)
            }
        }
    }

    /// The belief with every logit multiplied by the inverse temperature `beta > 0`.
    pub fn tempered(&self, beta: f64) -> Self {
        match self {
            Self::Point { logits } => Self::Point { logits: logits * beta },
            Self::Samples { logits, log_weights } => {
                Self::Samples { logits: logits * beta, log_weights: log_weights.clone() }
            }
            Self::Gaussian { mean, covariance, gauge } => {
                Self::Gaussian { mean: mean * beta, covariance: covariance * (beta * beta), gauge: *gauge }
            }
        }
    }

    /// The belief with its covariance multiplied by `factor > 0`: a Gaussian only.
    ///
    /// # Errors
    /// If it is not a Gaussian, or the factor is not positive and finite.
    pub fn widened(&self, factor: f64) -> Result<Self> {
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(Error::config("covariance factor", "positive and finite", factor));
        }
        match self {
            Self::Gaussian { mean, covariance, gauge } => {
                Ok(Self::Gaussian { mean: mean.clone(), covariance: covariance * factor, gauge: *gauge })
            }
            _ => Err(Error::Incompatible("only a Gaussian belief has a covariance to widen".into())),
        }
    }

    /// Joins the beliefs of consecutive batches, in order.
    ///
    /// # Errors
    /// If there is none, or if they differ in kind, classes, sample weights or gauge.
    pub fn concatenate(parts: &[LogitBelief]) -> Result<Self> {
        let first = parts.first().ok_or_else(|| Error::empty("list of beliefs"))?;
        let differ = || Error::Incompatible("beliefs of different kinds or sizes cannot be joined".into());
        match first {
            Self::Point { .. } => {
                let views = parts
                    .iter()
                    .map(|p| match p {
                        Self::Point { logits } => Ok(logits.view()),
                        _ => Err(differ()),
                    })
                    .collect::<Result<Vec<_>>>()?;
                Ok(Self::Point { logits: concatenate(Axis(0), &views).map_err(|_| differ())? })
            }
            Self::Samples { log_weights, .. } => {
                let views = parts
                    .iter()
                    .map(|p| match p {
                        Self::Samples { logits, log_weights: w } if w == log_weights => Ok(logits.view()),
                        _ => Err(differ()),
                    })
                    .collect::<Result<Vec<_>>>()?;
                Ok(Self::Samples {
                    logits: concatenate(Axis(1), &views).map_err(|_| differ())?,
                    log_weights: log_weights.clone(),
                })
            }
            Self::Gaussian { gauge, .. } => {
                let (mut means, mut covariances) = (Vec::new(), Vec::new());
                for part in parts {
                    match part {
                        Self::Gaussian { mean, covariance, gauge: other } if other == gauge => {
                            means.push(mean.view());
                            covariances.push(covariance.view());
                        }
                        _ => return Err(differ()),
                    }
                }
                Ok(Self::Gaussian {
                    mean: concatenate(Axis(0), &means).map_err(|_| differ())?,
                    covariance: concatenate(Axis(0), &covariances).map_err(|_| differ())?,
                    gauge: *gauge,
                })
            }
        }
    }

    /// The belief about the items at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        match self {
            Self::Point { logits } => Self::Point { logits: logits.select(Axis(0), indices) },
            Self::Samples { logits, log_weights } => {
                Self::Samples { logits: logits.select(Axis(1), indices), log_weights: log_weights.clone() }
            }
            Self::Gaussian { mean, covariance, gauge } => Self::Gaussian {
                mean: mean.select(Axis(0), indices),
                covariance: covariance.select(Axis(0), indices),
                gauge: *gauge,
            },
        }
    }
}
