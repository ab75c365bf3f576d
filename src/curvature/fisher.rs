//! Chooses which output gradients make up the Fisher information.

use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use crate::likelihood::{Likelihood, Target};
use ndarray::{Array2, ArrayView1};

/// Where the targets in the Fisher information come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FisherKind {
    /// Expectation over the model's own targets: the generalised Gauss–Newton matrix. C − 1 backward passes where targets are
    /// classes, C where they are values.
    Exact,
    /// `n` targets drawn from the model for each item, from (seed, item) alone: unbiased, n backward passes. Of a text one draw is
    /// a token at every scored place.
    Sampled {
        /// Targets an item.
        n: usize,
        /// Seed of the draws.
        seed: u64,
    },
    /// The data's own targets; biased, for comparison only.
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
    /// What its sampled targets depend on (see [`crate::models::Dataset::item_key`]).
    pub(super) key: u64,
    /// Its target, if known.
    pub(super) target: Option<Target>,
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
    /// Output-space curvature `Λ` of one item, or its estimate from targets: `[n_classes, n_classes]`.
    ///
    /// # Errors
    /// If the kind is empirical and the target is unknown.
    pub(super) fn output_curvature(
        &self,
        likelihood: &dyn Likelihood,
        outputs: ArrayView1<f64>,
        item: &LabelledItem,
    ) -> Result<Array2<f64>> {
        if let Self::Exact = self {
            return Ok(likelihood.fisher(outputs));
        }
        let columns = self.columns(likelihood, outputs, item)?;
        Ok(columns.dot(&columns.t()))
    }

    /// How many columns [`FisherKind::columns`] has.
    pub(crate) fn n_columns(&self, likelihood: &dyn Likelihood, n_classes: usize) -> usize {
        match self {
            Self::Exact => likelihood.root_width(n_classes),
            Self::Sampled { n, .. } => *n,
            Self::Empirical => 1,
        }
    }

    /// Columns `r_k` with `Λ = Σ_k r_k r_kᵀ`: as many backward passes give the item's curvature. `[n_classes, n_columns]`
    ///
    /// Of targets these are the scores `∇_f log p(y | f)`, each over `√n`.
    ///
    /// # Errors
    /// As [`FisherKind::output_curvature`].
    pub(super) fn columns(
        &self,
        likelihood: &dyn Likelihood,
        outputs: ArrayView1<f64>,
        item: &LabelledItem,
    ) -> Result<Array2<f64>> {
        let targets = match *self {
            Self::Exact => return likelihood.fisher_root(outputs),
            Self::Sampled { .. } => self.sampled_targets(likelihood, outputs, item),
            Self::Empirical => vec![item.target.clone().ok_or_else(|| {
                Error::Incompatible(format!("the empirical Fisher needs the label or target of item `{}`", item.id))
            })?],
        };
        let scale = (targets.len() as f64).sqrt();
        let mut columns = Array2::zeros((outputs.len(), targets.len()));
        for (target, mut column) in targets.iter().zip(columns.columns_mut()) {
            column.assign(&(likelihood.score(outputs, target) / scale));
        }
        Ok(columns)
    }

    /// Targets drawn from the model, a function of (seed, item's key, outputs) only, so that neither batches nor shards change
    /// them.
    fn sampled_targets(
        &self,
        likelihood: &dyn Likelihood,
        outputs: ArrayView1<f64>,
        item: &LabelledItem,
    ) -> Vec<Target> {
        let Self::Sampled { n, seed } = *self else {
            return Vec::new();
        };
        let mut rng = generator(seed, Purpose::SampledFisher, item.key, 0);
        (0..n).map(|_| likelihood.sample(outputs, &mut rng)).collect()
    }

    /// Checks the number of labels, and that the likelihood has such an information.
    ///
    /// # Errors
    /// If it is zero, or targets that are drawn inside the model are to be integrated over.
    pub(super) fn check(&self, likelihood: &dyn Likelihood) -> Result<()> {
        match self {
            Self::Exact if likelihood.draws_in_model() => Err(Error::Incompatible(format!(
                "the exact Fisher information of the likelihood `{}` takes a backward pass for every target that a model may draw at \
                 every {}: ask for `FisherKind::Sampled`, whose mean it is, or `FisherKind::Empirical`",
                likelihood.name(),
                likelihood.unit()
            ))),
            Self::Sampled { n: 0, .. } => Err(Error::config("labels of the sampled Fisher", "at least 1", 0)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::{Categorical, Gaussian};
    use ndarray::{Array1, Axis, arr1};

    const NOISE: Gaussian = Gaussian { noise_variance: 0.3 };

    fn item(key: u64, target: impl Into<Target>) -> LabelledItem {
        LabelledItem { id: "x".into(), key, target: Some(target.into()) }
    }

    /// Logits of `[0.2, 0, 0.5, 0.3]`: the item lacks the second class.
    fn outputs() -> Array1<f64> {
        arr1(&[0.2, 0.0, 0.5, 0.3]).mapv(f64::ln)
    }

    #[test]
    fn columns_rebuild_the_output_curvature() {
        let f = outputs();
        let values = Target::Values(vec![1.0, f64::NAN, -0.5, 2.0]);
        let likelihoods: [(&dyn Likelihood, Target); 3] =
            [(&Categorical, Target::Class(2)), (&NOISE, Target::Class(2)), (&NOISE, values)];
        for (likelihood, target) in likelihoods {
            for kind in [FisherKind::Exact, FisherKind::Sampled { n: 5, seed: 1 }, FisherKind::Empirical] {
                let item = item(0, target.clone());
                let r = kind.columns(likelihood, f.view(), &item).unwrap();
                assert_eq!(r.ncols(), kind.n_columns(likelihood, 4));
                // the definition: Σ_y weight_y ∇ log p(y) ∇ log p(y)ᵀ
                let expected = match kind {
                    FisherKind::Exact => likelihood.fisher(f.view()),
                    _ => {
                        let targets = match kind {
                            FisherKind::Empirical => vec![target.clone()],
                            _ => kind.sampled_targets(likelihood, f.view(), &item),
                        };
                        let mut sum = Array2::<f64>::zeros((4, 4));
                        for y in &targets {
                            let s = likelihood.score(f.view(), y).insert_axis(Axis(1));
                            sum = sum + s.dot(&s.t()) / targets.len() as f64;
                        }
                        sum
                    }
                };
                let found = r.dot(&r.t());
                assert!((&found - &expected).iter().all(|d| d.abs() < 1e-12)); // f64 rounding
                let whole = kind.output_curvature(likelihood, f.view(), &item).unwrap();
                assert!((&whole - &expected).iter().all(|d| d.abs() < 1e-12));
                // what the item lacks has no curvature
                assert!(found.row(1).iter().chain(found.column(1)).all(|v| *v == 0.0), "{kind:?}");
            }
        }
    }

    #[test]
    fn sampled_curvature_tends_to_the_exact_one() {
        let f = outputs();
        let n = 20_000;
        let kind = FisherKind::Sampled { n, seed: 7 };
        // an entry is a mean of n terms: of a class below 1 in size; of noise z²/σ², with standard deviation √2/σ²
        let likelihoods: [(&dyn Likelihood, f64); 2] = [(&Categorical, 1.0), (&NOISE, 2f64.sqrt() / 0.3)];
        for (likelihood, sd) in likelihoods {
            let sampled = kind.output_curvature(likelihood, f.view(), &item(0, 2)).unwrap();
            let exact = likelihood.fisher(f.view());
            let bound = 5.0 * sd / (n as f64).sqrt(); // five standard errors
            assert!((&sampled - &exact).iter().all(|d| d.abs() < bound), "{likelihood:?}: {sampled}");
        }
    }

    #[test]
    fn targets_depend_on_the_item_and_the_seed_only() {
        let f = arr1(&[0.0, 0.0, 0.0, 0.0]);
        let likelihoods: [&dyn Likelihood; 2] = [&Categorical, &NOISE];
        for likelihood in likelihoods {
            let draw =
                |seed, key| FisherKind::Sampled { n: 16, seed }.sampled_targets(likelihood, f.view(), &item(key, 0));
            assert_eq!(draw(1, 7), draw(1, 7));
            assert_ne!(draw(1, 7), draw(1, 8));
            assert_ne!(draw(1, 7), draw(2, 7));
        }
    }
}
