//! The traits by which a model joins: inputs in, class logits (or other outputs) out, linears called with the tape.

use super::seen_prefix::SeenPrefix;
use crate::error::Result;
use crate::lora::Adaptable;
use crate::memory::Activations;
use crate::tape::{SiteGradient, Tape};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2};
use std::sync::Arc;

/// A model that gives class logits, or other outputs that a likelihood speaks of: then read output for class.
///
/// Implement it on your own burn module: hold [`crate::lora::LoraLinear`]s, list them in
/// [`Adaptable`], and pass the tape on to their `forward`.
pub trait Classifier: Adaptable {
    /// A batch of inputs.
    type Input: ClassifierInput;

    /// Number of classes C.
    fn n_classes(&self) -> usize;

    /// Says what is wrong with a batch that was not made for this model; called before [`Classifier::logits`].
    ///
    /// # Errors
    /// If the batch does not fit.
    fn check(&self, _input: &Self::Input) -> Result<()> {
        Ok(())
    }

    /// Element type of the activations.
    fn dtype(&self) -> DType {
        self.linears().first().map_or(DType::F32, |linear| linear.weight.val().dtype())
    }

    /// The device that the model lives on, without autodiff.
    fn device(&self) -> Device {
        self.linears().first().map_or_else(Device::default, |linear| linear.weight.val().device()).without_autodiff()
    }

    /// True if it takes batches whose items have one row for what their rows begin with alike
    /// ([`ClassifierInput::with_shared_prompts`]); false is the default.
    fn shares_prompts(&self) -> bool {
        false
    }

    /// The rows `w: [n_classes, d]` of the output layer that stand for the classes, where logits are linear in them,
    /// `f_c = w_cᵀh + b_c`; `None` (the default) where they are not, or an item does not have all classes. Last-layer methods
    /// ask for them and for [`Classifier::head_features`].
    fn head_weights(&self) -> Option<Tensor<2>> {
        None
    }

    /// What the output layer reads of each item, and the logits that it makes of it; `None` where there are no
    /// [`Classifier::head_weights`].
    fn head_features(&self, _input: &Self::Input) -> Option<HeadFeatures> {
        None
    }

    /// Logits, and the gradients of several combinations of them at every site, by one forward pass, where the model has a backward pass
    /// of its own. `None`, the default, leaves it to automatic differentiation and as many copies of the batch.
    ///
    /// `combinations` gives the weights of the logits, `[K · n_items, n_classes]`, from the logits `[n_items, n_classes]`. `by_layers` asks
    /// for the values of one layer at a time, as [`Classifier::gradient`] does.
    ///
    /// # Errors
    /// Those of `combinations`, and of [`Tape::backward`].
    fn pull_back(
        &self,
        _input: &Self::Input,
        _by_layers: bool,
        _combinations: &mut dyn FnMut(&Tensor<2>) -> Result<Tensor<2>>,
    ) -> Result<Option<PulledBack>> {
        Ok(None)
    }

    /// The gradient of a loss of [`Classifier::logits`] with respect to all that trains, with the activations of all layers held, or those of
    /// one layer at a time, which is then computed a second time when its turn comes: the same bits. `None`, the default, where the model
    /// cannot go by layers, or leaves it to automatic differentiation of the whole graph. A recording tape has the gradients at its sites
    /// afterwards, and those of parameters are not computed.
    ///
    /// # Errors
    /// Those of `loss`.
    fn gradient(
        &self,
        _input: &Self::Input,
        _tape: &mut Tape,
        _by_layers: bool,
        _loss: &mut dyn FnMut(Tensor<2>) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        Ok(None)
    }

    /// Bytes of the activations of a pass over a batch: of the gradient of a loss, or of [`Classifier::pull_back`] for so many
    /// combinations. `None`, the default, where that is not known, or the model has no gradient layer by layer.
    fn activations(&self, _input: &Self::Input, _combinations: Option<usize>) -> Option<Activations> {
        None
    }

    /// Reads tokens that all rows of later batches begin with ([`ClassifierInput::behind`]), without a graph. `None`, the default, where
    /// the model reads each row anew, as one must whose tokens see those behind them.
    ///
    /// # Errors
    /// If the model fails.
    fn see(&self, _prefix: &[u32]) -> Result<Option<SeenPrefix>> {
        Ok(None)
    }

    /// Class logits `[n_items, n_classes]`. Values of classes that an item does not have are ignored.
    fn logits(&self, input: &Self::Input, tape: &mut Tape) -> Tensor<2>;

    /// `log p` of every unit ([`Dataset::units`](super::Dataset::units)) of the targets that are in the input, `[n_units, 1]`, item after item; `None`, the default,
    /// where its targets are not in the input. Summed over an item they are its output.
    fn unit_log_densities(&self, _input: &Self::Input, _tape: &mut Tape) -> Option<Tensor<2>> {
        None
    }

    /// The outputs for targets that the model draws from its own distribution in place of those in the input; `None` (the default)
    /// where its targets are not in the input. The sampled Fisher information of a likelihood that
    /// [draws in the model](crate::likelihood::Likelihood::draws_in_model) is that of their gradients.
    ///
    /// # Errors
    /// If a copy from the device fails.
    fn own_targets(&self, _input: &Self::Input, _draws: &TargetDraws, _tape: &mut Tape) -> Result<Option<OwnTargets>> {
        Ok(None)
    }

    /// The gradient of a loss of [`Classifier::own_targets`], as [`Classifier::gradient`] has that of the outputs; `None`, the
    /// default, where the model cannot.
    ///
    /// # Errors
    /// Those of `loss`, and as [`Classifier::own_targets`].
    fn own_targets_by_layers(
        &self,
        _input: &Self::Input,
        _draws: &TargetDraws,
        _tape: &mut Tape,
        _loss: &mut dyn FnMut(OwnTargets) -> Result<Tensor<1>>,
    ) -> Result<Option<GradientsParams>> {
        Ok(None)
    }
}

/// Which draws of its own targets a model is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDraws {
    /// Seed of the draws.
    pub seed: u64,
    /// Key of each item of the batch (see [`Dataset::item_key`](super::Dataset::item_key)) and number of its draw, `[n_items]`: a draw is a function of these, the
    /// seed and its place in the item.
    pub items: Vec<(u64, u64)>,
}

/// What [`Classifier::own_targets`] answers.
#[derive(Debug, Clone)]
pub struct OwnTargets {
    /// [`Classifier::logits`] without a graph, `[n_items, n_outputs]`.
    pub observed: Tensor<2>,
    /// Log-likelihood of each item's drawn targets, `[n_items, 1]`.
    pub drawn: Tensor<2>,
}

/// What a backward pass of the model's own gives.
#[derive(Debug, Clone)]
pub struct PulledBack {
    /// [`Classifier::logits`], `[n_items, n_classes]`
    pub logits: Tensor<2>,
    /// In forward order: inputs `[rows · tokens, d_in]` of the batch, gradients `[K · rows · tokens, d_out]`, those of each combination
    /// behind those of the one before.
    pub sites: Vec<SiteGradient>,
}

/// What an output layer reads and makes of it.
#[derive(Debug, Clone)]
pub struct HeadFeatures {
    /// `h: [n_items, d]`
    pub features: Tensor<2>,
    /// [`Classifier::logits`], `[n_items, n_classes]`
    pub logits: Tensor<2>,
}

/// How the rows of a batch (what the network processes side by side) relate to items and classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowMeaning {
    /// One row an item; it gives the logits of all classes.
    Item,
    /// `choices` consecutive rows an item; row c gives the logit of class c alone.
    Choice {
        /// Rows an item.
        choices: usize,
    },
}

/// A batch as the curvature pass needs to see it.
pub trait ClassifierInput: Clone + Send {
    /// Number of items.
    fn n_items(&self) -> usize;

    /// What a row is.
    fn row_meaning(&self) -> RowMeaning {
        RowMeaning::Item
    }

    /// Where an output layer reads any number of tokens of a row, as scored ones: the place of each in `[rows · tokens]`, in the order in
    /// which it reads them, some maybe more than once. `None`, the default, says that what does not see every token sees one vector a row,
    /// such as a pooled state, in the order of the rows.
    fn read_tokens(&self) -> Option<&[usize]> {
        None
    }

    /// 1 for real tokens, 0 for pads, `[rows][tokens]`; a model without tokens has one a row.
    fn token_mask(&self) -> Array2<bool>;

    /// Where rows hold several items ([`Dataset::packed_batch`](super::Dataset::packed_batch)): the item of each token, and its place in it, `[rows][tokens]`; `None` at
    /// pads. `None`, the default, says that every item has rows of its own.
    fn token_owners(&self) -> Option<Array2<Option<(usize, usize)>>> {
        None
    }

    /// Which classes each item has, `[n_items, n_classes]`; `None` if all have all.
    fn class_mask(&self) -> Option<&Array2<bool>> {
        None
    }

    /// The batch repeated `times` times, copy after copy.
    ///
    /// # Errors
    /// If the copies cannot be built.
    fn repeat(&self, times: usize) -> Result<Self>;

    /// The same questions in fewer tokens, where every choice of an item is a row of its own: one row an item, which holds once what the
    /// item's rows begin with alike. Logits and the gradient of a loss stay the same; what a pass records token by token does not, so
    /// that curvature goes through the rows apart. The default changes nothing.
    ///
    /// # Errors
    /// If the rows cannot be built.
    fn with_shared_prompts(self) -> Result<Self> {
        Ok(self)
    }

    /// The same batch without the tokens that a model has seen already ([`Classifier::see`]): what it asks of the model are outputs, without
    /// a graph. The default changes nothing.
    ///
    /// # Errors
    /// If a row does not begin with them, or something is read off one of them.
    fn behind(self, _prefix: &Arc<SeenPrefix>) -> Result<Self> {
        Ok(self)
    }
}

/// One number of each choice, `[n_items · choices, 1]`, as logits `[n_items, n_classes]`: what stands where no item has a choice is
/// ignored.
pub(super) fn by_choice(of_choices: Tensor<2>, n_items: usize, n_classes: usize) -> Tensor<2> {
    let choices = of_choices.dims()[0] / n_items;
    let logits = of_choices.reshape([n_items, choices]);
    if choices == n_classes {
        return logits;
    }
    let absent = Tensor::zeros([n_items, n_classes - choices], (&logits.device(), logits.dtype()));
    Tensor::cat(vec![logits, absent], 1)
}

/// Host logits in which every class that an item does not have is −∞.
pub fn mask_absent(mut logits: Array2<f64>, mask: Option<&Array2<bool>>) -> Array2<f64> {
    if let Some(mask) = mask {
        let mask: ArrayView2<bool> = mask.view();
        logits.zip_mut_with(&mask, |v, present| {
            if !present {
                *v = f64::NEG_INFINITY;
            }
        });
    }
    logits
}
