//! Scores the fields of answers that are JSON objects.

use super::linearized::predict_linearized;
use super::texts::{TextScore, check_texts};
use crate::belief::LogitGauge;
use crate::data::{BatchLimits, StructuredText, TextDataset, TextExample};
use crate::error::{Error, Result};
use crate::models::{TextModel, TokenScore};
use crate::posterior::Laplace;
use crate::progress::Control;

/// What a model and its posterior say about one field of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldScore {
    /// `person.age`, `tags[1]`.
    pub path: String,
    /// The value's JSON.
    pub value: String,
    /// `ℓ_f = Σ_t log p(y_t | x, y_<t)` over the field's tokens at the trained adapter, in nats.
    pub log_likelihood: f64,
    /// Posterior standard deviation of `ℓ_f`, linearised; `None` without a posterior.
    pub standard_deviation: Option<f64>,
    /// The field's tokens one by one, at the trained adapter.
    pub tokens: Vec<TokenScore>,
    /// The field before it that has its only tokens: this one then has none, and nothing is said of it alone.
    pub within: Option<String>,
}

/// The fields of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldScores {
    /// In the order of the text.
    pub fields: Vec<FieldScore>,
    /// Log-likelihood of all other scored tokens: names, punctuation, the end token, earlier answers of a chat. With the fields' it sums to
    /// that of the whole.
    pub rest: f64,
}

/// Scores every field of texts that were scored as wholes.
///
/// ```text
/// ℓ = Σ_f ℓ_f + rest,      sd(ℓ_f) = √(J_f Σ J_fᵀ),      J_f = ∂ℓ_f/∂θ
/// ```
///
/// The standard deviations take one pass forward and backward a field, over the text up to the field's end. That a field is sure says nothing
/// of those before it: each is scored given what stands before it. Variances of fields do not sum to the whole's, for one doubt may move
/// several.
///
/// # Errors
/// As [`predict_linearized`]; [`Error::Count`] if the scores are not those of the texts; if the posterior is that of another likelihood than
/// of texts.
pub fn score_fields(
    model: &TextModel,
    laplace: Option<&Laplace>,
    texts: &[StructuredText],
    scores: &[TextScore],
    limits: &BatchLimits,
    control: &Control,
) -> Result<Vec<FieldScores>> {
    let count = |what: String, expected, found| {
        if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
    };
    count("scores of texts with fields".into(), texts.len(), scores.len())?;
    let (mut all, mut parts) = (Vec::with_capacity(texts.len()), Vec::new());
    for (text, score) in texts.iter().zip(scores) {
        let example = text.example();
        count(format!("scored tokens of text `{}`", example.id), example.n_scored(), score.tokens.len())?;
        let mut rest = score.log_likelihood;
        let mut fields = Vec::with_capacity(text.fields().len());
        for field in text.fields() {
            let places = example.scored_places().zip(&score.tokens);
            let own = places.filter(|(place, _)| field.tokens.contains(place));
            let (places, tokens): (Vec<usize>, Vec<TokenScore>) = own.map(|(place, token)| (place, *token)).unzip();
            let log_likelihood = tokens.iter().map(|token| token.log_probability).sum::<f64>();
            rest -= log_likelihood;
            if let (Some(first), Some(last)) = (places.first(), places.last()) {
                let scored = std::iter::once(*first..last + 1).collect();
                let (id, ids) = (format!("{}, {}", example.id, field.path), example.ids[..=*last].to_vec());
                parts.push(((all.len(), fields.len()), TextExample { id, ids, scored }));
            }
            let standard_deviation = laplace.map(|_| 0.0);
            let (path, value, within) = (field.path.clone(), field.value.clone(), field.within.clone());
            fields.push(FieldScore { path, value, log_likelihood, standard_deviation, tokens, within });
        }
        all.push(FieldScores { fields, rest });
    }
    let (Some(laplace), false) = (laplace, parts.is_empty()) else { return Ok(all) };
    check_texts(laplace)?;
    let (places, examples): (Vec<(usize, usize)>, Vec<TextExample>) = parts.into_iter().unzip();
    let data = TextDataset::new("fields", examples)?;
    let covariance = predict_linearized(model, laplace, &data, LogitGauge::Raw, limits, control)?.moments().1;
    for (item, (text, field)) in places.into_iter().enumerate() {
        all[text].fields[field].standard_deviation = Some(covariance[[item, 0, 0]].max(0.0).sqrt());
    }
    Ok(all)
}
