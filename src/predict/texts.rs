//! Scores texts: how probable a model finds them, and how sure the posterior is of that.

use super::linearized::predict_linearized;
use crate::batches::for_each_batch;
use crate::belief::{LogitBelief, LogitGauge};
use crate::data::{BatchLimits, BatchOrder, TextDataset};
use crate::error::{Error, Result};
use crate::models::{Dataset, TextModel, TokenScore, batch_for};
use crate::posterior::Laplace;
use crate::progress::Control;

/// What a model and its posterior say about one text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextScore {
    /// `ℓ = Σ_t log p(y_t | x, y_<t)` at the trained adapter, in nats.
    pub log_likelihood: f64,
    /// Posterior standard deviation of ℓ, linearised: `√(J Σ Jᵀ)` with `J = ∂ℓ/∂θ`.
    pub standard_deviation: f64,
    /// The scored tokens one by one, at the trained adapter.
    pub tokens: Vec<TokenScore>,
}

impl TextScore {
    /// `ℓ` over the number of scored tokens.
    pub fn per_token(&self) -> f64 {
        self.log_likelihood / self.tokens.len() as f64
    }

    /// Mean entropy of the next-token distributions, in nats.
    pub fn mean_entropy(&self) -> f64 {
        self.tokens.iter().map(|token| token.entropy).sum::<f64>() / self.tokens.len() as f64
    }
}

/// Scores the texts of `data`, in its order: one pass forward and backward for ℓ and its variance, and one forward for the tokens.
///
/// # Errors
/// As [`predict_linearized`]; if the posterior is that of another likelihood than of texts.
pub fn score_texts(
    model: &TextModel,
    laplace: &Laplace,
    data: &TextDataset,
    limits: &BatchLimits,
    control: &Control,
) -> Result<Vec<TextScore>> {
    check_texts(laplace)?;
    let belief = predict_linearized(model, laplace, data, LogitGauge::Raw, limits, control)?;
    let LogitBelief::Gaussian { mean, covariance, .. } = belief else {
        return Err(Error::Incompatible("a linearised belief is Gaussian".into()));
    };
    let mut tokens = vec![Vec::new(); data.len()];
    let work = |indices: &[usize]| model.token_scores(&batch_for(model, data, indices)?);
    for_each_batch(
        "tokens",
        &Dataset::plan(data, *limits, BatchOrder::ByLength)?,
        control,
        work,
        |indices, scores| {
            for (&item, scores) in indices.iter().zip(scores) {
                tokens[item] = scores;
            }
            Ok(())
        },
    )?;
    let score = |(item, tokens): (usize, Vec<TokenScore>)| TextScore {
        log_likelihood: mean[[item, 0]],
        standard_deviation: covariance[[item, 0, 0]].max(0.0).sqrt(),
        tokens,
    };
    Ok(tokens.into_iter().enumerate().map(score).collect())
}

/// Checks that a posterior is one of texts.
///
/// # Errors
/// Names its likelihood.
pub(super) fn check_texts(laplace: &Laplace) -> Result<()> {
    if laplace.likelihood().draws_in_model() {
        return Ok(());
    }
    Err(Error::Incompatible(format!(
        "the posterior is that of the likelihood `{}`, not of texts (`NextToken`)",
        laplace.likelihood()
    )))
}
