//! Foretells the memory of the activations that a backward pass needs, from the shape of a network.

use super::classifier::Classifier;
use crate::error::{Error, Result};
use crate::memory::{ActivationBudget, Activations};
use crate::progress::Control;
use crate::tape::Tape;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// How the passes of one call are differentiated. A device that has a pool of its own does not compute in the host's memory.
pub(crate) fn activation_budget<M: Classifier>(model: &M, control: &Control, what: &'static str) -> ActivationBudget {
    control.activation_budget(what, model.device().memory_pool_usage().is_none())
}

/// Why a pass cannot hold the activations of one layer at a time.
pub(crate) fn not_by_layers() -> Error {
    Error::Incompatible("gradient checkpointing: the model does not give its gradient layer by layer".into())
}

/// The gradient of a loss of [`Classifier::logits`], by the whole graph or layer by layer, as the budget says.
///
/// # Errors
/// Those of `loss`; if the model has no gradient layer by layer, and the caller insists.
pub(crate) fn gradient_within<M: Classifier>(
    model: &M,
    input: &M::Input,
    tape: &mut Tape,
    loss: &mut dyn FnMut(Tensor<2>) -> Result<Tensor<1>>,
    budget: &ActivationBudget,
) -> Result<GradientsParams> {
    let by_layers = budget.goes_by_layers(|| model.activations(input, None));
    match model.gradient(input, tape, by_layers, loss)? {
        Some(gradients) => Ok(gradients),
        None if by_layers => Err(not_by_layers()),
        None => Ok(GradientsParams::from_grads(loss(model.logits(input, tape))?.backward(), model)),
    }
}

/// What a layer holds of every token, in numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerShape {
    /// Width between the layers.
    pub(super) hidden: usize,
    /// Width of the queries.
    pub(super) queries: usize,
    /// Width of keys and values together.
    pub(super) keys_values: usize,
    /// Heads that have scores of their own.
    pub(super) heads: usize,
    /// Width inside the feed-forward network.
    pub(super) intermediate: usize,
}

/// Numbers that a graph holds for its backward pass, counted from the operations of a decoder's layer: the inputs of both norms and of the
/// adapters; rotated queries and keys, and values; the weights of attention before and behind the softmax; slope, value and partner of the gate.
const HELD: LayerNumbers = LayerNumbers { hidden: 3.0, queries: 1.0, keys_values: 1.0, scores: 2.0, intermediate: 3.0 };

/// Numbers that the decoder's own backward pass holds of every layer, for any number of combinations (`BlockValues`).
const KEPT: LayerNumbers = LayerNumbers { hidden: 3.0, queries: 1.0, keys_values: 1.0, scores: 1.0, intermediate: 2.0 };

struct LayerNumbers {
    hidden: f64,
    queries: f64,
    keys_values: f64,
    scores: f64,
    intermediate: f64,
}

impl LayerNumbers {
    /// Of one token where a row has so many.
    fn of(&self, shape: LayerShape, tokens: usize) -> f64 {
        self.hidden * shape.hidden as f64
            + self.queries * shape.queries as f64
            + self.keys_values * shape.keys_values as f64
            + self.scores * (shape.heads * tokens) as f64
            + self.intermediate * shape.intermediate as f64
    }
}

impl LayerShape {
    /// Of a graph over `n_layers` such layers and rows of `tokens`.
    pub(super) fn of_graph(self, n_layers: usize, (rows, tokens): (usize, usize), bytes: usize) -> Activations {
        let layer = HELD.of(self, tokens);
        self.activations((layer, layer), n_layers, (rows, tokens), bytes)
    }

    /// Of a backward pass of the network's own, with `combinations` cotangents.
    pub(super) fn of_pull_back(
        self,
        (n_layers, combinations): (usize, usize),
        shape: (usize, usize),
        bytes: usize,
    ) -> Activations {
        let (kept, layer) = (KEPT.of(self, shape.1), HELD.of(self, shape.1));
        self.activations((kept, kept + combinations as f64 * layer), n_layers, shape, bytes)
    }

    fn activations(
        self,
        (of_each, of_one): (f64, f64),
        n_layers: usize,
        (rows, tokens): (usize, usize),
        bytes: usize,
    ) -> Activations {
        let (n, layers) = ((rows * tokens * bytes) as f64, n_layers as f64);
        // the layer whose turn it is holds more than the others where there are several cotangents
        let extra = of_one - of_each;
        Activations {
            whole: (n * (layers * of_each + extra)) as u64,
            by_layers: (n * (layers * self.hidden as f64 + of_one)) as u64,
        }
    }
}
