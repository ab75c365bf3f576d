//! Attaches adapters to a model's linears, counts them, and folds them in.

use super::{
    LoraConfig, TargetModules, TrainedBiases, TrainedHead,
    linear::{LoraAdapter, LoraLinear, Replaced, at_least_f32},
    parts::BasePart,
};
use crate::draws::{Purpose, generator, place};
use crate::error::{Error, Result};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use rand::RngExt;

/// A model whose linears can carry adapters. Implement it on your own burn module by listing its [`LoraLinear`]s.
pub trait Adaptable: Module + Sync {
    /// Every linear, in forward order.
    fn linears(&self) -> Vec<&LoraLinear>;
    /// The same, to be changed.
    fn linears_mut(&mut self) -> Vec<&mut LoraLinear>;

    /// The heads that train beside the adapter, of which a language model has none.
    fn heads(&self) -> Vec<&TrainedHead> {
        Vec::new()
    }

    /// The same, to be changed.
    fn heads_mut(&mut self) -> Vec<&mut TrainedHead> {
        Vec::new()
    }

    /// Every other parameter that an adapter's files may bring whole: embeddings, norms. None by default: files that bring one
    /// are then refused.
    fn parts(&self) -> Vec<BasePart> {
        Vec::new()
    }

    /// Takes a part that [`Adaptable::parts`] lists in the place of its own, frozen; false (the default) if there is none at
    /// its path.
    fn set_part(&mut self, part: BasePart) -> bool {
        let _ = part;
        false
    }
}

/// Attaches a fresh adapter to every targeted linear, with PEFT's start: `A ~ U(−1/√d_in, 1/√d_in)`, `B = 0`.
///
/// The base weights are frozen; A and B require gradients. A module's start is a function of (seed, its path) alone: one target
/// more changes no other start.
///
/// # Errors
/// If the configuration is out of bounds, a target matches nothing, an adapter is already there, or the configuration asks for
/// trained biases or modules, which only files bring.
pub fn attach<M: Adaptable>(model: M, config: &LoraConfig, seed: u64) -> Result<M> {
    config.validate()?;
    check_fresh(&model, config)?;
    check_targets(&model, config)?;
    let mut model = model.no_grad();
    for linear in model.linears_mut() {
        if !config.targets(&linear.path, linear.is_head)? {
            continue;
        }
        if linear.adapter.is_some() {
            return Err(Error::Incompatible(format!("module `{}` already has an adapter", linear.path)));
        }
        let (rank, d_in, d_out) = (config.rank_at(&linear.path)?, linear.d_in(), linear.d_out());
        let bound = 1.0 / (d_in as f64).sqrt();
        let mut rng = generator(seed, Purpose::AdapterStart, place(&linear.path), 0);
        let start: Vec<f32> = (0..rank * d_in).map(|_| rng.random_range(-bound..bound) as f32).collect();
        let (device, dtype) = (linear.weight.val().device(), adapter_dtype(linear));
        let a = Tensor::from_data(TensorData::new(start, [rank, d_in]), (&device, dtype));
        let b = Tensor::zeros([d_out, rank], (&device, dtype));
        let initial = Some([a.clone(), b.clone()]);
        linear.adapter = Some(new_adapter(a, b, config, &linear.path, initial)?);
    }
    Ok(model)
}

/// Adapters are kept in f32 even on a half-precision base (in f64 on an f64 base).
pub(super) fn adapter_dtype(linear: &LoraLinear) -> DType {
    at_least_f32(linear.weight.val().dtype())
}

pub(super) fn new_adapter(
    a: Tensor<2>,
    b: Tensor<2>,
    config: &LoraConfig,
    path: &str,
    initial: Option<[Tensor<2>; 2]>,
) -> Result<LoraAdapter> {
    Ok(LoraAdapter {
        a: Param::from_tensor(a),
        b: Param::from_tensor(b),
        scale: config.scale(path)?,
        dropout: config.dropout,
        initial,
    })
}

/// Training moves A, B and heads (or what the training mode names), so that nothing else belongs to a fresh adapter.
fn check_fresh<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<()> {
    if config.bias != TrainedBiases::None {
        return Err(Error::config("bias", "none for a fresh adapter", format!("{:?}", config.bias)));
    }
    let heads: Vec<&str> = model.heads().into_iter().map(|head| head.path.as_str()).collect();
    match config.modules_to_save.iter().flatten().find(|module| !heads.contains(&module.as_str())) {
        Some(module) => {
            let bound = "unset for a fresh adapter, but for the heads of the model";
            Err(Error::config("modules_to_save", bound, format!("`{module}`")))
        }
        None => Ok(()),
    }
}

/// Checks that every named target selects at least one linear, and that one of them is adapted.
fn check_targets<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<()> {
    for entry in config.target_modules.entries() {
        let single = match &config.target_modules {
            TargetModules::Names(_) => TargetModules::Names(vec![entry.to_string()]),
            pattern => pattern.clone(),
        };
        let mut found = false;
        for linear in model.linears() {
            found |= single.matches(&linear.path, linear.is_head)?;
        }
        if !found {
            return Err(no_match(model, entry));
        }
    }
    check_any_target(model, config)
}

/// Checks that at least one linear is adapted.
pub(super) fn check_any_target<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<()> {
    for linear in model.linears() {
        if config.targets(&linear.path, linear.is_head)? {
            return Ok(());
        }
    }
    Err(no_match(model, &config.target_modules.entries().join(", ")))
}

fn no_match<M: Adaptable>(model: &M, target: &str) -> Error {
    let linears = model.linears();
    Error::NoModuleMatches {
        target: target.to_string(),
        n_modules: linears.len(),
        examples: linears.iter().take(3).map(|l| l.path.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// Folds every adapter into its weight, `W ← W₀ + s·B·A`, and removes it. A merged model carries no posterior.
pub fn merge<M: Adaptable>(mut model: M) -> M {
    for linear in model.linears_mut() {
        let dtype = linear.weight.val().dtype();
        linear.weight = Param::from_tensor(linear.merged_weight().cast(dtype).detach()).set_require_grad(false);
        linear.is_tied &= linear.adapter.is_none();
        linear.adapter = None;
        linear.replaced = Replaced::default();
    }
    for part in model.parts() {
        model.set_part(BasePart { replaced: false, ..part });
    }
    model
}
