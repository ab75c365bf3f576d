//! The trait between a network over tokens and what classifies with it.

use super::seen_prefix::SeenPrefix;
use super::token_batch::TokenBatch;
use crate::error::Result;
use crate::lora::Adaptable;
use crate::memory::Activations;
use crate::tape::Tape;
use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// A network that turns rows of tokens into hidden states: a decoder, an encoder.
pub trait LanguageModel: Adaptable + ModuleDisplay {
    /// Width of the hidden states.
    fn width(&self) -> usize;

    /// Number of tokens in the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Longest row.
    fn max_positions(&self) -> usize;

    /// How many kinds of tokens it tells apart, where it looks at them: the texts of a pair.
    fn n_token_types(&self) -> Option<usize> {
        None
    }

    /// Hidden states of every token.
    ///
    /// # Shapes
    /// - batch: `[rows, tokens]` token ids; output `[rows · tokens, width]`
    fn hidden(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2>;

    /// One vector a row, which stands for all of it.
    ///
    /// # Shapes
    /// - output `[rows, width]`
    fn pooled(&self, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2>;

    /// The gradient of a loss of [`LanguageModel::pooled`] with respect to all that trains in `model`, of which this network is a part, as
    /// [`Classifier::gradient`](super::Classifier::gradient) has it; `None`, the default, where the network cannot.
    ///
    /// # Errors
    /// Those of `loss`.
    fn pooled_gradient<M: Module>(
        &self,
        _model: &M,
        _batch: &TokenBatch,
        _tape: &mut Tape,
        _by_layers: bool,
        _loss: &mut dyn FnMut(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        Ok(None)
    }

    /// Bytes of the activations of that gradient over so many rows of so many tokens; `None` where the network has it not.
    fn activations(&self, _rows: usize, _tokens: usize) -> Option<Activations> {
        None
    }

    /// As [`Classifier::see`](super::Classifier::see).
    ///
    /// # Errors
    /// If the network fails.
    fn see(&self, _prefix: &[u32]) -> Result<Option<SeenPrefix>> {
        Ok(None)
    }

    /// Where Hugging Face has the head of a classifier on this model, and whether that head has a bias.
    fn head_form(&self) -> HeadForm;
}

/// The head of a classifier, in Hugging Face's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadForm {
    /// Its path.
    pub path: &'static str,
    /// True if it has a bias.
    pub has_bias: bool,
}
