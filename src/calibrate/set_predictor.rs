//! Says what every way to answer with a set of classes, or not to answer, can do, and counts how it fares.

use super::held_out::check_labels;
use super::{Abstention, ConformalScore, ConformalSets};
use crate::belief::top_class;
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2};
use serde::{Deserialize, Serialize};

/// An answer that need not be one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAnswer {
    /// These classes, in ascending order; perhaps none.
    Classes(Vec<usize>),
    /// No answer is given.
    Abstained,
}

/// A rule that answers with sets of classes or abstains, fitted to averaged probabilities of labelled held-out items.
///
/// ```
/// use bayes_lora::calibrate::{Abstention, AbstentionSettings, SetAnswer, SetPredictor};
/// use ndarray::{Array2, arr2};
///
/// let held_out = Array2::from_shape_fn((60, 2), |(i, c)| if (c == 0) == (i < 40) { 0.95 } else { 0.05 });
/// let labels: Vec<usize> = (0..60).map(|i| usize::from(i >= 40)).collect();
/// let settings = AbstentionSettings { risk: 0.1, failure_probability: 0.1 };
/// let rule = Abstention::fit_to(held_out.view(), &labels, &settings)?;
/// let answers = rule.answers(arr2(&[[0.97, 0.03], [0.6, 0.4]]).view())?;
/// assert_eq!(answers, [SetAnswer::Classes(vec![0]), SetAnswer::Abstained]);
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
pub trait SetPredictor {
    /// What is chosen before the fit.
    type Settings;

    /// Fits the rule to labelled items that neither training nor the choice of anything else has seen.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`, rows sum to 1; labels: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, a probability or a label is out of range, or a setting is.
    fn fit_to(probabilities: ArrayView2<f64>, labels: &[usize], settings: &Self::Settings) -> Result<Self>
    where
        Self: Sized;

    /// Answers every item.
    ///
    /// # Shapes
    /// - probabilities: `[n_items, n_classes]`; output: `[n_items]`.
    ///
    /// # Errors
    /// If there is no item, or a row is no distribution.
    fn answers(&self, probabilities: ArrayView2<f64>) -> Result<Vec<SetAnswer>>;

    /// Counts how the answers fare on labelled items.
    ///
    /// # Errors
    /// As [`answers`](Self::answers), or if a label is not a class or the lengths differ.
    fn tally(&self, probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<SetTally> {
        check_labels(labels, probabilities.nrows(), probabilities.ncols())?;
        let mut tally = SetTally { n_items: labels.len(), ..SetTally::default() };
        for (answer, label) in self.answers(probabilities)?.into_iter().zip(labels) {
            if let SetAnswer::Classes(classes) = answer {
                tally.n_answered += 1;
                tally.n_covered += usize::from(classes.contains(label));
                tally.n_classes += classes.len();
            }
        }
        Ok(tally)
    }
}

/// How the answers of a [`SetPredictor`] fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetTally {
    /// Number of items.
    pub n_items: usize,
    /// How many of them were answered.
    pub n_answered: usize,
    /// How many answers hold the label.
    pub n_covered: usize,
    /// Number of classes in all answers together.
    pub n_classes: usize,
}

/// What is chosen before [`ConformalSets`] are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConformalSettings {
    /// How classes are scored.
    pub score: ConformalScore,
    /// Share α of items whose set may miss the true class, in (0, 1).
    pub miscoverage: f64,
    /// Seed of the draws of randomised scores.
    pub seed: u64,
}

/// What is chosen before an [`Abstention`] is fitted; the confidence is the largest probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AbstentionSettings {
    /// Largest share r of answers that may be wrong, in (0, 1).
    pub risk: f64,
    /// Probability δ that it is exceeded nonetheless, in (0, 1).
    pub failure_probability: f64,
}

impl SetPredictor for ConformalSets {
    type Settings = ConformalSettings;

    fn fit_to(probabilities: ArrayView2<f64>, labels: &[usize], settings: &Self::Settings) -> Result<Self> {
        Self::fit(probabilities, labels, settings.miscoverage, settings.score, settings.seed)
    }

    fn answers(&self, probabilities: ArrayView2<f64>) -> Result<Vec<SetAnswer>> {
        let members = |set: ndarray::ArrayView1<bool>| (0..set.len()).filter(|&class| set[class]).collect();
        Ok(self.sets(probabilities)?.outer_iter().map(|set| SetAnswer::Classes(members(set))).collect())
    }
}

impl SetPredictor for Abstention {
    type Settings = AbstentionSettings;

    fn fit_to(probabilities: ArrayView2<f64>, labels: &[usize], settings: &Self::Settings) -> Result<Self> {
        check_labels(labels, probabilities.nrows(), probabilities.ncols())?;
        let (top, confidence) = top_classes(probabilities)?;
        let right: Vec<bool> = top.iter().zip(labels).map(|(top, label)| top == label).collect();
        Self::fit(confidence.view(), &right, settings.risk, settings.failure_probability)
    }

    /// The class of the largest probability, or nothing.
    fn answers(&self, probabilities: ArrayView2<f64>) -> Result<Vec<SetAnswer>> {
        let (top, confidence) = top_classes(probabilities)?;
        let answer = |(class, confidence): (usize, &f64)| match self.accepts(*confidence) {
            true => SetAnswer::Classes(vec![class]),
            false => SetAnswer::Abstained,
        };
        Ok(top.into_iter().zip(&confidence).map(answer).collect())
    }
}

/// The first of the most probable classes of each item, with its probability.
fn top_classes(probabilities: ArrayView2<f64>) -> Result<(Vec<usize>, Array1<f64>)> {
    super::conformal::check_probabilities(probabilities)?;
    let classes: Vec<usize> = probabilities.outer_iter().map(top_class).collect();
    let confidence = classes.iter().zip(probabilities.outer_iter()).map(|(&class, row)| row[class]).collect();
    Ok((classes, confidence))
}

/// Which items and labels are spent on what: the first half of the held-out items fits calibrators, the second half sets.
///
/// Sets keep their promise only where their items played no part in what they are put on, hence two halves. Of an odd number
/// the second half has one more.
///
/// # Shapes
/// - probabilities: `[n_items, n_classes]`; labels: `[n_items]`; output: `[n_items/2]` and the others.
///
/// # Errors
/// If the lengths differ.
pub fn halves(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<[(Array2<f64>, Vec<usize>); 2]> {
    let n_items = probabilities.nrows();
    if labels.len() != n_items {
        return Err(Error::Count {
            what: "labels for the held-out items".into(),
            expected: n_items,
            found: labels.len(),
        });
    }
    let middle = n_items / 2;
    let (first, second) = probabilities.split_at(ndarray::Axis(0), middle);
    Ok([(first.to_owned(), labels[..middle].to_vec()), (second.to_owned(), labels[middle..].to_vec())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn conformal_answers_are_the_members_of_the_sets_and_are_counted() {
        let rule = ConformalSets::fit(
            arr2(&[[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]).view(),
            &[0, 0, 0],
            0.5,
            ConformalScore::LeastAmbiguous,
            0,
        )
        .unwrap();
        // the second smallest of 0.3, 0.4, 0.8: classes of probability 0.6 and more
        let test = arr2(&[[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]]);
        let classes = |c: &[usize]| SetAnswer::Classes(c.to_vec());
        assert_eq!(rule.answers(test.view()).unwrap(), [classes(&[0]), classes(&[]), classes(&[1])]);
        let tally = rule.tally(test.view(), &[0, 0, 0]).unwrap();
        assert_eq!(tally, SetTally { n_items: 3, n_answered: 3, n_covered: 1, n_classes: 2 });
    }

    #[test]
    fn abstention_on_probabilities_is_that_on_the_largest() {
        let p = Array2::from_shape_fn((80, 2), |(i, c)| {
            let sure = 0.5 + (i as f64 + 1.0) / 200.0;
            if c == 1 { sure } else { 1.0 - sure }
        });
        let labels: Vec<usize> = (0..80).map(|i| usize::from(i >= 30)).collect();
        let settings = AbstentionSettings { risk: 0.2, failure_probability: 0.1 };
        let rule = Abstention::fit_to(p.view(), &labels, &settings).unwrap();
        let right: Vec<bool> = labels.iter().map(|y| *y == 1).collect();
        assert_eq!(rule, Abstention::fit(p.column(1), &right, 0.2, 0.1).unwrap());
        let tally = rule.tally(p.view(), &labels).unwrap();
        assert_eq!(tally.n_answered, rule.n_accepted);
        assert_eq!(tally.n_answered - tally.n_covered, rule.n_wrong);
        assert_eq!(tally.n_classes, tally.n_answered);
        assert!(tally.n_answered < 80 && tally.n_answered >= 50);
    }

    #[test]
    fn halves_share_no_item() {
        let p = Array2::from_shape_fn((5, 2), |(i, c)| (10 * i + c) as f64);
        let [(first, a), (second, b)] = halves(p.view(), &[0, 1, 0, 1, 1]).unwrap();
        assert_eq!((first.column(0).to_vec(), a), (vec![0.0, 10.0], vec![0, 1]));
        assert_eq!((second.column(0).to_vec(), b), (vec![20.0, 30.0, 40.0], vec![0, 1, 1]));
        let error = halves(p.view(), &[0]).unwrap_err().to_string();
        assert_eq!(error, "labels for the held-out items: expected 5, found 1");
    }

    #[test]
    fn bad_input_is_refused_with_names_and_numbers() {
        let p = arr2(&[[0.6, 0.4]]);
        let settings = AbstentionSettings { risk: 0.1, failure_probability: 0.1 };
        let error = Abstention::fit_to(p.view(), &[2], &settings).unwrap_err().to_string();
        assert_eq!(error, "item `0`: label 2 is out of range for 2 classes");
        let error = Abstention::fit_to((&p * 2.0).view(), &[0], &settings).unwrap_err().to_string();
        assert!(error.contains("probabilities[0, 0]") && error.contains("1.2"), "{error}");
    }
}
