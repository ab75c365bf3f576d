//! Saves a posterior as one safetensors file beside its adapter, and reads it back bit by bit: loading and predicting need
//! neither training data nor a decomposition.

use super::agreement::check_shapes;
use super::answers::AnswerTemperatures;
use super::block::{Block, Rotation};
use super::fitted_on::FittedOn;
use super::groups::group_blocks;
use super::laplace::Laplace;
use super::summary::PosteriorSummary;
use crate::curvature::{BlockForm, CurvatureStructure, Reader, SpaceForm, Writer};
use crate::error::{Error, Result};
use crate::file_header::{Exact, parse_header};
use crate::hash::{fnv1a, fnv1a_words};
use crate::likelihood::SharedLikelihood;
use crate::lora::{Adaptable, AdapterWeights, ModelFingerprint, adapter_fingerprint, read_adapter};
use crate::prior::{PriorGrouping, PriorPrecision, PriorPrecisions};
use crate::search::{ExactSearch, Search};
use crate::tape::Site;
use crate::tensor_file::{TensorFile, write_checked};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The posterior's name in a folder: beside its adapter, or beside what a method keeps.
pub const POSTERIOR_FILE: &str = "posterior.safetensors";
/// The version that this crate writes and reads; any change of the header or of a name needs another.
const FORMAT_VERSION: u64 = 5;
/// Where the header is among the metadata.
const KEY: &str = "bayes_lora_posterior";

/// Everything but the arrays, and with it the name and shape of each array.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u64,
    crate_version: String,
    structure: CurvatureStructure,
    prior_grouping: PriorGrouping,
    prior_precisions: Vec<Exact>,
    /// How they were found, one a prior group; empty where they were given.
    prior_searches: Vec<ExactSearch>,
    temperature: Exact,
    /// Of answers: of the trained adapter alone, and of the posterior.
    answer_temperatures: Option<[ExactSearch; 2]>,
    likelihood: SharedLikelihood,
    log_likelihood: Option<Exact>,
    fitted_on: FittedOn,
    model: ModelFingerprint,
    /// The prior's centre at `centre.0`, `centre.1`, …; the matrices that are not listed are zero there.
    centre: Vec<Site>,
    blocks: Vec<PartForm>,
}

/// A block: its coordinates at `N.0`, `N.1`, …, its eigenvalues at `N.kept` and `N.missing`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartForm {
    spaces: Vec<SpaceForm>,
    rotation: RotationForm,
}

#[derive(Serialize, Deserialize)]
enum RotationForm {
    /// The coordinates of one site are the directions.
    None,
    /// `N.vectors` `[width, width]`
    Vectors,
    /// `N.rows.0`, `N.rows.1`, … and `N.from_rows` `[rows, directions]`
    Rows { blocks: Vec<BlockForm>, directions: usize },
}

impl Laplace {
    /// Saves the posterior as one safetensors file in one step, so that a failure leaves whatever was there before.
    ///
    /// Neither the adapter (see [`crate::lora::save_peft`]) nor its base is in it, only their fingerprints.
    ///
    /// # Errors
    /// If the model carries another adapter, a value is not finite, or the directory cannot be written.
    pub fn save<M: Adaptable>(&self, path: impl AsRef<Path>, model: &M) -> Result<()> {
        let path = path.as_ref();
        self.check_is_about(model)?;
        let mut writer = Writer::default();
        let centre: Vec<(&Site, &Array2<f64>)> =
            self.centre().iter().filter(|(_, weight)| weight.iter().any(|v| *v != 0.0)).collect();
        for (number, (_, weight)) in centre.iter().enumerate() {
            writer.put(format!("centre.{number}"), weight.view())?;
        }
        let header = Header {
            format_version: FORMAT_VERSION,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            structure: self.structure(),
            prior_grouping: self.prior_grouping(),
            prior_precisions: self
                .prior_precisions()
                .values()
                .iter()
                .map(|precision| Exact::new("prior precision", precision.value()))
                .collect::<Result<_>>()?,
            prior_searches: self.prior_searches().iter().map(ExactSearch::new).collect::<Result<_>>()?,
            temperature: Exact::new("temperature", self.temperature())?,
            answer_temperatures: self
                .answer_temperatures()
                .map(|answers| Ok([ExactSearch::new(&answers.network)?, ExactSearch::new(&answers.posterior)?]))
                .transpose()?,
            likelihood: self.likelihood().clone(),
            log_likelihood: self.log_likelihood().map(|l| Exact::new("log-likelihood", l)).transpose()?,
            fitted_on: self.fitted_on().clone(),
            model: ModelFingerprint::of(model, self.map())?,
            centre: centre.iter().map(|(site, _)| (*site).clone()).collect(),
            blocks: writer.each("", self.blocks(), put_block)?,
        };
        write_checked(path, writer.arrays, KEY, &header)
    }

    /// Reads what a file of [`Laplace::save`] says about itself, and checks every part of it for damage; the model that it is about is not needed.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, no posterior or of another format version.
    pub fn summary(path: impl AsRef<Path>) -> Result<PosteriorSummary> {
        let path = path.as_ref();
        let mut file = TensorFile::open(path)?;
        let header = parse_header::<Header>(file.checked_metadata(KEY)?, FORMAT_VERSION, "posterior", path)?;
        file.check_all()?;
        let precisions = header.prior_precisions.into_iter().map(|p| PriorPrecision::new(p.value()));
        Ok(PosteriorSummary {
            crate_version: header.crate_version,
            structure: header.structure,
            prior_grouping: header.prior_grouping,
            prior_precisions: PriorPrecisions::new(precisions.collect::<Result<_>>()?)?,
            prior_searches: header.prior_searches.into_iter().map(Search::from).collect(),
            temperature: header.temperature.value(),
            answer_temperatures: header.answer_temperatures.map(|searches| searches.map(Search::from)),
            likelihood: header.likelihood,
            log_likelihood: header.log_likelihood.map(Exact::value),
            fitted_on: header.fitted_on,
            adapter_fingerprint: header.model.adapter(),
            base_fingerprint: header.model.base(),
            n_blocks: header.blocks.len(),
        })
    }

    /// Hashes all that a prediction with this posterior depends on.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn fingerprint(&self) -> Result<u64> {
        let mut writer = Writer::default();
        let blocks = writer.each("", self.blocks(), put_block)?;
        let answers = self.answer_temperatures().into_iter();
        let answers = answers.flat_map(|answers| [answers.network.value, answers.posterior.value]);
        let numbers = self.prior_precisions().values().iter().map(|precision| precision.value());
        let numbers = numbers.chain([self.temperature()]).chain(answers);
        let numbers: Vec<u64> = numbers.map(f64::to_bits).collect();
        let forms = (blocks, self.structure(), self.prior_grouping(), numbers, self.likelihood());
        let forms = serde_json::to_vec(&forms).map_err(|e| Error::format("posterior", e))?;
        let arrays = writer.arrays.iter().map(|(_, array)| array.hash());
        Ok(fnv1a_words([fnv1a(forms), adapter_fingerprint(self.map())].into_iter().chain(arrays)))
    }

    /// Reads the posterior that [`Laplace::save`] wrote for the base and the adapter of `model`: it predicts and draws as the
    /// one that was saved, bit by bit.
    ///
    /// The file need not be trusted: its lengths are compared before anything is allocated, every tensor with its checksum
    /// and with the shape and element type that the header implies.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or of another format version, a tensor is missing, unexpected, of another shape
    /// or not finite, or the model carries another adapter, of other weights, scale or dropout, or has other
    /// weights below it.
    pub fn load<M: Adaptable>(path: impl AsRef<Path>, model: &M) -> Result<Self> {
        let path = path.as_ref();
        let file = TensorFile::open(path)?;
        let header = parse_header::<Header>(file.checked_metadata(KEY)?, FORMAT_VERSION, "posterior", path)?;
        let map = read_adapter(model)?;
        header.model.check("posterior", &ModelFingerprint::of(model, &map)?)?;
        let mut reader = Reader::new(file, path);
        let mut centre: AdapterWeights = map.iter().map(|(site, w)| (site.clone(), w * 0.0)).collect();
        for (number, site) in header.centre.iter().enumerate() {
            let weight = centre.get_mut(site);
            let weight = weight.ok_or_else(|| reader.format(format!("`{site}` has a centre, but no adapter")))?;
            *weight = reader.take(&format!("centre.{number}"), weight.dim())?;
        }
        let blocks = reader.each("", header.blocks, take_block)?;
        check_shapes(&blocks, &map)?;
        let (groups, group_of) = group_blocks(&blocks, header.prior_grouping, header.structure, &map, &centre)?;
        reader.finish()?;
        let precisions = header.prior_precisions.into_iter().map(|p| PriorPrecision::new(p.value()));
        let precisions = PriorPrecisions::new(precisions.collect::<Result<_>>()?)?;
        precisions.check_count(groups.len())?;
        let searches: Vec<Search> = header.prior_searches.into_iter().map(Search::from).collect();
        if !(searches.is_empty() || searches.len() == groups.len()) {
            let what = "searches of prior precisions".into();
            return Err(Error::Count { what, expected: groups.len(), found: searches.len() });
        }
        let mut laplace = Self::from_parts(
            (header.structure, header.prior_grouping),
            (blocks, group_of, groups),
            (map, centre),
            precisions,
            (header.likelihood, header.log_likelihood.map(Exact::value), header.fitted_on),
        );
        laplace.set_prior_searches(searches);
        if let Some(answers) = header.answer_temperatures {
            let [network, posterior] = answers.map(Search::from);
            for search in [&network, &posterior] {
                if !(search.value > 0.0 && search.value <= 1.0) {
                    return Err(Error::config(search.quantity.clone(), "in (0, 1]", search.value));
                }
            }
            laplace = laplace.with_answer_temperatures(AnswerTemperatures { network, posterior });
        }
        laplace.with_temperature(header.temperature.value())
    }
}

fn put_block<'a>(writer: &mut Writer<'a>, name: &str, block: &'a Block) -> Result<PartForm> {
    let (kept, missing) = block.eigenvalues();
    writer.put(format!("{name}.kept"), kept.view())?;
    writer.put(format!("{name}.missing"), missing.view())?;
    let rotation = match block.rotation() {
        None => RotationForm::None,
        Some(Rotation::Vectors(vectors)) => {
            writer.put(format!("{name}.vectors"), vectors.view())?;
            RotationForm::Vectors
        }
        Some(Rotation::Rows { rows, from_rows }) => {
            writer.put(format!("{name}.from_rows"), from_rows.view())?;
            RotationForm::Rows { blocks: writer.rows(name, rows)?, directions: from_rows.ncols() }
        }
    };
    Ok(PartForm { spaces: writer.each(&format!("{name}."), block.spaces(), Writer::space)?, rotation })
}

fn take_block(reader: &mut Reader, name: &str, form: PartForm) -> Result<Block> {
    let spaces = reader.each(&format!("{name}."), form.spaces, Reader::space)?;
    let width = reader.width(&spaces)?;
    let (rotation, n_kept, n_parts) = match form.rotation {
        RotationForm::None => {
            let [space] = spaces.as_slice() else {
                return Err(reader.format(format!("block {name} joins {} sites without a rotation", spaces.len())));
            };
            (None, width, space.missing_parts().len())
        }
        RotationForm::Vectors => {
            let vectors = reader.take(&format!("{name}.vectors"), [width, width])?;
            (Some(Rotation::Vectors(vectors)), width, 0)
        }
        RotationForm::Rows { blocks, directions } => {
            let rows = reader.rows(name, blocks, width)?;
            let n_rows = rows.iter().map(|block| block.n_rows()).sum();
            reader.at_most(&format!("directions of block {name}"), directions, n_rows)?;
            let from_rows = reader.take(&format!("{name}.from_rows"), [n_rows, directions])?;
            (Some(Rotation::Rows { rows, from_rows }), directions, 1)
        }
    };
    let eigenvalues = |reader: &mut Reader, part: &str, n: usize| -> Result<Array1<f64>> {
        let values: Array1<f64> = reader.take(&format!("{name}.{part}"), n)?;
        match values.iter().find(|v| **v < 0.0) {
            None => Ok(values),
            Some(value) => Err(reader.format(format!("`{name}.{part}` must not be negative, got {value}"))),
        }
    };
    let (kept, missing) = (eigenvalues(reader, "kept", n_kept)?, eigenvalues(reader, "missing", n_parts)?);
    Ok(Block::from_parts(spaces, rotation, kept, missing))
}
