//! Names how curvature is held, and over which weights.

use super::plan::Coupling::{All, None as Uncoupled, Site as WithinSite};
use super::plan::{
    CoordinateKind,
    CoordinateKind::Weights,
    Held::{Matrix, Rows, Smaller},
    Plan,
};
use crate::error::{Error, Result};
use crate::tape::{LoraMatrix, Site};
use regex::Regex;

/// Declares every named structure by one line: variant, name and plan.
macro_rules! structures {
    ($($(#[doc = $doc:literal])+ $variant:ident, $name:literal, $plan:expr;)*) => {
        /// How the generalised Gauss–Newton matrix `H = Σ_n Σ_ce Λ_n[c,e] J^c (J^e)ᵀ` is approximated and held.
        ///
        /// A structure is a choice of **coordinates** for each site times a **coupling** between them: its [`Plan`] is all that
        /// the sums, the posterior, its draws and its predictions know about it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum CurvatureStructure {
            $($(#[doc = $doc])+ $variant,)*
            /// Any other plan.
            Custom(Plan),
        }

        impl CurvatureStructure {
            /// All that have a name.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// What it is made of.
            pub const fn plan(self) -> Plan {
                match self {
                    $(Self::$variant => $plan,)*
                    Self::Custom(plan) => plan,
                }
            }

            fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => Some($name),)*
                    Self::Custom(_) => None,
                }
            }
        }
    };
}

structures! {
    /// Weights' entries, all coupled: the exact H as a matrix, `8·P²` bytes. For small adapters and tests.
    Full, "full", Plan::of_jacobians(Weights, All(Matrix));
    /// Weights' entries, coupled within a site: the exact diagonal blocks, as a matrix or as rows, whichever is smaller.
    SiteBlock, "site block", Plan::of_jacobians(Weights, WithinSite(Smaller));
    /// Weights' entries, uncoupled.
    Diagonal, "diagonal", Plan::of_jacobians(Weights, Uncoupled);
    /// Kronecker eigenbasis, uncoupled, with the products `β_i γ_j` as eigenvalues: K-FAC. Rows of tokens count as independent, those of one
    /// item too: of the two texts of a preference it adds up the squares, where all others have the square of their difference.
    Kronecker, "Kronecker", Plan::FACTORS;
    /// Kronecker eigenbasis, uncoupled, with the true second moments as eigenvalues: EKFAC. Two passes over the data.
    Ekfac, "EKFAC", Plan::of_jacobians(CoordinateKind::Kronecker, Uncoupled);
    /// The r×r cores between each module's own column and row space, all coupled: gauge-invariant, and no factor is as
    /// wide as the model. It leaves out rotations of the two spaces. See [`super::CoreSpace`].
    Core, "core space", Plan::of_jacobians(CoordinateKind::Core, All(Smaller));
    /// The same cores, coupled within a module only: for adapters of many modules or high rank.
    CoreBlock, "core block", Plan::of_jacobians(CoordinateKind::Core, WithinSite(Smaller));
    /// Weights' entries, all coupled, held as the weighted Jacobians themselves: the exact H for any number of weights, in
    /// `4·N·(C−1)·P` bytes.
    FunctionSpace, "function space", Plan::of_jacobians(Weights, All(Rows));
}

impl std::fmt::Display for CurvatureStructure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "custom ({})", self.plan()),
        }
    }
}

impl std::str::FromStr for CurvatureStructure {
    type Err = Error;

    /// Reads a name as it is displayed, in any case; a custom plan has none.
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
    /// A and B of every module, without the heads that train beside them.
    WithoutHeads,
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
            Self::WithoutHeads => Box::new(|site| site.matrix != LoraMatrix::Whole),
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
        let plans: std::collections::HashSet<Plan> = CurvatureStructure::ALL.map(|structure| structure.plan()).into();
        assert_eq!(plans.len(), CurvatureStructure::ALL.len());
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
