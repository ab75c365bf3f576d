//! Lays the state of an update rule out as bytes for a checkpoint, and reads it back to the same bits.

use crate::error::{Error, Result, check_finite};
use crate::lora::AdapterWeights;
use crate::tape::Site;
use ndarray::Array2;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use std::collections::{BTreeMap, HashMap};

/// What an error says that the bytes are.
const WHAT: &str = "update rule's state";
/// Where the number of updates is among the metadata.
const UPDATES: &str = "updates";
/// The tensor of another rule's bytes.
const INNER: &str = "inner";

/// All that a rule keeps from step to step: the number of its updates, and matrices by the name of what they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RuleState {
    /// Updates that were done; a step that was skipped is none.
    pub(super) updates: u64,
    /// Such as `momentum`, then one matrix a site.
    pub(super) parts: BTreeMap<String, AdapterWeights>,
    /// State of a rule that this one is built around.
    pub(super) inner: Vec<u8>,
}

impl RuleState {
    /// A safetensors file in memory: tensors `PART/MODULE.lora_A` in f64.
    ///
    /// # Errors
    /// If the format cannot hold them.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut arrays = vec![(INNER.to_string(), Dtype::U8, vec![self.inner.len()], self.inner.clone())];
        for (part, weights) in &self.parts {
            for (site, values) in weights {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                arrays.push((format!("{part}/{site}"), Dtype::F64, values.shape().to_vec(), bytes));
            }
        }
        let views = arrays.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| Error::format(WHAT, e))?;
            Ok((name.as_str(), view))
        });
        let metadata = HashMap::from([(UPDATES.to_string(), self.updates.to_string())]);
        serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata)).map_err(|e| Error::format(WHAT, e))
    }

    /// Reads what [`RuleState::to_bytes`] wrote, of a rule with these parts.
    ///
    /// # Errors
    /// If the bytes are malformed, hold another part, or a value is not finite.
    pub(super) fn from_bytes(bytes: &[u8], parts: &[&str]) -> Result<Self> {
        let format = |reason: String| Error::format(WHAT, reason);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| Error::format(WHAT, e))?;
        let updates = header.metadata().as_ref().and_then(|m| m.get(UPDATES)?.parse().ok());
        let mut state =
            Self { updates: updates.ok_or_else(|| format("no count of updates".into()))?, ..Self::default() };
        let file = SafeTensors::deserialize(bytes).map_err(|e| Error::format(WHAT, e))?;
        for (name, view) in file.iter() {
            if name == INNER {
                state.inner = view.data().to_vec();
                continue;
            }
            let unknown = || format(format!("unknown tensor `{name}`"));
            let (part, site) = name.split_once('/').filter(|(part, _)| parts.contains(part)).ok_or_else(unknown)?;
            let site: Site = site.parse().map_err(|_| unknown())?;
            let (Dtype::F64, &[rows, columns]) = (view.dtype(), view.shape()) else { return Err(unknown()) };
            let mut values = Vec::with_capacity(rows * columns);
            for number in view.data().chunks_exact(size_of::<f64>()) {
                let mut own = [0; size_of::<f64>()];
                own.copy_from_slice(number);
                values.push(f64::from_le_bytes(own));
            }
            check_finite(format_args!("{WHAT}: `{name}`"), values.iter().map(|v| v.is_finite()))?;
            let values = Array2::from_shape_vec((rows, columns), values).map_err(|e| Error::format(WHAT, e))?;
            state.parts.entry(part.into()).or_default().insert(site, values);
        }
        Ok(state)
    }

    /// The matrices of a part, none if there are none yet.
    pub(super) fn take(&mut self, part: &str) -> AdapterWeights {
        self.parts.remove(part).unwrap_or_default()
    }
}

/// Checks that a rule's matrices are those of an adapter's sites that `shape` gives a shape.
///
/// # Errors
/// Names the first site that lacks one, or whose shape differs.
pub(super) fn check_fits(
    kept: &AdapterWeights,
    adapter: &AdapterWeights,
    shape: impl Fn(&Site, &Array2<f64>) -> Option<(usize, usize)>,
) -> Result<()> {
    for (site, weight) in adapter {
        let Some((rows, columns)) = shape(site, weight) else { continue };
        let found = kept.get(site).map_or(vec![], |w| w.shape().to_vec());
        if found != [rows, columns] {
            return Err(Error::Shape { what: format!("{WHAT}: `{site}`"), expected: vec![rows, columns], found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::LoraMatrix;
    use ndarray::arr2;

    fn state() -> RuleState {
        let site = |matrix| Site { module: "model.layers.0.q_proj".into(), matrix };
        let weights = AdapterWeights::from([
            (site(LoraMatrix::A), arr2(&[[0.1, -0.0, 1e-310]])),
            (site(LoraMatrix::B), arr2(&[[f64::MIN_POSITIVE], [1.0 / 3.0]])),
        ]);
        RuleState { updates: u64::MAX, parts: [("momentum".to_string(), weights)].into(), inner: vec![7, 0, 255] }
    }

    #[test]
    fn a_state_survives_its_bytes_and_a_damaged_one_is_refused() {
        let bytes = state().to_bytes().unwrap();
        let back = RuleState::from_bytes(&bytes, &["momentum"]).unwrap();
        assert_eq!(back, state());
        let bits = |s: &RuleState| -> Vec<u64> {
            s.parts.values().flat_map(|w| w.values().flatten().map(|v| v.to_bits()).collect::<Vec<_>>()).collect()
        };
        assert_eq!(bits(&back), bits(&state())); // −0 too
        assert_eq!(
            RuleState::from_bytes(&RuleState::default().to_bytes().unwrap(), &[]).unwrap(),
            RuleState::default()
        );
        let error = RuleState::from_bytes(&bytes, &["hessian"]).unwrap_err().to_string();
        assert!(error.contains("momentum/model.layers.0.q_proj.lora_"), "{error}");
        assert!(RuleState::from_bytes(&bytes[..bytes.len() - 1], &["momentum"]).is_err());
        assert!(RuleState::from_bytes(&[], &["momentum"]).is_err());
        let mut infinite = state();
        infinite.parts.get_mut("momentum").unwrap().values_mut().next().unwrap()[[0, 1]] = f64::INFINITY;
        let error = RuleState::from_bytes(&infinite.to_bytes().unwrap(), &["momentum"]).unwrap_err().to_string();
        assert!(error.contains("1 of 3"), "{error}");
    }

    #[test]
    fn a_state_of_another_adapter_is_refused_by_its_site() {
        let kept = state().take("momentum");
        let own = |_: &Site, w: &Array2<f64>| Some(w.dim());
        assert!(check_fits(&kept, &kept, own).is_ok());
        let wider = kept.iter().map(|(site, w)| (site.clone(), Array2::zeros((w.nrows(), 4)))).collect();
        let error = check_fits(&kept, &wider, own).unwrap_err().to_string();
        assert!(error.contains("lora_A") && error.contains("[1, 4]") && error.contains("[1, 3]"), "{error}");
        assert!(check_fits(&AdapterWeights::new(), &kept, own).is_err());
    }
}
