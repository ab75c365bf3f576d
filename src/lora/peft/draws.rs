//! Writes draws of an adapter as adapters.

use super::write::save_peft;
use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterSampler, LoraConfig, write_adapter};
use crate::outputs::claim_dir;
use std::path::{Path, PathBuf};

/// Draws of a sampler that [`save_draws`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedDraws {
    /// How many, from draw 0 on.
    pub n: usize,
    /// The seed of all.
    pub seed: u64,
}

/// Writes draws of `sampler` into the directories `draw-0`, `draw-1`, … of `dir`, each an adapter as [`save_peft`] writes it, for every
/// program that reads PEFT's; and gives their paths.
///
/// A draw from a Laplace posterior is a pair (A, B) of the trained ranks, also one of a core: `B·A = U R Vᵀ` is written as
/// `B = U R`, `A = Vᵀ` with zeros up to the rank. Only rounding to f32 is lost. A draw is one network: their **probabilities** are to be
/// averaged, not their logits and not their matrices.
///
/// # Errors
/// If none is asked for, the directory cannot be written, the sampler has no such draw or one of another shape, or as [`save_peft`].
pub fn save_draws<M: Adaptable>(
    (model, config): (&M, &LoraConfig),
    base_model: &str,
    sampler: &impl AdapterSampler,
    draws: SavedDraws,
    dir: impl AsRef<Path>,
) -> Result<Vec<PathBuf>> {
    let dir = dir.as_ref();
    if draws.n == 0 {
        return Err(Error::config("n", "at least 1", 0));
    }
    claim_dir(dir, 0)?;
    let save = |index: usize| {
        let place = dir.join(format!("draw-{index}"));
        let drawn = write_adapter(model.clone(), &sampler.draw(draws.seed, index as u64)?)?;
        save_peft(&drawn, config, base_model, &place)?;
        Ok(place)
    };
    (0..draws.n).map(save).collect()
}
