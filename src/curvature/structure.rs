//! Names how curvature is held, and over which weights.

use crate::error::{Error, Result};
use crate::tape::{LoraMatrix, Site};
use regex::Regex;

/// How the generalised Gauss–Newton matrix `H = Σ_n Σ_ce Λ_n[c,e] J^c (J^e)ᵀ` is approximated and held.
///
/// A structure is a choice of **coordinates** for each site times a **coupling** between them: that is all that the sums,
/// the posterior, its draws and its predictions know about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum CurvatureStructure {
    /// Weights' entries, all coupled: the exact H as a matrix, `8·P²` bytes. For small adapters and tests.
    Full,
    /// Weights' entries, coupled within a site: the exact diagonal blocks, as a matrix or as rows, whichever is smaller.
    SiteBlock,
    /// Weights' entries, uncoupled.
    Diagonal,
    /// Kronecker eigenbasis, uncoupled, with the products `β_i γ_j` as eigenvalues: K-FAC.
    Kronecker,
    /// Kronecker eigenbasis, uncoupled, with the true second moments as eigenvalues: EKFAC. Two passes over the data.
    Ekfac,
    /// The r×r cores between each module's own column and row space, all coupled: gauge-invariant, and no factor is as
    /// wide as the model. It leaves out rotations of the two spaces. See [`super::CoreSpace`].
    Core,
    /// The same cores, coupled within a module only: for adapters of many modules or high rank.
    CoreBlock,
    /// Weights' entries, all coupled, held as the weighted Jacobians themselves: the exact H for any number of weights, in
    /// `4·N·(C−1)·P` bytes.
    FunctionSpace,
}

impl CurvatureStructure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Full,
        Self::SiteBlock,
        Self::Diagonal,
        Self::Kronecker,
        Self::Ekfac,
        Self::Core,
        Self::CoreBlock,
        Self::FunctionSpace,
    ];

    /// True if it holds H itself, with all correlations, over the weights or cores that it speaks of.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Full | Self::FunctionSpace | Self::Core)
    }

    /// True if it speaks of modules' cores, not of the weights of A and B.
    pub fn is_of_cores(self) -> bool {
        matches!(self, Self::Core | Self::CoreBlock)
    }

    /// True if it starts from Kronecker factors.
    pub(super) fn has_factors(self) -> bool {
        matches!(self, Self::Kronecker | Self::Ekfac)
    }

    /// True if it is summed from whole Jacobians of items, not from the inputs and gradients of tokens.
    pub(super) fn reads_jacobians(self) -> bool {
        self != Self::Kronecker
    }
}

impl std::fmt::Display for CurvatureStructure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::SiteBlock => "site block",
            Self::Diagonal => "diagonal",
            Self::Kronecker => "Kronecker",
            Self::Ekfac => "EKFAC",
            Self::Core => "core space",
            Self::CoreBlock => "core block",
            Self::FunctionSpace => "function space",
        })
    }
}

impl std::str::FromStr for CurvatureStructure {
    type Err = Error;

    /// Reads a name as it is displayed, in any case.
    fn from_str(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(|structure| format!("`{structure}`")).join(", ");
        let found = Self::ALL.into_iter().find(|structure| structure.to_string().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::config("structure", format!("one of {}", names()), name))
    }
}

/// Which of the adapter's matrices are uncertain; the others stay at their trained values.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub enum AdapterSubset {
    /// All.
    #[default]
    All,
    /// Those of the last adapted layer (the head's alone, where the head is adapted).
    LastLayer,
    /// Those of modules whose path matches a regular expression as a whole.
    Pattern(String),
    /// A of every module.
    OnlyA,
    /// B of every module.
    OnlyB,
}

impl AdapterSubset {
    /// The sites among `all` (in forward order) that the subset takes in.
    ///
    /// # Errors
    /// If the pattern is not a regular expression, or nothing is left.
    pub fn select(&self, all: &[Site]) -> Result<Vec<Site>> {
        let keep: Box<dyn Fn(&Site) -> bool> = match self {
            Self::All => Box::new(|_| true),
            Self::OnlyA => Box::new(|site| site.matrix == LoraMatrix::A),
            Self::OnlyB => Box::new(|site| site.matrix == LoraMatrix::B),
            Self::LastLayer => {
                let last = all.last().map(|site| site.layer().to_string()).unwrap_or_default();
                Box::new(move |site| site.layer() == last)
            }
            Self::Pattern(pattern) => {
                let whole = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|e| Error::config("subset pattern", "a regular expression", e))?;
                Box::new(move |site| whole.is_match(&site.module))
            }
        };
        let kept: Vec<Site> = all.iter().filter(|site| keep(site)).cloned().collect();
        if kept.is_empty() {
            return Err(Error::Incompatible(format!(
                "the subset {self:?} selects none of the {} adapted matrices",
                all.len()
            )));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites() -> Vec<Site> {
        let modules =
            ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"];
        let of = |module: &str| [LoraMatrix::A, LoraMatrix::B].map(|matrix| Site { module: module.into(), matrix });
        modules.iter().flat_map(|m| of(m)).collect()
    }

    #[test]
    fn structures_are_read_by_the_names_they_show() {
        for structure in CurvatureStructure::ALL {
            assert_eq!(structure.to_string().to_uppercase().parse::<CurvatureStructure>().unwrap(), structure);
        }
        let error = "cor".parse::<CurvatureStructure>().unwrap_err().to_string();
        assert!(error.contains("`core space`") && error.contains("cor"), "{error}");
    }

    #[test]
    fn subsets_select_by_layer_matrix_and_pattern() {
        let count = |subset: AdapterSubset| subset.select(&sites()).map(|s| s.len());
        assert_eq!(count(AdapterSubset::All).unwrap(), 6);
        assert_eq!(count(AdapterSubset::LastLayer).unwrap(), 4);
        assert_eq!(count(AdapterSubset::OnlyA).unwrap(), 3);
        assert_eq!(count(AdapterSubset::Pattern(r".*\.q_proj".into())).unwrap(), 4);
        let none = count(AdapterSubset::Pattern("q_proj".into())).unwrap_err().to_string();
        assert!(none.contains("none of the 6"), "{none}");
        assert!(count(AdapterSubset::Pattern("(".into())).is_err());
        let head = Site { module: "lm_head".into(), matrix: LoraMatrix::A };
        assert_eq!(head.layer(), "lm_head");
    }
}
