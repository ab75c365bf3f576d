//! Names an adapter and its base by 64-bit hashes, so that curvature and posteriors know what they are about.

use super::{Adaptable, AdapterWeights, read_adapter, trained_matrices};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use burn::module::{ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Hashes the names of an adapter's matrices and every bit of their weights: two adapters that differ anywhere differ here
/// (but for one chance in 2⁶⁴).
pub fn adapter_fingerprint(weights: &AdapterWeights) -> u64 {
    let bytes = weights.iter().flat_map(|(site, weight)| {
        site.to_string().into_bytes().into_iter().chain(weight.iter().flat_map(|v| v.to_bits().to_le_bytes()))
    });
    fnv1a(bytes)
}

/// Hashes the shape and every bit of all of a model's weights but those of its adapter, in the element type they are held in.
///
/// # Errors
/// If a copy from the device fails.
pub fn base_fingerprint<M: Adaptable>(model: &M) -> Result<u64> {
    let trained: Vec<ParamId> = trained_matrices(model).iter().map(|trained| trained.param.id).collect();
    let mut visitor = Hasher { trained, hashes: Vec::new(), failure: None };
    model.visit(&mut visitor);
    match visitor.failure {
        None => Ok(fnv1a_words(visitor.hashes)),
        Some(reason) => Err(Error::numerical("fingerprint of the base", reason)),
    }
}

/// Hashes what the weights of adapted modules do not tell: path, scale and dropout of each.
fn settings_fingerprint<M: Adaptable>(model: &M) -> u64 {
    let adapted = model.linears().into_iter().filter_map(|linear| Some((&linear.path, linear.adapter.as_ref()?)));
    fnv1a_words(
        adapted.flat_map(|(path, adapter)| [fnv1a(path.bytes()), adapter.scale.to_bits(), adapter.dropout.to_bits()]),
    )
}

/// Hashes all that a model's answers and its training depend on, with an adapter or without.
///
/// # Errors
/// As [`base_fingerprint`].
pub(crate) fn model_fingerprint<M: Adaptable>(model: &M) -> Result<u64> {
    match read_adapter(model) {
        Err(Error::Empty { .. }) => Ok(fnv1a_words([base_fingerprint(model)?, 0])),
        weights => {
            let ModelFingerprint { adapter, base, settings } = ModelFingerprint::of(model, &weights?)?;
            Ok(fnv1a_words([base, adapter, settings]))
        }
    }
}

/// The adapted model that a file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelFingerprint {
    /// Of all that trains, by [`adapter_fingerprint`].
    adapter: u64,
    /// Of all other weights, by [`base_fingerprint`].
    base: u64,
    /// Of each adapted module's scale and dropout.
    settings: u64,
}

impl ModelFingerprint {
    /// Of a model whose adapter has these weights.
    ///
    /// # Errors
    /// As [`base_fingerprint`].
    pub(crate) fn of<M: Adaptable>(model: &M, weights: &AdapterWeights) -> Result<Self> {
        let adapter = adapter_fingerprint(weights);
        Ok(Self { adapter, base: base_fingerprint(model)?, settings: settings_fingerprint(model) })
    }

    pub(crate) fn adapter(&self) -> u64 {
        self.adapter
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Checks that `what`, which is about `self`, meets the same model here.
    ///
    /// # Errors
    /// Says what differs, with both fingerprints.
    pub(crate) fn check(&self, what: &str, here: &Self) -> Result<()> {
        check_same_adapter(what, self.adapter, here.adapter)?;
        let differs = |where_: &str, expected: u64, found: u64| {
            Err(Error::Incompatible(format!(
                "the {what} was fitted on {where_} (fingerprints {expected:016x} and {found:016x})"
            )))
        };
        if self.base != here.base {
            return differs("another base model, or on this one in another element type", self.base, here.base);
        }
        if self.settings != here.settings {
            return differs("an adapter of another scale or dropout", self.settings, here.settings);
        }
        Ok(())
    }
}

struct Hasher {
    trained: Vec<ParamId>,
    hashes: Vec<u64>,
    failure: Option<String>,
}

impl ModuleVisitor for Hasher {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.trained.contains(&param.id) {
            return;
        }
        match param.val().try_into_data() {
            Err(reason) => self.failure = Some(reason.to_string()),
            Ok(data) => {
                let shape = data.shape().to_vec().into_iter().map(|n| n as u64);
                let words = data.as_bytes().chunks(8).map(|chunk| {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    u64::from_le_bytes(word)
                });
                self.hashes.push(fnv1a_words(shape.chain(words)));
            }
        }
    }
}

/// Checks that `what` was fitted at the adapter in hand.
///
/// # Errors
/// Names both fingerprints.
pub(crate) fn check_same_adapter(what: &str, expected: u64, found: u64) -> Result<()> {
    if expected != found {
        return Err(Error::Incompatible(format!(
            "a {what} is about the adapter at which it was fitted, and the two here differ (fingerprints {expected:016x} \
             and {found:016x})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{LoraMatrix, Site};
    use ndarray::Array2;

    #[test]
    fn one_bit_of_one_weight_or_another_module_changes_the_fingerprint() {
        let adapter = |module: &str, value: f64| {
            let mut weight = Array2::zeros((3, 2));
            weight[[2, 1]] = value;
            AdapterWeights::from([(Site { module: module.into(), matrix: LoraMatrix::A }, weight)])
        };
        let own = adapter_fingerprint(&adapter("q_proj", 1.0));
        assert_eq!(own, adapter_fingerprint(&adapter("q_proj", 1.0)));
        assert_ne!(own, adapter_fingerprint(&adapter("q_proj", 1.0f64.next_up())));
        assert_ne!(own, adapter_fingerprint(&adapter("k_proj", 1.0)));
    }
}
