//! Sums one of several parts of the data, in a process or on a machine of its own, and joins the parts again.

use super::config::CurvatureConfig;
use super::curvature::Curvature;
use super::estimate::with_dense_limit;
use super::fit::fit_curvature;
use crate::error::{Error, Result};
use crate::file_header::parse_header;
use crate::models::{Classifier, Dataset, Subset, data_fingerprint};
use crate::progress::Control;
use crate::tensor_file::TensorFile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version that this crate writes and reads; any change of the header needs another.
const FORMAT_VERSION: u64 = 1;
/// Where the header is among the metadata, beside that of the sums.
const KEY: &str = "bayes_lora_shard";

/// Which part of which data sums are of: items `index`, `index + of`, `index + 2·of`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardOf {
    /// The part, from 0.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
    /// How many items all parts have together.
    pub n_items: usize,
    /// A hash of all items, in order.
    pub items: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u64,
    index: usize,
    of: usize,
    n_items: usize,
    items: u64,
}

/// The sums of one part of the data.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvatureShard {
    /// Which part.
    pub part: ShardOf,
    /// The sums.
    pub curvature: Curvature,
}

/// Sums the curvature of part `index` of `of` of the data, as [`fit_curvature`] sums that of all; each part may be summed by a process of
/// its own.
///
/// Which Kronecker factors are kept dense is decided by all items, so that the sums of the parts merge.
///
/// # Errors
/// As [`fit_curvature`]; if the index is not below `of`, the part has no item, the data cannot tell what an item holds, or the structure
/// needs the sums of all parts for a second pass (EKFAC).
pub fn fit_curvature_shard<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
    (index, of): (usize, usize),
    control: &Control,
) -> Result<CurvatureShard> {
    if index >= of {
        return Err(Error::config("index of a shard", format!("below {of}"), index));
    }
    config.validate()?;
    let config = with_dense_limit(model, data, &config.resolved())?;
    if config.plan().needs_factors_first() {
        return Err(Error::Incompatible(format!(
            "{} has a second pass in the bases of all items' factors, which no shard knows: take another structure",
            config.structure
        )));
    }
    let part = ShardOf { index, of, n_items: data.n_items(), items: data_fingerprint(data)? };
    let items = Subset::new(data, (index..data.n_items()).step_by(of).collect())?;
    Ok(CurvatureShard { part, curvature: fit_curvature(model, &items, &config, control)? })
}

impl CurvatureShard {
    /// Saves the sums as [`Curvature::save`] does, which [`Curvature::load`] reads too, with what they are a part of.
    ///
    /// # Errors
    /// As [`Curvature::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let ShardOf { index, of, n_items, items } = self.part;
        let header = Header { format_version: FORMAT_VERSION, index, of, n_items, items };
        let header = serde_json::to_string(&header).map_err(|e| Error::format(path.display(), e))?;
        self.curvature.save_beside(path, Some((KEY, header)))
    }

    /// Joins the parts of which each is in a file, in any order, into the sums of all items.
    ///
    /// ```no_run
    /// # use bayes_lora::curvature::CurvatureShard;
    /// let sums = CurvatureShard::merge(&["posterior.shard-0-of-2.safetensors", "posterior.shard-1-of-2.safetensors"])?;
    /// # Ok::<(), bayes_lora::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none; names the file that is damaged, no part, of other data or of another number of parts, or a part that is there
    /// already; names the parts that are missing; as [`Curvature::merge`].
    pub fn merge<P: AsRef<Path>>(files: &[P]) -> Result<Curvature> {
        let mut parts: BTreeMap<usize, (&Path, ShardOf)> = BTreeMap::new();
        for path in files.iter().map(AsRef::as_ref) {
            let part = ShardOf::of_file(path)?;
            if let Some((first, known)) = parts.values().next() {
                check_same(path, &part, first, known)?;
            }
            if let Some((other, _)) = parts.insert(part.index, (path, part)) {
                let of = part.of;
                let reason = format!("is part {} of {of}, as {} is", part.index, other.display());
                return Err(Error::format(path.display(), reason));
            }
        }
        let Some((_, &(first, whole))) = parts.first_key_value() else {
            return Err(Error::empty("list of shards"));
        };
        let missing: Vec<String> =
            (0..whole.of).filter(|index| !parts.contains_key(index)).map(|i| i.to_string()).collect();
        if !missing.is_empty() {
            let found = format!("{} of {} shards are given", parts.len(), whole.of);
            return Err(Error::Incompatible(format!(
                "{found}, such as {}: missing are {}",
                first.display(),
                missing.join(", ")
            )));
        }
        let named = |path: &Path, error: Error| Error::format(path.display(), error);
        let mut merged = Curvature::load(first)?;
        for (path, _) in parts.values().skip(1) {
            merged = merged.merge(Curvature::load(path)?).map_err(|error| named(path, error))?;
        }
        if merged.n_data != whole.n_items {
            let what = format!("items of the shards such as {}", first.display());
            return Err(Error::Count { what, expected: whole.n_items, found: merged.n_data });
        }
        Ok(merged)
    }
}

impl ShardOf {
    /// Reads which part the sums of a file are of.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged, or holds the sums of no part.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = TensorFile::open(path)?;
        let text = file.checked_metadata(KEY)?;
        let Header { format_version: _, index, of, n_items, items } =
            parse_header(text, FORMAT_VERSION, "shard", path)?;
        if index >= of {
            return Err(Error::config(format!("{}: index of a shard", path.display()), format!("below {of}"), index));
        }
        Ok(Self { index, of, n_items, items })
    }
}

/// Checks that two parts are of the same whole.
fn check_same(path: &Path, part: &ShardOf, first: &Path, known: &ShardOf) -> Result<()> {
    let whole = |part: &ShardOf| format!("{} items with hash {:016x} in {} parts", part.n_items, part.items, part.of);
    let (here, there) = (whole(part), whole(known));
    if here == there {
        return Ok(());
    }
    Err(Error::format(path.display(), format!("is a part of {here}, and {} of {there}", first.display())))
}
