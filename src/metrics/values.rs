//! Scores predicted distributions of numbers: their density, their error, their intervals.

use super::bootstrap::{equal_weights, weighted_sum};
use super::interval::{Estimate, beta_interval};
use super::paired_matrix::PairedMetric;
use super::scores::ScoreOptions;
use crate::belief::{LinkApprox, LogitBelief};
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result, check_finite};
use crate::likelihood::{Likelihood, Target};
use serde::{Deserialize, Serialize};

/// Masses of the central intervals whose coverage is told.
pub const INTERVALS: [f64; 3] = [0.5, 0.9, 0.95];
/// Draws from the distribution of an item: its quantiles are right to 1 % of the mass, means over items much better.
const DRAWS: usize = 2000;

/// What is predicted of the number of each item, and how that fits the number: one entry an item.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValuePredictions {
    /// `E[y]`
    pub means: Vec<f64>,
    /// Standard deviation of y, noise included.
    pub deviations: Vec<f64>,
    /// `ln p(y)` of the number, in nats.
    pub log_densities: Vec<f64>,
    /// Share of the distribution below the number, in [0, 1]: evenly spread where the distributions are right.
    pub ranks: Vec<f64>,
    /// Continuous ranked probability score `E|Y − y| − ½ E|Y − Y′|`, in the units of the numbers.
    ///
    /// Gneiting and Raftery (2007), Journal of the American Statistical Association 102, equation 21.
    pub crps: Vec<f64>,
}

impl ValuePredictions {
    /// Holds a belief about the outputs of items against their numbers: density and moments as the likelihood gives them; ranks and scores
    /// from draws of the outputs, then of a number given each. They depend on the seed and the place of the item alone.
    ///
    /// # Errors
    /// If the model has several outputs, an item has no number, or as [`Likelihood::log_predictive`] and [`Likelihood::target_moments`].
    pub fn new(
        likelihood: &dyn Likelihood,
        belief: &LogitBelief,
        targets: &[Target],
        (link, seed): (LinkApprox, u64),
    ) -> Result<Self> {
        if belief.n_classes() != 1 {
            let found = belief.n_classes();
            return Err(Error::Count {
                what: "outputs of a model whose numbers are scored".into(),
                expected: 1,
                found,
            });
        }
        let log_densities = likelihood.log_predictive(belief, targets, link)?;
        let moments = likelihood.target_moments(belief, link)?;
        let mut found = Self {
            means: moments.mean.column(0).to_vec(),
            // rounding may leave −1e-17
            deviations: moments.covariance.iter().map(|variance| variance.max(0.0).sqrt()).collect(),
            log_densities,
            ..Self::default()
        };
        for (item, target) in targets.iter().enumerate() {
            let value = target.component(0);
            let mut draws = drawn(likelihood, belief, item, (link, seed))?;
            check_finite(
                format_args!("draws and the number of item {item}"),
                draws.iter().chain([&value]).map(|v| v.is_finite()),
            )?;
            draws.sort_unstable_by(f64::total_cmp);
            found.ranks.push(rank(&draws, value));
            found.crps.push(crps(&draws, value));
        }
        Ok(found)
    }

    /// Number of items.
    pub fn n_items(&self) -> usize {
        self.means.len()
    }

    /// The columns by their names.
    pub(crate) fn columns(&self) -> [(&'static str, &Vec<f64>); 5] {
        let Self { means, deviations, log_densities, ranks, crps } = self;
        [
            ("means", means),
            ("deviations", deviations),
            ("log-densities", log_densities),
            ("ranks", ranks),
            ("CRPS", crps),
        ]
    }

    /// The same with every number through `of`.
    pub(crate) fn map(self, of: impl Fn(f64) -> f64) -> Self {
        let each = |values: Vec<f64>| values.into_iter().map(&of).collect();
        let Self { means, deviations, log_densities, ranks, crps } = self;
        Self {
            means: each(means),
            deviations: each(deviations),
            log_densities: each(log_densities),
            ranks: each(ranks),
            crps: each(crps),
        }
    }

    fn losses(&self, values: &[f64]) -> Result<Losses<'_>> {
        for (what, column) in self.columns() {
            if column.len() != values.len() {
                return Err(Error::Count { what: what.into(), expected: values.len(), found: column.len() });
            }
        }
        let squared = self.means.iter().zip(values).map(|(mean, value)| (value - mean).powi(2)).collect();
        Ok(Losses { log_densities: &self.log_densities, squared, crps: &self.crps })
    }
}

/// Draws from the distribution of an item. The outputs of the k-th are those at the share (k + ½)/n of the belief's draws, by their weights.
fn drawn(
    likelihood: &dyn Likelihood,
    belief: &LogitBelief,
    item: usize,
    (link, seed): (LinkApprox, u64),
) -> Result<Vec<f64>> {
    let (outputs, weights) = belief.output_draws(item, link)?;
    let mut rng = generator(seed, Purpose::PredictedValue, 0, item as u64);
    let (mut place, mut passed) = (0, weights[0]);
    let draw = |k: usize| {
        let share = (k as f64 + 0.5) / DRAWS as f64;
        while share > passed && place + 1 < weights.len() {
            place += 1;
            passed += weights[place];
        }
        likelihood.sample(outputs.row(place), &mut rng).component(0)
    };
    Ok((0..DRAWS).map(draw).collect())
}

/// The share of ascending draws below a value, half of those that equal it.
fn rank(draws: &[f64], value: f64) -> f64 {
    let below = draws.partition_point(|draw| *draw < value);
    let up_to = draws.partition_point(|draw| *draw <= value);
    0.5 * (below + up_to) as f64 / draws.len() as f64
}

/// `E|Y − y| − ½ E|Y − Y′|` over ascending draws, each pair of two: without bias for any number of draws.
fn crps(draws: &[f64], value: f64) -> f64 {
    let n = draws.len() as f64;
    let error = draws.iter().map(|draw| (draw - value).abs()).sum::<f64>() / n;
    // Σ_{i<j} (y_j − y_i)
    let apart: f64 = draws.iter().enumerate().map(|(i, draw)| (2.0 * i as f64 - n + 1.0) * draw).sum();
    error - apart / (n * (n - 1.0))
}

struct Losses<'a> {
    log_densities: &'a [f64],
    squared: Vec<f64>,
    crps: &'a [f64],
}

impl Losses<'_> {
    /// NLL, root mean squared error and CRPS when item i has the share `weights[i]`.
    fn at(&self, weights: &[f64]) -> [f64; 3] {
        let nll = -weighted_sum(weights, self.log_densities);
        [nll, weighted_sum(weights, &self.squared).sqrt(), weighted_sum(weights, self.crps)]
    }
}

/// Scores of predicted distributions of numbers, each with its interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueScores {
    /// Number of items scored.
    pub n_items: usize,
    /// Negative logarithm of the predicted density, nats per item; of a density it may be below zero.
    pub nll: Estimate,
    /// Root mean squared error of the means.
    pub rmse: Estimate,
    /// Continuous ranked probability score.
    pub crps: Estimate,
    /// Mean standard deviation of the predictions, noise included.
    pub deviation: Estimate,
    /// Share of the numbers inside the central intervals of each of [`INTERVALS`], with its Beta interval.
    pub coverage: [Estimate; 3],
}

impl ValueScores {
    /// Scores predictions against the numbers of their items.
    ///
    /// # Errors
    /// If there is no item, lengths differ, or an option is out of its bounds.
    pub fn new(predictions: &ValuePredictions, values: &[f64], options: &ScoreOptions) -> Result<Self> {
        let losses = predictions.losses(values)?;
        let [nll, rmse, crps, deviation] = options.bootstrap().estimates(values.len(), |weights| {
            let [nll, rmse, crps] = losses.at(weights);
            [nll, rmse, crps, weighted_sum(weights, &predictions.deviations)]
        })?;
        let inside = |mass: f64| {
            let n = predictions.ranks.iter().filter(|rank| (2.0 * **rank - 1.0).abs() <= mass).count();
            beta_interval(n, values.len(), options.level)
        };
        let [a, b, c] = INTERVALS.map(inside);
        Ok(Self { n_items: values.len(), nll, rmse, crps, deviation, coverage: [a?, b?, c?] })
    }
}

impl ValueScores {
    /// All scores by their names in tables, in their order.
    pub fn named(&self) -> Vec<(String, Estimate)> {
        let Self { nll, rmse, crps, deviation, coverage, .. } = self;
        let own = [("NLL", nll), ("RMSE", rmse), ("CRPS", crps), ("standard deviation", deviation)];
        let own = own.map(|(name, score)| (name.to_string(), *score));
        let of_interval = |(mass, share): (f64, &Estimate)| (format!("inside {} %", 100.0 * mass), *share);
        own.into_iter().chain(INTERVALS.into_iter().zip(coverage).map(of_interval)).collect()
    }
}

/// Predictions of numbers by several methods, pair by pair on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedValues {
    /// Negative logarithm of the predicted density.
    pub nll: PairedMetric,
    /// Root mean squared error.
    pub rmse: PairedMetric,
    /// Continuous ranked probability score.
    pub crps: PairedMetric,
}

impl PairedValues {
    /// Compares the methods' predictions of the same numbers.
    ///
    /// # Errors
    /// As [`ValueScores::new`], and if there is no method.
    pub fn new(methods: &[&ValuePredictions], values: &[f64], options: &ScoreOptions) -> Result<Self> {
        let bootstrap = options.bootstrap();
        let of = |predictions: &&ValuePredictions| {
            let losses = predictions.losses(values)?;
            let draws = bootstrap.draws(values.len(), |weights| losses.at(weights))?;
            Ok((losses.at(&equal_weights(values.len())), draws))
        };
        let draws = methods.iter().map(of).collect::<Result<Vec<_>>>()?;
        let metric = |k| PairedMetric::of_draws(&draws, k, &bootstrap);
        Ok(Self { nll: metric(0)?, rmse: metric(1)?, crps: metric(2)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::LogitGauge;
    use crate::likelihood::Gaussian;
    use ndarray::{Array1, Array2, Array3};
    use rand_distr::{Distribution, StandardNormal};
    use statrs::distribution::{Continuous, ContinuousCDF, Normal};

    const NOISE: Gaussian = Gaussian { noise_variance: 0.09 };
    const N: usize = 400;

    fn standard() -> Normal {
        Normal::new(0.0, 1.0).unwrap()
    }

    /// `E|X − X′|`-like term of mixtures of normals: A(μ, s²) = E|N(μ, s²)|.
    fn spread(mean: f64, variance: f64) -> f64 {
        let (s, normal) = (variance.sqrt(), standard());
        mean * (2.0 * normal.cdf(mean / s) - 1.0) + 2.0 * s * normal.pdf(mean / s)
    }

    /// Outputs of three draws with their weights, and numbers that come from that mixture plus noise.
    fn mixture() -> (LogitBelief, Vec<[f64; 3]>, [f64; 3], Vec<f64>) {
        let weights = [0.5, 0.3, 0.2];
        let outputs: Vec<[f64; 3]> =
            (0..N).map(|i| [0.0, 0.4, -0.9].map(|shift| (i as f64 / 37.0).sin() + shift)).collect();
        let mut rng = generator(5, Purpose::Synthetic, 0, 0);
        let values = outputs.iter().enumerate().map(|(i, outputs)| {
            let z: f64 = StandardNormal.sample(&mut rng);
            let share = (i as f64 * 0.618_034).fract();
            let place = if share < 0.5 {
                0
            } else if share < 0.8 {
                1
            } else {
                2
            };
            outputs[place] + 0.3 * z
        });
        let values = values.collect();
        let belief = LogitBelief::Samples {
            logits: Array3::from_shape_fn((3, N, 1), |(k, i, _)| outputs[i][k]),
            log_weights: Array1::from_vec(weights.map(f64::ln).to_vec()),
        };
        (belief, outputs, weights, values)
    }

    fn targets(values: &[f64]) -> Vec<Target> {
        values.iter().map(|value| Target::Values(vec![*value])).collect()
    }

    #[test]
    fn draws_give_the_ranks_and_scores_of_a_mixture_of_normals_in_closed_form() {
        let (belief, outputs, weights, values) = mixture();
        let found = ValuePredictions::new(&NOISE, &belief, &targets(&values), (LinkApprox::default(), 0)).unwrap();
        let (variance, normal) = (NOISE.noise_variance, standard());
        let (mut of_ranks, mut of_crps) = (0.0f64, 0.0);
        for (i, y) in values.iter().enumerate() {
            let each = || outputs[i].iter().zip(&weights);
            let mean: f64 = each().map(|(m, w)| w * m).sum();
            assert!((found.means[i] - mean).abs() < 1e-12);
            let second: f64 = each().map(|(m, w)| w * (variance + (m - mean).powi(2))).sum();
            assert!((found.deviations[i] - second.sqrt()).abs() < 1e-12);
            let density: f64 = each().map(|(m, w)| w * normal.pdf((y - m) / 0.3) / 0.3).sum();
            assert!((found.log_densities[i] - density.ln()).abs() < 1e-10);
            let below: f64 = each().map(|(m, w)| w * normal.cdf((y - m) / 0.3)).sum();
            of_ranks = of_ranks.max((found.ranks[i] - below).abs());
            let error: f64 = each().map(|(m, w)| w * spread(y - m, variance)).sum();
            let pairs = each().flat_map(|a| each().map(move |b| a.1 * b.1 * spread(a.0 - b.0, 2.0 * variance)));
            of_crps += found.crps[i] - (error - 0.5 * pairs.sum::<f64>());
        }
        // a share of 2,000 draws has a standard error of 0.011 at most, and 400 of them stay within four
        assert!(of_ranks < 0.045, "{of_ranks}");
        // the error of an item's score is below 0.6/√2000, that of the mean over 400 items below 7e-4
        assert!((of_crps / N as f64).abs() < 3e-3, "{of_crps}");
        // the numbers are from the distribution: each interval holds its share, within its own interval or nearly
        let scores = ValueScores::new(&found, &values, &ScoreOptions::default()).unwrap();
        for (share, mass) in scores.coverage.iter().zip(INTERVALS) {
            assert!(share.low - 0.02 < mass && mass < share.high + 0.02, "{share:?} {mass}");
        }
        let rmse = (found.means.iter().zip(&values).map(|(m, y)| (m - y).powi(2)).sum::<f64>() / N as f64).sqrt();
        assert!((scores.rmse.value - rmse).abs() < 1e-12 && scores.rmse.low < rmse && rmse < scores.rmse.high);
    }

    #[test]
    fn a_gaussian_belief_and_its_draws_are_scored_alike() {
        let (_, outputs, _, values) = mixture();
        let mean = Array2::from_shape_fn((N, 1), |(i, _)| outputs[i][0]);
        let covariance = Array3::from_elem((N, 1, 1), 0.16);
        let belief = LogitBelief::Gaussian { mean: mean.clone(), covariance, gauge: LogitGauge::Raw };
        let wide = Gaussian { noise_variance: 0.25 };
        let all = targets(&values);
        let of = |likelihood: &Gaussian, belief: &LogitBelief| {
            ValuePredictions::new(likelihood, belief, &all, (LinkApprox::default(), 3)).unwrap()
        };
        // N(m, 0.16 + 0.09), whichever part is called noise
        let (a, b) = (of(&NOISE, &belief), of(&wide, &LogitBelief::Point { logits: mean }));
        for i in 0..N {
            assert!((a.log_densities[i] - b.log_densities[i]).abs() < 1e-10 && (a.deviations[i] - 0.5).abs() < 1e-12);
            // two shares of 2,000 draws each
            assert!((a.ranks[i] - b.ranks[i]).abs() < 0.065 && (b.deviations[i] - 0.5).abs() < 1e-12);
        }
        let options = ScoreOptions { n_draws: 200, ..Default::default() };
        let paired = PairedValues::new(&[&a, &b, &a], &values, &options).unwrap();
        assert_eq!(paired.rmse.p_better, vec![vec![0.5; 3]; 3]);
        assert_eq!((paired.crps.minus_first[2].value, paired.nll.p_better[0][2]), (0.0, 0.5));
    }

    #[test]
    fn a_better_distribution_is_better_in_every_pair_and_lengths_are_checked() {
        let (_, outputs, _, values) = mixture();
        let at = |shift: f64| {
            let logits = Array2::from_shape_fn((N, 1), |(i, _)| outputs[i][0] + shift);
            let belief = LogitBelief::Point { logits };
            ValuePredictions::new(&NOISE, &belief, &targets(&values), (LinkApprox::default(), 0)).unwrap()
        };
        let (near, far) = (at(0.0), at(5.0));
        let options = ScoreOptions { n_draws: 50, ..Default::default() };
        let paired = PairedValues::new(&[&near, &far], &values, &options).unwrap();
        for metric in [&paired.nll, &paired.rmse, &paired.crps] {
            assert_eq!(metric.p_better, [[0.5, 1.0], [0.0, 0.5]]);
            assert!(metric.minus_first[1].low > 0.0);
        }
        let error = ValueScores::new(&near, &values[1..], &options).unwrap_err().to_string();
        assert!(error.contains("means") && error.contains("expected 399, found 400"), "{error}");
        let two = LogitBelief::Point { logits: Array2::zeros((N, 2)) };
        let refused = ValuePredictions::new(&NOISE, &two, &targets(&values), (LinkApprox::default(), 0));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("outputs") && refused.contains("expected 1, found 2"), "{refused}");
    }
}
