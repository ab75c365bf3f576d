//! Classifies rows of tokens, or gives each a number, by a head on one vector a row, as Hugging Face's
//! `…ForSequenceClassification` does.

use super::classifier::{Classifier, HeadFeatures};
use super::language_model::LanguageModel;
use super::seen_prefix::SeenPrefix;
use super::through::adaptable_through;
use super::token_batch::TokenBatch;
use crate::data::{EncodedDataset, ResolvedAnswers};
use crate::error::{Error, Result};
use crate::lora::TrainedHead;
use crate::memory::Activations;
use crate::tape::Tape;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// A network over tokens with a head for classes, or for one number (a regression: `num_labels = 1`). The head trains with the adapter and is part of its posterior.
#[derive(Module, Debug)]
pub struct SequenceClassifier<L> {
    /// The network.
    pub network: L,
    /// The head.
    pub head: TrainedHead,
}

impl<L: LanguageModel> SequenceClassifier<L> {
    /// Puts a fresh head for the classes of `dataset` on a network; a function of the seed.
    ///
    /// # Errors
    /// If the dataset asks for answers in another form, or a token id exceeds the vocabulary.
    pub fn new(network: L, dataset: &EncodedDataset, seed: u64) -> Result<Self> {
        let head = fresh_head(&network, dataset.n_classes, seed)?;
        Self::with_head(network, head, dataset)
    }

    /// Puts a fresh head with so many outputs on a network, to be asked about data that come later.
    ///
    /// # Errors
    /// If the network has no linear.
    pub fn with_fresh_head(network: L, n_outputs: usize, seed: u64) -> Result<Self> {
        let head = fresh_head(&network, n_outputs, seed)?;
        Ok(Self { network, head })
    }

    /// Puts the head of a checkpoint on its network.
    ///
    /// # Errors
    /// As [`SequenceClassifier::new`], and if the head has another width or another number of classes.
    pub fn with_head(network: L, head: TrainedHead, dataset: &EncodedDataset) -> Result<Self> {
        dataset.check_vocab(network.vocab_size())?;
        if !matches!(dataset.answers, ResolvedAnswers::Labels | ResolvedAnswers::Value) {
            return Err(Error::Incompatible(
                "the data ask for class tokens or continuations, which a `PromptClassifier` answers, or for rewards, which a \
                 `RewardModel` gives; a head answers `AnswerForm::Labels` and `AnswerForm::Value`"
                    .into(),
            ));
        }
        check_head(&network, &head, ("classes of the head", dataset.n_classes))?;
        Ok(Self { network, head })
    }
}

/// Checks that a head reads what the network gives, and has as many outputs as are wanted, under their name.
///
/// # Errors
/// Names what differs, with both numbers.
pub(super) fn check_head<L: LanguageModel>(network: &L, head: &TrainedHead, outputs: (&str, usize)) -> Result<()> {
    let inputs = ("inputs of the head", network.width());
    for ((what, expected), found) in [(inputs, head.d_in()), (outputs, head.d_out())] {
        if expected != found {
            return Err(Error::Count { what: what.into(), expected, found });
        }
    }
    Ok(())
}

/// A head where the network's files would have it, on its device and in its element type.
///
/// # Errors
/// If the network has no linear.
pub(super) fn fresh_head<L: LanguageModel>(network: &L, n_outputs: usize, seed: u64) -> Result<TrainedHead> {
    let form = network.head_form();
    let weight = network.linears().first().map(|linear| linear.weight.val());
    let weight = weight.ok_or_else(|| Error::empty("list of the network's linears"))?;
    let (device, dtype) = (weight.device().without_autodiff(), weight.dtype());
    let shape = (network.width(), n_outputs);
    Ok(TrainedHead::fresh(form.path, shape, form.has_bias, seed, (&device, dtype)))
}

adaptable_through!([L: LanguageModel] SequenceClassifier<L>, network, head);

impl<L: LanguageModel> Classifier for SequenceClassifier<L> {
    type Input = TokenBatch;

    fn n_classes(&self) -> usize {
        self.head.d_out()
    }

    fn check(&self, batch: &TokenBatch) -> Result<()> {
        if batch.n_classes() != self.n_classes() {
            let what = "classes of the data".into();
            return Err(Error::Count { what, expected: self.n_classes(), found: batch.n_classes() });
        }
        if batch.rows_are_choices() {
            return Err(Error::Incompatible(
                "the data ask for continuations or rewards, and the model has a head for classes".into(),
            ));
        }
        let (kind, kinds) = (batch.largest_type() as usize, self.network.n_token_types());
        if let Some(n) = kinds.filter(|n| kind >= *n) {
            return Err(Error::config("kind of a token (`type_vocab_size`)", format!("below the network's {n}"), kind));
        }
        batch.check_fits(self.network.vocab_size(), self.network.max_positions())
    }

    fn head_weights(&self) -> Option<Tensor<2>> {
        Some(self.head.matrix())
    }

    fn head_features(&self, batch: &TokenBatch) -> Option<HeadFeatures> {
        let features = self.network.pooled(batch, &mut Tape::off());
        Some(HeadFeatures { logits: self.head.forward(features.clone(), &mut Tape::off()), features })
    }

    fn gradient(
        &self,
        batch: &TokenBatch,
        tape: &mut Tape,
        by_layers: bool,
        loss: &mut dyn FnMut(Tensor<2>) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        let mut loss = |pooled, tape: &mut Tape| loss(self.head.forward(pooled, tape));
        self.network.pooled_gradient(self, batch, tape, by_layers, &mut loss)
    }

    fn activations(&self, batch: &TokenBatch, _combinations: Option<usize>) -> Option<Activations> {
        let [rows, tokens] = batch.ids.dims();
        self.network.activations(rows, tokens)
    }

    fn see(&self, prefix: &[u32]) -> Result<Option<SeenPrefix>> {
        self.network.see(prefix)
    }

    fn logits(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        let pooled = self.network.pooled(batch, tape);
        self.head.forward(pooled, tape)
    }
}
