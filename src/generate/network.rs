//! A decoder at one adapter or at several draws of it in lockstep: their rows lie behind each other in one batch, so that products
//! with the base are shared, and every draw has keys and values of its own.

use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterStack, AdapterWeights, at_least_f32, to_vec};
use crate::models::{CausalLm, ClassifierInput, HEAD_CHUNK, KeyValueCache, TokenBatch, indices_on};
use crate::tape::Tape;
use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::Array3;
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Network {
    lm: CausalLm,
    stack: Option<Arc<AdapterStack>>,
}

impl Network {
    /// At the model's own adapter, or without one.
    pub(super) fn new(lm: &CausalLm) -> Self {
        Self { lm: lm.valid(), stack: None }
    }

    /// At these draws of the adapter.
    pub(super) fn at(self, draws: &[AdapterWeights]) -> Result<Self> {
        let stack = Some(Arc::new(AdapterStack::new(&self.lm, draws)?));
        Ok(Self { stack, ..self })
    }

    pub(super) fn n_draws(&self) -> usize {
        self.stack.as_ref().map_or(1, |stack| stack.n())
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.lm.config().vocab_size
    }

    /// Tokens that a row may have.
    pub(super) fn context(&self) -> usize {
        self.lm.config().max_positions
    }

    fn tape(&self) -> Tape {
        match &self.stack {
            Some(stack) => Tape::with_adapters(stack.clone()),
            None => Tape::off(),
        }
    }

    /// Of `n_rows` rows, for every draw.
    pub(super) fn start(&self, n_rows: usize) -> KeyValueCache {
        KeyValueCache::new(self.n_draws() * n_rows)
    }

    /// Goes on with some of `n_rows` rows.
    pub(super) fn keep(&self, cache: &mut KeyValueCache, rows: &[usize], n_rows: usize) -> Result<()> {
        let all = (0..self.n_draws()).flat_map(|draw| rows.iter().map(move |row| draw * n_rows + row));
        cache.keep(&all.collect::<Vec<_>>())
    }

    /// Logits of what comes behind each row with its new tokens, `[draws, rows, vocabulary]`.
    pub(super) fn extend(&self, cache: &mut KeyValueCache, new: &[Vec<u32>]) -> Result<Array3<f64>> {
        let all: Vec<Vec<u32>> = (0..self.n_draws()).flat_map(|_| new.iter().cloned()).collect();
        let mut tape = self.tape();
        let hidden = self.lm.extend(cache, &all, &mut tape)?;
        self.logits(hidden, &mut tape)
    }

    /// Logits behind some positions of one row in a single pass over it, some positions at a time: `each` gets `[draws, positions,
    /// vocabulary]`.
    pub(super) fn follow(
        &self,
        row: &[u32],
        positions: Range<usize>,
        mut each: impl FnMut(Array3<f64>) -> Result<()>,
    ) -> Result<()> {
        let n = self.n_draws();
        let linears = self.lm.linears();
        let weight = linears.first().ok_or_else(|| Error::empty("list of linears"))?.weight.val();
        let batch = TokenBatch::of_row(row, &weight.device(), weight.dtype())?.repeat(n)?;
        let hidden = self.lm.hidden(&batch, &mut self.tape());
        let positions: Vec<usize> = positions.collect();
        for part in positions.chunks((HEAD_CHUNK / n).max(1)) {
            let index: Vec<i64> =
                (0..n).flat_map(|draw| part.iter().map(move |t| (draw * row.len() + t) as i64)).collect();
            let index = indices_on(&hidden.device(), index);
            each(self.logits(hidden.clone().select(0, index), &mut self.tape())?)?;
        }
        Ok(())
    }

    /// `[draws · rows, hidden]` to `[draws, rows, vocabulary]`.
    fn logits(&self, hidden: Tensor<2>, tape: &mut Tape) -> Result<Array3<f64>> {
        let logits = self.lm.head(hidden, None, tape);
        let [rows, width] = logits.dims();
        let wide = at_least_f32(logits.dtype());
        let values = to_vec(logits.cast(wide))?;
        let shape = (self.n_draws(), rows / self.n_draws(), width);
        Array3::from_shape_vec(shape, values).map_err(|e| Error::numerical("layout of logits", e))
    }
}
