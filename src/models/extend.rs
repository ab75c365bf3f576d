//! Adds tokens to rows that a decoder has seen the beginning of.

use super::{
    causal_lm::CausalLm,
    kv_cache::{KeyValueCache, NewTokens},
    layer_contexts::LayerContexts,
    layer_values::PassMemory,
    rope::{Places, goes_long},
    seen_prefix::SeenPrefix,
};
use crate::error::{Error, Result};
use crate::tape::Tape;
use burn::tensor::Tensor;

impl CausalLm {
    /// Final hidden states of each row's last token, after `new` tokens behind those that `cache` has seen; it then has seen these too.
    ///
    /// The same layers run as in [`CausalLm::hidden`] without a cache, over the new tokens alone, and give the same numbers to rounding. A
    /// row that becomes longer than LongRoPE's original context takes other factors: all rows are then computed again, as if they had been
    /// given whole.
    ///
    /// # Shapes
    /// - new: for each of the cache's rows one token or more; output `[rows, hidden]`
    ///
    /// # Errors
    /// If the rows are not those of the cache, one of them gets no token, a token is not in the vocabulary, or a row grows longer than the
    /// context. The cache is then as before.
    pub fn extend(&self, cache: &mut KeyValueCache, new: &[Vec<u32>], tape: &mut Tape) -> Result<Tensor<2>> {
        self.check(cache, new)?;
        let scalings = [Some(&self.config.rope_scaling), self.config.sliding_rope.as_ref().map(|(_, scaling)| scaling)];
        let grown = |(before, new): (usize, &Vec<u32>)| {
            let mut scalings = scalings.iter().flatten();
            before > 0 && scalings.any(|scaling| goes_long(scaling, before, before + new.len()))
        };
        let anew = cache.lengths().into_iter().zip(new).any(grown).then(|| {
            let seen = cache.forget();
            seen.into_iter().zip(new).map(|(seen, new)| [&*seen, new].concat()).collect::<Vec<_>>()
        });
        let table = self.embedding.weight.val();
        let (device, dtype) = (table.device().without_autodiff(), table.dtype());
        let NewTokens { ids, tokens, first, span, positions, last } =
            cache.push(anew.as_deref().unwrap_or(new), &device);
        let lengths = cache.lengths();
        let positions = Some(&positions);
        let read = self.read_tokens((&last, cache.n_rows() * tokens), None, tape);
        let (distinct, read, device) = (None, Some(&read), &device);
        let places = Places { tokens, first, span, positions, lengths: &lengths, distinct, read, device, dtype };
        let mut layers = std::mem::take(&mut cache.layers);
        layers.resize_with(self.config.n_layers, Default::default);
        let mask = |window| cache.attention_mask(tokens, window, (device, dtype));
        let contexts = LayerContexts::new(&self.config, &places, cache.n_rows(), mask);
        let hidden = self.run(ids, &places, &contexts, PassMemory::Caches(&mut layers), tape);
        cache.layers = layers;
        Ok(hidden)
    }

    /// Reads tokens that rows begin with, once for all of them. `None` where a row's rotation depends on its length (`longrope`), and where the
    /// model has no such tokens or no room for them: the rows themselves are then refused.
    ///
    /// # Errors
    /// As [`CausalLm::extend`].
    pub(super) fn see_prefix(&self, ids: &[u32]) -> Result<Option<SeenPrefix>> {
        let config = &self.config;
        let is_foreign = |id: &u32| *id as usize >= config.vocab_size;
        if self.rotates_by_length() || ids.is_empty() || ids.len() > config.max_positions || ids.iter().any(is_foreign)
        {
            return Ok(None);
        }
        let mut cache = KeyValueCache::new(1);
        self.extend(&mut cache, &[ids.to_vec()], &mut Tape::off())?;
        Ok(Some(SeenPrefix { ids: ids.to_vec(), layers: cache.layers }))
    }

    fn check(&self, cache: &KeyValueCache, new: &[Vec<u32>]) -> Result<()> {
        let (vocabulary, limit) = (self.config.vocab_size, self.config.max_positions);
        if new.len() != cache.n_rows() {
            let what = "rows of new tokens beside those of a key-value cache".into();
            return Err(Error::Count { what, expected: cache.n_rows(), found: new.len() });
        }
        if !cache.layers.is_empty() && cache.layers.len() != self.config.n_layers {
            let what = "layers of a key-value cache beside those of the model".into();
            return Err(Error::Count { what, expected: self.config.n_layers, found: cache.layers.len() });
        }
        for (row, (seen, ids)) in cache.lengths().into_iter().zip(new).enumerate() {
            if ids.is_empty() {
                return Err(Error::empty(format!("new tokens of row {row}")));
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
                return Err(Error::config("token id", format!("below the vocabulary's {vocabulary}"), id));
            }
            if seen + ids.len() > limit {
                let bound = format!("at most the context's {limit}");
                return Err(Error::config(format!("tokens of row {row}"), bound, seen + ids.len()));
            }
        }
        Ok(())
    }
}
