//! States how a target depends on the model's outputs: one object that training, curvature, evidence, tuning on held-out items
//! and prediction all ask.
//!
//! A [`Likelihood`] speaks about **one unit of data** (see [`Likelihood::unit`]): the outputs `f` that the model gives for it, and its
//! [`Target`] `y`. Sums over units are the caller's: sums, never means, and in nats. It knows nothing of tensors: training
//! differentiates the outputs on the device with the score that the likelihood gives on the host in f64.
//!
//! An output that a unit does not have is **−∞** on the host. It counts for nothing: neither in the density, nor in its
//! normalising constant, nor in the Fisher information.
//!
//! | | target | `log p(y \| f)` | `Λ` |
//! |---|---|---|---|
//! | [`Categorical`] | a class | `log softmax(f)_y` | `diag(p) − p pᵀ` |
//! | [`Gaussian`] | real values, or one-hot of a class | `−½ Σ_c [(y_c − f_c)²/σ² + ln 2πσ²]` | `I/σ²` |
//! | [`NextToken`] | the rest of a text | the output, `ℓ = Σ_t log p(y_t \| x, y_<t)` | drawn inside the model |
//!
//! Preferences need none of their own: of two answers with rewards `r_A`, `r_B` as outputs, Bradley and Terry's `σ(r_A − r_B)` is
//! `softmax(r)_A` (`models::RewardModel`).
//!
//! Another likelihood is one file that implements the trait, and one line in the list of `registry.rs` by which files that name it are
//! read ([`register`] does the same for a likelihood of your own).
//!
//! ```
//! use bayes_lora::likelihood::{Categorical, Likelihood, Target};
//! use ndarray::arr1;
//! let outputs = arr1(&[0.0, 0.0, f64::NEG_INFINITY]); // this item has two of three classes
//! let fisher = Categorical.fisher(outputs.view());
//! assert!((fisher[[0, 0]] - 0.25).abs() < 1e-15 && (fisher[[0, 1]] + 0.25).abs() < 1e-15);
//! assert_eq!(fisher[[2, 2]], 0.0);
//! let nll = -Categorical.log_density(outputs.view(), &Target::Class(1));
//! assert!((nll - 2f64.ln()).abs() < 1e-15);
//! ```

mod categorical;
mod density;
mod gaussian;
mod moments;
mod next_token;
mod registry;
mod settings;
mod shared;
mod target;

pub use categorical::{Categorical, categorical_fisher};
pub use density::Likelihood;
pub use gaussian::Gaussian;
pub use moments::TargetMoments;
pub use next_token::NextToken;
pub use registry::{Restore, register};
pub use settings::Settings;
pub use shared::SharedLikelihood;
pub use target::{Target, TargetSpace};
