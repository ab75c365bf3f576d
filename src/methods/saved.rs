//! Saves what a method found as a folder, and reads it back bit by bit.

use super::keep::Kept;
use super::kinds::BeliefKinds;
use super::method::{Fitted, Spent};
use crate::curvature::Reader;
use crate::error::{Error, Result, check_finite};
use crate::file_header::{Exact, parse_header};
use crate::lora::{Adaptable, ModelFingerprint, read_adapter};
use crate::models::{Classifier, Dataset};
use crate::outputs::claim_dir;
use crate::posterior::{Laplace, POSTERIOR_FILE};
use crate::search::{ExactSearch, Search};
use crate::tensor_file::{StoredArray, TensorFile, write_checked};
use ndarray::CowArray;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// The version that this crate writes and reads; any change of the header or of a kind needs another.
const FORMAT_VERSION: u64 = 3;
/// Where the header is among the metadata.
const KEY: &str = "bayes_lora_belief";
/// What a belief keeps, but for a Laplace posterior: that has the format and the name of its own.
const BELIEF_FILE: &str = "belief.safetensors";

/// Everything but the matrices, and with it the name and shape of each.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u64,
    crate_version: String,
    kind: String,
    settings: BTreeMap<String, Value>,
    numbers: BTreeMap<String, Exact>,
    matrices: BTreeMap<String, [usize; 2]>,
    /// Fingerprint of the posterior beside it.
    posterior: Option<u64>,
    model: ModelFingerprint,
    spent: Spent,
    found: BTreeMap<String, Exact>,
    searches: Vec<ExactSearch>,
}

/// All that the files of a belief will hold, checked.
pub(super) struct Saved<'a> {
    header: Header,
    kept: Kept<'a>,
}

impl Saved<'_> {
    /// About the size of the files.
    pub(super) fn bytes(&self) -> u64 {
        let matrices = self.header.matrices.values().map(|[rows, columns]| 8 * (rows * columns) as u64);
        let blocks = self.kept.posterior.iter().flat_map(|posterior| posterior.blocks());
        matrices.sum::<u64>() + blocks.map(|block| block.bytes() as u64).sum::<u64>()
    }

    /// Writes the posterior, then what needs it.
    pub(super) fn write<M: Adaptable>(self, dir: &Path, model: &M) -> Result<()> {
        if let Some(posterior) = &self.kept.posterior {
            posterior.save(dir.join(POSTERIOR_FILE), model)?;
        }
        let matrices = self.kept.matrices.iter();
        let arrays = matrices.map(|(name, matrix)| (name.clone(), StoredArray::new(matrix.view()))).collect();
        write_checked(&dir.join(BELIEF_FILE), arrays, KEY, &self.header)
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Fitted<M, D> {
    /// Saves the belief in the folder `dir` as `belief.safetensors`, a Laplace posterior beside it as `posterior.safetensors`, each
    /// in one step. Of the model, only fingerprints are in it: save its adapter with [`crate::lora::save_peft`].
    ///
    /// # Errors
    /// If the belief is of a kind that cannot be saved, a value is not finite, a Laplace posterior is about another adapter than
    /// the model's, or the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>, model: &M) -> Result<()> {
        let (dir, saved) = (dir.as_ref(), self.to_saved(model)?);
        // so that no posterior stands there without its belief
        claim_dir(dir, saved.bytes())?;
        saved.write(dir, model)
    }

    /// What [`Fitted::save`] writes, complete before anything is written.
    ///
    /// # Errors
    /// If the belief is of a kind that cannot be saved, or a value is not finite.
    pub(super) fn to_saved(&self, model: &M) -> Result<Saved<'_>> {
        let kept = self.belief.keep();
        let kept = kept.ok_or_else(|| Error::Incompatible("this belief does not say what it keeps".into()))?;
        for (name, matrix) in &kept.matrices {
            check_finite(format_args!("tensor `{name}`"), matrix.iter().map(|v| v.is_finite()))?;
        }
        let exact = |(name, value): (&String, &f64)| Ok((name.clone(), Exact::new(name, *value)?));
        let header = Header {
            format_version: FORMAT_VERSION,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            kind: kept.kind.to_string(),
            settings: kept.settings.clone(),
            numbers: kept.numbers.iter().map(exact).collect::<Result<_>>()?,
            matrices: kept.matrices.iter().map(|(name, m)| (name.clone(), [m.nrows(), m.ncols()])).collect(),
            posterior: kept.posterior.as_ref().map(|posterior| posterior.fingerprint()).transpose()?,
            model: ModelFingerprint::of(model, &read_adapter(model)?)?,
            spent: self.spent,
            found: self.found.iter().map(exact).collect::<Result<_>>()?,
            searches: self.searches.iter().map(ExactSearch::new).collect::<Result<_>>()?,
        };
        Ok(Saved { header, kept })
    }

    /// Reads what [`Fitted::save`] wrote, for the base and the adapter of `model`: it believes what was saved, bit by bit.
    ///
    /// The files need not be trusted: every tensor and header is compared with its checksum, nothing is allocated that the files
    /// do not hold.
    ///
    /// # Errors
    /// If a file is missing, damaged, of another version or kind, the posterior is not the belief's, or the model carries another
    /// adapter, of other weights, scale or dropout, or has other weights below it.
    pub fn load(dir: impl AsRef<Path>, model: &M) -> Result<Self>
    where
        M: 'static,
        D: 'static,
    {
        Self::load_with(dir, model, &BeliefKinds::default())
    }

    /// The same where `kinds` names kinds of the caller's own.
    ///
    /// # Errors
    /// As [`Fitted::load`].
    pub fn load_with(dir: impl AsRef<Path>, model: &M, kinds: &BeliefKinds<M, D>) -> Result<Self>
    where
        M: 'static,
        D: 'static,
    {
        let dir = dir.as_ref();
        let path = dir.join(BELIEF_FILE);
        let file = TensorFile::open(&path)?;
        let header = parse_header::<Header>(file.checked_metadata(KEY)?, FORMAT_VERSION, "belief", &path)?;
        let map = read_adapter(model)?;
        header.model.check("belief", &ModelFingerprint::of(model, &map)?)?;
        let mut reader = Reader::new(file, &path);
        let mut matrices = BTreeMap::new();
        for (name, shape) in header.matrices {
            matrices.insert(name.clone(), CowArray::from(reader.take(&name, shape)?));
        }
        reader.finish()?;
        let numbers =
            |all: BTreeMap<String, Exact>| all.into_iter().map(|(name, value)| (name, value.value())).collect();
        let mut kept = Kept {
            kind: header.kind.into(),
            settings: header.settings,
            numbers: numbers(header.numbers),
            matrices,
            posterior: header.posterior.map(|expected| read_posterior(dir, model, expected)).transpose()?,
        };
        let belief = kinds.restore(&mut kept, map)?;
        kept.finish()?;
        let searches = header.searches.into_iter().map(Search::from).collect();
        Ok(Self { belief, spent: header.spent, found: numbers(header.found), searches })
    }
}

fn read_posterior<M: Adaptable>(dir: &Path, model: &M, expected: u64) -> Result<Cow<'static, Laplace>> {
    let path = dir.join(POSTERIOR_FILE);
    let posterior = Laplace::load(&path, model)?;
    let found = posterior.fingerprint()?;
    if found != expected {
        let reason =
            format!("the belief was saved with another posterior (fingerprints {expected:016x} and {found:016x})");
        return Err(Error::format(path.display(), reason));
    }
    Ok(Cow::Owned(posterior))
}
