//! Compares many methods on the same items, every one with every other.

use super::bootstrap::BayesianBootstrap;
use super::interval::Estimate;
use super::paired_table::PairedTable;
use super::predictions::Predictions;
use super::scores::{ScoreOptions, WeightedLosses};
use crate::error::{Error, Result};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// One metric of several methods, pair by pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedMetric {
    /// `[n_methods][n_methods]`: posterior probability that the row's method is better than the column's; ½ on the diagonal.
    ///
    /// `p_better[a][b] + p_better[b][a] = 1`
    pub p_better: Vec<Vec<f64>>,
    /// `[n_methods]`: the metric of each method minus that of the first, in the metric's own units.
    pub minus_first: Vec<Estimate>,
}

impl PairedMetric {
    /// The k-th statistic of every method, less of which is better: its value at equal weights and its draws.
    pub(super) fn of_draws<const K: usize>(
        methods: &[([f64; K], Vec<[f64; K]>)],
        k: usize,
        bootstrap: &BayesianBootstrap,
    ) -> Result<Self> {
        let lower = |(_, a): &(_, Vec<[f64; K]>), (_, b): &(_, Vec<[f64; K]>)| {
            let compared = a.iter().zip(b).map(|(a, b)| match a[k] - b[k] {
                d if d < 0.0 => 1.0,
                0.0 => 0.5,
                _ => 0.0,
            });
            compared.sum::<f64>() / a.len() as f64
        };
        let (first_value, first) = methods.first().ok_or_else(|| Error::empty("list of methods to compare"))?;
        let differences = methods.iter().map(|(value, draws)| {
            let of_draws = draws.iter().zip(first).map(|(draw, first)| draw[k] - first[k]);
            bootstrap.summarise(value[k] - first_value[k], of_draws)
        });
        Ok(Self {
            p_better: methods.iter().map(|a| methods.iter().map(|b| lower(a, b)).collect()).collect(),
            minus_first: differences.collect::<Result<_>>()?,
        })
    }
}

/// What [`PairedScores`](crate::metrics::PairedScores) says of two methods, for all pairs among several, at the price of
/// one bootstrap each.
///
/// All methods see the same weights of the items in each draw, so the numbers are those of the pairs taken singly.
///
/// ```
/// use bayes_lora::metrics::{PairedMatrix, ScoreOptions};
/// use ndarray::arr2;
///
/// let a = arr2(&[[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]);
/// let b = arr2(&[[0.6, 0.4], [0.4, 0.6], [0.6, 0.4]]);
/// let matrix = PairedMatrix::new(&[a.view(), b.view()], &[0, 1, 0], &ScoreOptions::default())?;
/// assert_eq!(matrix.nll.p_better, [[0.5, 1.0], [0.0, 0.5]]); // a is better on every item …
/// assert_eq!(matrix.accuracy.p_better[0][1], 0.5); // … with the same answers
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedMatrix {
    /// Share of right answers.
    pub accuracy: PairedMetric,
    /// Negative log-likelihood, nats per item.
    pub nll: PairedMetric,
    /// Brier score.
    pub brier: PairedMetric,
    /// Expected calibration error, equal-width bins.
    pub ece: PairedMetric,
    /// Area under the risk–coverage curve.
    pub aurc: PairedMetric,
}

impl PairedMatrix {
    /// Compares the methods' answers to the same items.
    ///
    /// # Shapes
    /// - each of `methods`: `[n_items, n_classes]`; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no method or no item, the shapes differ, a row is not a distribution, a label is not a class, or an option
    /// is out of its bounds.
    pub fn new(methods: &[ArrayView2<f64>], labels: &[usize], options: &ScoreOptions) -> Result<Self> {
        let first = methods.first().ok_or_else(|| Error::empty("list of methods to compare"))?;
        if let Some(other) = methods.iter().find(|other| other.dim() != first.dim()) {
            return Err(Error::Shape {
                what: "probabilities of the methods to compare".into(),
                expected: first.shape().to_vec(),
                found: other.shape().to_vec(),
            });
        }
        let predictions = methods.iter().map(|p| Predictions::new(*p, labels)).collect::<Result<Vec<_>>>()?;
        let bootstrap = options.bootstrap();
        let mut draws = Vec::with_capacity(methods.len());
        for predictions in &predictions {
            let losses = WeightedLosses::new(predictions, options.n_bins)?;
            let at = |weights: &[f64]| {
                let at = losses.at(weights);
                [at.nll, at.brier, at.ece, at.aurc]
            };
            let equal = at(&vec![1.0 / labels.len() as f64; labels.len()]);
            draws.push((equal, bootstrap.draws(labels.len(), at)?));
        }
        let metric = |k: usize| PairedMetric::of_draws(&draws, k, &bootstrap);
        let tables =
            |a: &Predictions| -> Vec<PairedTable> { predictions.iter().map(|b| PairedTable::count(a, b)).collect() };
        let of_first =
            predictions.iter().map(|a| PairedTable::count(a, &predictions[0]).accuracy_difference(&bootstrap));
        Ok(Self {
            accuracy: PairedMetric {
                p_better: predictions
                    .iter()
                    .map(|a| tables(a).iter().map(PairedTable::p_better_accuracy).collect())
                    .collect(),
                minus_first: of_first.collect::<Result<_>>()?,
            },
            nll: metric(0)?,
            brier: metric(1)?,
            ece: metric(2)?,
            aurc: metric(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{PairedDifference, PairedScores};
    use ndarray::Array2;

    fn methods() -> (Vec<Array2<f64>>, Vec<usize>) {
        let said = |seed: usize| {
            let mut p =
                Array2::from_shape_fn((40, 3), |(i, c)| (((i * 7 + c * 13 + seed * 5) % 11) as f64 / 2.0).exp());
            p.outer_iter_mut().for_each(|mut row| row /= row.sum());
            p
        };
        ((0..4).map(said).collect(), (0..40).map(|i| (i * i) % 3).collect())
    }

    #[test]
    fn every_pair_has_the_numbers_of_the_pair_alone() {
        let (methods, labels) = methods();
        let options = ScoreOptions { n_draws: 200, ..Default::default() };
        let views: Vec<_> = methods.iter().map(|p| p.view()).collect();
        let matrix = PairedMatrix::new(&views, &labels, &options).unwrap();
        for (a, p) in methods.iter().enumerate() {
            for (b, q) in methods.iter().enumerate() {
                let alone = PairedScores::new(p.view(), q.view(), &labels, &options).unwrap();
                let pairs: [(&PairedMetric, PairedDifference); 5] = [
                    (&matrix.accuracy, alone.accuracy),
                    (&matrix.nll, alone.nll),
                    (&matrix.brier, alone.brier),
                    (&matrix.ece, alone.ece),
                    (&matrix.aurc, alone.aurc),
                ];
                for (metric, alone) in pairs {
                    assert_eq!(metric.p_better[a][b], alone.p_better, "{a} {b}");
                    if b == 0 {
                        assert_eq!(metric.minus_first[a], alone.difference);
                    }
                }
            }
        }
    }

    #[test]
    fn the_matrix_and_its_transpose_sum_to_one() {
        let (methods, labels) = methods();
        let views: Vec<_> = methods.iter().map(|p| p.view()).collect();
        let matrix = PairedMatrix::new(&views, &labels, &ScoreOptions::default()).unwrap();
        let mut decided = 0;
        for metric in [&matrix.accuracy, &matrix.nll, &matrix.brier, &matrix.ece, &matrix.aurc] {
            for a in 0..4 {
                assert_eq!(metric.p_better[a][a], 0.5);
                for b in 0..4 {
                    // The accuracy's is a ratio of incomplete beta functions, found to about 1e-14.
                    assert!((metric.p_better[a][b] + metric.p_better[b][a] - 1.0).abs() < 1e-12, "{a} {b}");
                    decided += usize::from(metric.p_better[a][b] > 0.6);
                }
            }
        }
        assert!(decided > 0);
    }

    #[test]
    fn unequal_shapes_and_no_methods_are_refused() {
        let (methods, labels) = methods();
        let options = ScoreOptions::default();
        let short = methods[1].slice(ndarray::s![..39, ..]);
        let error = PairedMatrix::new(&[methods[0].view(), short], &labels, &options).unwrap_err().to_string();
        assert!(error.contains("[40, 3]") && error.contains("[39, 3]"), "{error}");
        let error = PairedMatrix::new(&[], &labels, &options).unwrap_err().to_string();
        assert_eq!(error, "list of methods to compare is empty");
    }
}
