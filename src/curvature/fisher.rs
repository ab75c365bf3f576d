//! Chooses which output gradients make up the Fisher information.

use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use crate::likelihood::Likelihood;
use crate::linalg::semidefinite_cholesky;
use ndarray::{Array1, Array2, ArrayView1};
use rand::RngExt;

/// Where the labels in the Fisher information come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FisherKind {
    /// Expectation over the model's own labels, all classes: the generalised Gauss–Newton matrix. C − 1 backward passes.
    Exact,
    /// `n` labels drawn from the model for each item, from (seed, item) alone: unbiased, n backward passes.
    Sampled {
        /// Labels an item.
        n: usize,
        /// Seed of the draws.
        seed: u64,
    },
    /// The data's own labels; biased, for comparison only.
    Empirical,
}

/// How the tokens of a sequence enter the Kronecker factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TokenTreatment {
    /// Tokens as if independent: `A = Σ x xᵀ / n_tokens`, `G = Σ Σ_t g gᵀ`.
    Expand,
    /// Mean input and summed gradient of a sequence: `A = Σ x̄ x̄ᵀ / n_data`, `G = Σ ĝ ĝᵀ`.
    Reduce,
    /// The last token alone.
    Last,
}

/// An item as the Fisher information sees it.
pub(super) struct LabelledItem {
    /// Its name, for errors.
    pub(super) id: String,
    /// What its sampled labels depend on (see [`crate::models::Dataset::item_key`]).
    pub(super) key: u64,
    /// Its label, if known.
    pub(super) label: Option<usize>,
}

impl TokenTreatment {
    /// What a site's activation sum is divided by: input vectors seen for *expand*, items otherwise.
    pub(super) fn normalizer(self, n_vectors: usize, n_data: usize) -> f64 {
        match self {
            Self::Expand => n_vectors as f64,
            Self::Reduce | Self::Last => n_data as f64,
        }
    }
}

impl FisherKind {
    /// Output-space curvature `Λ` of one item, or its estimate from labels: `[n_classes, n_classes]`.
    ///
    /// # Errors
    /// If the kind is empirical and the label is unknown.
    pub(super) fn output_curvature(
        &self,
        likelihood: Likelihood,
        probabilities: ArrayView1<f64>,
        item: &LabelledItem,
    ) -> Result<Array2<f64>> {
        if let Self::Exact = self {
            return Ok(likelihood.fisher(probabilities));
        }
        let columns = self.columns(likelihood, probabilities, item)?;
        Ok(columns.dot(&columns.t()))
    }

    /// How many columns [`FisherKind::columns`] has.
    pub(crate) fn n_columns(&self, likelihood: Likelihood, n_classes: usize) -> usize {
        match (self, likelihood) {
            (Self::Exact, Likelihood::Categorical) => n_classes.saturating_sub(1).max(1),
            (Self::Exact, Likelihood::Gaussian { .. }) => n_classes,
            (Self::Sampled { n, .. }, _) => *n,
            (Self::Empirical, _) => 1,
        }
    }

    /// Columns `r_k` with `Λ = Σ_k r_k r_kᵀ`: as many backward passes give the item's curvature. `[n_classes, n_columns]`
    ///
    /// # Errors
    /// As [`FisherKind::output_curvature`].
    pub(super) fn columns(
        &self,
        likelihood: Likelihood,
        probabilities: ArrayView1<f64>,
        item: &LabelledItem,
    ) -> Result<Array2<f64>> {
        let c = probabilities.len();
        let mut columns = Array2::zeros((c, self.n_columns(likelihood, c)));
        match *self {
            Self::Exact => {
                // Λ 1 = 0 leaves the categorical factor without its last column
                let factor = semidefinite_cholesky(likelihood.fisher(probabilities).view())?;
                for (k, mut column) in columns.columns_mut().into_iter().enumerate() {
                    column.assign(&factor.column(k));
                }
            }
            Self::Sampled { n, .. } => {
                let labels = self.sampled_labels(likelihood, probabilities, item)?;
                for (k, label) in labels.into_iter().enumerate() {
                    columns.column_mut(k).assign(&(score(probabilities, label) / (n as f64).sqrt()));
                }
            }
            Self::Empirical => {
                self.require_categorical(likelihood)?;
                let label = item.label.ok_or_else(|| {
                    Error::Incompatible(format!("the empirical Fisher needs the label of item `{}`", item.id))
                })?;
                columns.column_mut(0).assign(&score(probabilities, label));
            }
        }
        Ok(columns)
    }

    /// Labels drawn from the model, a function of (seed, item's key, probabilities) only, so that neither batches nor
    /// shards change them.
    fn sampled_labels(
        &self,
        likelihood: Likelihood,
        probabilities: ArrayView1<f64>,
        item: &LabelledItem,
    ) -> Result<Vec<usize>> {
        let Self::Sampled { n, seed } = *self else {
            return Ok(Vec::new());
        };
        self.require_categorical(likelihood)?;
        let mut rng = generator(seed, Purpose::SampledFisher, item.key, 0);
        Ok((0..n)
            .map(|_| {
                let u: f64 = rng.random();
                let mut cumulative = 0.0;
                let index = probabilities.iter().position(|p| {
                    cumulative += p;
                    u < cumulative
                });
                index.unwrap_or(probabilities.len() - 1)
            })
            .collect())
    }

    fn require_categorical(&self, likelihood: Likelihood) -> Result<()> {
        match likelihood {
            Likelihood::Categorical => Ok(()),
            Likelihood::Gaussian { .. } => {
                Err(Error::Incompatible(format!("a Gaussian likelihood has the exact Fisher only, not {self:?}")))
            }
        }
    }

    /// Checks the number of labels.
    ///
    /// # Errors
    /// If it is zero.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Sampled { n: 0, .. } => Err(Error::config("labels of the sampled Fisher", "at least 1", 0)),
            _ => Ok(()),
        }
    }
}

/// Gradient of `−ln p(label)` in logit space: `p − e_label`.
fn score(probabilities: ArrayView1<f64>, label: usize) -> Array1<f64> {
    let mut score = probabilities.to_owned();
    score[label] -= 1.0;
    score
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    fn item(key: u64) -> LabelledItem {
        LabelledItem { id: "x".into(), key, label: Some(2) }
    }

    #[test]
    fn columns_rebuild_the_output_curvature() {
        let p = arr1(&[0.2, 0.0, 0.5, 0.3]);
        for kind in [FisherKind::Exact, FisherKind::Sampled { n: 5, seed: 1 }, FisherKind::Empirical] {
            let r = kind.columns(Likelihood::Categorical, p.view(), &item(0)).unwrap();
            let labels = match kind {
                FisherKind::Exact => (0..4).map(|y| (y, p[y])).collect(),
                FisherKind::Empirical => vec![(2, 1.0)],
                FisherKind::Sampled { .. } => {
                    let drawn = kind.sampled_labels(Likelihood::Categorical, p.view(), &item(0)).unwrap();
                    drawn.into_iter().map(|y| (y, 0.2)).collect()
                }
            };
            // the definition: Σ_y weight_y (p − e_y)(p − e_y)ᵀ
            let mut expected = Array2::<f64>::zeros((4, 4));
            for (y, weight) in labels {
                let s = score(p.view(), y).insert_axis(ndarray::Axis(1));
                expected = expected + s.dot(&s.t()) * weight;
            }
            assert!((&r.dot(&r.t()) - &expected).iter().all(|d| d.abs() < 1e-12)); // f64 rounding
        }
    }

    #[test]
    fn sampled_curvature_tends_to_the_exact_one() {
        let p = arr1(&[0.2, 0.5, 0.3]);
        let n = 20_000;
        let sampled =
            FisherKind::Sampled { n, seed: 7 }.output_curvature(Likelihood::Categorical, p.view(), &item(0)).unwrap();
        let exact = Likelihood::Categorical.fisher(p.view());
        // each entry is a mean of n terms of size < 1: five standard errors
        assert!((&sampled - &exact).iter().all(|d| d.abs() < 5.0 / (n as f64).sqrt()));
    }

    #[test]
    fn labels_depend_on_the_item_and_the_seed_only() {
        let p = arr1(&[0.25, 0.25, 0.25, 0.25]);
        let draw = |seed, key| {
            FisherKind::Sampled { n: 16, seed }.sampled_labels(Likelihood::Categorical, p.view(), &item(key)).unwrap()
        };
        assert_eq!(draw(1, 7), draw(1, 7));
        assert_ne!(draw(1, 7), draw(1, 8));
        assert_ne!(draw(1, 7), draw(2, 7));
    }
}
