//! Holds the temperatures of a posterior's answers.

use crate::belief::LogitBelief;
use crate::search::Search;

/// Inverse temperatures β ≤ 1 of answers: outputs f become βf, with covariance β²S.
///
/// One for the trained adapter alone, one for the posterior around it, whose width softens answers already. They are found on the
/// training items by leaving each of them out ([`LeaveOneOut::answer_temperatures`](super::LeaveOneOut::answer_temperatures)).
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerTemperatures {
    /// Of the trained adapter alone.
    pub network: Search,
    /// Of the posterior, linearised or sampled.
    pub posterior: Search,
}

impl AnswerTemperatures {
    /// The belief at its temperature.
    pub(super) fn apply(&self, belief: &LogitBelief) -> LogitBelief {
        belief.tempered(match belief {
            LogitBelief::Point { .. } => self.network.value,
            LogitBelief::Samples { .. } | LogitBelief::Gaussian { .. } => self.posterior.value,
        })
    }
}
