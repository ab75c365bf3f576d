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
use crate::number::significant;
use crate::tape::Site;

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

/// How prior precisions are found, from the training items alone.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub enum PriorChoice {
    /// Those with the most evidence, expanded about the trained adapter as if it were a mode.
    #[default]
    Evidence,
    /// Those with the most evidence at the own mode of the network linearised around the adapter
    /// ([`crate::posterior::LinearizedModel::optimal_prior`]). In what was measured it chose too wide a posterior over weights, and a good one
    /// over cores (docs/results/leave_one_out.md).
    EvidenceAtMode,
    /// Those under which the linearised network fits the training items as well as the network does
    /// ([`crate::posterior::LinearizedModel::matched_prior`]).
    Matched,
    /// The same; where no prior fits so, those with the most evidence, and the search for the other says so.
    MatchedOrEvidence,
    /// One for all weights, as given.
    Fixed(PriorPrecision),
}

impl PriorChoice {
    /// True if the training items' Jacobians are needed, beyond their curvature.
    pub fn needs_training_items(self) -> bool {
        self == Self::EvidenceAtMode || self.is_matched()
    }

    /// True if it is matched to the training fit, where that can be.
    pub fn is_matched(self) -> bool {
        matches!(self, Self::Matched | Self::MatchedOrEvidence)
    }
}

impl std::fmt::Display for PriorChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Evidence => f.write_str("by evidence"),
            Self::EvidenceAtMode => f.write_str("by evidence at the mode"),
            Self::Matched => f.write_str("matched to the training fit"),
            Self::MatchedOrEvidence => f.write_str("matched to the training fit, else by evidence"),
            Self::Fixed(precision) => write!(f, "{}", precision.value()),
        }
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

/// Which weights share a prior precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum PriorGrouping {
    /// All.
    #[default]
    Scalar,
    /// Those of a layer (`model.layers.3`).
    PerLayer,
    /// All A, and all B: the two are in different units.
    PerMatrix,
    /// Those of one matrix.
    PerSite,
}

impl PriorGrouping {
    /// Name of the group that a site belongs to.
    pub fn name(self, site: &Site) -> String {
        match self {
            Self::Scalar => "all".into(),
            Self::PerLayer => site.layer().into(),
            Self::PerMatrix => site.matrix.to_string(),
            Self::PerSite => site.to_string(),
        }
    }
}

/// One prior precision for all groups of weights, or one for each.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PriorPrecisions(Vec<PriorPrecision>);

impl PriorPrecisions {
    /// Takes one precision, or one for each group.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(values: Vec<PriorPrecision>) -> Result<Self> {
        if values.is_empty() {
            return Err(Error::empty("list of prior precisions"));
        }
        Ok(Self(values))
    }

    /// The precision of a group.
    pub fn of(&self, group: usize) -> PriorPrecision {
        if self.0.len() == 1 { self.0[0] } else { self.0[group] }
    }

    /// Checks that there is one, or one for each of `n_groups` groups.
    ///
    /// # Errors
    /// Names both counts.
    pub(crate) fn check_count(&self, n_groups: usize) -> Result<()> {
        match self.len() {
            1 => Ok(()),
            found if found == n_groups => Ok(()),
            found => Err(Error::Count { what: "prior precisions".into(), expected: n_groups, found }),
        }
    }

    /// Number of precisions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn values(&self) -> &[PriorPrecision] {
        &self.0
    }

    /// All of them times `factor`.
    ///
    /// # Errors
    /// If a product is not positive and finite.
    pub fn scaled(&self, factor: f64) -> Result<Self> {
        self.0.iter().map(|p| PriorPrecision::new(p.value() * factor)).collect::<Result<_>>().map(Self)
    }
}

impl From<PriorPrecision> for PriorPrecisions {
    fn from(value: PriorPrecision) -> Self {
        Self(vec![value])
    }
}

impl From<&PriorPrecisions> for PriorPrecisions {
    fn from(value: &PriorPrecisions) -> Self {
        value.clone()
    }
}

impl std::fmt::Display for PriorPrecisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = self.0.iter().map(|p| p.value());
        let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        match self.0.len() {
            1 => write!(f, "{}", significant(low)),
            n => write!(f, "{} to {} over {n} groups", significant(low), significant(high)),
        }
    }
}
