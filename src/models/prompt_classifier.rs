//! Reads class logits out of a language model: class tokens at the last position, or continuations scored by their
//! log-likelihood.

use super::{
    causal_lm::CausalLm,
    classifier::{Classifier, ClassifierInput, HeadFeatures, PulledBack, by_choice},
    indices::indices_on,
    language_model::LanguageModel,
    pull_back::PullBack,
    scored_tokens::log_probabilities,
    seen_prefix::SeenPrefix,
    through::adaptable_through,
    token_batch::{Scored, TokenBatch},
};
use crate::data::{EncodedDataset, ResolvedAnswers};
use crate::error::{Error, Result};
use crate::memory::Activations;
use crate::tape::Tape;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};

/// A language model that answers with class logits.
#[derive(Module, Debug)]
pub struct PromptClassifier {
    /// The language model.
    pub lm: CausalLm,
    #[module(skip)]
    class_ids: Option<Vec<u32>>,
    #[module(skip)]
    n_classes: usize,
}

impl PromptClassifier {
    /// Asks `lm` for the answers in the form that `dataset` was encoded for.
    ///
    /// # Errors
    /// If a token id of the dataset exceeds the model's vocabulary.
    pub fn new(lm: CausalLm, dataset: &EncodedDataset) -> Result<Self> {
        dataset.check_vocab(lm.config().vocab_size)?;
        let class_ids = match &dataset.answers {
            ResolvedAnswers::ClassTokens(ids) => Some(ids.clone()),
            ResolvedAnswers::Continuation => None,
            ResolvedAnswers::Labels | ResolvedAnswers::Value | ResolvedAnswers::Rewards => {
                return Err(Error::Incompatible(
                    "the data ask for labels or a value, which a `SequenceClassifier` answers by its head, or for rewards, which a \
                     `RewardModel` gives; a `PromptClassifier` answers class tokens and continuations"
                        .into(),
                ));
            }
        };
        Ok(Self { lm, class_ids, n_classes: dataset.n_classes })
    }

    /// Logits of the classes' tokens, of f32 at least.
    ///
    /// # Shapes
    /// - last: `[n_items, hidden]`, the hidden states of the last positions; output `[n_items, n_classes]`
    fn class_logits(&self, last: Tensor<2>, ids: &[u32], tape: &mut Tape) -> Tensor<2> {
        let columns = class_columns(ids, &last.device().without_autodiff());
        self.lm.head(last, Some(&columns), tape)
    }

    /// The logits of the final hidden states that are read, `[n, hidden]`.
    fn outputs(&self, hidden: Tensor<2>, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        match (&batch.scored, &self.class_ids) {
            (None, ids) => self.class_logits(hidden, ids.as_deref().unwrap_or_default(), tape),
            (Some(scored), _) => {
                let rows = self.continuations(hidden, scored, tape);
                by_choice(rows, batch.n_items(), self.n_classes)
            }
        }
    }

    /// Log-likelihood of every choice's scored tokens, weighted, `[items · choices, 1]`.
    fn continuations(&self, hidden: Tensor<2>, scored: &Scored, tape: &mut Tape) -> Tensor<2> {
        let log_probabilities = log_probabilities(&self.lm, hidden, &scored.targets, tape);
        scored.weights.clone().cast(log_probabilities.dtype()).matmul(log_probabilities)
    }
}

adaptable_through!([] PromptClassifier, lm);

impl Classifier for PromptClassifier {
    type Input = TokenBatch;

    fn n_classes(&self) -> usize {
        self.n_classes
    }

    fn check(&self, batch: &TokenBatch) -> Result<()> {
        if batch.n_classes() != self.n_classes {
            return Err(Error::Count {
                what: "classes of the data (see `EncodedDataset::with_classes`)".into(),
                expected: self.n_classes,
                found: batch.n_classes(),
            });
        }
        if batch.scored.is_some() == self.class_ids.is_some() || batch.scored.is_some() != batch.rows_are_choices() {
            return Err(Error::Incompatible(
                "the data ask for answers in another form than the model was set up for".into(),
            ));
        }
        if batch.is_shared() && !self.shares_prompts() {
            return Err(Error::Incompatible(
                "rows share their prompts, but the model's rotation depends on the length of a row (`longrope`)".into(),
            ));
        }
        batch.check_fits(self.lm.config().vocab_size, self.lm.config().max_positions)
    }

    /// Unless a row's rotation depends on its length: the rows of an item need not all be long.
    fn shares_prompts(&self) -> bool {
        !self.lm.rotates_by_length()
    }

    /// Where class tokens are read at the last position and logits are not capped: those of continuations are sums over tokens.
    fn head_weights(&self) -> Option<Tensor<2>> {
        let ids = self.class_ids.as_ref()?;
        self.lm.head_rows(&class_columns(ids, &self.device()))
    }

    fn head_features(&self, batch: &TokenBatch) -> Option<HeadFeatures> {
        let (ids, tape) = (self.class_ids.as_ref()?, &mut Tape::off());
        if self.lm.config().scales.logit_cap.is_some() {
            return None;
        }
        let features = self.lm.hidden_at(batch, &batch.last, tape);
        Some(HeadFeatures { logits: self.class_logits(features.clone(), ids, tape), features })
    }

    /// Where class tokens are read at the last position.
    fn pull_back(
        &self,
        batch: &TokenBatch,
        by_layers: bool,
        combinations: &mut dyn FnMut(&Tensor<2>) -> Result<Tensor<2>>,
    ) -> Result<Option<PulledBack>> {
        let (None, Some(ids)) = (&batch.scored, &self.class_ids) else { return Ok(None) };
        let (lm, mut tape) = (self.lm.valid(), Tape::inputs());
        let mut all = None;
        let top = |hidden: Tensor<2>, tape: &mut Tape| {
            let columns = class_columns(ids, &hidden.device());
            let dtype = hidden.dtype();
            let logits = lm.head(hidden, Some(&columns), tape);
            all = Some(logits.clone());
            let weights = combinations(&logits)?;
            let mut pull = PullBack::new(weights.dims()[0] / logits.dims()[0].max(1));
            let of_hidden = pull.head(&lm, logits, &columns, weights, tape)?.cast(dtype);
            Ok((pull, of_hidden))
        };
        let gradients = lm.pull_back((batch, &batch.last), by_layers, &mut tape, top, |_, _| Ok(()))?;
        let sites = tape.with_gradients(gradients)?;
        Ok(all.map(|logits| PulledBack { logits, sites }))
    }

    fn activations(&self, batch: &TokenBatch, combinations: Option<usize>) -> Option<Activations> {
        let [rows, tokens] = batch.ids.dims();
        let config = self.lm.config();
        match combinations {
            Some(n) if batch.scored.is_none() => {
                let shape = config.layer_shape();
                Some(shape.of_pull_back((config.n_layers, n), (rows, tokens), self.lm.element_bytes()))
            }
            _ => LanguageModel::activations(&self.lm, rows, tokens),
        }
    }

    fn see(&self, prefix: &[u32]) -> Result<Option<SeenPrefix>> {
        self.lm.see_prefix(prefix)
    }

    fn gradient(
        &self,
        batch: &TokenBatch,
        tape: &mut Tape,
        by_layers: bool,
        loss: &mut dyn FnMut(Tensor<2>) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        let loss = |hidden, tape: &mut Tape| loss(self.outputs(hidden, batch, tape));
        self.lm.gradient(self, (batch, batch.read()), tape, by_layers, loss)
    }

    fn logits(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        self.outputs(self.lm.hidden_at(batch, batch.read(), tape), batch, tape)
    }
}

/// The classes' places in the vocabulary.
fn class_columns(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    indices_on(device, ids.iter().map(|&id| i64::from(id)).collect())
}
