//! Fits a posterior by any choice of its prior that needs no further labels.

use super::answers::AnswerTemperatures;
use super::config::LaplaceConfig;
use super::laplace::Laplace;
use super::linearized::LinearizedModel;
use crate::curvature::Curvature;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::likelihood::TargetSpace;
use crate::models::{Classifier, Dataset};
use crate::prior::{PriorChoice, PriorGrouping, PriorPrecision, PriorPrecisions};
use crate::progress::Control;
use crate::search::Search;

/// Why leaving out shows nothing there: the space in which an item is left out has been shaped by it.
const OF_CORES: &str = "a core lies between the trained A and B, which have seen every label";

/// What a posterior took from the training items beyond their curvature.
#[derive(Debug, Clone)]
struct Chosen {
    precisions: PriorPrecisions,
    /// Of the scale of all precisions.
    search: Search,
    answers: Option<AnswerTemperatures>,
}

impl Chosen {
    /// Says so where some items stood for all.
    fn found_on(mut self, drawn: Option<&[usize]>, n_items: usize) -> Self {
        if let Some(drawn) = drawn {
            self.search.meaning = format!("found on {} of {n_items} training items, drawn by their keys", drawn.len());
        }
        self
    }
}

impl Laplace {
    /// The posterior of [`Laplace::new`], with its prior precisions as configured: [`PriorChoice::EvidenceAtMode`],
    /// [`PriorChoice::Matched`] and the temperature of its answers take one more pass over the training items, for their Jacobians.
    ///
    /// Over cores [`PriorChoice::MatchedOrEvidence`] is by evidence, and answers have no temperature: leaving an item out in a space that
    /// it has shaped shows nothing.
    ///
    /// # Errors
    /// If a temperature of answers is asked for over cores; as [`Laplace::new`], [`LinearizedModel::of`], [`LinearizedModel::optimal_prior`] and
    /// [`MatchedPrior::usable`](super::MatchedPrior::usable), but for [`PriorChoice::MatchedOrEvidence`], which goes on by evidence.
    pub fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        curvature: &Curvature,
        data: &D,
        config: &LaplaceConfig,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Self> {
        config.validate()?;
        if !config.prior.needs_training_items() {
            return Self::new(model, curvature, config);
        }
        let is_of_cores = curvature.config.plan().coordinates.is_of_modules();
        let may_fall_back = config.prior == PriorChoice::MatchedOrEvidence;
        if is_of_cores && config.leave_one_out_temperature && !may_fall_back {
            return Err(Error::Incompatible(format!("no leave-one-out temperature over cores: {OF_CORES}")));
        }
        // several groups keep the ratios that the evidence gives them
        let reference = match config.prior_grouping {
            PriorGrouping::Scalar => PriorChoice::Fixed(PriorPrecision::new(1.0)?),
            _ => PriorChoice::Evidence,
        };
        let plain = LaplaceConfig { prior: reference, leave_one_out_temperature: false, ..*config };
        let laplace = Self::new(model, curvature, &plain)?;
        let draws_in_model = laplace.likelihood().draws_in_model();
        if let Some(reason) = falls_back(config.prior, (is_of_cores, draws_in_model), data) {
            return laplace.by_evidence(reason);
        }
        let at = config.linearized.resolved_in(*limits);
        let linearized = LinearizedModel::of(model, &laplace, data, &at, control)?;
        match choose(&linearized, config).map(|chosen| chosen.found_on(linearized.drawn(), data.n_items())) {
            Ok(chosen) => laplace.chosen(chosen),
            Err(Error::Numerical { reason, .. }) if may_fall_back => laplace.by_evidence(&reason),
            Err(other) => Err(other),
        }
    }

    /// The prior with the most evidence, and in the words of its searches why none is matched.
    fn by_evidence(self, reason: &str) -> Result<Self> {
        let mut laplace = self.with_optimal_prior()?;
        let mut searches = laplace.prior_searches().to_vec();
        searches.iter_mut().for_each(|search| search.meaning = format!("by evidence, as none is matched: {reason}"));
        laplace.set_prior_searches(searches);
        Ok(laplace)
    }

    fn chosen(self, Chosen { precisions, search, answers }: Chosen) -> Result<Self> {
        let groups = self.groups();
        let searches = groups.iter().enumerate().map(|(index, group)| {
            let ratio = precisions.of(index).value() / search.value;
            let (low, high) = (ratio * search.low, ratio * search.high);
            let of_group = Search::new(group.sought(groups.len()), ratio * search.value, (low, high), search.end);
            of_group.with_meaning(search.meaning.clone())
        });
        let searches = searches.collect();
        let mut laplace = self.with_prior_precisions(precisions)?;
        laplace.set_prior_searches(searches);
        Ok(laplace.with_answer_temperatures(answers))
    }
}

/// Why a prior that may fall back to the evidence does, where that is known before anything runs.
pub(super) fn falls_back<D: Dataset>(
    prior: PriorChoice,
    (is_of_cores, draws_in_model): (bool, bool),
    data: &D,
) -> Option<&'static str> {
    if prior != PriorChoice::MatchedOrEvidence {
        return None;
    }
    if is_of_cores {
        return Some(OF_CORES);
    }
    if draws_in_model {
        return Some("the likelihood has no exact Fisher information in output space");
    }
    (0..data.n_items()).any(|item| data.target(item).is_none()).then_some("a training item has no label")
}

/// What the linearised model of the training items says about the prior, and about its answers where that is asked.
fn choose(linearized: &LinearizedModel, config: &LaplaceConfig) -> Result<Chosen> {
    match config.prior {
        PriorChoice::EvidenceAtMode => {
            let found = linearized.optimal_prior()?;
            Ok(Chosen { precisions: found.precisions, search: found.search, answers: None })
        }
        PriorChoice::Matched | PriorChoice::MatchedOrEvidence => {
            let found = linearized.matched_prior()?.usable()?;
            let is_of_classes = linearized.likelihood().target_space() == TargetSpace::Classes;
            let answers = (config.leave_one_out_temperature && is_of_classes)
                .then(|| linearized.leave_one_out(&found.mode)?.answer_temperatures());
            Ok(Chosen { precisions: found.precisions, search: found.search, answers: answers.transpose()? })
        }
        PriorChoice::Evidence | PriorChoice::Fixed(_) => Err(Error::empty("choice of a prior by the training items")),
    }
}
