//! SWAG: a Gaussian fitted to the walk of the weights at a constant rate.

use super::belief::SampledBelief;
use super::bounds::{check_not_negative, check_positive, check_some};
use super::gaussian::GaussianAdapter;
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements, Spent};
use crate::draws::{self, Purpose};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lora::AdapterWeights;
use crate::models::{Classifier, Dataset};
use crate::setters::setters;
use crate::train::{Decay, Snapshots, TrainerConfig};

/// `θ ~ N(θ̄, ½ diag s² + ½ D Dᵀ/(K − 1))`: mean θ̄ and variance s² of T snapshots of the adapter, taken while training goes on
/// from the trained adapter at a constant rate, and the last K deviations `D = [θ_i − θ̄_i]` from the running mean.
///
/// A and B are averaged each by itself, though `mean(B)·mean(A)` is not `mean(BA)`. AdamW walks, as in the published SWAG-LoRA, and
/// not SGD, for which the theory of a stationary walk holds.
///
/// Maddox et al. (2019), arXiv 1902.02476; Onal et al. (2024), arXiv 2405.03425.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Swag {
    /// Passes over the training data after the training.
    pub epochs: usize,
    /// Their constant rate, as a share of the recipe's peak.
    pub rate_share: f64,
    /// T
    pub n_snapshots: usize,
    /// K
    pub rank: usize,
    /// Factor of the covariance: 1 as above. The published code of SWAG-LoRA takes 2.
    pub scale: f64,
    /// Number of draws.
    pub n_samples: usize,
}

impl Default for Swag {
    /// Two epochs at half the peak, 20 snapshots, 10 columns, the stated covariance, 10 draws.
    fn default() -> Self {
        Self { epochs: 2, rate_share: 0.5, n_snapshots: 20, rank: 10, scale: 1.0, n_samples: 10 }
    }
}

impl Swag {
    /// What the published code of SWAG-LoRA takes: one snapshot an epoch for five epochs, at a tenth of the rate, and twice the
    /// stated covariance. It anneals to that rate; here it is constant.
    pub fn published() -> Self {
        Self { epochs: 5, rate_share: 0.1, n_snapshots: 5, rank: 5, scale: 2.0, ..Self::default() }
    }

    setters! {
        /// Sets the passes over the training data after the training.
        with_epochs(epochs: usize);
        /// Sets their rate, as a share of the recipe's peak.
        with_rate_share(rate_share: f64);
        /// Sets T.
        with_n_snapshots(n_snapshots: usize);
        /// Sets K.
        with_rank(rank: usize);
        /// Sets the factor of the covariance.
        with_scale(scale: f64);
        /// Sets the number of draws.
        with_n_samples(n_samples: usize);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        check_some("epochs", self.epochs)?;
        check_some("n_samples", self.n_samples)?;
        check_positive("rate_share", self.rate_share)?;
        check_not_negative("scale", self.scale)?;
        if self.n_snapshots < 2 {
            return Err(Error::config("n_snapshots", "at least 2", self.n_snapshots));
        }
        SwagMoments::new(self.rank).map(|_| ())
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for Swag {
    fn name(&self) -> String {
        "SWAG".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        Swag::validate(self)
    }

    fn describe(&self) -> String {
        format!(
            "{} epochs at {} of the peak rate, {} snapshots, {} columns, covariance times {}, {} draws",
            self.epochs, self.rate_share, self.n_snapshots, self.rank, self.scale, self.n_samples
        )
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        Some(NoiseSharing::Coherent)
    }

    fn requirements(&self) -> Requirements {
        Requirements { adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let mut moments = SwagMoments::new(self.rank)?;
        let config = TrainerConfig {
            epochs: self.epochs,
            learning_rate: context.recipe.trainer.learning_rate * self.rate_share,
            warmup_fraction: 0.0,
            decay: Decay::Constant,
            patience: None,
            snapshots: Snapshots { count: self.n_snapshots, from: 0.0 },
            log: None,
            // another order than that of the training
            seed: Some(draws::seed(context.seed, Purpose::SwagRun, 0, 0)),
            ..context.recipe.trainer.clone()
        };
        let outcome = context.train_on(config, context.map.clone())?;
        outcome.snapshots.iter().try_for_each(|snapshot| moments.add(&snapshot.weights))?;
        let sampler = moments.gaussian(self.scale)?;
        let bytes = sampler.bytes();
        let spread = sampler.deviations().values().flat_map(|sd| sd.iter()).map(|sd| sd * sd).sum::<f64>();
        let fitted = Fitted::new(SampledBelief { sampler, n_samples: self.n_samples, seed: context.seed, bytes });
        let fitted = fitted.with_spent(Spent::training(outcome.report.items));
        Ok(fitted.with_found("snapshots", outcome.snapshots.len() as f64).with_found("trace of the diagonal", spread))
    }
}

/// Running mean and variance of a sequence of adapters (Welford's, in f64), with the last deviations from the running mean.
#[derive(Debug, Clone, PartialEq)]
pub struct SwagMoments {
    rank: usize,
    count: usize,
    mean: AdapterWeights,
    /// `Σ (θ_i − θ̄_{i−1})(θ_i − θ̄_i)`
    squares: AdapterWeights,
    deviations: Vec<AdapterWeights>,
}

impl SwagMoments {
    /// Nothing yet; keeps the last `rank` deviations.
    ///
    /// # Errors
    /// If `rank` is 1: one column has no degree of freedom.
    pub fn new(rank: usize) -> Result<Self> {
        if rank == 1 {
            return Err(Error::config("rank", "0 or at least 2", rank));
        }
        let empty = AdapterWeights::new;
        Ok(Self { rank, count: 0, mean: empty(), squares: empty(), deviations: Vec::new() })
    }

    /// Takes in one more adapter.
    ///
    /// # Errors
    /// If it differs from the others in its matrices or shapes.
    pub fn add(&mut self, weights: &AdapterWeights) -> Result<()> {
        self.count += 1;
        if self.count == 1 {
            self.mean = weights.clone();
            self.squares = weights.iter().map(|(site, w)| (site.clone(), w * 0.0)).collect();
        }
        let mut deviation = AdapterWeights::new();
        for (site, mean) in &mut self.mean {
            let new = weights.get(site).filter(|new| new.dim() == mean.dim()).ok_or_else(|| {
                Error::Incompatible(format!("snapshot {} has no `{site}` of shape {:?}", self.count, mean.shape()))
            })?;
            let before = new - &*mean;
            mean.scaled_add(1.0 / self.count as f64, &before);
            let after = new - &*mean;
            if let Some(squares) = self.squares.get_mut(site) {
                *squares += &(&before * &after);
            }
            deviation.insert(site.clone(), after);
        }
        // the first deviation from the mean of one is zero
        if self.rank > 0 && self.count > 1 {
            if self.deviations.len() == self.rank {
                self.deviations.remove(0);
            }
            self.deviations.push(deviation);
        }
        Ok(())
    }

    /// The Gaussian, its covariance multiplied by `scale`.
    ///
    /// # Errors
    /// If fewer than two adapters were taken in, or the scale is negative or not finite.
    pub fn gaussian(self, scale: f64) -> Result<GaussianAdapter> {
        if self.count < 2 {
            return Err(Error::Count { what: "snapshots for SWAG, at least".into(), expected: 2, found: self.count });
        }
        if !(scale >= 0.0 && scale.is_finite()) {
            return Err(Error::config("scale", "at least 0 and finite", scale));
        }
        let share = |sum: f64| (0.5 * scale * (sum / self.count as f64).max(0.0)).sqrt();
        let deviations = self.squares.iter().map(|(site, sum)| (site.clone(), sum.mapv(share))).collect();
        // as many columns as there are: the divisor counts those
        let columns = self.deviations.len();
        let factor = if columns > 1 { (0.5 * scale / (columns - 1) as f64).sqrt() } else { 0.0 };
        let scaled = |column: &AdapterWeights| column.iter().map(|(site, d)| (site.clone(), d * factor)).collect();
        GaussianAdapter::new(self.mean, deviations, self.deviations.iter().map(scaled).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::{generator, normals, place};
    use crate::tape::{LoraMatrix, Site};
    use ndarray::Array2;

    fn of(values: Array2<f64>) -> AdapterWeights {
        [(Site { module: "q".into(), matrix: LoraMatrix::A }, values)].into()
    }

    fn only(weights: &AdapterWeights) -> &Array2<f64> {
        weights.values().next().unwrap()
    }

    #[test]
    fn moments_and_columns_are_those_of_two_passes() {
        let all: Vec<Array2<f64>> =
            (0..12).map(|i| normals(&mut generator(1, Purpose::Synthetic, place("walk"), i), (2, 3)) + 100.0).collect();
        let mut moments = SwagMoments::new(4).unwrap();
        all.iter().for_each(|w| moments.add(&of(w.clone())).unwrap());
        let gaussian = moments.gaussian(1.0).unwrap();
        let mean = |n: usize| all[..n].iter().fold(Array2::zeros((2, 3)), |sum: Array2<f64>, w| sum + w) / n as f64;
        assert!((only(gaussian.mean()) - &mean(12)).iter().all(|d| d.abs() < 1e-12));
        let variance =
            all.iter().map(|w| (w - &mean(12)).mapv(|d| d * d)).fold(Array2::zeros((2, 3)), |s: Array2<f64>, v| s + v)
                / 12.0;
        // around a mean of 100 the textbook form would lose 4 digits
        assert!((only(gaussian.deviations()).mapv(|sd| 2.0 * sd * sd) - variance).iter().all(|d| d.abs() < 1e-13));
        assert_eq!(gaussian.columns().len(), 4);
        for (column, n) in gaussian.columns().iter().zip(9..) {
            let expected = (&all[n - 1] - &mean(n)) / (2.0f64 * 3.0).sqrt();
            assert!((only(column) - &expected).iter().all(|d| d.abs() < 1e-12));
        }
    }

    #[test]
    fn the_diagonal_of_a_walk_in_a_quadratic_bowl_is_its_stationary_variance() {
        // x ← x − η(hx + σz): variance ησ²/(h(2 − ηh))
        let (h, sigma, eta) = (2.0, 0.5, 0.1);
        let expected = eta * sigma * sigma / (h * (2.0 - eta * h));
        let (runs, n) = (200, 4000);
        let noise = normals(&mut generator(5, Purpose::Synthetic, place("walk"), 0), (n, runs));
        let mut x = Array2::<f64>::zeros((1, runs));
        let mut moments = SwagMoments::new(0).unwrap();
        for (step, z) in noise.outer_iter().enumerate() {
            x = &x - &((&x * h + &z * sigma) * eta);
            if step >= 100 {
                moments.add(&of(x.clone())).unwrap();
            }
        }
        let gaussian = moments.gaussian(1.0).unwrap();
        let found = only(gaussian.deviations()).mapv(|sd| 2.0 * sd * sd).mean().unwrap();
        // 200 walks of 3,900 steps, each of about 10 correlated ones: 78,000 independent draws, a standard error of 0.5 %
        assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
    }

    #[test]
    fn a_walk_that_stands_still_is_a_point_and_bad_input_is_refused() {
        let mut still = SwagMoments::new(3).unwrap();
        let weights = of(Array2::from_elem((1, 2), 0.3));
        assert!(still.clone().gaussian(1.0).unwrap_err().to_string().contains("expected 2, found 0"));
        (0..5).for_each(|_| still.add(&weights).unwrap());
        let gaussian = still.clone().gaussian(1.0).unwrap();
        assert_eq!(crate::lora::AdapterSampler::draw(&gaussian, 0, 3).unwrap(), weights);
        assert!(still.clone().gaussian(f64::NAN).unwrap_err().to_string().contains("scale"));
        assert!(still.add(&of(Array2::zeros((2, 2)))).unwrap_err().to_string().contains("snapshot 6"));
        assert!(SwagMoments::new(1).unwrap_err().to_string().contains("rank"));
    }
}
