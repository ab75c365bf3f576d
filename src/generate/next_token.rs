//! The distribution of the next token, averaged over the draws of an adapter.

use super::answer::Token;
use crate::belief::{Decomposition, LinkApprox, LogitBelief};
use crate::error::{Result, check_finite};
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis};

/// What comes next in several rows.
pub(super) struct NextTokens {
    /// `log p̄`, `[rows, vocabulary]`
    log_probabilities: Array2<f64>,
    entropies: Decomposition,
}

impl NextTokens {
    /// Of the logits of every draw, `[draws, rows, vocabulary]`.
    ///
    /// # Errors
    /// If one is not finite.
    pub(super) fn new(logits: &Array3<f64>) -> Result<Self> {
        check_finite("logits of the next token", logits.iter().map(|v| v.is_finite()))?;
        let belief = belief(logits);
        let link = LinkApprox::default();
        Ok(Self { log_probabilities: belief.log_probabilities(link)?, entropies: belief.decompose(link)? })
    }

    pub(super) fn log_probabilities(&self, row: usize) -> ArrayView1<'_, f64> {
        self.log_probabilities.row(row)
    }

    /// The token of this id, with what the distribution says of it.
    pub(super) fn token(&self, row: usize, id: u32) -> Token {
        Token {
            id,
            log_probability: self.log_probabilities[[row, id as usize]],
            total: self.entropies.total[row],
            expected: self.entropies.expected[row],
            epistemic: self.entropies.epistemic[row],
        }
    }
}

/// `log p̄` of logits that a penalty has changed, `[draws, rows, vocabulary]` to `[rows, vocabulary]`.
pub(super) fn averaged(logits: &Array3<f64>) -> Result<Array2<f64>> {
    belief(logits).log_probabilities(LinkApprox::default())
}

fn belief(logits: &Array3<f64>) -> LogitBelief {
    match logits.len_of(Axis(0)) {
        1 => LogitBelief::Point { logits: logits.index_axis(Axis(0), 0).to_owned() },
        n => LogitBelief::Samples { logits: logits.clone(), log_weights: Array1::zeros(n) },
    }
}
