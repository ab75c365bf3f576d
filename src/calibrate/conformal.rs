//! Predicts sets of classes that hold the true one with a chosen probability, whatever the model is worth.

use super::held_out::{SUM_TOLERANCE, check_labels};
use crate::draws::{Purpose, generator};
use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView1, ArrayView2};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

/// Rounding of `(n + 1)(1 − α)` that must not ask for one item more.
const RANK_TOLERANCE: f64 = 1e-9;

/// How strange a class is for an item; sets hold the classes that are not stranger than a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConformalScore {
    /// `1 − p_y`: the smallest sets on average, which may be empty.
    ///
    /// Sadinle, Lei & Wasserman (2019), arXiv 1609.00451.
    LeastAmbiguous,
    /// `Σ p` over the classes above y, plus `U·p_y` with U uniform for each item, or 1 where not `randomized` (larger sets).
    ///
    /// Romano, Sesia & Candès (2020), arXiv 2006.02544.
    Adaptive {
        /// Draw U.
        randomized: bool,
    },
    /// The same plus `penalty` for every rank of y (1, 2, …) beyond `free_ranks`: shorter sets where there are many classes.
    /// Choose both on items that are neither these nor those of the test.
    ///
    /// Angelopoulos et al. (2021), arXiv 2009.14193.
    RegularizedAdaptive {
        /// Draw U.
        randomized: bool,
        /// At least 0.
        penalty: f64,
        /// Ranks without it.
        free_ranks: usize,
    },
}

impl ConformalScore {
    fn validate(self) -> Result<()> {
        match self {
            Self::RegularizedAdaptive { penalty, .. } if !(penalty >= 0.0 && penalty.is_finite()) => {
                Err(Error::config("penalty", "at least 0 and finite", penalty))
            }
            _ => Ok(()),
        }
    }

    /// The score of every class of an item, infinite where its probability is 0; ranks of equal probabilities follow the order
    /// of the classes.
    fn of(self, probabilities: ArrayView1<f64>, u: f64) -> Vec<f64> {
        let present = |p: f64, score: f64| if p > 0.0 { score } else { f64::INFINITY };
        let (randomized, penalty, free_ranks) = match self {
            Self::LeastAmbiguous => return probabilities.iter().map(|&p| present(p, 1.0 - p)).collect(),
            Self::Adaptive { randomized } => (randomized, 0.0, 0),
            Self::RegularizedAdaptive { randomized, penalty, free_ranks } => (randomized, penalty, free_ranks),
        };
        let u = if randomized { u } else { 1.0 };
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        let (mut scores, mut above) = (vec![0.0; order.len()], 0.0);
        for (position, class) in order.into_iter().enumerate() {
            let beyond = (position + 1).saturating_sub(free_ranks);
            let p = probabilities[class];
            scores[class] = present(p, above + u * p + penalty * beyond as f64);
            above += p;
        }
        scores
    }
}

/// Split conformal prediction: a threshold on scores of labelled held-out items.
///
/// With n items that are exchangeable with those to come, `P(y ∈ set) ≥ 1 − α`, and at most `1/(n + 1)` more where scores do not
/// tie, for any probabilities. Nothing is promised for one kind of item, and nothing where the data have shifted.
///
/// A class of probability 0 is one that the item lacks: no set holds it, and an item with such a label is missed whatever the
/// threshold, which breaks the promise where that is infinite.
///
/// ```
/// use bayes_lora::calibrate::{ConformalScore, ConformalSets};
/// use ndarray::arr2;
///
/// // nine items whose true class 0 has the probability 0.1, 0.2, … 0.9
/// let p = ndarray::Array2::from_shape_fn((9, 2), |(i, c)| if c == 0 { (i + 1) as f64 / 10.0 } else { 1.0 - (i + 1) as f64 / 10.0 });
/// let conformal = ConformalSets::fit(p.view(), &[0; 9], 0.2, ConformalScore::LeastAmbiguous, 0)?;
/// assert!((conformal.threshold - 0.8).abs() < 1e-12); // the eighth of nine scores
/// let sets = conformal.sets(arr2(&[[0.95, 0.05], [0.5, 0.5]]).view())?;
/// assert_eq!(sets, arr2(&[[true, false], [true, true]]));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConformalSets {
    /// How classes are scored.
    pub score: ConformalScore,
    /// Share α of items whose set may miss the true class.
    pub miscoverage: f64,
    /// The `⌈(n + 1)(1 − α)⌉`-th smallest score of the n items; infinite (in JSON null), so that sets hold every class that the
    /// item has, where n is too small.
    #[serde(with = "super::threshold")]
    pub threshold: f64,
    /// Number n of held-out items.
    pub n_items: usize,
    /// Seed of the draws of U, where scores are randomised.
    pub seed: u64,
}

impl ConformalSets {
    /// Finds the threshold on labelled items that neither training nor the choice of anything else has seen.
    ///
    /// Draws of U depend on (seed, place of the item in this call, fit or prediction) alone: with randomised scores, the same items
    /// in another order may give another threshold.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`, rows sum to 1; labels: `[n_items]`
    ///
    /// # Errors
    /// If there is no item, a probability or a label is out of range, or `miscoverage` is not in (0, 1).
    pub fn fit(
        probabilities: ArrayView2<f64>,
        labels: &[usize],
        miscoverage: f64,
        score: ConformalScore,
        seed: u64,
    ) -> Result<Self> {
        score.validate()?;
        if !(miscoverage > 0.0 && miscoverage < 1.0) {
            return Err(Error::config("miscoverage", "in (0, 1)", miscoverage));
        }
        check_probabilities(probabilities)?;
        let (n_items, n_classes) = probabilities.dim();
        check_labels(labels, n_items, n_classes)?;
        let items = probabilities.outer_iter().zip(labels).enumerate();
        let mut scores: Vec<f64> = items
            .map(|(item, (row, &label))| score.of(row, uniform(seed, Purpose::ConformalFit, item))[label])
            .collect();
        scores.sort_by(f64::total_cmp);
        let rank = ((n_items + 1) as f64 * (1.0 - miscoverage) - RANK_TOLERANCE).ceil() as usize;
        let threshold = scores.get(rank.max(1) - 1).copied().unwrap_or(f64::INFINITY);
        Ok(Self { score, miscoverage, threshold, n_items, seed })
    }

    /// Which classes are in each item's set: those of a probability above 0 whose score is at most the threshold.
    ///
    /// Where scores are randomised, U is that of the item's place in this call: in another order or another batch, an item may
    /// get another set. Give all items in one call for sets that can be had again.
    ///
    /// # Shapes
    /// - probabilities, output: `[n_items, n_classes]`
    ///
    /// # Errors
    /// If there is no item, or a row is no distribution.
    pub fn sets(&self, probabilities: ArrayView2<f64>) -> Result<Array2<bool>> {
        check_probabilities(probabilities)?;
        let mut sets = Array2::from_elem(probabilities.dim(), false);
        for (item, (row, mut set)) in probabilities.outer_iter().zip(sets.outer_iter_mut()).enumerate() {
            let scores = self.score.of(row, uniform(self.seed, Purpose::ConformalPrediction, item));
            // an infinite threshold would let the infinite scores of lacking classes pass
            let within = |score: f64| score.is_finite() && score <= self.threshold;
            set.iter_mut().zip(scores).for_each(|(member, score)| *member = within(score));
        }
        Ok(sets)
    }

    /// Central interval of level `level` for the coverage that these held-out items give: `Beta(n + 1 − l, l)` with
    /// `l = ⌊(n + 1)α⌋`, for scores without ties; (1, 1) where sets hold every class that the item has.
    ///
    /// Vovk (2012), arXiv 1209.2673.
    ///
    /// # Errors
    /// If the level is not in (0, 1).
    pub fn coverage_interval(&self, level: f64) -> Result<(f64, f64)> {
        if !(level > 0.0 && level < 1.0) {
            return Err(Error::config("level", "in (0, 1)", level));
        }
        let total = (self.n_items + 1) as f64;
        let missed = (total * self.miscoverage + RANK_TOLERANCE).floor();
        if missed < 1.0 {
            return Ok((1.0, 1.0));
        }
        let coverage =
            Beta::new(total - missed, missed).map_err(|e| Error::numerical("distribution of coverage", e))?;
        Ok((coverage.inverse_cdf(0.5 - 0.5 * level), coverage.inverse_cdf(0.5 + 0.5 * level)))
    }
}

/// U of the item at a place of the call's items, counted from 0: the same for whatever item stands there.
fn uniform(seed: u64, purpose: Purpose, item: usize) -> f64 {
    generator(seed, purpose, 0, item as u64).random_range(0.0..1.0)
}

pub(super) fn check_probabilities(probabilities: ArrayView2<f64>) -> Result<()> {
    if probabilities.is_empty() {
        return Err(Error::empty("set of items"));
    }
    for (item, row) in probabilities.outer_iter().enumerate() {
        // written so that NaN fails too
        if let Some((class, p)) = row.indexed_iter().find(|(_, p)| !(0.0..=1.0 + SUM_TOLERANCE).contains(*p)) {
            return Err(Error::config(format!("probabilities[{item}, {class}]"), "in [0, 1]", p));
        }
        let sum = row.sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(Error::config(format!("sum of the probabilities of item {item}"), "1", sum));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::ChaCha8Rng};
    use statrs::distribution::{Binomial, DiscreteCDF};

    const SCORES: [ConformalScore; 5] = [
        ConformalScore::LeastAmbiguous,
        ConformalScore::Adaptive { randomized: true },
        ConformalScore::Adaptive { randomized: false },
        ConformalScore::RegularizedAdaptive { randomized: true, penalty: 0.1, free_ranks: 1 },
        ConformalScore::RegularizedAdaptive { randomized: false, penalty: 0.1, free_ranks: 1 },
    ];

    /// Distributions over four classes that are right about nothing, and labels drawn from others.
    fn items(n: usize, seed: u64) -> (Array2<f64>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut p = Array2::from_shape_fn((n, 4), |_| rng.random_range(0.01..1.0f64).powi(3));
        p.outer_iter_mut().for_each(|mut row| row /= row.sum());
        let labels = p.outer_iter().map(|row| if rng.random_bool(0.5) { argmax(row) } else { rng.random_range(0..4) });
        let labels = labels.collect();
        (p, labels)
    }

    fn argmax(row: ArrayView1<f64>) -> usize {
        (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap()
    }

    #[test]
    fn of_all_ways_to_leave_one_item_out_exactly_the_promised_share_is_covered() {
        let (p, labels) = items(20, 1);
        for score in [SCORES[0], SCORES[2], SCORES[4]] {
            for miscoverage in [0.1, 0.25, 0.5] {
                let covered = (0..20).filter(|&left| {
                    let rest: Vec<usize> = (0..20).filter(|i| *i != left).collect();
                    let of_rest: Vec<usize> = rest.iter().map(|&i| labels[i]).collect();
                    let fit =
                        ConformalSets::fit(p.select(ndarray::Axis(0), &rest).view(), &of_rest, miscoverage, score, 0);
                    let sets = fit.unwrap().sets(p.select(ndarray::Axis(0), &[left]).view()).unwrap();
                    sets[[0, labels[left]]]
                });
                let (covered, promised) = (covered.count(), (20.0 * (1.0 - miscoverage)) as usize);
                // whatever is ranked last has the same score, 1, in deterministic sums: sets with ties hold more
                let ties = score != ConformalScore::LeastAmbiguous;
                assert!(covered == promised || ties && covered > promised, "{score:?}, {miscoverage}: {covered}");
            }
        }
    }

    #[test]
    fn the_promised_coverage_is_kept_by_a_model_that_is_wrong() {
        let (n, n_test, miscoverage) = (99, 1, 0.1);
        for score in SCORES {
            let covered = (0..400).filter(|&repetition| {
                let (p, labels) = items(n + n_test, 1000 + repetition);
                let (fit, test) = p.view().split_at(ndarray::Axis(0), n);
                let conformal = ConformalSets::fit(fit, &labels[..n], miscoverage, score, repetition).unwrap();
                conformal.sets(test).unwrap()[[0, labels[n]]]
            });
            let covered = covered.count() as u64;
            // independent repetitions at probability 0.9 exactly, as scores do not tie: one in ten thousand on either side
            let binomial = Binomial::new(1.0 - miscoverage, 400).unwrap();
            let bounds = binomial.inverse_cdf(1e-4)..=binomial.inverse_cdf(1.0 - 1e-4);
            assert!(bounds.contains(&covered), "{score:?}: {covered} of 400, not in {bounds:?}");
        }
    }

    #[test]
    fn randomized_scores_of_the_true_distribution_are_uniform() {
        let n = 4000;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (p, _) = items(n, 6);
        let mut scores: Vec<f64> = p
            .outer_iter()
            .enumerate()
            .map(|(item, row)| {
                let mut left: f64 = rng.random_range(0.0..1.0);
                let drawn = row.iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                SCORES[1].of(row, uniform(9, Purpose::ConformalFit, item))[drawn.unwrap_or(3)]
            })
            .collect();
        scores.sort_by(f64::total_cmp);
        let distance =
            scores.iter().enumerate().map(|(i, s)| (s - (i as f64 + 0.5) / n as f64).abs()).fold(0.0, f64::max);
        // Kolmogorov's distance at one in ten thousand
        assert!(distance < 2.23 / (n as f64).sqrt(), "{distance}");
    }

    #[test]
    fn few_items_give_full_sets_and_equal_seeds_equal_sets() {
        let (p, labels) = items(8, 3);
        let fit = |seed| ConformalSets::fit(p.view(), &labels, 0.1, SCORES[1], seed).unwrap();
        // (8 + 1) · 0.9 = 8.1: a ninth score would be needed
        assert_eq!((fit(0).threshold, fit(0).coverage_interval(0.9).unwrap()), (f64::INFINITY, (1.0, 1.0)));
        assert!(fit(0).sets(p.view()).unwrap().iter().all(|member| *member));
        let (p, labels) = items(50, 4);
        let sets = |seed| ConformalSets::fit(p.view(), &labels, 0.3, SCORES[1], seed).unwrap().sets(p.view()).unwrap();
        assert_eq!(sets(1), sets(1));
        assert_ne!(sets(1), sets(2));
        let (low, high) =
            ConformalSets::fit(p.view(), &labels, 0.3, SCORES[1], 0).unwrap().coverage_interval(0.9).unwrap();
        assert!(low < 0.7 && 0.7 < high && low > 0.55 && high < 0.85, "[{low}, {high}]");
    }

    #[test]
    fn a_class_that_an_item_lacks_is_in_no_set_and_no_threshold_covers_it() {
        let p = ndarray::arr2(&[[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]]);
        let present = ndarray::arr2(&[[true, true, true], [true, true, false]]);
        for score in SCORES {
            // two items promise nothing at 0.1
            let few = ConformalSets::fit(p.view(), &[0, 1], 0.1, score, 3).unwrap();
            assert_eq!((few.threshold, few.sets(p.view()).unwrap()), (f64::INFINITY, present.clone()), "{score:?}");
            // of two scores at 0.5 the second counts: that of the label that its item lacks
            let lacking = ConformalSets::fit(p.view(), &[0, 2], 0.5, score, 3).unwrap();
            assert_eq!((lacking.threshold, lacking.sets(p.view()).unwrap()), (f64::INFINITY, present.clone()));
            let largest = ConformalSets { threshold: 10.0, ..few };
            assert_eq!(largest.sets(p.view()).unwrap(), present, "{score:?}");
        }
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let (p, labels) = items(4, 1);
        let fit = |p: &Array2<f64>, labels: &[usize], miscoverage, score| {
            ConformalSets::fit(p.view(), labels, miscoverage, score, 0).unwrap_err().to_string()
        };
        let lac = SCORES[0];
        let mut wrong = p.clone();
        wrong[[2, 1]] += 0.5;
        let negative = ConformalScore::RegularizedAdaptive { randomized: false, penalty: -1.0, free_ranks: 0 };
        for (error, parts) in [
            (fit(&p, &labels, 0.0, lac), ["miscoverage", "0"]),
            (fit(&p, &labels, f64::NAN, lac), ["miscoverage", "NaN"]),
            (fit(&p, &labels[..3], 0.1, lac), ["expected 4", "found 3"]),
            (fit(&p, &[0, 1, 2, 4], 0.1, lac), ["label 4", "4 classes"]),
            (fit(&wrong, &labels, 0.1, lac), ["item 2", "1"]),
            (fit(&Array2::zeros((0, 4)), &[], 0.1, lac), ["set of items", "empty"]),
            (fit(&p, &labels, 0.1, negative), ["penalty", "-1"]),
        ] {
            parts.into_iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
        }
    }
}
