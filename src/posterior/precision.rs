//! Multiplies by the precision of a posterior over weights, and by its inverse.

use super::laplace::Laplace;
use crate::curvature::CoordinateKind;
use crate::error::{Error, Result};
use crate::lora::{AdapterWeights, check_same_shapes};
use ndarray::{Array1, Array2};

/// The precision `(H + Λ)/T` of a posterior, or its curvature's part `H/T`, over every weight of the adapter.
#[derive(Clone, Copy)]
pub(super) struct Precision<'a> {
    laplace: &'a Laplace,
    /// 0 leaves Λ out.
    share_of_prior: f64,
}

impl<'a> Precision<'a> {
    /// # Errors
    /// If the posterior's coordinates are not the weights' own, or it holds a matrix of the adapter fixed.
    pub(super) fn of(laplace: &'a Laplace) -> Result<Self> {
        let spaces = || laplace.blocks().iter().flat_map(|block| block.spaces());
        let is_of_weights = |kind| matches!(kind, CoordinateKind::Weights | CoordinateKind::Kronecker);
        if spaces().any(|space| !is_of_weights(space.coordinates.kind())) {
            return Err(Error::Incompatible(format!(
                "a {} posterior gives no precision of the weights of A and B: it is over {}",
                laplace.structure(),
                laplace.structure().plan()
            )));
        }
        let sites = laplace.sites();
        match laplace.map().keys().find(|site| !sites.contains(site)) {
            None => Ok(Self { laplace, share_of_prior: 1.0 }),
            Some(site) => Err(Error::Incompatible(format!(
                "the posterior holds `{site}` fixed, so it has no precision there: fit it over all matrices of the adapter"
            ))),
        }
    }

    /// Without Λ: what the data of this posterior alone say.
    pub(super) fn of_curvature(self) -> Self {
        Self { share_of_prior: 0.0, ..self }
    }

    /// True if each weight is independent of every other.
    pub(super) fn is_diagonal(&self) -> bool {
        self.laplace.blocks().iter().all(|block| block.is_diagonal())
    }

    /// `(H + Λ)/T · v`
    ///
    /// # Errors
    /// If a matrix is missing or of another shape.
    pub(super) fn times(&self, v: &AdapterWeights) -> Result<AdapterWeights> {
        let temperature = self.laplace.temperature();
        self.function(v, |e, lambda| (e + self.share_of_prior * lambda) / temperature)
    }

    /// `T(H + Λ)⁻¹ v`
    ///
    /// # Errors
    /// If a matrix is missing or of another shape.
    pub(super) fn solve(&self, v: &AdapterWeights) -> Result<AdapterWeights> {
        let temperature = self.laplace.temperature();
        self.function(v, |e, lambda| temperature / (e + self.share_of_prior * lambda))
    }

    /// A function of H's eigenvalues and of their prior precision, applied to v.
    fn function(&self, v: &AdapterWeights, f: impl Fn(f64, f64) -> f64) -> Result<AdapterWeights> {
        check_same_shapes("what a precision is multiplied by", v, self.laplace.map())?;
        let mut out: AdapterWeights =
            self.laplace.map().iter().map(|(site, w)| (site.clone(), Array2::zeros(w.dim()))).collect();
        for (block, &group) in self.laplace.blocks().iter().zip(self.laplace.group_of()) {
            let lambda = self.laplace.prior_precisions().of(group).value();
            let used = block.spaces().iter().flat_map(|space| space.used_rows(&v[&space.site]));
            block.add_function(|e| f(e, lambda), used.collect(), &mut out);
            // rows of a head that no answer reads have no curvature
            let alone = f(0.0, lambda);
            for space in block.spaces() {
                let (Some(rows), Some(out)) = (&space.output_rows, out.get_mut(&space.site)) else { continue };
                for (row, (mut out, v)) in out.outer_iter_mut().zip(v[&space.site].outer_iter()).enumerate() {
                    if !rows.contains(&row) {
                        out.assign(&(&v * alone));
                    }
                }
            }
        }
        Ok(out)
    }
}

impl Laplace {
    /// `(H + Λ)/T · δ`: the posterior's precision times a deviation of every matrix of the adapter.
    ///
    /// # Errors
    /// If the posterior is over cores or sketches, or holds a matrix fixed; if one is missing in the deviation or of another shape.
    pub fn precision_product(&self, deviation: &AdapterWeights) -> Result<AdapterWeights> {
        Precision::of(self)?.times(deviation)
    }
}

/// All entries, site after site.
pub(super) fn flat(weights: &AdapterWeights) -> Array1<f64> {
    weights.values().flat_map(|w| w.iter().copied()).collect()
}

/// The adapter of the shapes of `like` whose entries are given site after site.
pub(super) fn shaped(entries: &Array1<f64>, like: &AdapterWeights) -> AdapterWeights {
    let mut next = entries.iter().copied();
    let mut take = |w: &Array2<f64>| Array2::from_shape_simple_fn(w.dim(), || next.next().unwrap_or_default());
    like.iter().map(|(site, w)| (site.clone(), take(w))).collect()
}
