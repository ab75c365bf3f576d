//! Finds the noise variance and the prior scale with the most evidence, of a regression with Gaussian noise.

use super::kernel::Kernel;
use super::model::LinearizedModel;
use crate::error::{Error, Result};
use crate::likelihood::{Gaussian, Likelihood};
use crate::linalg::eigh;
use crate::prior::PriorPrecisions;
use crate::search::{Line, Search, SearchEnd};
use ndarray::{Array1, ArrayView1};
use std::f64::consts::TAU;

/// The search of ln γ around where the noise is as large as the largest prior variance of an output: from noise of 1e-9 of it to 2e4 times
/// it, and farther while the log evidence still changes by 1e-7 nats.
const LINE: Line = Line { step: 1.0, width: 1e-7, level: 1e-7, limit: 40.0 };
const SPAN: (f64, f64) = (-20.0, 10.0);

/// Noise and prior with the most evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseOptimum {
    /// σ², to which [`Gaussian`] is set.
    pub noise_variance: f64,
    /// The prior precisions.
    pub precisions: PriorPrecisions,
    /// The log evidence of both, in nats.
    pub log_marginal_likelihood: f64,
    /// How the ratio of noise to prior was found, on which the rest follows in closed form.
    pub search: Search,
}

impl LinearizedModel {
    /// The noise variance σ² and the scale s of the prior precisions with the most evidence, at once.
    ///
    /// Of the linearised model with Gaussian noise the residuals at the prior's centre, `r = y − f* + J(θ* − μ)`, have the distribution
    /// `N(0, K/s + σ²I)` exactly. With `γ = sσ²` and `K = U diag(d) Uᵀ` the best scale is `s = M/Σ_i (uᵢᵀr)²/(dᵢ + γ)` for M outputs, so that
    /// one search over γ finds both. Neither the noise variance that the network was trained with nor the adapter's own fit enters: an
    /// adapter that follows the noise does not make it small.
    /// (MacKay 1992, Neural Computation 4, 415; Rasmussen & Williams 2006, section 5.4.1.)
    ///
    /// # Errors
    /// If the likelihood is not Gaussian, an item lacks an output, or the evidence asks for no noise, or for nothing but noise.
    pub fn optimal_noise(&self) -> Result<NoiseOptimum> {
        let spectrum = ResidualSpectrum::of(&self.kernel, self.residuals()?.view())?;
        let (_, centre, _) = self.log_scales()?;
        let found = LINE.minimize(SPAN, |log| Ok(-spectrum.log_evidence((centre + log).exp()).0))?;
        let at = |log: f64| (centre + log).exp();
        let (log_marginal_likelihood, scale) = spectrum.log_evidence(at(found.at));
        let precisions = self.precisions.scaled(scale)?;
        let unit = self.precisions.values()[0].value();
        let bounds = (unit * at(found.bounds.0), unit * at(found.bounds.1));
        let search = Search::new("noise variance times prior precision", unit * at(found.at), bounds, found.end);
        let search = search.with_meaning(match found.end {
            SearchEnd::Inside => "",
            SearchEnd::AtLower => "the evidence asks for no noise: the training items are fitted exactly",
            SearchEnd::AtUpper => "the evidence sees nothing but noise in the training items",
            SearchEnd::Undetermined => "no ratio of noise to prior changes the evidence",
        });
        let search = search.inside()?;
        Ok(NoiseOptimum { noise_variance: at(found.at) / scale, precisions, log_marginal_likelihood, search })
    }

    /// `y − f* + J(θ* − μ)`, one an output.
    fn residuals(&self) -> Result<Array1<f64>> {
        let gaussian = Gaussian { noise_variance: 1.0 };
        if self.likelihood.name() != gaussian.name() {
            let name = &self.likelihood;
            return Err(Error::Incompatible(format!(
                "a likelihood `{name}` has no noise variance to be found: that of a regression has"
            )));
        }
        let expected = self.outputs.len();
        if self.drift.len() != expected || self.outputs.iter().any(|output| !output.is_finite()) {
            let found = self.outputs.iter().filter(|output| output.is_finite()).count().min(self.drift.len());
            return Err(Error::Count { what: "outputs that the items have".into(), expected, found });
        }
        let c = self.outputs.ncols();
        let of = |(place, drift): (usize, &f64)| {
            let (item, output) = (place / c, place % c);
            self.targets[item].component(output) - self.outputs[[item, output]] + drift
        };
        Ok(self.drift.iter().enumerate().map(of).collect())
    }
}

/// Residuals along the eigenvectors of a kernel.
struct ResidualSpectrum {
    /// Pairs of `dᵢ` and `(uᵢᵀr)²`.
    along: Vec<(f64, f64)>,
    /// Number of further directions, where the kernel is zero, and the square of the residuals there.
    beside: (f64, f64),
}

impl ResidualSpectrum {
    fn of(kernel: &Kernel, residuals: ArrayView1<f64>) -> Result<Self> {
        match kernel {
            Kernel::Gram(gram) => {
                let eigen = eigh(gram.view())?;
                let along = eigen.values.iter().map(|d| d.max(0.0));
                let squares = eigen.vectors.t().dot(&residuals).mapv_into(|v| v * v);
                Ok(Self { along: along.zip(squares).collect(), beside: (0.0, 0.0) })
            }
            Kernel::Features(features) => {
                let eigen = eigh(features.t().dot(features).view())?;
                // uᵢ = Φvᵢ/√dᵢ, where dᵢ is not rounding
                let largest = eigen.values.iter().fold(0.0, |most: f64, d| most.max(*d));
                let rotated = eigen.vectors.t().dot(&features.t().dot(&residuals));
                let pairs = eigen.values.iter().zip(&rotated).filter(|(d, _)| **d > 1e-13 * largest);
                let along: Vec<(f64, f64)> = pairs.map(|(d, v)| (*d, v * v / d)).collect();
                let rest = residuals.dot(&residuals) - along.iter().map(|(_, square)| square).sum::<f64>();
                let n_beside = (residuals.len() - along.len()) as f64;
                // a difference that is nothing but rounding is none
                let rest = if rest > 1e-12 * residuals.dot(&residuals) { rest } else { 0.0 };
                Ok(Self { along, beside: (n_beside, rest) })
            }
        }
    }

    /// `ln N(r; 0, (K + γI)/s)` at the best s, and that s.
    fn log_evidence(&self, ratio: f64) -> (f64, f64) {
        let (n_beside, square) = self.beside;
        let m = self.along.len() as f64 + n_beside;
        let squares = square / ratio + self.along.iter().map(|(d, square)| square / (d + ratio)).sum::<f64>();
        let log_det = n_beside * ratio.ln() + self.along.iter().map(|(d, _)| (d + ratio).ln()).sum::<f64>();
        let scale = m / squares;
        (-0.5 * (m * (TAU / scale).ln() + log_det + m), scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::{SharedLikelihood, Target};
    use crate::posterior::LinearizedItems;
    use crate::prior::PriorPrecision;
    use ndarray::Array2;
    use rand::{SeedableRng, rngs::ChaCha8Rng};
    use rand_distr::{Distribution, StandardNormal};

    fn of_noise(noise_variance: f64) -> SharedLikelihood {
        Gaussian { noise_variance }.into()
    }

    /// A regression on `width` features around any adapter: outputs, drift and targets of a linear model with noise.
    fn regression(
        n: usize,
        width: usize,
        noise: f64,
        likelihood: SharedLikelihood,
    ) -> (Array2<f64>, Array1<f64>, LinearizedModel) {
        let mut rng = ChaCha8Rng::seed_from_u64((100 * n + width) as u64);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let features = Array2::from_shape_fn((n, width), |_| normal());
        let truth = Array1::from_shape_fn(width, |_| normal() / (width as f64).sqrt());
        let adapter = Array1::from_shape_fn(width, |_| normal());
        let outputs = Array1::from_shape_fn(n, |_| normal());
        // f(θ) = f* + Φ(θ − θ*), μ = 0
        let drift = features.dot(&adapter);
        let y = &outputs + &features.dot(&(&truth - &adapter)) + Array1::from_shape_fn(n, |_| noise * normal());
        let residuals = &y - &outputs + &drift;
        let items = LinearizedItems {
            outputs: outputs.insert_axis(ndarray::Axis(1)),
            are_contrasts: false,
            rows_per_item: 1,
            drift,
        };
        let targets = y.iter().map(|y| Target::Values(vec![*y])).collect();
        let one: PriorPrecisions = PriorPrecision::new(1.0).unwrap().into();
        let model = LinearizedModel::new(items, targets, features.clone(), likelihood, one).unwrap();
        (features, residuals, model)
    }

    /// `ln N(r; 0, ΦΦᵀ/s + σ²I)` by a dense matrix of its own.
    fn dense(features: &Array2<f64>, residuals: &Array1<f64>, scale: f64, noise_variance: f64) -> f64 {
        let n = residuals.len();
        let covariance = features.dot(&features.t()) / scale + Array2::<f64>::eye(n) * noise_variance;
        let factor = crate::linalg::CholeskyFactor::new(covariance.view()).unwrap();
        let eigen = eigh(covariance.view()).unwrap();
        let solved = eigen.vectors.dot(&(eigen.vectors.t().dot(residuals) / &eigen.values));
        -0.5 * (residuals.dot(&solved) + factor.log_det() + n as f64 * TAU.ln())
    }

    #[test]
    fn noise_and_prior_have_the_most_evidence_of_a_dense_gaussian() {
        // more items than weights, fewer, and one that is a kernel by its shape
        for (n, width, noise) in [(60, 7, 0.3), (40, 39, 0.5), (25, 60, 1.0)] {
            let (features, residuals, model) = regression(n, width, noise, of_noise(7.0));
            let found = model.optimal_noise().unwrap();
            let (scale, variance) = (found.precisions.values()[0].value(), found.noise_variance);
            let at = |scale: f64, variance: f64| dense(&features, &residuals, scale, variance);
            let best = at(scale, variance);
            // two decompositions of one matrix
            assert!((found.log_marginal_likelihood - best).abs() < 1e-8 * best.abs(), "{n}, {width}: {best} {found:?}");
            // stationary in both by central differences of step 1e-4: the second derivatives are of the order of n
            for (a, b) in [(1.0, 0.0), (0.0, 1.0)] {
                let moved = |h: f64| at(scale * (a * h).exp(), variance * (b * h).exp());
                let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                assert!(slope.abs() < 1e-3, "{n}, {width}: {slope}");
                for h in [-2.0, -0.5, -0.1, 0.1, 0.5, 2.0] {
                    assert!(moved(h) < best);
                }
            }
        }
    }

    #[test]
    fn the_evidence_is_that_at_the_mode_under_what_was_found() {
        let (_, _, model) = regression(60, 7, 0.3, of_noise(7.0));
        let found = model.optimal_noise().unwrap();
        let (_, _, with_noise) = regression(60, 7, 0.3, of_noise(found.noise_variance));
        let mode = with_noise.mode(found.precisions.values()[0].value(), None).unwrap();
        // Laplace's evidence of a quadratic problem is exact
        assert!((mode.log_marginal_likelihood() - found.log_marginal_likelihood).abs() < 1e-8);
        // 60 squares of noise 0.3 with 7 fitted directions: σ² within four standard errors of √(2/53)
        assert!((found.noise_variance / 0.09 - 1.0).abs() < 4.0 * (2.0f64 / 53.0).sqrt(), "{found:?}");
    }

    #[test]
    fn what_no_noise_can_be_found_of_is_refused_in_words() {
        let (_, _, model) = regression(20, 5, 0.0, of_noise(7.0));
        let error = model.optimal_noise().unwrap_err().to_string();
        assert!(error.contains("no noise"), "{error}");
    }
}
