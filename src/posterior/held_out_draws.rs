//! Tunes the prior precision on held-out texts, by next-token distributions averaged over draws of the adapter.

use super::held_out::TunedPrior;
use super::laplace::Laplace;
use crate::batches::for_each_batch;
use crate::belief::log_sum_exp;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::lora::{AdapterStack, AdapterWeights, to_array};
use crate::models::{Classifier, ClassifierInput, Dataset, batch_for, known_targets};
use crate::prior::PriorPrecisions;
use crate::progress::Control;
use crate::search::{Line, Search, SearchEnd};
use crate::tape::Tape;
use std::sync::Arc;

/// The search of log λ around its start: a grid by factors of e that grows until the least lies inside, then golden sections. Farther than
/// e^60 no draw leaves the trained adapter, or none comes back to it.
const LINE: Line = Line { step: 1.0, width: 0.02, level: 1e-5, limit: 60.0 };
/// The grid's first span, in log λ.
const SPAN: (f64, f64) = (-4.0, 4.0);

/// Held-out items whose targets the model draws itself, such as texts, with draws of the adapter to ask about them.
///
/// ```text
/// NLL(λ) = −(1/U) Σ_t log (1/S) Σ_s p(y_t | x, y_<t; θ_s(λ)),      θ_s(λ) = θ* + (H + λ)^(−1/2) ε_s
/// ```
///
/// over the U scored tokens: how well the averaged next-token distribution, from which `generate` writes, foretells texts that training
/// has not seen. The linearised model has no such mean: a Gaussian `ℓ ~ N(m, v)` has `E exp ℓ = exp(m + v/2)`, which favours any variance.
/// The draws `ε_s` are the same at every λ, so that the mean NLL is a continuous function of λ; with finite S it is that of S draws, and
/// not of infinitely many.
pub struct DrawnHeldOut<'a, M: Classifier, D> {
    model: M,
    laplace: &'a Laplace,
    data: &'a D,
    plan: Vec<Vec<usize>>,
    draws: (usize, u64),
    units: usize,
    control: &'a Control,
}

impl<'a, M: Classifier, D: Dataset<Input = M::Input>> DrawnHeldOut<'a, M, D> {
    /// The draws that [`FittedBayesLora::tune_prior`](crate::bayes_lora::FittedBayesLora::tune_prior) takes.
    pub const DRAWS: usize = 16;

    /// Asks about `data`, which the adapter was not trained on, with so many draws of this seed. They go through the network side by side:
    /// a batch is that much smaller.
    ///
    /// # Errors
    /// For no draws; if the likelihood is one of another kind, or the posterior belongs to another adapter.
    pub fn new(
        model: &M,
        laplace: &'a Laplace,
        data: &'a D,
        draws: (usize, u64),
        limits: &BatchLimits,
        control: &'a Control,
    ) -> Result<Self> {
        let model = model.valid();
        laplace.check_answers(&model, data)?;
        if draws.0 == 0 {
            return Err(Error::config("draws that tune a prior", "at least 1", 0));
        }
        if !laplace.likelihood().draws_in_model() {
            let reason = format!("the likelihood `{}` is tuned without draws (`HeldOut`)", laplace.likelihood());
            return Err(Error::Incompatible(reason));
        }
        known_targets(data, &**laplace.likelihood(), model.n_classes())?;
        let plan = data.plan(limits.shared_by(draws.0), BatchOrder::ByLength)?;
        let units = (0..data.n_items()).map(|item| data.units(item)).sum();
        Ok(Self { model, laplace, data, plan, draws, units, control })
    }

    /// Mean negative logarithm of the averaged probability of a scored token, in nats: `exp` of it is the perplexity.
    ///
    /// # Errors
    /// If there is neither one precision nor one for each group, the model has a head that trains beside the adapter, a copy from the
    /// device fails, or the caller cancels.
    pub fn mean_nll(&self, precisions: &PriorPrecisions) -> Result<f64> {
        let (n_draws, seed) = self.draws;
        let at = self.laplace.clone().with_prior_precisions(precisions.clone())?;
        let draws: Vec<AdapterWeights> = (0..n_draws as u64).map(|index| at.sample(seed, index)).collect();
        let stack = Arc::new(AdapterStack::new(&self.model, &draws)?);
        let work = |indices: &[usize]| {
            let input = batch_for(&self.model, self.data, indices)?.repeat(n_draws)?;
            let log_p = self.model.unit_log_densities(&input, &mut Tape::with_adapters(stack.clone()));
            let log_p = log_p.ok_or_else(|| {
                Error::Incompatible(
                    "the likelihood is one of units of the input, and this model tells none apart".into(),
                )
            })?;
            // copy after copy
            let log_p = to_array(log_p)?;
            let n = log_p.nrows() / n_draws;
            let mean =
                |unit: usize| log_sum_exp((0..n_draws).map(|s| log_p[[s * n + unit, 0]])) - (n_draws as f64).ln();
            Ok((0..n).map(mean).sum::<f64>())
        };
        let mut sum = 0.0;
        for_each_batch("held-out texts", &self.plan, self.control, work, |_, log_p| {
            sum += log_p;
            Ok(())
        })?;
        Ok(-sum / self.units as f64)
    }

    /// The prior precision with the least mean NLL, in the neighbourhood of the posterior's own: of several groups all are multiplied by
    /// one factor. [`TunedPrior::searches`] says where the search ended: at the upper end the texts ask for the trained adapter alone.
    ///
    /// # Errors
    /// As [`DrawnHeldOut::mean_nll`].
    pub fn tune(&self) -> Result<TunedPrior> {
        let own = self.laplace.prior_precisions();
        let times = |shift: f64| own.scaled(shift.exp());
        let mut evaluations = 0;
        let found = LINE.minimize(SPAN, |shift| {
            evaluations += 1;
            // draws that break the network are worse than any others
            Ok(Some(self.mean_nll(&times(shift)?)?).filter(|nll| nll.is_finite()).unwrap_or(f64::INFINITY))
        })?;
        let groups = self.laplace.groups();
        let searches = groups.iter().enumerate().map(|(index, group)| {
            let at = |shift: f64| own.of(index).value() * shift.exp();
            let bounds = (at(found.bounds.0), at(found.bounds.1));
            let search = Search::new(group.sought(groups.len()), at(found.at), bounds, found.end);
            search.with_meaning(match found.end {
                SearchEnd::Inside => "",
                SearchEnd::AtLower => "the held-out texts ask for a flat prior",
                SearchEnd::AtUpper => "the held-out texts ask for the trained adapter alone",
                SearchEnd::Undetermined => "no value of it changes the probability of the held-out texts",
            })
        });
        Ok(TunedPrior {
            precisions: times(found.at)?,
            mean_nll: found.value,
            evaluations,
            searches: searches.collect(),
        })
    }
}
