//! Gaussians over adapters of diagonal plus low-rank covariance: the posteriors of SWAG, BLoB and IVON.

use super::keep::{Keep, Kept};
use crate::draws::{Purpose, generator, normals, place};
use crate::error::{Error, Result, check_finite};
use crate::lora::{AdapterSampler, AdapterWeights, check_same_shapes};
use crate::tape::Site;
use ndarray::Array2;

/// `θ = m + σ∘z + Σ_k d_k ζ_k` with standard normal z (one a weight) and ζ (one a column): covariance `diag σ² + Σ_k d_k d_kᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianAdapter {
    mean: AdapterWeights,
    /// Standard deviations of some of the matrices; the others are fixed.
    deviations: AdapterWeights,
    columns: Vec<AdapterWeights>,
}

impl GaussianAdapter {
    /// A Gaussian around `mean`.
    ///
    /// # Shapes
    /// - deviations: some of the matrices of `mean`, in its shapes; columns: all of them, each.
    ///
    /// # Errors
    /// If a matrix is not one of the mean's, a shape differs, or a value is negative (a deviation) or not finite.
    pub fn new(mean: AdapterWeights, deviations: AdapterWeights, columns: Vec<AdapterWeights>) -> Result<Self> {
        for (what, weights) in
            std::iter::once(("deviations", &deviations)).chain(columns.iter().map(|column| ("column", column)))
        {
            for (site, values) in weights {
                let expected = mean.get(site).ok_or_else(|| {
                    Error::Incompatible(format!("{what} of `{site}`, which the adapter does not have"))
                })?;
                if expected.dim() != values.dim() {
                    return Err(Error::Shape {
                        what: format!("{what} of `{site}`"),
                        expected: expected.shape().to_vec(),
                        found: values.shape().to_vec(),
                    });
                }
                check_finite(format_args!("{what} of `{site}`"), values.iter().map(|v| v.is_finite()))?;
            }
        }
        match deviations.iter().find_map(|(site, sd)| sd.iter().find(|v| **v < 0.0).map(|v| (site, *v))) {
            None => Ok(Self { mean, deviations, columns }),
            Some((site, value)) => Err(Error::config(format!("deviations of `{site}`"), "at least 0", value)),
        }
    }

    /// The mean m.
    pub fn mean(&self) -> &AdapterWeights {
        &self.mean
    }

    /// The deviations σ.
    pub fn deviations(&self) -> &AdapterWeights {
        &self.deviations
    }

    /// The low-rank columns d.
    pub fn columns(&self) -> &[AdapterWeights] {
        &self.columns
    }

    /// Bytes of everything but the mean, in single precision.
    pub fn bytes(&self) -> usize {
        bytes_of(&self.deviations) + self.columns.iter().map(bytes_of).sum::<usize>()
    }

    /// The weights at given normals: `z` by site, `zeta` by column.
    fn at(&self, mut z: impl FnMut(&Site, (usize, usize)) -> Array2<f64>, zeta: &[f64]) -> AdapterWeights {
        let mut weights = self.mean.clone();
        for (site, w) in &mut weights {
            if let Some(sd) = self.deviations.get(site) {
                *w += &(sd * &z(site, sd.dim()));
            }
            for (column, factor) in self.columns.iter().zip(zeta) {
                if let Some(column) = column.get(site) {
                    w.scaled_add(*factor, column);
                }
            }
        }
        weights
    }
}

/// Bytes of an adapter's matrices in single precision.
pub(super) fn bytes_of(weights: &AdapterWeights) -> usize {
    weights.values().map(|w| w.len() * size_of::<f32>()).sum()
}

impl GaussianAdapter {
    pub(super) const KIND: &str = "Gaussian";

    pub(super) fn restore(kept: &mut Kept, map: &AdapterWeights) -> Result<Self> {
        let (mean, deviations) = (kept.take_adapter("mean")?, kept.take_adapter("deviation")?);
        check_same_shapes("the Gaussian's mean", &mean, map)?;
        Self::new(mean, deviations, kept.take_adapters("column")?)
    }
}

impl Keep for GaussianAdapter {
    fn keep(&self) -> Option<Kept<'_>> {
        let kept = Kept::new(Self::KIND).with_adapter("mean", &self.mean).with_adapter("deviation", &self.deviations);
        Some(kept.with_adapters("column", &self.columns))
    }
}

impl AdapterSampler for GaussianAdapter {
    fn draw(&self, seed: u64, index: u64) -> Result<AdapterWeights> {
        let zeta = normals(&mut generator(seed, Purpose::GaussianColumns, 0, index), (1, self.columns.len()));
        let z = |site: &Site, shape| normals(&mut generator(seed, Purpose::GaussianDraw, place(site), index), shape);
        Ok(self.at(z, &zeta.into_raw_vec_and_offset().0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::LoraMatrix;
    use ndarray::{Array1, arr2};

    fn site(matrix: LoraMatrix) -> Site {
        Site { module: "q".into(), matrix }
    }

    fn adapter(a: [[f64; 2]; 1], b: [[f64; 1]; 2]) -> AdapterWeights {
        [(site(LoraMatrix::A), arr2(&a)), (site(LoraMatrix::B), arr2(&b))].into()
    }

    fn flat(weights: &AdapterWeights) -> Array1<f64> {
        weights.values().flat_map(|w| w.iter().copied()).collect()
    }

    #[test]
    fn the_map_from_normals_to_weights_has_the_stated_covariance() {
        let mean = adapter([[1.0, 2.0]], [[3.0], [4.0]]);
        let deviations = adapter([[0.5, 0.1]], [[0.2], [0.0]]);
        let columns = vec![adapter([[1.0, 0.0]], [[-1.0], [2.0]]), adapter([[0.0, 0.3]], [[0.1], [0.0]])];
        let gaussian = GaussianAdapter::new(mean.clone(), deviations.clone(), columns.clone()).unwrap();
        // push every basis vector through
        let mut gram = Array2::<f64>::zeros((4, 4));
        let mut push = |weights: AdapterWeights| {
            let d = flat(&weights) - flat(&mean);
            gram += &d.view().insert_axis(ndarray::Axis(1)).dot(&d.view().insert_axis(ndarray::Axis(0)));
        };
        for k in 0..4 {
            let z = |site: &Site, shape: (usize, usize)| {
                let offset = if site.matrix == LoraMatrix::A { 0 } else { 2 };
                Array2::from_shape_fn(shape, |(i, j)| f64::from(offset + i * shape.1 + j == k))
            };
            push(gaussian.at(z, &[0.0, 0.0]));
        }
        for k in 0..2 {
            let zeta = [f64::from(k == 0), f64::from(k == 1)];
            push(gaussian.at(|_, shape| Array2::zeros(shape), &zeta));
        }
        let mut expected = Array2::from_diag(&flat(&deviations).mapv(|v| v * v));
        for column in &columns {
            let d = flat(column);
            expected += &d.view().insert_axis(ndarray::Axis(1)).dot(&d.view().insert_axis(ndarray::Axis(0)));
        }
        assert!((gram - expected).iter().all(|v| v.abs() < 1e-14));
    }

    #[test]
    fn without_noise_every_draw_is_the_mean_and_seeds_tell_draws_apart() {
        let mean = adapter([[1.0, 2.0]], [[3.0], [4.0]]);
        let still = GaussianAdapter::new(mean.clone(), AdapterWeights::new(), Vec::new()).unwrap();
        assert_eq!(still.draw(3, 7).unwrap(), mean);
        let wide = GaussianAdapter::new(mean.clone(), adapter([[1.0, 1.0]], [[0.0], [0.0]]), Vec::new()).unwrap();
        let draw = |seed, index| wide.draw(seed, index).unwrap();
        assert_eq!(draw(0, 1), draw(0, 1));
        assert!(draw(0, 1) != draw(0, 2) && draw(0, 1) != draw(1, 1));
        assert_eq!(draw(0, 1)[&site(LoraMatrix::B)], mean[&site(LoraMatrix::B)]);
    }

    #[test]
    fn bad_parts_are_refused_with_names_and_numbers() {
        let mean = adapter([[1.0, 2.0]], [[3.0], [4.0]]);
        let of = |matrix, values| AdapterWeights::from([(site(matrix), values)]);
        let other = AdapterWeights::from([(Site { module: "k".into(), matrix: LoraMatrix::A }, arr2(&[[1.0]]))]);
        for (deviations, parts) in [
            (of(LoraMatrix::A, arr2(&[[1.0, -2.0]])), ["q.lora_A", "-2"]),
            (of(LoraMatrix::A, arr2(&[[1.0]])), ["[1, 2]", "[1, 1]"]),
            (of(LoraMatrix::B, arr2(&[[f64::NAN], [1.0]])), ["q.lora_B", "1 of 2"]),
            (other, ["k.lora_A", "does not have"]),
        ] {
            let error = GaussianAdapter::new(mean.clone(), deviations, Vec::new()).unwrap_err().to_string();
            parts.into_iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
        }
    }
}
