//! Shortens Jacobians by a seeded sparse random projection, so that exact curvature in function space fits a memory.

use crate::draws::{Purpose, generator, place};
use crate::tape::Site;
use ndarray::{Array1, ArrayView2};
use rand::RngExt;
use std::sync::{Arc, OnceLock};

/// Replaces the P weights of function space by `width` random sums of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RandomProjection {
    /// Number of sums over all sites; each site gets its share by its number of weights, at least one.
    pub width: usize,
    /// Seed of the sums.
    pub seed: u64,
}

impl RandomProjection {
    /// Sums that a site of `n_weights` of all `n_total` weights gets; never more than it has weights.
    pub(super) fn share(&self, n_weights: usize, n_total: usize) -> usize {
        let share = self.width as f64 * n_weights as f64 / n_total.max(1) as f64;
        (share.round() as usize).clamp(1, n_weights.max(1))
    }
}

/// A count sketch `S: [width, n]` of one site's weights: one entry ±1 in every column, the others zero.
///
/// `E⟨Sφ, Sψ⟩ = ⟨φ, ψ⟩` with a variance of at most `2‖φ‖²‖ψ‖²/width`, so that the posterior's covariance is that of a Bayesian
/// linear model with nearly the same Gram matrices. A draw moves the weights by `Sᵀz`: those that share a sum move together,
/// and the linearised network at draws has the sketched covariance exactly.
///
/// Charikar, Chen & Farach-Colton (2002); Clarkson & Woodruff (2013), arXiv 1207.6365.
#[derive(Debug, Clone)]
pub struct Sketch {
    /// Number of sums.
    pub width: usize,
    /// Seed of the places and signs.
    pub seed: u64,
    /// Of the site.
    place: u64,
    n_weights: usize,
    /// For each weight, twice its sum's number, plus one where its sign is negative. Drawn when first used: a file says the
    /// number of weights without holding anything of that size, and before that use it is compared with the model's.
    places: Arc<OnceLock<Box<[u32]>>>,
}

impl PartialEq for Sketch {
    fn eq(&self, other: &Self) -> bool {
        let origin = |sketch: &Self| (sketch.width, sketch.seed, sketch.place, sketch.n_weights);
        origin(self) == origin(other)
    }
}

impl Sketch {
    /// The sketch of a site with `n_weights` weights, a function of (seed, site) alone.
    pub(super) fn new(width: usize, seed: u64, site: &Site, n_weights: usize) -> Self {
        Self { width, seed, place: place(site), n_weights, places: Arc::default() }
    }

    fn places(&self) -> &[u32] {
        self.places.get_or_init(|| {
            let mut rng = generator(self.seed, Purpose::Sketch, self.place, 0);
            let last = (2 * self.width).saturating_sub(1).min(u32::MAX as usize) as u32;
            (0..self.n_weights).map(|_| rng.random_range(0..=last)).collect()
        })
    }

    /// `Sφ` of a matrix of weights or Jacobians.
    pub(super) fn project(&self, values: ArrayView2<f64>) -> Array1<f64> {
        let mut sums = Array1::zeros(self.width);
        for (value, &place) in values.iter().zip(self.places()) {
            sums[place as usize / 2] += sign(place) * value;
        }
        sums
    }

    /// `Sᵀz`, row by row.
    pub(super) fn lift(&self, z: &Array1<f64>) -> Array1<f64> {
        self.places().iter().map(|&place| sign(place) * z[place as usize / 2]).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        4 * self.n_weights
    }
}

fn sign(place: u32) -> f64 {
    1.0 - 2.0 * f64::from(place % 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::LoraMatrix;
    use ndarray::Array2;

    fn site() -> Site {
        Site { module: "layers.0".into(), matrix: LoraMatrix::A }
    }

    #[test]
    fn inner_products_are_kept_on_average_and_lifting_is_the_transpose() {
        let phi = Array2::from_shape_fn((4, 10), |(i, j)| ((i * 7 + j * 3) % 11) as f64 / 5.0 - 1.0);
        let psi = Array2::from_shape_fn((4, 10), |(i, j)| ((i * 5 + j * 2) % 7) as f64 / 3.0 - 1.0);
        let (n, width) = (4000u64, 8);
        let square = |m: &Array2<f64>| m.iter().map(|v| v * v).sum::<f64>();
        let mut mean = 0.0;
        for seed in 0..n {
            let sketch = Sketch::new(width, seed, &site(), 40);
            let (a, b) = (sketch.project(phi.view()), sketch.project(psi.view()));
            mean += a.dot(&b) / n as f64;
            let flat = Array1::from_iter(psi.iter().copied());
            assert!((sketch.lift(&a).dot(&flat) - a.dot(&b)).abs() < 1e-10); // order of summation
        }
        // five standard errors by the bound on the variance
        let error = 5.0 * (2.0 * square(&phi) * square(&psi) / width as f64 / n as f64).sqrt();
        assert!((mean - (&phi * &psi).sum()).abs() < error, "{mean}");
    }

    #[test]
    fn nothing_is_drawn_before_it_is_used_and_equality_does_not_depend_on_it() {
        // so many places would need 32 EiB
        let claimed = Sketch::new(3, 1, &site(), 1 << 63);
        assert_eq!(claimed, claimed.clone());
        let [used, unused, other] = [1, 1, 2].map(|seed| Sketch::new(3, seed, &site(), 8));
        used.lift(&Array1::ones(3));
        assert_eq!(used, unused);
        assert_ne!(used, other);
        assert_ne!(used, claimed);
    }

    #[test]
    fn shares_follow_the_number_of_weights() {
        let projection = RandomProjection { width: 100, seed: 0 };
        assert_eq!([projection.share(30, 60), projection.share(1, 10_000), projection.share(5, 5)], [30, 1, 5]);
        assert_eq!(RandomProjection { width: 10, seed: 0 }.share(30, 60), 5);
    }
}
