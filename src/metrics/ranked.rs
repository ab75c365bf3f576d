//! Ranks items by confidence once, for statistics of any number of weightings.

/// Items from most to least confident, in runs of equal confidence; found once, for any number of weightings.
#[derive(Debug, Clone)]
pub(super) struct Ranked {
    order: Vec<usize>,
    run_lengths: Vec<usize>,
    wrong: Vec<bool>,
}

impl Ranked {
    pub(super) fn new(confidence: &[f64], correct: &[bool]) -> Self {
        let mut order: Vec<usize> = (0..confidence.len()).collect();
        order.sort_unstable_by(|&i, &j| confidence[j].total_cmp(&confidence[i]));
        let runs = order.chunk_by(|&i, &j| confidence[i] == confidence[j]);
        Self { run_lengths: runs.map(<[usize]>::len).collect(), wrong: correct.iter().map(|c| !c).collect(), order }
    }

    fn runs(&self) -> impl Iterator<Item = &[usize]> {
        let mut rest = &self.order[..];
        self.run_lengths.iter().map(move |&length| {
            let (run, tail) = rest.split_at(length);
            rest = tail;
            run
        })
    }

    pub(super) fn n_items(&self) -> usize {
        self.order.len()
    }

    /// Goes through the items, surest first, with their shares of the mass. A run of ties has its mass and its
    /// wrong mass spread evenly over its items, which is the mean over orders when the weights are equal.
    pub(super) fn walk(&self, weights: &[f64], mut visit: impl FnMut(Step)) {
        let (mut mass, mut wrong_mass) = (0.0, 0.0);
        for run in self.runs() {
            let (mut run_mass, mut run_wrong) = (0.0, 0.0);
            for &item in run {
                run_mass += weights[item];
                run_wrong += weights[item] * f64::from(u8::from(self.wrong[item]));
            }
            let size = run.len() as f64;
            for j in 1..=run.len() {
                let share = j as f64 / size;
                visit(Step {
                    mass: run_mass / size,
                    covered: mass + share * run_mass,
                    wrong: wrong_mass + share * run_wrong,
                });
            }
            mass += run_mass;
            wrong_mass += run_wrong;
        }
    }

    /// Area under the curve when item i has the share `weights[i]` of the mass: Σ_i w_i · (wrong mass up to and with i)/(mass up to
    /// and with i).
    pub(super) fn area(&self, weights: &[f64]) -> f64 {
        let mut area = 0.0;
        self.walk(weights, |step| {
            if step.covered > 0.0 {
                area += step.mass * step.wrong / step.covered;
            }
        });
        area
    }

    /// Accuracy on the fewest surest items whose mass is at least `coverage`.
    pub(super) fn accuracy_at(&self, coverage: f64, weights: &[f64]) -> f64 {
        let mut found = None;
        let mut last = 0.0;
        self.walk(weights, |step| {
            if step.covered > 0.0 {
                last = 1.0 - step.wrong / step.covered;
                if found.is_none() && step.covered >= coverage - SLACK {
                    found = Some(last);
                }
            }
        });
        found.unwrap_or(last)
    }

    /// Largest mass of surest items of which at least `accuracy` is right; 0 where there is none.
    pub(super) fn coverage_at(&self, accuracy: f64, weights: &[f64]) -> f64 {
        let mut found = 0.0;
        self.walk(weights, |step| {
            if step.covered > 0.0 && 1.0 - step.wrong / step.covered >= accuracy - SLACK {
                found = step.covered;
            }
        });
        found
    }
}

/// An item in its place.
pub(super) struct Step {
    /// Its own mass.
    mass: f64,
    /// The mass up to and with it.
    pub(super) covered: f64,
    /// The wrong part of that.
    pub(super) wrong: f64,
}

/// Sums of shares that should meet a level may miss it by their rounding, as 0.07 · 100 is a little above 7.
pub(super) const SLACK: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::bootstrap::equal_weights;

    #[test]
    fn the_order_of_the_items_does_not_matter() {
        let confidence = [0.6, 0.9, 0.6, 0.7, 0.6, 0.9, 0.7, 0.8];
        let correct = [true, false, false, true, true, true, false, false];
        let weights = [0.05, 0.2, 0.1, 0.15, 0.1, 0.1, 0.25, 0.05];
        let order = [7, 2, 5, 0, 3, 6, 1, 4];
        let pick = |v: &[f64]| order.iter().map(|&i| v[i]).collect::<Vec<_>>();
        let picked: Vec<bool> = order.iter().map(|&i| correct[i]).collect();
        let a = Ranked::new(&confidence, &correct);
        let b = Ranked::new(&pick(&confidence), &picked);
        // Sums in another order.
        assert!((a.area(&weights) - b.area(&pick(&weights))).abs() < 1e-15);
        assert!((a.area(&equal_weights(8)) - b.area(&equal_weights(8))).abs() < 1e-15);
    }

    #[test]
    fn integer_weights_without_ties_are_a_riemann_sum_of_repeated_items() {
        // An item of weight 2/4 counts once at its end; the definition, by hand.
        let ranked = Ranked::new(&[0.9, 0.8, 0.7], &[true, false, true]);
        let expected = 0.5 * 0.0 + 0.25 * (0.25 / 0.75) + 0.25 * 0.25;
        assert!((ranked.area(&[0.5, 0.25, 0.25]) - expected).abs() < 1e-15);
    }

    #[test]
    fn levels_are_met_by_mass_and_not_by_number() {
        // in order of confidence: right of mass 1/2, wrong of 1/4, right of 1/4
        let ranked = Ranked::new(&[0.7, 0.9, 0.8], &[true, true, false]);
        let weights = [0.25, 0.5, 0.25];
        assert_eq!(ranked.accuracy_at(0.5, &weights), 1.0);
        assert!((ranked.accuracy_at(0.6, &weights) - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(ranked.accuracy_at(1.0, &weights), 0.75);
        assert_eq!(ranked.coverage_at(0.9, &weights), 0.5);
        assert_eq!(ranked.coverage_at(0.7, &weights), 1.0);
        // nothing but wrong answers
        assert_eq!(Ranked::new(&[0.7], &[false]).coverage_at(0.5, &[1.0]), 0.0);
    }
}
