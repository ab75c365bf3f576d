//! Monte Carlo dropout: the training's dropout left on.

use super::belief::SampledBelief;
use super::bounds::check_some;
use super::keep::{Keep, Kept};
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements};
use super::token_noise::{NoisyBelief, TokenNoise};
use crate::draws::{Purpose, generator, place};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lora::{AdapterSampler, AdapterWeights, read_adapter};
use crate::models::{Classifier, Dataset};
use crate::setters::setters;
use crate::tape::{LoraMatrix, RowDropout, RowKeys, SiteNoise, dropout_mask};
use ndarray::Array1;
use std::collections::BTreeMap;

/// `y = W₀x + s·B A (m∘x)/(1 − p)`, `m_j ~ Bernoulli(1 − p)`, with the p that the adapter was trained with. The base has no noise.
///
/// Coherent noise is one mask an adapted matrix and draw, `A·diag(m)/(1 − p)`; per-token noise is what PEFT's training draws. On a
/// linear layer both have mean `MAP` and `Cov[y] = s² p/(1 − p) · B A diag(x∘x) Aᵀ Bᵀ` at each token.
///
/// Gal & Ghahramani (2016), arXiv 1506.02142.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct McDropout {
    /// Number of passes.
    pub n_samples: usize,
    /// What shares a mask.
    pub sharing: NoiseSharing,
}

impl Default for McDropout {
    /// Ten coherent draws.
    fn default() -> Self {
        Self { n_samples: 10, sharing: NoiseSharing::Coherent }
    }
}

impl McDropout {
    setters! {
        /// Sets the number of passes.
        with_n_samples(n_samples: usize);
        /// Sets what shares a mask.
        with_sharing(sharing: NoiseSharing);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_some("n_samples", self.n_samples)
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for McDropout {
    fn name(&self) -> String {
        match self.sharing {
            NoiseSharing::Coherent => "MC dropout".into(),
            NoiseSharing::PerToken => "MC dropout per token".into(),
        }
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        McDropout::validate(self)
    }

    fn describe(&self) -> String {
        format!("{} passes, {} masks", self.n_samples, self.sharing)
    }

    fn requirements(&self) -> Requirements {
        Requirements { dropout: true, ..Requirements::default() }
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        Some(self.sharing)
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        self.validate()?;
        let of = |linear: &crate::lora::LoraLinear| Some((linear.path.clone(), linear.adapter.as_ref()?.dropout));
        let probabilities: BTreeMap<String, f64> = context.map.linears().into_iter().filter_map(of).collect();
        if probabilities.values().all(|p| *p == 0.0) {
            return Err(Error::Incompatible("MC dropout needs an adapter trained with dropout".into()));
        }
        let largest = probabilities.values().copied().fold(0.0, f64::max);
        let (n_samples, seed) = (self.n_samples, context.seed);
        let fitted = match self.sharing {
            NoiseSharing::Coherent => {
                let sampler = DropoutSampler::new(read_adapter(context.map)?, probabilities);
                Fitted::new(SampledBelief { sampler, n_samples, seed, bytes: 0 })
            }
            NoiseSharing::PerToken => {
                Fitted::new(NoisyBelief { adapter: None, noise: TokenDropout, n_samples, seed, bytes: 0 })
            }
        };
        Ok(fitted.with_found("dropout", largest))
    }
}

/// Draws `A·diag(m)/(1 − p)`, one mask a module.
#[derive(Debug, Clone, PartialEq)]
pub struct DropoutSampler {
    map: AdapterWeights,
    probabilities: BTreeMap<String, f64>,
}

impl DropoutSampler {
    /// Around a trained adapter; p by module, 0 where none is given.
    pub fn new(map: AdapterWeights, probabilities: BTreeMap<String, f64>) -> Self {
        Self { map, probabilities }
    }

    /// The adapter under given masks: `mask(module, d_in, p)` gives the factors of a module's inputs.
    pub fn masked(&self, mut mask: impl FnMut(&str, usize, f64) -> Array1<f64>) -> AdapterWeights {
        let mut weights = self.map.clone();
        for (site, w) in &mut weights {
            let p = self.probability(&site.module);
            if site.matrix == LoraMatrix::A && p > 0.0 {
                *w *= &mask(&site.module, w.ncols(), p);
            }
        }
        weights
    }
}

impl DropoutSampler {
    pub(super) const KIND: &str = "dropout";

    pub(super) fn restore(kept: &mut Kept, map: AdapterWeights) -> Result<Self> {
        let mut probabilities = BTreeMap::new();
        for module in modules(&map) {
            let p = kept.take_number(module)?;
            if !(0.0..1.0).contains(&p) {
                return Err(Error::config(format!("dropout of `{module}`"), "in [0, 1)", p));
            }
            probabilities.insert(module.clone(), p);
        }
        Ok(Self { map, probabilities })
    }

    fn probability(&self, module: &str) -> f64 {
        self.probabilities.get(module).copied().unwrap_or(0.0)
    }
}

fn modules(map: &AdapterWeights) -> impl Iterator<Item = &String> {
    map.keys().filter(|site| site.matrix == LoraMatrix::A).map(|site| &site.module)
}

/// p of every module; the adapter is the model's.
impl Keep for DropoutSampler {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(
            modules(&self.map).fold(Kept::new(Self::KIND), |kept, name| kept.with_number(name, self.probability(name))),
        )
    }
}

impl AdapterSampler for DropoutSampler {
    fn draw(&self, seed: u64, index: u64) -> Result<AdapterWeights> {
        Ok(self.masked(|module, width, p| {
            let mask = dropout_mask(&mut generator(seed, Purpose::DropoutMask, place(module), index), width, p);
            mask.into_iter().map(f64::from).collect()
        }))
    }
}

/// The training's dropout, a mask of its own for every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenDropout;

impl TokenDropout {
    pub(super) const KIND: &str = "dropout";
}

impl Keep for TokenDropout {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND))
    }
}

impl TokenNoise for TokenDropout {
    fn describe(&self) -> String {
        "dropout per token".into()
    }

    fn noise(&self, seed: u64, index: u64, rows: RowKeys) -> Box<dyn SiteNoise> {
        Box::new(RowDropout { seed, purpose: Purpose::TokenDropout, index, rows })
    }
}
