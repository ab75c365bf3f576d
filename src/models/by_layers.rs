//! Differentiates a network layer by layer, so that the graph of one layer exists at a time.
//!
//! A forward pass without a graph keeps each layer's input alone. Backwards, a layer is computed again from its input, now with a graph,
//! and hands the gradient at its input on to the layer below. That is a second forward pass, for the memory of one layer's activations and
//! all inputs in place of everybody's activations: `L·n·d + a` instead of `L·a`. Each operation is the one of the whole graph, so that the
//! gradients are the same bits. A layer's noise is a function of its tokens (`Tape::dropout`), and comes out the same twice.
//!
//! Chen et al. (2016), arXiv 1604.06174.

use crate::error::Result;
use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

/// Counts what trains.
#[derive(Default)]
struct Trained(usize);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += usize::from(param.val().is_require_grad());
    }
}

/// How many parameters of a module train.
pub(super) fn n_trained(module: &impl Module) -> usize {
    let mut trained = Trained::default();
    module.visit(&mut trained);
    trained.0
}

/// True if something in a module trains.
pub(super) fn trains(module: &impl Module) -> bool {
    n_trained(module) > 0
}

/// True if one of a layer's linears has an adapter.
pub(super) fn has_adapter<'a>(mut linears: impl Iterator<Item = &'a LoraLinear>) -> bool {
    linears.any(|linear| linear.adapter.is_some())
}

/// A network, a batch, and how the layers see it. Values between the layers are `[tokens, width]`.
pub(super) trait Layers {
    /// Number of layers.
    fn count(&self) -> usize;

    /// True if what comes before the first layer trains.
    fn start_trains(&self) -> bool;

    /// True if something in the layer at `index` trains.
    fn layer_trains(&self, index: usize) -> bool;

    /// True if the layer at `index` has an adapter.
    fn is_adapted(&self, index: usize) -> bool;

    /// What the first layer reads.
    fn start(&self) -> Tensor<2>;

    /// What the layer at `index` makes of its input.
    fn layer(&self, index: usize, x: Tensor<2>, tape: &mut Tape) -> Tensor<2>;

    /// The final hidden states `[rows · tokens, width]`, from what the last layer gives.
    fn ended(&self, x: Tensor<2>) -> Tensor<2>;
}

/// A leaf with these values, whose gradient is wanted.
pub(super) fn leaf(values: Tensor<2>) -> Tensor<2> {
    values.autodiff().require_grad()
}

/// The gradient of a loss of the final hidden states with respect to everything in `model`, of which the layers are a part, that trains.
/// On a recording tape it is the gradient at the outputs of the adapted matrices instead, which the tape then has.
///
/// `plain` are the same layers without anything that trains. The loss gets `[rows · tokens, width]`.
///
/// # Errors
/// Those of `loss`.
pub(super) fn gradient_by_layers<M: Module, L: Layers>(
    model: &M,
    (layers, plain): (&L, &L),
    tape: &mut Tape,
    loss: impl FnOnce(Tensor<2>, &mut Tape) -> Result<Tensor<1>>,
) -> Result<GradientsParams> {
    let (recording, n) = (tape.is_recording(), layers.count());
    let start_trains = !recording && layers.start_trains();
    let is_wanted = |index: &usize| if recording { layers.is_adapted(*index) } else { layers.layer_trains(*index) };
    let lowest = if start_trains { 0 } else { (0..n).find(is_wanted).unwrap_or(n) };
    let mut starts = Vec::with_capacity(n - lowest);
    let end = tape.unrecorded(|tape| {
        (0..n).fold(plain.start(), |x, index| {
            if index >= lowest {
                starts.push(x.clone());
            }
            plain.layer(index, x, tape)
        })
    });

    let mut sum = GradientsAccumulator::new();
    // keeps what is wanted, and gives the gradient at a layer's input
    let mut backward = |objective: Tensor<1>, start: &Tensor<2>, tape: &mut Tape| {
        let mut gradients = objective.backward();
        let at_start = start.grad_remove(&mut gradients);
        tape.read(&mut gradients);
        if !recording {
            sum.accumulate(model, GradientsParams::from_grads(gradients, model));
        }
        at_start
    };
    let start = leaf(end);
    let objective = loss(layers.ended(start.clone()), tape)?;
    let mut above = backward(objective, &start, tape);
    for (index, start) in starts.into_iter().enumerate().rev() {
        let Some(g) = above.take() else { break };
        let start = leaf(start);
        let end = layers.layer(lowest + index, start.clone(), tape);
        above = backward((end * g).sum(), &start, tape);
    }
    if let Some(g) = above.filter(|_| start_trains) {
        let gradients = (layers.start() * g).sum().backward();
        sum.accumulate(model, GradientsParams::from_grads(gradients, model));
    }
    Ok(sum.grads())
}
