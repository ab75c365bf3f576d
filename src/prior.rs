//! Describes the Gaussian prior `N(μ, λ⁻¹ I)` over the adapter's weights.
//!
//! ```
//! use bayes_lora::prior::PriorPrecision;
//! let prior = PriorPrecision::new(10.0)?;
//! assert_eq!(prior.variance(), 0.1);
//! assert!(PriorPrecision::new(0.0).is_err());
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

use crate::error::{Error, Result};

/// A scalar prior precision λ > 0, the same for every weight of the adapter.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, serde::Serialize, serde::Deserialize)]
pub struct PriorPrecision(f64);

impl PriorPrecision {
    /// Takes a precision.
    ///
    /// # Errors
    /// If it is not positive and finite.
    pub fn new(value: f64) -> Result<Self> {
        if value > 0.0 && value.is_finite() {
            Ok(Self(value))
        } else {
            Err(Error::config("prior precision", "positive and finite", value))
        }
    }

    /// The precision λ.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The variance σ² = 1/λ.
    pub fn variance(self) -> f64 {
        1.0 / self.0
    }
}

/// Where the prior is centred.
///
/// PEFT starts `A` at random and `B` at zero. Around μ = 0 most of `‖θ* − μ‖²` is that random start, which says nothing
/// about the data, and the evidence then asks for too wide a posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum PriorMean {
    /// μ = the random start where it is known, else 0 (an adapter read from files).
    #[default]
    InitialIfKnown,
    /// μ = the random start (A as drawn, B = 0). Refused where it is unknown.
    Initial,
    /// μ = 0.
    Zero,
}
