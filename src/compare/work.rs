//! Does the methods of a run that are still to do, and lets them share what they can.

use super::cell::{Answered, Answers, CELL_FORMAT, Cell, Cost, ExtraData, Outcome, rounded};
use super::curvature_group::CurvatureGroup;
use super::setting::Splits;
use super::store::{RunStore, count_failure};
use crate::belief::LogitGauge;
use crate::curvature::{Curvature, CurvatureConfig, curvature_bytes, fit_curvatures};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::likelihood::{SharedLikelihood, TargetSpace};
use crate::methods::{Belief, FitContext, Fitted, Method, Recipe, Spent, Start};
use crate::metrics::ValuePredictions;
use crate::models::{Classifier, Dataset, known_targets};
use crate::posterior::Laplace;
use crate::predict::predict_linearized_for_all;
use crate::progress::Control;
use crate::search::Search;
use std::collections::BTreeMap;
use std::time::Instant;

/// The methods of one run that are still to do.
pub(super) struct Work<'a, M, D> {
    pub(super) methods: &'a [Box<dyn Method<M, D>>],
    pub(super) recipe: &'a Recipe,
    pub(super) limits: BatchLimits,
    pub(super) control: &'a Control,
    pub(super) base: &'a M,
    pub(super) splits: &'a Splits<'a, D>,
    pub(super) seed: u64,
    pub(super) start: &'a Start<M>,
    pub(super) store: Option<&'a RunStore>,
    /// What computes the answers.
    pub(super) machine: String,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Work<'_, M, D> {
    /// Fills the cells of the methods at `pending`.
    ///
    /// # Errors
    /// If the caller cancels.
    pub(super) fn all(&self, pending: &[usize], cells: &mut [Option<Cell>]) -> Result<()> {
        let curvature_of = |k: usize| {
            let asked = self.methods[k].requirements().curvature;
            asked.map(|config| self.recipe.resolve(&config, self.limits))
        };
        let (with_curvature, others): (Vec<usize>, Vec<usize>) =
            pending.iter().partition(|&&k| curvature_of(k).is_some());
        for k in others {
            match self.fit(k, &[], 0.0) {
                Ok(method) => self.answer(k, method, cells)?,
                Err(reason) => self.fail(&[k], reason, cells)?,
            }
        }
        let mut groups = Vec::new();
        for (k, config) in with_curvature.into_iter().filter_map(|k| Some((k, curvature_of(k)?))) {
            match curvature_bytes(&self.start.model, self.splits.train, &config) {
                Ok(bytes) => CurvatureGroup::join(&mut groups, k, config, bytes),
                // one that is too large stops no other
                Err(reason) => self.fail(&[k], reason, cells)?,
            }
        }
        let mut fitted = Vec::new();
        for CurvatureGroup { configs, methods, .. } in groups {
            let clock = Instant::now();
            let curvatures = match fit_curvatures(&self.start.model, self.splits.train, &configs, self.control) {
                Ok(curvatures) => configs.into_iter().zip(curvatures).collect::<Vec<_>>(),
                Err(reason) => {
                    self.fail(&methods, reason, cells)?;
                    continue;
                }
            };
            let share = clock.elapsed().as_secs_f64() / methods.len() as f64;
            for k in methods {
                match self.fit(k, &curvatures, share) {
                    Ok(method) => fitted.push((k, method)),
                    Err(reason) => self.fail(&[k], reason, cells)?,
                }
            }
        }
        let (linearized, others): (Vec<_>, Vec<_>) =
            fitted.into_iter().partition(|(_, method)| method.fitted.belief.linearized().is_some());
        for (k, method) in others {
            self.answer(k, method, cells)?;
        }
        self.answer_linearized(linearized, cells)
    }

    /// Keeps the reason as the cells of the methods that it stopped; a cancellation stops the run.
    fn fail(&self, methods: &[usize], reason: Error, cells: &mut [Option<Cell>]) -> Result<()> {
        if let Error::Cancelled { .. } = reason {
            return Err(reason);
        }
        for &k in methods {
            cells[k] = Some(self.keep(failed(self.methods[k].as_ref(), &reason)));
        }
        Ok(())
    }

    fn fit(&self, k: usize, curvatures: &[(CurvatureConfig, Curvature)], shared: f64) -> Result<TimedFit<M, D>> {
        let clock = Instant::now();
        let context = FitContext {
            base: self.base,
            map: &self.start.model,
            snapshots: &self.start.snapshots,
            recipe: self.recipe,
            curvatures,
            train: self.splits.train,
            held_out: self.splits.held_out,
            limits: self.limits,
            seed: self.seed,
            control: self.control,
        };
        let fitted = self.methods[k].fit(&context)?;
        Ok(TimedFit { fitted, seconds: shared + clock.elapsed().as_secs_f64() })
    }

    /// The data of a run in the order in which answers are kept: held-out where there are such, test, shifted.
    fn asked(&self) -> Vec<&D> {
        let Splits { held_out, test, shifted, .. } = self.splits;
        held_out.iter().copied().chain([*test]).chain(shifted.iter().map(|split| split.data)).collect()
    }

    fn answer(&self, k: usize, method: TimedFit<M, D>, cells: &mut [Option<Cell>]) -> Result<()> {
        let clock = Instant::now();
        match self.said(&*method.fitted.belief) {
            Ok(said) => {
                let cell = self.cell(k, &method, said, clock.elapsed().as_secs_f64());
                cells[k] = Some(self.keep(cell));
                Ok(())
            }
            Err(reason) => self.fail(&[k], reason, cells),
        }
    }

    /// What a belief says about all data.
    fn said(&self, belief: &dyn Belief<M, D>) -> Result<Said> {
        let Self { limits, control, .. } = self;
        let (link, ask) = (belief.link(), |data: &D| belief.believe(&self.start.model, data, limits, control));
        let likelihood = self.recipe.trainer.likelihood_or_default();
        if likelihood.target_space() == TargetSpace::Classes {
            let answers = |data: &&D| Answers::new(&ask(data)?, link);
            return Ok(Said::Classes(self.asked().iter().map(answers).collect::<Result<_>>()?));
        }
        let targets = |data: &D| known_targets(data, &*likelihood, self.start.model.n_classes());
        let tuned = match self.splits.held_out {
            Some(data) => likelihood.tuned(&ask(data)?, &targets(data)?, link)?,
            None => None,
        };
        let (test, of_test) = (self.splits.test, targets(self.splits.test)?);
        let likelihood = tuned.map_or(likelihood, Into::into);
        let predictions = ValuePredictions::new(&*likelihood, &ask(test)?, &of_test, (link, self.seed))?;
        Ok(Said::Values(predictions, likelihood))
    }

    /// Asks all linearised methods with one pass of Jacobians.
    fn answer_linearized(&self, methods: Vec<(usize, TimedFit<M, D>)>, cells: &mut [Option<Cell>]) -> Result<()> {
        if methods.is_empty() {
            return Ok(());
        }
        let clock = Instant::now();
        let answers = match self.linearized_answers(&methods) {
            Ok(answers) => answers,
            Err(reason) => return self.fail(&methods.iter().map(|(k, _)| *k).collect::<Vec<_>>(), reason, cells),
        };
        let share = clock.elapsed().as_secs_f64() / methods.len() as f64;
        for ((k, method), answers) in methods.iter().zip(answers) {
            cells[*k] = Some(self.keep(self.cell(*k, method, Said::Classes(answers), share)));
        }
        Ok(())
    }

    /// Of each method its answers about all data.
    fn linearized_answers(&self, methods: &[(usize, TimedFit<M, D>)]) -> Result<Vec<Vec<Answers>>> {
        let posteriors: Vec<&Laplace> = methods.iter().filter_map(|(_, m)| m.fitted.belief.linearized()).collect();
        let Self { limits, control, .. } = self;
        let mut answers: Vec<Vec<Answers>> = vec![Vec::new(); methods.len()];
        for data in self.asked() {
            let gauge = LogitGauge::Centred;
            let beliefs = predict_linearized_for_all(&self.start.model, &posteriors, data, gauge, limits, control)?;
            for ((kept, belief), (_, method)) in answers.iter_mut().zip(&beliefs).zip(methods) {
                kept.push(Answers::new(belief, method.fitted.belief.link())?);
            }
        }
        Ok(answers)
    }

    fn cell(&self, k: usize, method: &TimedFit<M, D>, said: Said, predict_seconds: f64) -> Cell {
        let Fitted { belief, spent, found, searches } = &method.fitted;
        let needs = belief.needs(self.splits.test, self.start.model.n_classes());
        let cost = Cost {
            fit_seconds: rounded(method.seconds),
            fit_forwards: spent.forwards,
            fit_backwards: spent.backwards,
            predict_seconds: rounded(predict_seconds),
            forwards_per_item: needs.forwards,
            backwards_per_item: needs.backwards,
            stored_bytes: needs.bytes as u64,
        };
        let mut found: BTreeMap<String, f64> =
            found.iter().map(|(name, value)| (name.clone(), rounded(*value))).collect();
        let machine = Some(self.machine.clone());
        let exact = |search: &Search| {
            let [value, low, high] = [search.value, search.low, search.high].map(rounded);
            Search { value, low, high, ..search.clone() }
        };
        let searches = searches.iter().map(exact).collect();
        let (mut spent, method) = (*spent, self.methods[k].as_ref());
        let outcome = match said {
            Said::Classes(mut answers) => {
                let held_out = self.splits.held_out.map(|_| answers.remove(0));
                let test = answers.remove(0);
                let answered = Answered { held_out, test, shifted: answers, cost, machine, found, searches };
                Outcome::Answered(Box::new(answered))
            }
            Said::Values(test, likelihood) => {
                let settings = likelihood.settings().into_iter();
                found.extend(settings.map(|(name, value)| (name.replace('_', " "), rounded(value))));
                spent.labelled = spent.labelled.max(self.splits.held_out.map_or(0, Dataset::n_items));
                let (held_out, shifted, test) = (None, Vec::new(), test.map(rounded));
                Outcome::Predicted(Box::new(Answered { held_out, test, shifted, cost, machine, found, searches }))
            }
        };
        cell_of(method, extra_data(&spent), outcome)
    }

    /// Keeps the cell on disk, where there is one that takes it.
    fn keep(&self, cell: Cell) -> Cell {
        if let Some(store) = self.store {
            count_failure(self.control, store.keep(&cell));
        }
        cell
    }
}

/// What a method says about all data of a run.
enum Said {
    /// In the order of [`Work::asked`].
    Classes(Vec<Answers>),
    /// About the test items, under a likelihood whose noise is that of the held-out items, where there are such.
    Values(ValuePredictions, SharedLikelihood),
}

struct TimedFit<M: Classifier, D: Dataset<Input = M::Input>> {
    fitted: Fitted<M, D>,
    seconds: f64,
}

fn extra_data(spent: &Spent) -> ExtraData {
    match (spent.labelled, spent.unlabelled) {
        (0, 0) => ExtraData::None,
        (0, n) => ExtraData::Unlabelled(n),
        (n, _) => ExtraData::Labelled(n),
    }
}

/// The cell of a method that failed.
pub(super) fn failed<M: Classifier, D: Dataset<Input = M::Input>>(method: &dyn Method<M, D>, reason: &Error) -> Cell {
    cell_of(method, ExtraData::None, Outcome::Failed(reason.to_string()))
}

fn cell_of<M: Classifier, D: Dataset<Input = M::Input>>(
    method: &dyn Method<M, D>,
    extra_data: ExtraData,
    outcome: Outcome,
) -> Cell {
    Cell {
        format_version: CELL_FORMAT,
        method: method.name(),
        description: method.describe(),
        identity: method.identity().ok(),
        extra_data,
        sharing: method.sharing().map(|sharing| sharing.to_string()),
        outcome,
    }
}
