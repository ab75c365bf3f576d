//! Gives every text one number by a head on one vector a row, learned from which of several texts was preferred.

use super::classifier::{Classifier, ClassifierInput, by_choice};
use super::language_model::LanguageModel;
use super::seen_prefix::SeenPrefix;
use super::sequence_classifier::{check_head, fresh_head};
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

/// A network over tokens with a head of one output, the reward `r(x)`.
///
/// Of two answers to a prompt A is preferred with the probability `p(A ≻ B) = σ(r_A − r_B)` (Bradley & Terry 1952, Biometrika 39). That is
/// `softmax(r_A, r_B)_A`: an item is a pair, each of its texts is a row of its own that gives one logit, and the likelihood is
/// [`crate::likelihood::Categorical`], of any number of answers of which one is preferred (Luce 1959). A common shift of the rewards of an
/// item changes nothing, so that the data say nothing about it, nor about the bias of the head.
///
/// The curvature of a pair is that of a difference, `σ(r_A − r_B) σ(r_B − r_A) (J_A − J_B)ᵀ(J_A − J_B)`. Structures of Jacobians have it
/// exactly; Kronecker factors take the two rows for independent ones ([`crate::curvature::CurvatureStructure`]).
#[derive(Module, Debug)]
pub struct RewardModel<L> {
    /// The network.
    pub network: L,
    /// The head, with one output.
    pub head: TrainedHead,
    #[module(skip)]
    n_choices: usize,
}

impl<L: LanguageModel> RewardModel<L> {
    /// Puts a fresh head on a network, for items with as many texts as those of `dataset`; a function of the seed.
    ///
    /// # Errors
    /// If the dataset asks for answers in another form, or a token id exceeds the vocabulary.
    pub fn new(network: L, dataset: &EncodedDataset, seed: u64) -> Result<Self> {
        let head = fresh_head(&network, 1, seed)?;
        Self::with_head(network, head, dataset)
    }

    /// Puts the head of a checkpoint on its network.
    ///
    /// # Errors
    /// As [`RewardModel::new`], and if the head has another width or more than one output.
    pub fn with_head(network: L, head: TrainedHead, dataset: &EncodedDataset) -> Result<Self> {
        dataset.check_vocab(network.vocab_size())?;
        if dataset.answers != ResolvedAnswers::Rewards {
            return Err(Error::Incompatible(
                "a `RewardModel` answers `AnswerForm::Rewards`, and the data ask for answers in another form".into(),
            ));
        }
        check_head(&network, &head, ("rewards of the head", 1))?;
        Ok(Self { network, head, n_choices: dataset.n_classes })
    }

    /// The same model for items of up to `n_choices` texts, such as the answers among which the best is chosen.
    pub fn with_choices(mut self, n_choices: usize) -> Self {
        self.n_choices = n_choices;
        self
    }

    /// The rewards of an item's texts, from what stands for each of them.
    fn outputs(&self, pooled: Tensor<2>, batch: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        by_choice(self.head.forward(pooled, tape), batch.n_items(), self.n_choices)
    }
}

adaptable_through!([L: LanguageModel] RewardModel<L>, network, head);

impl<L: LanguageModel> Classifier for RewardModel<L> {
    type Input = TokenBatch;

    fn n_classes(&self) -> usize {
        self.n_choices
    }

    fn check(&self, batch: &TokenBatch) -> Result<()> {
        if batch.n_classes() != self.n_choices {
            let what = "texts of an item (`RewardModel::with_choices`)".into();
            return Err(Error::Count { what, expected: self.n_choices, found: batch.n_classes() });
        }
        if batch.scored.is_some() || !batch.rows_are_choices() {
            return Err(Error::Incompatible(
                "a reward model has one number for each text, and the data ask for answers in another form".into(),
            ));
        }
        batch.check_fits(self.network.vocab_size(), self.network.max_positions())
    }

    fn gradient(
        &self,
        batch: &TokenBatch,
        tape: &mut Tape,
        by_layers: bool,
        loss: &mut dyn FnMut(Tensor<2>) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        let mut loss = |pooled, tape: &mut Tape| loss(self.outputs(pooled, batch, tape));
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
        self.outputs(self.network.pooled(batch, tape), batch, tape)
    }
}
