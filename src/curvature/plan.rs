//! Says what a structure of curvature is made of: coordinates times coupling, summed from factors or from Jacobians.

use crate::error::{Error, Result};
use crate::tape::{LoraMatrix, Site};
use serde::{Deserialize, Serialize};

/// A structure of curvature as a value: all that the sums, their files, the posterior, its draws and the estimates know of it.
///
/// Any plan that [`Plan::check`] accepts can be fitted, by [`super::CurvatureStructure::Custom`] or under a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In which coordinates each site is held.
    pub coordinates: CoordinateKind,
    /// Between which coordinates it holds correlations.
    pub coupling: Coupling,
    /// What is summed.
    pub source: Source,
}

/// Kinds of [`super::Coordinates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CoordinateKind {
    /// The weights' own entries.
    Weights,
    /// Random sums of them (see [`super::RandomProjection`]).
    Sketch,
    /// The eigenbases of a site's two Kronecker factors.
    Kronecker,
    /// The core of a module.
    Core,
}

/// Which coordinates are correlated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Coupling {
    /// None: one number a coordinate.
    None,
    /// Those of one site.
    Site(Held),
    /// All.
    All(Held),
}

/// The form of a sum with correlations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Held {
    /// The matrix, 8·n² bytes for n coordinates.
    Matrix,
    /// The weighted Jacobians themselves, 4·n or 8·n bytes each.
    Rows,
    /// Whichever has fewer entries: rows while there are fewer of them than coordinates.
    Smaller,
}

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The two Kronecker factors of each site, from the inputs and gradients of tokens; their eigenvalues are multiplied.
    Factors,
    /// Products of the items' weighted Jacobians.
    Jacobians,
}

impl Plan {
    /// Sums of products of Jacobians.
    pub const fn of_jacobians(coordinates: CoordinateKind, coupling: Coupling) -> Self {
        Self { coordinates, coupling, source: Source::Jacobians }
    }

    /// Sums of Kronecker factors.
    pub const FACTORS: Self =
        Self { coordinates: CoordinateKind::Kronecker, coupling: Coupling::None, source: Source::Factors };

    /// Passes over the data: a first one where the coordinates are found from sums of [`Plan::FACTORS`].
    pub fn passes(self) -> usize {
        1 + usize::from(self.needs_factors_first())
    }

    /// True if its coordinates are found from sums over the data.
    pub(super) fn needs_factors_first(self) -> bool {
        self.coordinates == CoordinateKind::Kronecker && self.source == Source::Jacobians
    }

    /// True if weights may be shortened by a random projection: what needs one, and rows of weights.
    pub(super) fn takes_projection(self) -> bool {
        match self.coordinates {
            CoordinateKind::Sketch => true,
            CoordinateKind::Weights => matches!(self.coupling, Coupling::Site(Held::Rows) | Coupling::All(Held::Rows)),
            CoordinateKind::Kronecker | CoordinateKind::Core => false,
        }
    }

    /// Checks that the parts go together.
    ///
    /// # Errors
    /// If Kronecker factors or coordinates are to be coupled, or factors in other coordinates: a Kronecker basis leaves
    /// directions out, whose correlations no sum holds.
    pub fn check(self) -> Result<()> {
        let is_kronecker = self.coordinates == CoordinateKind::Kronecker;
        let is_possible = match self.source {
            Source::Factors => is_kronecker && self.coupling == Coupling::None,
            Source::Jacobians => !is_kronecker || self.coupling == Coupling::None,
        };
        if is_possible {
            return Ok(());
        }
        Err(Error::Incompatible(format!(
            "there is no curvature of {self}: Kronecker factors have Kronecker coordinates, and these are not coupled"
        )))
    }
}

impl CoordinateKind {
    /// True if it speaks of whole modules, not of their A and B.
    pub fn is_of_modules(self) -> bool {
        self == Self::Core
    }

    /// True if it speaks of a site; of a module by its A.
    pub(super) fn speaks_of(self, site: &Site) -> bool {
        !self.is_of_modules() || site.matrix == LoraMatrix::A
    }
}

impl std::fmt::Display for Plan {
    /// Different plans look different.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::Factors => "factors in ",
            Source::Jacobians => "",
        })?;
        f.write_str(match self.coordinates {
            CoordinateKind::Weights => "weights",
            CoordinateKind::Sketch => "sketched weights",
            CoordinateKind::Kronecker => "Kronecker coordinates",
            CoordinateKind::Core => "cores",
        })?;
        let held = match self.coupling {
            Coupling::None => return f.write_str(", uncoupled"),
            Coupling::Site(held) => {
                f.write_str(", coupled within a site")?;
                held
            }
            Coupling::All(held) => {
                f.write_str(", all coupled")?;
                held
            }
        };
        f.write_str(match held {
            Held::Matrix => ", as a matrix",
            Held::Rows => ", as rows",
            Held::Smaller => "",
        })
    }
}
