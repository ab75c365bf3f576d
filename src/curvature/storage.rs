//! Saves curvature sums as one safetensors file, and reads them back bit by bit.
//!
//! Arrays are tensors with plain names, such as `0.activation` for the first site's; everything else is a JSON header in the
//! file's metadata, from which the shapes follow that the tensors must have.

mod header;
mod read;
mod write;

use super::coordinates::SiteSpace;
use super::curvature::{Curvature, CurvatureSums};
use super::plan::{Coupling, Plan, Source};
use crate::error::{Error, Result};
use crate::file_header::Exact;
use crate::tensor_file::{TensorFile, write_checked_texts};
pub(crate) use header::{BlockForm, SpaceForm};
use header::{Header, KEY, SumsForm};
use ndarray::Array1;
pub(crate) use read::Reader;
use std::path::Path;
pub(crate) use write::Writer;

/// The one array that belongs to no site.
const ITEM_KEYS: &str = "item_keys";

impl Curvature {
    /// Saves the sums as one safetensors file in one step, so that a failure leaves whatever was there before.
    ///
    /// # Errors
    /// If a value is not finite, the sums are not those of the structure, or the directory cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_beside(path.as_ref(), None)
    }

    /// The same with another text in the file, under a key of its own.
    ///
    /// # Errors
    /// As [`Curvature::save`].
    pub(super) fn save_beside(&self, path: &Path, text: Option<(&str, String)>) -> Result<()> {
        check_structure(self, path)?;
        let item_keys: Array1<u64> = self.item_keys.iter().copied().collect();
        let mut writer = Writer::default();
        writer.put(ITEM_KEYS.into(), item_keys.view())?;
        let sums = match &self.sums {
            CurvatureSums::Kronecker(all) => SumsForm::Kronecker(writer.each("", all, Writer::factors)?),
            CurvatureSums::Diagonal(all) => SumsForm::Diagonal(writer.each("", all, Writer::diagonal)?),
            CurvatureSums::Joint(all) => SumsForm::Joint(writer.each("", all, Writer::joint)?),
        };
        let header = serde_json::to_string(&Header::new(self, sums)?).map_err(|e| Error::format(path.display(), e))?;
        write_checked_texts(path, writer.arrays, [(KEY, header)].into_iter().chain(text).collect())
    }

    /// Reads what [`Curvature::save`] wrote, equal to what was saved, bit by bit.
    ///
    /// The file need not be trusted: its lengths are compared before anything is allocated, and every tensor with the shape
    /// and element type that the header implies.
    ///
    /// # Errors
    /// If the file cannot be read, holds no curvature or one of another format version, or a tensor is missing, unexpected,
    /// of another shape or element type, or not finite.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = TensorFile::open(path)?;
        let header = Header::parse(file.checked_metadata(KEY)?, path)?;
        let mut reader = Reader::new(file, path);
        let item_keys: Array1<u64> = reader.take(ITEM_KEYS, header.n_item_keys)?;
        let sums = match header.sums {
            SumsForm::Kronecker(all) => CurvatureSums::Kronecker(reader.each("", all, Reader::factors)?),
            SumsForm::Diagonal(all) => CurvatureSums::Diagonal(reader.each("", all, Reader::diagonal)?),
            SumsForm::Joint(all) => CurvatureSums::Joint(reader.each("", all, Reader::joint)?),
        };
        reader.finish()?;
        let curvature = Self {
            config: header.config,
            sums,
            n_data: header.n_data,
            log_likelihood: header.log_likelihood.map(Exact::value),
            item_keys: item_keys.into_iter().collect(),
            adapter_fingerprint: header.adapter_fingerprint,
            asked: header.asked,
        };
        let distinct = curvature.item_keys.len();
        if distinct != header.n_item_keys || distinct > curvature.n_data {
            return Err(Error::Count {
                what: format!("{}: distinct item hashes of {} items", path.display(), curvature.n_data),
                expected: header.n_item_keys.min(curvature.n_data),
                found: distinct,
            });
        }
        check_structure(&curvature, path)?;
        Ok(curvature)
    }
}

/// Checks that the sums are of the kind, and in the coordinates, of the structure that the settings name.
fn check_structure(curvature: &Curvature, path: &Path) -> Result<()> {
    let Plan { coordinates, coupling, source } = curvature.config.plan();
    let holds = |space: &SiteSpace| space.coordinates.kind() == coordinates;
    let fits = match &curvature.sums {
        CurvatureSums::Kronecker(_) => source == Source::Factors,
        CurvatureSums::Diagonal(sums) => {
            source == Source::Jacobians && coupling == Coupling::None && sums.iter().all(|sum| holds(&sum.space))
        }
        CurvatureSums::Joint(blocks) => {
            coupling != Coupling::None && blocks.iter().flat_map(|block| &block.spaces).all(holds)
        }
    };
    if !fits {
        let structure = curvature.config.structure;
        return Err(Error::format(path.display(), format!("the sums are not of the structure {structure}")));
    }
    Ok(())
}
