//! Gathers the blocks of a posterior whose weights share a prior precision.

use super::block::Block;
use super::evidence::{EvidenceOptimum, PRIOR_PRECISION, Spectrum};
use crate::curvature::{CurvatureStructure, SiteSpace};
use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::prior::{PriorGrouping, PriorPrecision};

/// The weights that share one prior precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What they have in common, such as `model.layers.3` or `lora_A`.
    pub name: String,
    /// Eigenvalues of their curvature.
    pub spectrum: Spectrum,
    /// `‖θ* − μ‖²` of them; `‖R − UᵀB₀A₀V‖²` of cores ([`crate::curvature::CoreSpace::displacement`]).
    pub scatter: f64,
}

impl Group {
    /// This group's part of the log evidence less that of the likelihood at the adapter:
    /// `−½λ‖θ* − μ‖² − ½ log det(H/λ + I)`.
    pub fn log_evidence(&self, precision: PriorPrecision) -> f64 {
        -0.5 * precision.value() * self.scatter - 0.5 * self.spectrum.log_det_ratio(precision)
    }

    /// What a search for its precision is over, where there are `n_groups`.
    pub(super) fn sought(&self, n_groups: usize) -> String {
        if n_groups == 1 { PRIOR_PRECISION.into() } else { format!("{PRIOR_PRECISION} of `{}`", self.name) }
    }

    /// The precision with the most evidence.
    ///
    /// # Errors
    /// If there is none: zero curvature, or θ* = μ.
    pub fn optimize(&self) -> Result<EvidenceOptimum> {
        self.spectrum.maximize(self.scatter)
    }
}

/// The groups of `blocks`, and the group of each block.
///
/// # Errors
/// If a block couples weights of different groups, or the grouping has no meaning in its coordinates.
pub(super) fn group_blocks(
    blocks: &[Block],
    grouping: PriorGrouping,
    structure: CurvatureStructure,
    map: &AdapterWeights,
    centre: &AdapterWeights,
) -> Result<(Vec<Group>, Vec<usize>)> {
    let (mut groups, mut group_of): (Vec<Group>, Vec<usize>) = (Vec::new(), Vec::new());
    for block in blocks {
        let mut names = block.spaces().iter().map(|space| name(grouping, space)).collect::<Result<Vec<_>>>()?;
        names.dedup();
        let [name] = names.as_slice() else {
            return Err(Error::Incompatible(format!(
                "a {structure} posterior couples all its weights, so it takes one prior precision, not {grouping:?}"
            )));
        };
        let index = groups.iter().position(|group| group.name == *name).unwrap_or_else(|| {
            groups.push(Group { name: name.clone(), spectrum: Spectrum::default(), scatter: 0.0 });
            groups.len() - 1
        });
        block.extend(&mut groups[index].spectrum);
        for space in block.spaces() {
            groups[index].scatter += space.scatter(map, centre)?;
        }
        group_of.push(index);
    }
    Ok((groups, group_of))
}

/// Name of a site's group; a core belongs to its module's layer, but to neither A nor B.
fn name(grouping: PriorGrouping, space: &SiteSpace) -> Result<String> {
    let of_matrices = matches!(grouping, PriorGrouping::PerMatrix | PriorGrouping::PerSite);
    if of_matrices && space.coordinates.kind().is_of_modules() {
        return Err(Error::Incompatible(format!(
            "a core has no separate A and B, so a prior {grouping:?} has no meaning there"
        )));
    }
    Ok(grouping.name(&space.site))
}
