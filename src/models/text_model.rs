//! Reads the log-likelihood of texts out of a language model.

use super::activation::log_sum_exp;
use super::causal_lm::CausalLm;
use super::classifier::{Classifier, OwnTargets, TargetDraws};
use super::language_model::LanguageModel;
use super::scored_tokens::{log_probabilities, log_probabilities_of};
use super::text_batch::TextBatch;
use super::through::adaptable_through;
use crate::belief::class_at;
use crate::draws::{Purpose, generator, within};
use crate::error::{Error, Result};
use crate::lora::to_array;
use crate::memory::Activations;
use crate::tape::Tape;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use ndarray::ArrayView1;
use rand::{Rng, RngExt};
use std::convert::Infallible;
use std::ops::Range;

/// A language model whose output for a text is `ℓ = Σ_t log p(y_t | x, y_<t)` over the text's scored tokens: one output an item, to go
/// with the likelihood [`NextToken`](crate::likelihood::NextToken).
#[derive(Module, Debug)]
pub struct TextModel {
    /// The language model.
    pub lm: CausalLm,
}

impl TargetDraws {
    /// # Errors
    /// If there is not one draw for each text.
    fn check(&self, batch: &TextBatch) -> Result<()> {
        if self.items.len() == batch.texts().len() {
            return Ok(());
        }
        let (expected, found) = (batch.texts().len(), self.items.len());
        Err(Error::Count { what: "draws of a batch's own targets".into(), expected, found })
    }
}

/// What the model says about one scored token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub id: u32,
    /// `log p(y_t | x, y_<t)` in nats.
    pub log_probability: f64,
    /// Entropy of `p(· | x, y_<t)` in nats.
    pub entropy: f64,
}

impl TextModel {
    /// Scores texts with `lm`.
    pub fn new(lm: CausalLm) -> Self {
        Self { lm }
    }

    /// Hidden states before the scored tokens, `[n, hidden]`.
    fn predicting(&self, batch: &TextBatch, tape: &mut Tape) -> Tensor<2> {
        self.lm.hidden_at(&batch.tokens, &batch.predictors, tape)
    }

    /// ℓ of each text, from the hidden states before its scored tokens.
    fn log_likelihoods(&self, predicting: Tensor<2>, batch: &TextBatch, tape: &mut Tape) -> Tensor<2> {
        batch.sum_over_texts(log_probabilities(&self.lm, predicting, &batch.targets, tape))
    }

    /// ℓ of each text for tokens that are drawn in the place of its scored ones, from the hidden states before these.
    fn drawn(
        &self,
        predicting: Tensor<2>,
        batch: &TextBatch,
        draws: &TargetDraws,
        tape: &mut Tape,
    ) -> Result<OwnTargets> {
        let mut observed: Vec<Tensor<2>> = Vec::new();
        let choose = |range: Range<usize>, logits: &Tensor<2>| {
            let log_p = logits.clone() - log_sum_exp(logits.clone());
            observed.push(log_p.clone().gather(1, batch.targets.clone().narrow(0, range.start, range.len())));
            let p = to_array(log_p.exp())?;
            let draw = |(place, p): (&(usize, usize), ArrayView1<f64>)| {
                let (row, t) = *place;
                let (key, index) = draws.items[row];
                let mut rng = generator(draws.seed, Purpose::SampledFisher, within(key, t as u64), index);
                drawn_token(p, &mut rng) as i64
            };
            let ids: Vec<i64> = batch.places[range.clone()].iter().zip(p.outer_iter()).map(draw).collect();
            Ok::<_, Error>(Tensor::<2, Int>::from_data(TensorData::new(ids, [range.len(), 1]), &logits.device()))
        };
        let drawn = batch.sum_over_texts(log_probabilities_of(&self.lm, predicting, tape, choose)?);
        Ok(OwnTargets { observed: batch.sum_over_texts(Tensor::cat(observed, 0)), drawn })
    }

    /// Log-probability and entropy at every scored token, text after text.
    ///
    /// # Errors
    /// If the batch does not fit the model, or a copy from the device fails.
    pub fn token_scores(&self, batch: &TextBatch) -> Result<Vec<Vec<TokenScore>>> {
        self.check(batch)?;
        let mut entropies: Vec<Tensor<2>> = Vec::new();
        let entropy = |range: Range<usize>, logits: &Tensor<2>| {
            let log_p = logits.clone() - log_sum_exp(logits.clone());
            entropies.push((log_p.clone().exp() * log_p).sum_dim(1).neg());
            Ok::<_, Infallible>(batch.targets.clone().narrow(0, range.start, range.len()))
        };
        let hidden = self.predicting(batch, &mut Tape::off());
        let log_p = log_probabilities_of(&self.lm, hidden, &mut Tape::off(), entropy);
        let log_p = to_array(log_p.unwrap_or_else(|never| match never {}).without_autodiff())?;
        let entropies = to_array(Tensor::cat(entropies, 0))?;
        let mut all: Vec<Vec<TokenScore>> = vec![Vec::new(); batch.texts().len()];
        for (j, &(row, t)) in batch.places.iter().enumerate() {
            let id = batch.texts()[row].ids[t];
            all[row].push(TokenScore { id, log_probability: log_p[[j, 0]], entropy: entropies[[j, 0]] });
        }
        Ok(all)
    }
}

adaptable_through!([] TextModel, lm);

impl Classifier for TextModel {
    type Input = TextBatch;

    /// One output, ℓ.
    fn n_classes(&self) -> usize {
        1
    }

    fn check(&self, batch: &TextBatch) -> Result<()> {
        if batch.is_packed() && self.lm.rotates_by_length() {
            return Err(Error::Incompatible(
                "several texts share a row (packing), but the model's rotation depends on the length of a row (`longrope`)".into(),
            ));
        }
        batch.tokens.check_fits(self.lm.config().vocab_size, self.lm.config().max_positions)
    }

    fn logits(&self, batch: &TextBatch, tape: &mut Tape) -> Tensor<2> {
        self.log_likelihoods(self.predicting(batch, tape), batch, tape)
    }

    fn unit_log_densities(&self, batch: &TextBatch, tape: &mut Tape) -> Option<Tensor<2>> {
        let hidden = self.predicting(batch, tape);
        Some(log_probabilities(&self.lm, hidden, &batch.targets, tape))
    }

    fn gradient(
        &self,
        batch: &TextBatch,
        tape: &mut Tape,
        by_layers: bool,
        loss: &mut dyn FnMut(Tensor<2>) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        let loss = |hidden, tape: &mut Tape| loss(self.log_likelihoods(hidden, batch, tape));
        self.lm.gradient(self, (&batch.tokens, &batch.predictors), tape, by_layers, loss)
    }

    /// One token drawn from `p(· | x, y_<t)` in the place of each scored one; what stands before it stays that of the text.
    ///
    /// The scores of different places have no correlation, so that the square of a text's score has the mean `Σ_t` of the places' Fisher
    /// informations: one backward pass a draw, for all places together.
    fn own_targets(&self, batch: &TextBatch, draws: &TargetDraws, tape: &mut Tape) -> Result<Option<OwnTargets>> {
        draws.check(batch)?;
        let hidden = self.predicting(batch, tape);
        self.drawn(hidden, batch, draws, tape).map(Some)
    }

    fn own_targets_by_layers(
        &self,
        batch: &TextBatch,
        draws: &TargetDraws,
        tape: &mut Tape,
        loss: &mut dyn FnMut(OwnTargets) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        draws.check(batch)?;
        let loss = |hidden, tape: &mut Tape| loss(self.drawn(hidden, batch, draws, tape)?);
        self.lm.gradient_by_layers(self, (&batch.tokens, &batch.predictors), tape, loss).map(Some)
    }

    fn activations(&self, batch: &TextBatch, _combinations: Option<usize>) -> Option<Activations> {
        let [rows, tokens] = batch.tokens.ids.dims();
        LanguageModel::activations(&self.lm, rows, tokens)
    }
}

/// A token by its probabilities, which need not sum to 1 exactly.
fn drawn_token(p: ArrayView1<f64>, rng: &mut impl Rng) -> usize {
    class_at(p, rng.random::<f64>() * p.sum())
}
