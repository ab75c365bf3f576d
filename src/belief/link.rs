//! Turns a Gaussian over logits into class probabilities.

use super::softmax::{log_mean, log_softmax, log_sum_exp};
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use crate::linalg::semidefinite_cholesky;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand_distr::{Distribution, StandardNormal};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::f64::consts::PI;

/// How `E[softmax f]` under `f ~ N(m, Σ)` is computed.
///
/// All forms but the two raw ones depend on differences of logits only, so they give the same answer in every gauge; those two
/// refuse a covariance in the centred one (see [`super::LogitGauge`]).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum LinkApprox {
    /// Average of `softmax` over antithetic pairs of draws, the same standard normals for every item, so that the
    /// result depends neither on the batch nor on the order. Standard error ∝ `n_samples^(−½)`.
    MonteCarlo {
        /// Number of draws (rounded up to an even number).
        n_samples: usize,
        /// Seed of the draws.
        seed: u64,
    },
    /// Gauss–Hermite quadrature of `σ(m₁ − m₀ + √v z)`, two classes only. Close to exact while `√v` is a few units; at
    /// `√v = 10` the error is 0.015 with 32 nodes and 0.003 with 64, and grows: take Monte Carlo there.
    GaussHermite {
        /// Number of nodes.
        points: usize,
    },
    /// `p_i ∝ 1 / Σ_j exp(−(m_i − m_j) / √(1 + π Var(f_i − f_j) / 8))`: the probit approximation made on every
    /// pair of classes.
    PairwiseProbit,
    /// `softmax(m_i / √(1 + π Σ_ii / 8))` of the raw variances, as in laplace-torch; depends on the gauge.
    RawProbit,
    /// Dirichlet parameters `α_i = (1 − 2/C + Σ_j exp(m_i − m_j) / C²) / Σ_ii`, `p = α / Σ α`
    /// (Hobbhahn et al., 2003.01227); raw variances, depends on the gauge of the covariance. It differs from laplace-torch's, which first
    /// conditions the Gaussian on `Σ_c f_c = 0`.
    LaplaceBridge,
}

impl Default for LinkApprox {
    /// 2,000 draws, seed 0.
    fn default() -> Self {
        Self::MonteCarlo { n_samples: 2000, seed: 0 }
    }
}

impl LinkApprox {
    /// Checks that there is a draw or a node.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::MonteCarlo { n_samples: 0, .. } => Err(Error::config("n_samples", "at least 1", 0)),
            Self::GaussHermite { points: 0 } => Err(Error::config("points", "at least 1", 0)),
            _ => Ok(()),
        }
    }

    /// True if the form reads the variances of single logits, so that it needs the Jacobians of all classes.
    pub fn needs_raw_covariance(&self) -> bool {
        matches!(self, Self::RawProbit | Self::LaplaceBridge)
    }

    /// Standard normal draws or quadrature nodes with weights, shared by all items: nodes `[n, dims]`, weights `[n]`.
    pub(super) fn nodes(&self, dims: usize) -> Result<(Array2<f64>, Array1<f64>)> {
        self.validate()?;
        match *self {
            Self::GaussHermite { points } => {
                if dims != 1 {
                    return Err(Error::Count {
                        what: "classes for Gauss–Hermite quadrature".into(),
                        expected: 2,
                        found: dims + 1,
                    });
                }
                let (nodes, weights) = crate::linalg::gauss_hermite(points)?;
                Ok((nodes.insert_axis(ndarray::Axis(1)), weights))
            }
            Self::MonteCarlo { n_samples, seed } => Ok(standard_normals(n_samples, seed, dims)),
            _ => Ok(standard_normals(2000, 0, dims)),
        }
    }
}

/// A link with its draws or nodes for every number of contrasts, made once and shared by all items.
pub(super) struct Integral {
    link: LinkApprox,
    nodes: BTreeMap<usize, (Array2<f64>, Array1<f64>)>,
}

impl Integral {
    pub(super) fn new(link: LinkApprox) -> Self {
        Self { link, nodes: BTreeMap::new() }
    }

    /// Log-probabilities of one item.
    pub(super) fn log_probabilities(
        &mut self,
        mean: ArrayView1<f64>,
        covariance: ArrayView2<f64>,
    ) -> Result<Array1<f64>> {
        match self.link {
            LinkApprox::MonteCarlo { .. } | LinkApprox::GaussHermite { .. } => {
                let (logs, weights) = self.log_draws(mean, covariance)?;
                Ok(log_mean(logs.view(), weights))
            }
            LinkApprox::PairwiseProbit => Ok(pairwise_probit(mean, covariance)),
            LinkApprox::RawProbit => {
                let scaled = |i: usize| mean[i] / (1.0 + PI * covariance[[i, i]] / 8.0).sqrt();
                Ok(normalized(Array1::from_shape_fn(mean.len(), scaled)))
            }
            LinkApprox::LaplaceBridge => laplace_bridge(mean, covariance),
        }
    }

    /// The log-probability of one class of one item, the same number as among all of them, at a fraction of the exponentials.
    pub(super) fn log_probability(
        &mut self,
        class: usize,
        mean: ArrayView1<f64>,
        covariance: ArrayView2<f64>,
    ) -> Result<f64> {
        match self.link {
            LinkApprox::MonteCarlo { .. } | LinkApprox::GaussHermite { .. } => {
                let (logits, weights) = self.draws(mean, covariance)?;
                let log_p = |row: ArrayView1<f64>| row[class] - log_sum_exp(row.iter().copied());
                let logs: Array1<f64> = logits.outer_iter().map(log_p).collect();
                Ok(log_mean(logs.view().insert_axis(Axis(1)), weights)[0])
            }
            _ => Ok(self.log_probabilities(mean, covariance)?[class]),
        }
    }

    /// Log-probabilities of the classes at every draw or node `[n, n_classes]`, and the weights `[n]` (summing to 1).
    pub(super) fn log_draws(
        &mut self,
        mean: ArrayView1<f64>,
        covariance: ArrayView2<f64>,
    ) -> Result<(Array2<f64>, ArrayView1<'_, f64>)> {
        let (logits, weights) = self.draws(mean, covariance)?;
        Ok((log_softmax(logits.view()), weights))
    }

    /// Logits up to a common shift at every draw or node `[n, n_classes]`, and the weights `[n]`.
    fn draws(
        &mut self,
        mean: ArrayView1<f64>,
        covariance: ArrayView2<f64>,
    ) -> Result<(Array2<f64>, ArrayView1<'_, f64>)> {
        let present = present_classes(mean);
        let Some((&reference, others)) = present.split_first() else {
            return Err(Error::NonFinite {
                what: "logit means of an item".into(),
                count: mean.len(),
                total: mean.len(),
            });
        };
        let dims = others.len();
        let contrast = Array2::from_shape_fn((dims, dims), |(i, j)| {
            let (a, b) = (others[i], others[j]);
            covariance[[a, b]] - covariance[[a, reference]] - covariance[[reference, b]]
                + covariance[[reference, reference]]
        });
        let factor = semidefinite_cholesky(contrast.view())?;
        let (nodes, weights) = self.nodes(dims)?;
        let mut logits = Array2::from_elem((nodes.nrows(), mean.len()), f64::NEG_INFINITY);
        logits.column_mut(reference).fill(0.0);
        let shifts = nodes.dot(&factor.t());
        for (i, &c) in others.iter().enumerate() {
            let centre = mean[c] - mean[reference];
            logits.column_mut(c).assign(&shifts.column(i).mapv(|v| v + centre));
        }
        Ok((logits, weights.view()))
    }

    fn nodes(&mut self, dims: usize) -> Result<&(Array2<f64>, Array1<f64>)> {
        Ok(match self.nodes.entry(dims) {
            Entry::Occupied(known) => known.into_mut(),
            // a single class has no contrast: one node that is no number
            Entry::Vacant(new) if dims == 0 => new.insert((Array2::zeros((1, 0)), Array1::ones(1))),
            Entry::Vacant(new) => new.insert(self.link.nodes(dims)?),
        })
    }
}

/// The classes that an item has.
fn present_classes(mean: ArrayView1<f64>) -> Vec<usize> {
    (0..mean.len()).filter(|&c| mean[c].is_finite()).collect()
}

/// Log-probabilities in proportion to the exponentials of `logs`.
fn normalized(logs: Array1<f64>) -> Array1<f64> {
    let sum = log_sum_exp(logs.iter().copied());
    logs - sum
}

fn standard_normals(n_samples: usize, seed: u64, dims: usize) -> (Array2<f64>, Array1<f64>) {
    let half = n_samples.div_ceil(2);
    let mut rng = generator(seed, Purpose::Link, dims as u64, 0);
    let mut nodes = Array2::zeros((2 * half, dims));
    for i in 0..half {
        for j in 0..dims {
            let z: f64 = StandardNormal.sample(&mut rng);
            nodes[[i, j]] = z;
            nodes[[half + i, j]] = -z;
        }
    }
    (nodes, Array1::from_elem(2 * half, 0.5 / half as f64))
}

fn pairwise_probit(mean: ArrayView1<f64>, covariance: ArrayView2<f64>) -> Array1<f64> {
    let present = present_classes(mean);
    let mut logs = Array1::from_elem(mean.len(), f64::NEG_INFINITY);
    for &i in &present {
        let terms = present.iter().map(|&j| {
            let variance = (covariance[[i, i]] + covariance[[j, j]] - 2.0 * covariance[[i, j]]).max(0.0);
            -(mean[i] - mean[j]) / (1.0 + PI * variance / 8.0).sqrt()
        });
        logs[i] = -log_sum_exp(terms);
    }
    normalized(logs)
}

fn laplace_bridge(mean: ArrayView1<f64>, covariance: ArrayView2<f64>) -> Result<Array1<f64>> {
    let present = present_classes(mean);
    let c = present.len() as f64;
    let mut logs = Array1::from_elem(mean.len(), f64::NEG_INFINITY);
    for &i in &present {
        if covariance[[i, i]] <= 0.0 {
            return Err(Error::Incompatible(format!(
                "the Laplace bridge needs positive logit variances, class {i} has {}",
                covariance[[i, i]]
            )));
        }
        // log of 1 − 2/C + Σ_j exp(m_i − m_j)/C²; of one class the two terms cancel, and its probability is 1
        let sum = log_sum_exp(present.iter().map(|&j| mean[i] - mean[j])) - 2.0 * c.ln();
        let alpha = if present.len() == 1 { 0.0 } else { log_sum_exp([(1.0 - 2.0 / c).ln(), sum].into_iter()) };
        logs[i] = alpha - covariance[[i, i]].ln();
    }
    Ok(normalized(logs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belief::centre_covariance;
    use ndarray::{arr1, arr2};
    use proptest::prelude::*;

    impl LinkApprox {
        fn of(&self, mean: ArrayView1<f64>, covariance: ArrayView2<f64>) -> Result<Array1<f64>> {
            Ok(Integral::new(*self).log_probabilities(mean, covariance)?.mapv(f64::exp))
        }
    }

    #[test]
    fn quadrature_and_monte_carlo_agree_for_two_classes() {
        let (m, v) = (arr1(&[0.3, 1.4]), arr2(&[[2.0, 0.3], [0.3, 1.0]]));
        let exact = LinkApprox::GaussHermite { points: 48 }.of(m.view(), v.view()).unwrap();
        let finer = LinkApprox::GaussHermite { points: 64 }.of(m.view(), v.view()).unwrap();
        assert!((exact[1] - finer[1]).abs() < 1e-9); // the integrand is analytic
        let sampled = LinkApprox::MonteCarlo { n_samples: 40_000, seed: 3 }.of(m.view(), v.view()).unwrap();
        // sd of σ(f) < 0.5, 40,000 draws: standard error < 0.0025
        assert!((exact[1] - sampled[1]).abs() < 0.01);
    }

    #[test]
    fn probit_forms_agree_for_two_classes_with_one_random_logit() {
        let (m, v) = (arr1(&[0.0, 1.0]), arr2(&[[0.0, 0.0], [0.0, 3.0]]));
        let pair = LinkApprox::PairwiseProbit.of(m.view(), v.view()).unwrap();
        let raw = LinkApprox::RawProbit.of(m.view(), v.view()).unwrap();
        assert!((pair[1] - raw[1]).abs() < 1e-12); // both are σ(1/√(1 + 3π/8))
    }

    proptest! {
        #[test]
        fn gauge_shift_changes_nothing_that_depends_on_differences(
            m in proptest::collection::vec(-3.0..3.0f64, 3),
            l in proptest::collection::vec(-1.0..1.0f64, 9),
        ) {
            let l = Array2::from_shape_vec((3, 3), l).unwrap();
            let cov = l.dot(&l.t());
            let m = Array1::from_vec(m);
            let centred = centre_covariance(m.view(), cov.view());
            for link in [LinkApprox::default(), LinkApprox::PairwiseProbit] {
                let a = link.of(m.view(), cov.view()).unwrap();
                let b = link.of((&m + 5.0).view(), centred.view()).unwrap();
                prop_assert!((a.sum() - 1.0).abs() < 1e-9);
                // the Cholesky factor of a nearly singular 2×2 contrast loses half the digits
                prop_assert!((&a - &b).iter().all(|d| d.abs() < 1e-6));
            }
        }
    }

    proptest! {
        #[test]
        fn a_common_shift_of_the_means_changes_no_probability(
            m in proptest::collection::vec(-30.0..30.0f64, 2..5),
            variance in 0.1..9.0f64,
            shift in -1000.0..1000.0f64,
        ) {
            let (m, c) = (Array1::from_vec(m.clone()), m.len());
            // equal variances: the raw probit scales each mean by its own
            let v = Array2::from_shape_fn((c, c), |(a, b)| if a == b { variance } else { 0.05 });
            let mut links = vec![
                LinkApprox::MonteCarlo { n_samples: 64, seed: 1 },
                LinkApprox::PairwiseProbit,
                LinkApprox::RawProbit,
                LinkApprox::LaplaceBridge,
            ];
            if c == 2 {
                links.push(LinkApprox::GaussHermite { points: 16 });
            }
            for link in links {
                let a = link.of(m.view(), v.view()).unwrap();
                let b = link.of((&m + shift).view(), v.view()).unwrap();
                prop_assert!((a.sum() - 1.0).abs() < 1e-12);
                // a mean of 1000 is rounded by 1e-13
                prop_assert!((&a - &b).iter().all(|d| d.abs() < 1e-11), "{:?} {} {}", link, a, b);
            }
        }
    }

    #[test]
    fn the_bridge_of_means_800_apart_is_certain_and_of_one_class_too() {
        let bridge = |m: &[f64]| {
            Integral::new(LinkApprox::LaplaceBridge).log_probabilities(arr1(m).view(), Array2::eye(m.len()).view())
        };
        let logs = bridge(&[800.0, 0.0, 1.0]).unwrap();
        // α = 1/3 + (1 + e⁸⁰⁰ + …)/9 against about 1/3 + 2/9
        assert!(logs[0].abs() < 1e-12 && logs[1] < -790.0 && logs[1].is_finite(), "{logs}");
        assert_eq!(bridge(&[3.0]).unwrap()[0], 0.0);
    }

    #[test]
    fn absent_classes_have_probability_zero() {
        let m = arr1(&[0.5, f64::NEG_INFINITY, 0.1]);
        let mut v = Array2::eye(3);
        v[[1, 1]] = 0.0;
        for link in
            [LinkApprox::default(), LinkApprox::PairwiseProbit, LinkApprox::RawProbit, LinkApprox::LaplaceBridge]
        {
            let p = link.of(m.view(), v.view()).unwrap();
            assert_eq!(p[1], 0.0);
            assert!((p.sum() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn zero_covariance_gives_the_softmax_of_the_mean() {
        let m = arr1(&[1.0, -0.5, 0.2]);
        let v = Array2::zeros((3, 3));
        let expected = log_softmax(m.view().insert_axis(ndarray::Axis(0))).mapv(f64::exp);
        for link in [LinkApprox::default(), LinkApprox::PairwiseProbit, LinkApprox::RawProbit] {
            let p = link.of(m.view(), v.view()).unwrap();
            assert!((&p - &expected.row(0)).iter().all(|d| d.abs() < 1e-12));
        }
    }
}
