//! Accumulates the generalised Gauss–Newton matrix of the training data, in one of several structures.
//!
//! Everything that leaves this module is a **sum over the data**, never a mean. A structure is a choice of coordinates for
//! each site (the weights' entries, the Kronecker eigenbasis, the module's core) times a coupling (none, within a site, all):
//! see [`CurvatureStructure`] and its [`Plan`].

mod batch_sums;
mod config;
mod coordinates;
mod core_space;
#[expect(clippy::module_inception, reason = "the folder is named after the value that it makes")]
mod curvature;
mod diagonal;
mod estimate;
mod fisher;
mod fit;
mod gram;
mod joint;
mod kron;
mod kron_basis;
mod plan;
mod probe;
mod shard;
mod site_layout;
mod site_rows;
mod sketch;
mod storage;
mod structure;
mod unfinished;

pub use config::CurvatureConfig;
pub use coordinates::{Coordinates, Projection, SiteSpace};
pub use core_space::CoreSpace;
pub use curvature::{Curvature, CurvatureSums};
pub use diagonal::DiagonalSum;
pub use estimate::{CurvatureCost, estimate_cost};
pub use fisher::{FisherKind, TokenTreatment};
pub(crate) use fit::curvature_bytes;
pub use fit::{correct_eigenvalues, fit_curvature, fit_curvatures};
pub(crate) use gram::push_block;
pub use gram::{GramSum, RowBlock};
pub use joint::JointSum;
pub use kron::{FactorSum, KroneckerFactors};
pub use kron_basis::{FactorEigen, KroneckerBasis};
pub use plan::{CoordinateKind, Coupling, Held, Plan, Source};
pub use probe::{Cotangents, Probe, SiteProbe, probe};
pub(crate) use probe::{host_logits, jacobians_per_item, probe_within, repetitions};
pub use shard::{CurvatureShard, ShardOf, fit_curvature_shard};
pub use sketch::{RandomProjection, Sketch};
pub(crate) use storage::{BlockForm, Reader, SpaceForm, Writer};
pub use structure::{AdapterSubset, CurvatureStructure};
