//! Describes what a file of curvature sums holds: all but the arrays themselves, as JSON in the file's metadata.

use crate::curvature::{Curvature, CurvatureConfig};
use crate::error::{Error, Result};
use crate::file_header::{Exact, parse_header};
use crate::likelihood::Likelihood;
use crate::tape::Site;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The version that this crate writes and reads; any change of the header or of a name needs another.
pub(super) const FORMAT_VERSION: u64 = 3;
/// Where the header is among the metadata.
pub(super) const KEY: &str = "bayes_lora_curvature";

/// Everything but the arrays, and with it the name and shape of each array.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    format_version: u64,
    crate_version: String,
    pub(super) config: CurvatureConfig,
    /// That of a Gaussian likelihood, exactly.
    noise_variance: Option<Exact>,
    pub(super) n_data: usize,
    pub(super) n_item_keys: usize,
    pub(super) adapter_fingerprint: u64,
    pub(super) log_likelihood: Option<Exact>,
    pub(super) sums: SumsForm,
}

/// The sums of a structure, in order.
#[derive(Serialize, Deserialize)]
pub(crate) enum SumsForm {
    Kronecker(Vec<FactorsForm>),
    Diagonal(Vec<SpaceForm>),
    Joint(Vec<JointForm>),
}

/// Both factors of a site: `N.activation`, `N.gradient`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FactorsForm {
    pub(crate) site: Site,
    pub(crate) output_rows: Option<Vec<usize>>,
    pub(crate) n_vectors: usize,
    pub(crate) activation: FactorForm,
    pub(crate) gradient: FactorForm,
}

/// A factor: the matrix `[width, width]`, or the columns `[width, columns]` that low rank keeps.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum FactorForm {
    Dense { width: usize },
    LowRank { width: usize, columns: usize, rank: usize, discarded_trace: Exact },
}

/// The coordinates of a site.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceForm {
    pub(crate) site: Site,
    pub(crate) output_rows: Option<Vec<usize>>,
    pub(crate) shape: [usize; 2],
    pub(crate) coordinates: CoordinatesForm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum CoordinatesForm {
    Weights,
    /// `N.basis.wide` `[wide, kept_wide]` and `N.basis.narrow` `[narrow, kept_narrow]`, with `_values`.
    Kronecker {
        wide_is_input: bool,
        kept_wide: usize,
        kept_narrow: usize,
        wide_residual: Exact,
        narrow_residual: Exact,
    },
    /// Drawn again from the seed.
    Sketch {
        width: usize,
        seed: u64,
    },
    /// `N.core.column_basis` `[d_out, rank_b]`, `N.core.row_basis` `[d_in, rank_a]`, `N.core.from_a`, `N.core.map`.
    Core {
        module: String,
        d_out: usize,
        rank_b: usize,
        rank_a: usize,
    },
}

/// A block of sites; its coordinates are at `N.0`, `N.1`, …
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JointForm {
    pub(crate) spaces: Vec<SpaceForm>,
    pub(crate) sum: GramForm,
}

/// The matrix at `N.sum`, or blocks of rows at `N.rows.0`, `N.rows.1`, …
#[derive(Serialize, Deserialize)]
pub(crate) enum GramForm {
    Matrix,
    Rows(Vec<BlockForm>),
}

/// How many rows a block has, and in which precision.
#[derive(Serialize, Deserialize)]
pub(crate) enum BlockForm {
    F32(usize),
    F64(usize),
}

impl Header {
    pub(super) fn new(curvature: &Curvature, sums: SumsForm) -> Result<Self> {
        let noise_variance = match curvature.config.likelihood {
            Likelihood::Gaussian { noise_variance } => Some(Exact::new("noise_variance", noise_variance)?),
            Likelihood::Categorical => None,
        };
        Ok(Self {
            format_version: FORMAT_VERSION,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            config: curvature.config.clone(),
            noise_variance,
            n_data: curvature.n_data,
            n_item_keys: curvature.item_keys.len(),
            adapter_fingerprint: curvature.adapter_fingerprint,
            log_likelihood: curvature.log_likelihood.map(|l| Exact::new("log-likelihood", l)).transpose()?,
            sums,
        })
    }

    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// As [`parse_header`], and if a setting is out of bounds.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self> {
        let format =
            |reason: &dyn std::fmt::Display| Error::format(path.display(), format!("curvature header: {reason}"));
        let mut header: Self = parse_header(text, FORMAT_VERSION, "curvature", path)?;
        match (&mut header.config.likelihood, header.noise_variance) {
            (Likelihood::Gaussian { noise_variance }, Some(exact)) => *noise_variance = exact.value(),
            (Likelihood::Categorical, None) => {}
            (likelihood, _) => return Err(format(&format_args!("the noise variance does not fit {likelihood:?}"))),
        }
        header.config.validate().map_err(|e| format(&e))?;
        Ok(header)
    }
}
