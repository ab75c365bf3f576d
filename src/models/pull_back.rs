//! Pulls K cotangents of a decoder's outputs back to its adapted matrices by one forward pass: vector–Jacobian products with a leading
//! axis.
//!
//! Automatic differentiation runs a graph once, so that K gradients of one item take K copies of it, `K(F + B)` with F and B the costs of a
//! forward and a backward pass. The products here act on K cotangents at once, on values that were computed once: `F + K·B`.
//!
//! K cotangents of values `[n, width]` lie behind each other, `[K·n, width]`.

use super::{
    activation::slope_of_cap,
    attention::Attention,
    block::Block,
    by_layers::has_adapter,
    causal_lm::CausalLm,
    layer_values::{AttentionValues, BlockValues, Memory},
    norm::Norm,
    projections::Projections,
    token_batch::TokenBatch,
};
use crate::error::{Error, Result};
use crate::lora::{LoraLinear, at_least_f32, times_transposed};
use crate::tape::{LoraMatrix, Site, Tape};
use burn::tensor::{Int, Tensor};
use std::collections::BTreeMap;

/// A backward pass.
pub(super) struct PullBack {
    copies: usize,
    /// At the outputs of every adapted matrix that was passed.
    gradients: BTreeMap<Site, Tensor<2>>,
}

/// What the forward pass must have kept.
fn kept<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::empty(format!("{what} of a forward pass")))
}

impl CausalLm {
    /// Runs a batch forward, and pulls back from what `top` makes of the final hidden states of the tokens at `read`, `[n, hidden]`: a
    /// backward pass that has come through the output head, and the cotangents at these states. The values of all layers are kept, or those
    /// of one layer at a time; the inputs of the adapted matrices are on the tape, to be taken beside the gradients by `take`, which is
    /// called below each layer.
    ///
    /// # Errors
    /// Those of `top` and `take`.
    pub(super) fn pull_back(
        &self,
        (batch, read): (&TokenBatch, &Tensor<1, Int>),
        by_layers: bool,
        tape: &mut Tape,
        top: impl FnOnce(Tensor<2>, &mut Tape) -> Result<(PullBack, Tensor<2>)>,
        mut take: impl FnMut(&mut PullBack, &mut Tape) -> Result<()>,
    ) -> Result<BTreeMap<Site, Tensor<2>>> {
        self.in_places(batch, Some(read), tape, |places, tape| {
            let contexts = self.contexts(batch, places);
            let lowest = self.blocks.iter().position(|block| has_adapter(block.linears())).unwrap_or(self.blocks.len());
            let mut all = Vec::with_capacity(self.blocks.len() - lowest);
            let mut end = self.embedded(batch.ids.clone(), places);
            for (index, block) in self.blocks.iter().enumerate() {
                let (start, context, mut values) = (end, contexts.of(index), BlockValues::default());
                end = if by_layers || index < lowest {
                    tape.unrecorded(|tape| block.forward(start.clone(), &context, Memory::Nothing, tape))
                } else {
                    block.forward(start.clone(), &context, Memory::Values(&mut values), tape)
                };
                if index >= lowest {
                    values.start = Some(start);
                    all.push(values);
                }
            }
            let end = self.read(end, places);
            let (mut pull, g) = top(self.norm.forward(end.clone()), tape)?;
            let mut g = pull.norm(&self.norm, end, g);
            if let Some(read) = places.read_behind_layers() {
                g = read.spread_in_layers(g, pull.copies);
            }
            for (index, mut values) in (lowest..self.blocks.len()).zip(all).rev() {
                let block = &self.blocks[index];
                if by_layers {
                    tape.next_below();
                    let start = kept(values.start.take(), "input of a layer")?;
                    block.forward(start, &contexts.of(index), Memory::Values(&mut values), tape);
                }
                g = pull.block(block, values, g, tape)?;
                take(&mut pull, tape)?;
            }
            Ok(pull.gradients)
        })
    }
}

impl PullBack {
    pub(super) fn new(copies: usize) -> Self {
        Self { copies, gradients: BTreeMap::new() }
    }

    /// The gradients at the sites that were passed since the last call.
    pub(super) fn take_gradients(&mut self) -> BTreeMap<Site, Tensor<2>> {
        std::mem::take(&mut self.gradients)
    }

    /// Through the logits of some columns of the vocabulary; `logits` are what they were.
    ///
    /// # Shapes
    /// - g: `[K·n, columns]`, output `[K·n, hidden]`, of f32 at least
    pub(super) fn head(
        &mut self,
        lm: &CausalLm,
        logits: Tensor<2>,
        columns: &Tensor<1, Int>,
        g: Tensor<2>,
        tape: &mut Tape,
    ) -> Result<Tensor<2>> {
        let scales = &lm.config.scales;
        let g = match scales.logit_cap {
            Some(cap) => self.times(g, slope_of_cap(logits, cap)),
            None => g,
        };
        let g = if scales.logit_divisor == 1.0 { g } else { g.div_scalar(scales.logit_divisor) };
        let weight = lm.head_weight(Some(columns));
        let weight = weight.clone().cast(at_least_f32(weight.dtype()));
        self.linears(&[(&lm.head, weight, g)], Some(columns), tape)
    }

    fn block(&mut self, block: &Block, values: BlockValues, g: Tensor<2>, tape: &mut Tape) -> Result<Tensor<2>> {
        let [before_attention, behind_attention, before_mlp, behind_mlp] = &block.norms;
        let scaled = |g: Tensor<2>| match block.residual_scale {
            1.0 => g,
            scale => g.mul_scalar(scale),
        };
        let h = self.normed(behind_mlp, values.down, scaled(g.clone()))?;
        let h = self.linear(&block.down_proj, h, tape)?;
        let slopes = kept(values.gated_slopes, "slopes of the gate's product")?;
        let of_both = slopes.map(|slope| self.times(h.clone(), slope));
        let h = self.projections(&block.gate_up, of_both, tape)?;
        let g = g + self.normed(before_mlp, values.middle, h)?;

        let h = self.normed(behind_attention, values.attended, scaled(g.clone()))?;
        let g = match &values.attention.read {
            Some(read) => read.spread_in_layers(g, self.copies),
            None => g,
        };
        let h = self.attention(&block.attention, values.attention, h, tape)?;
        Ok(g + self.normed(before_attention, values.start, h)?)
    }

    fn attention(
        &mut self,
        attention: &Attention,
        values: AttentionValues,
        g: Tensor<2>,
        tape: &mut Tape,
    ) -> Result<Tensor<2>> {
        let g = self.linear(&attention.o_proj, g, tape)?;
        let g = match (&values.read, &values.distinct) {
            (Some(read), _) => read.spread_in_batch(g, self.copies),
            (None, Some(distinct)) => distinct.pull_back_pick(g),
            (None, None) => g,
        };
        let (queries, keys) = (kept(values.queries, "queries")?, kept(values.keys, "keys")?);
        let (seen, weights) = (kept(values.values, "values")?, kept(values.weights, "weights of attention")?);
        let ([rows, n_kv, stacked, dim], tokens) = (queries.dims(), keys.dims()[2]);
        let (copies, group) = (self.copies, stacked / tokens);
        // [K·rows·tokens, heads·dim] and back, the copies beside the query heads of a key head
        let g = g.reshape([copies, rows, tokens, n_kv, group, dim]).permute([1, 3, 0, 4, 2, 5]);
        let g = g.reshape([rows, n_kv, copies * stacked, dim]);

        // softmax: P·(g − Σ P·g), its values the same for every copy
        let of_weights = g.clone().matmul(seen.swap_dims(2, 3));
        let of_weights = of_weights.reshape([rows * n_kv, copies, stacked, tokens]);
        let shared = |t: Tensor<4>| t.reshape([rows * n_kv, 1, stacked, tokens]);
        let product = of_weights * shared(weights.clone());
        let total = product.clone().sum_dim(3);
        let mut of_scores = product - total * shared(weights.clone());
        if let (Some(cap), Some(capped)) = (attention.score_cap, values.capped) {
            of_scores = of_scores * shared(slope_of_cap(capped, cap));
        }
        let of_queries = of_scores.clone().reshape([rows, n_kv, copies * stacked, tokens]).matmul(keys);
        let of_keys = of_scores.swap_dims(2, 3).reshape([rows, n_kv, copies * tokens, stacked]).matmul(queries);
        let across = g.reshape([rows, n_kv, copies, stacked, dim]).swap_dims(2, 3);
        let of_values = weights.swap_dims(2, 3).matmul(across.reshape([rows, n_kv, stacked, copies * dim]));

        let of_queries = of_queries.mul_scalar(attention.score_scale);
        let of_queries = of_queries.reshape([rows, n_kv * copies * group, tokens, dim]);
        let of_queries = match values.query_factors {
            Some(factors) => of_queries * factors,
            None => of_queries,
        };
        let of_keys = of_keys.reshape([rows, n_kv * copies, tokens, dim]);
        let gathered = |g: Tensor<2>| match &values.distinct {
            Some(distinct) => distinct.pull_back_spread(g),
            None => g,
        };
        let turned = |g: Tensor<4>, group: usize| {
            let g = match &values.rotation {
                Some(rotation) => rotation.pull_back(g),
                None => g,
            };
            let g = g.reshape([rows, n_kv, copies, group, tokens, dim]).permute([2, 0, 4, 1, 3, 5]);
            gathered(g.reshape([copies * rows * tokens, n_kv * group * dim]))
        };
        let (of_queries, of_keys) = (turned(of_queries, group), turned(of_keys, 1));
        let of_values = of_values.reshape([rows, n_kv, tokens, copies, dim]).permute([3, 0, 2, 1, 4]);
        let of_values = gathered(of_values.reshape([copies * rows * tokens, n_kv * dim]));
        let [projected_queries, projected_keys] = values.projected;
        let [query_norm, key_norm] = &attention.query_key_norms;
        let of_queries = self.normed_by_group(query_norm, projected_queries, of_queries)?;
        let of_keys = self.normed_by_group(key_norm, projected_keys, of_keys)?;
        self.projections(&attention.inputs, [of_queries, of_keys, of_values], tape)
    }

    fn projections<const N: usize>(
        &mut self,
        projections: &Projections,
        g: [Tensor<2>; N],
        tape: &mut Tape,
    ) -> Result<Tensor<2>> {
        let g = match projections.linears.len() {
            1 => vec![Tensor::cat(g.to_vec(), 1)],
            _ => g.to_vec(),
        };
        let linears = projections.linears.iter().zip(g);
        let linears: Vec<_> = linears.map(|(linear, g)| (linear, linear.weight.val(), g)).collect();
        self.linears(&linears, None, tape)
    }

    fn linear(&mut self, linear: &LoraLinear, g: Tensor<2>, tape: &mut Tape) -> Result<Tensor<2>> {
        self.linears(&[(linear, linear.weight.val(), g)], None, tape)
    }

    /// Through linears of one input with their weights, as [`LoraLinear::forward_with`] has them.
    fn linears(
        &mut self,
        linears: &[(&LoraLinear, Tensor<2>, Tensor<2>)],
        columns: Option<&Tensor<1, Int>>,
        tape: &mut Tape,
    ) -> Result<Tensor<2>> {
        let products = linears.iter().map(|(_, weight, g)| (g.clone(), weight.clone()));
        let through = times_transposed(products).ok_or_else(|| Error::empty("projections"))?;
        let dtype = through.dtype();
        let updates = linears.iter().filter_map(|(linear, _, g)| self.update(linear, columns, g.clone(), tape));
        Ok(updates.fold(through, |sum, update| sum + update.cast(dtype)))
    }

    /// Through a linear's adapter, where it has one.
    fn update(
        &mut self,
        linear: &LoraLinear,
        columns: Option<&Tensor<1, Int>>,
        g: Tensor<2>,
        tape: &mut Tape,
    ) -> Option<Tensor<2>> {
        let adapter = linear.adapter.as_ref()?;
        let (a, b) = (adapter.a.val(), adapter.b.val());
        let b = match columns {
            Some(index) => b.select(0, index.clone()),
            None => b,
        };
        let of_update = g.cast(a.dtype()).mul_scalar(adapter.scale);
        let of_hidden = of_update.clone().matmul(b);
        let site = |matrix| Site { module: linear.path.clone(), matrix };
        self.gradients.insert(site(LoraMatrix::B), of_update);
        self.gradients.insert(site(LoraMatrix::A), of_hidden.clone());
        // what dropout left out of the input has no gradient
        Some(tape.disturb_input(&linear.path, of_hidden.matmul(a), adapter.dropout))
    }

    fn normed(&self, norm: &Option<Norm>, x: Option<Tensor<2>>, g: Tensor<2>) -> Result<Tensor<2>> {
        match norm {
            Some(norm) => Ok(self.norm(norm, kept(x, "input of a norm")?, g)),
            None => Ok(g),
        }
    }

    fn normed_by_group(&self, norm: &Option<Norm>, x: Option<Tensor<2>>, g: Tensor<2>) -> Result<Tensor<2>> {
        let Some(norm) = norm else { return Ok(g) };
        let x = kept(x, "input of a norm")?;
        let (x_shape, g_shape, width) = (x.dims(), g.dims(), norm.gains.lazy_shape()[0]);
        let grouped = |t: Tensor<2>, [n, all]: [usize; 2]| t.reshape([n * all / width, width]);
        Ok(self.norm(norm, grouped(x, x_shape), grouped(g, g_shape)).reshape(g_shape))
    }

    /// `(γg − u·mean(u·γg)) / r` with `u = x/r`, `r = √(mean x² + ε)`.
    fn norm(&self, norm: &Norm, x: Tensor<2>, g: Tensor<2>) -> Tensor<2> {
        let dtype = g.dtype();
        let [n, width] = x.dims();
        let (unit, rms) = norm.unit(x);
        let g = g.cast(unit.dtype()) * norm.factors(unit.dtype());
        let (g, unit) = (g.reshape([self.copies, n, width]), unit.unsqueeze_dim::<3>(0));
        let mean = (g.clone() * unit.clone()).mean_dim(2);
        ((g - unit * mean) / rms.unsqueeze_dim::<3>(0)).reshape([self.copies * n, width]).cast(dtype)
    }

    /// Every copy times the same values `[n, width]`.
    fn times(&self, g: Tensor<2>, values: Tensor<2>) -> Tensor<2> {
        let [n, width] = values.dims();
        let g = g.reshape([self.copies, n, width]) * values.unsqueeze_dim::<3>(0);
        g.reshape([self.copies * n, width])
    }
}
