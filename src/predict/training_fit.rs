//! Measures what a posterior does to the answers to its own training items, so that one that ruins an adapter says so.

use super::linearized::linearized_for_all;
use crate::belief::{LinkApprox, LogitBelief};
use crate::data::BatchLimits;
use crate::error::Result;
use crate::likelihood::TargetSpace;
use crate::models::{Classifier, Dataset, Subset};
use crate::number::significant;
use crate::posterior::Laplace;
use crate::progress::Control;

/// Most items that are asked.
const MOST_ITEMS: usize = 64;
/// Most numbers of their covariances: fewer items are asked where classes are many.
const MOST_NUMBERS: usize = 1 << 20;
/// Share of what the adapter learned about its own training items that a posterior may give up without a word.
const SHARE: f64 = 0.5;

/// The likelihood of training items under the trained adapter and under the linearised posterior around it.
///
/// A posterior that is wide where the adapter overfits gives up some of its certainty about the training items, and should. One that
/// gives up most of it is as a rule not calibrated but ruined: of a saturated adapter the curvature is nearly zero, the evidence
/// then asks for a small prior precision, and every answer becomes nearly uniform. Held-out items decide which it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingFit {
    /// Number of items asked: at most 64, those with the smallest keys ([`Dataset::item_key`]), so that they depend on neither order
    /// nor chance; fewer where classes are many.
    pub n_items: usize,
    /// Mean NLL in nats of uniform answers to them.
    pub uniform_nll: f64,
    /// Mean NLL in nats of the trained adapter's answers.
    pub mle_nll: f64,
    /// Mean NLL in nats of the linearised posterior's.
    pub posterior_nll: f64,
}

impl TrainingFit {
    /// Asks both about some of the training items: one linearised prediction of at most 64 items. `None` where one of these has no label,
    /// or the likelihood is not about classes.
    ///
    /// # Errors
    /// As [`super::predict_linearized`].
    pub fn measure<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplace: &Laplace,
        data: &D,
        link: LinkApprox,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Option<Self>> {
        if laplace.likelihood().target_space() != TargetSpace::Classes {
            return Ok(None);
        }
        let n_classes = model.n_classes().max(1);
        let n_items = (MOST_NUMBERS / (n_classes * n_classes)).clamp(1, MOST_ITEMS);
        let mut items: Vec<usize> = (0..data.n_items()).collect();
        items.sort_by_key(|&item| (data.item_key(item), item));
        items.truncate(n_items);
        let Some(labels) = items.iter().map(|&item| data.label(item)).collect::<Option<Vec<usize>>>() else {
            return Ok(None);
        };
        let some = Subset::new(data, items)?;
        let control = control.clone().without_checkpoints();
        let belief =
            linearized_for_all(model, &[laplace], &some, laplace.gauge(link), limits, &control)?.swap_remove(0);
        let mean = |losses: Vec<f64>| losses.iter().sum::<f64>() / losses.len() as f64;
        let logits = belief.moments().0;
        let uniform = logits.mapv(|f| if f.is_finite() { 0.0 } else { f });
        Ok(Some(Self {
            n_items: labels.len(),
            uniform_nll: mean(LogitBelief::Point { logits: uniform }.losses(&labels, link)?),
            mle_nll: mean(LogitBelief::Point { logits }.losses(&labels, link)?),
            posterior_nll: mean(belief.losses(&labels, link)?),
        }))
    }

    /// Share of what the adapter learned about these items, against uniform answers, that the posterior gives up; 0 where it learned
    /// nothing.
    pub fn share_given_up(&self) -> f64 {
        let learned = self.uniform_nll - self.mle_nll;
        if learned > 0.0 { (self.posterior_nll - self.mle_nll) / learned } else { 0.0 }
    }

    /// A word where the posterior gives up more than half of what the adapter learned about its own training items.
    pub fn warning(&self) -> Option<String> {
        let share = self.share_given_up();
        (share > SHARE).then(|| {
            format!(
                "the posterior gives up {:.0} % of what the adapter learned about its own training items: their mean NLL rises from {} to \
                 {} nats, and uniform answers have {} ({} items asked). Compare both on held-out items, and tune the prior on these or fix \
                 its precision",
                100.0 * share,
                significant(self.mle_nll),
                significant(self.posterior_nll),
                significant(self.uniform_nll),
                self.n_items
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::LN_2;

    #[test]
    fn a_saturated_adapter_that_becomes_a_coin_has_a_warning_and_a_calibrated_one_has_none() {
        let fit = |mle_nll, posterior_nll| TrainingFit { n_items: 24, uniform_nll: LN_2, mle_nll, posterior_nll };
        // mean p(label) from 1.00 to 0.51
        let ruined = fit(1e-9, -(0.51f64.ln()));
        assert!((ruined.share_given_up() - 0.971).abs() < 1e-3);
        let words = ruined.warning().unwrap();
        assert!(
            words.contains("97 %") && words.contains("from 1.00e-9 to 0.6733") && words.contains("24 items"),
            "{words}"
        );
        assert_eq!(fit(0.05, 0.25).warning(), None);
        // nothing learned, nothing lost
        assert_eq!((fit(0.9, 2.0).warning(), fit(0.9, 2.0).share_given_up()), (None, 0.0));
    }
}
