//! Runs methods on one task under one seed, and keeps what each of them answered.

use super::cell::{Cell, Outcome, Run, TrainingCost, rounded};
use super::machine::machine;
use super::setting::{About, Splits, setting};
use super::store::{RunStore, count_failure};
use super::work::{Work, failed};
use crate::belief::LinkApprox;
use crate::checkpoints::Checkpoints;
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::methods::{Method, Recipe, Start};
use crate::models::{Classifier, Dataset, known_targets};
use crate::predict::predict_map;
use crate::progress::Control;
use crate::train::TrainReport;
use std::path::PathBuf;

/// Methods side by side: the same data, the same seed, the same adapter for all post-hoc ones.
///
/// ```no_run
/// # use bayes_lora::compare::{About, Comparison, Splits};
/// # use bayes_lora::methods::{LaplaceMethod, MaximumLikelihood, Recipe};
/// # use bayes_lora::curvature::CurvatureStructure;
/// # use bayes_lora::models::{Mlp, Points};
/// # fn run(base: &Mlp, about: About, splits: Splits<Points>, recipe: Recipe) -> bayes_lora::Result<()> {
/// let comparison = Comparison::new(recipe)
///     .with_method(MaximumLikelihood)
///     .with_method(LaplaceMethod::new(CurvatureStructure::Kronecker))
///     .with_dir("out/comparison");
/// let cells = comparison.run(base, &about, &splits, 0)?.cells;
/// # Ok(())
/// # }
/// ```
pub struct Comparison<M, D> {
    methods: Vec<Box<dyn Method<M, D>>>,
    recipe: Recipe,
    limits: BatchLimits,
    dir: Option<PathBuf>,
    control: Control,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Comparison<M, D> {
    /// No method yet.
    pub fn new(recipe: Recipe) -> Self {
        let limits = recipe.trainer.limits;
        Self { methods: Vec::new(), recipe, limits, dir: None, control: Control::silent() }
    }

    /// Adds a method.
    pub fn with_method(self, method: impl Method<M, D> + 'static) -> Self {
        self.with_methods([Box::new(method) as Box<dyn Method<M, D>>])
    }

    /// Adds methods.
    pub fn with_methods(mut self, methods: impl IntoIterator<Item = Box<dyn Method<M, D>>>) -> Self {
        self.methods.extend(methods);
        self
    }

    /// Sets the size of a batch outside training: of curvatures' passes, unless a method sets its own, and of predictions.
    pub fn with_limits(mut self, limits: BatchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps every finished cell in a directory, and goes on from there: `dir/TASK/seed-S/METHOD.json`.
    pub fn with_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Sets progress, workers and cancellation.
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// Runs every method that has no cell yet. A method that fails is a cell that says why, and is tried again next time; a cell
    /// that the disk refuses is counted ([`Control::save_failures`]), returned, and run again next time.
    ///
    /// Post-hoc methods share one trained adapter, which is not trained where all methods that are left train their own; those
    /// that ask for curvature share its passes, and those that are linearised the Jacobians of their predictions.
    ///
    /// Where the training's likelihood is about numbers, predictions of numbers are compared. The noise is then that of the held-out items, or
    /// of the training items where there are none: the trained adapter's for curvatures and further training, and for predictions each
    /// method's own ([`Likelihood::tuned`](crate::likelihood::Likelihood::tuned)).
    ///
    /// # Errors
    /// If a setting is out of bounds, two methods have one name, a label is missing, the training of the shared adapter fails, the directory holds a run
    /// with other data, weights or settings or cannot be written, or the caller cancels.
    pub fn run(&self, base: &M, about: &About, splits: &Splits<D>, seed: u64) -> Result<Run> {
        self.limits.validate()?;
        self.recipe.validate()?;
        let names: Vec<String> = self.methods.iter().map(|method| method.name()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(k, name)| names[..*k].contains(name)) {
            return Err(Error::config("methods", "names that differ", format!("`{}` twice", twice.1)));
        }
        let mut setting = setting(base, about, splits, (&self.recipe, self.limits, seed))?;
        let store = self.dir.as_ref().map(|dir| RunStore::open(dir, &setting, &names)).transpose()?;
        let mut cells: Vec<Option<Cell>> = Vec::new();
        for (method, name) in self.methods.iter().zip(&names) {
            let is_able = || method.requirements().check(name, base, &self.recipe, splits.held_out);
            cells.push(match (method.validate().and_then(|()| is_able()), &store) {
                (Err(reason), _) => Some(failed(method.as_ref(), &reason)),
                (Ok(()), Some(store)) => store.finished(name, &method.identity()?)?,
                (Ok(()), None) => None,
            });
        }
        if let Some(store) = &store {
            // before the work: a directory that refuses is named now
            setting.training = store.training()?;
            store.keep_setting(&setting)?;
        }
        let pending: Vec<usize> = (0..cells.len()).filter(|&k| cells[k].is_none()).collect();
        // what the noise is says the trained adapter, also to methods that train their own
        let is_of_values = setting.values.is_some() && !pending.is_empty();
        let needed = is_of_values || pending.iter().any(|&k| self.methods[k].requirements().map);
        let start = if needed { Some(self.train(base, splits.train, seed, store.as_ref())?) } else { None };
        if let Some(start) = &start {
            setting.training = training_cost(start);
        }
        if let Some(store) = &store {
            if start.is_some() {
                count_failure(&self.control, store.keep_setting(&setting));
            }
            // so far only a method that lacks something has failed
            let is_failure = |cell: &&Cell| matches!(cell.outcome, Outcome::Failed(_));
            cells.iter().flatten().filter(is_failure).for_each(|cell| count_failure(&self.control, store.keep(cell)));
        }
        if !pending.is_empty() {
            let start = start.map_or_else(|| Start::untrained(base, &self.recipe, seed), Ok)?;
            let recipe = if is_of_values { self.tuned(&start, splits)? } else { self.recipe.clone() };
            let machine = machine(&base.device());
            let work = Work {
                methods: &self.methods,
                recipe: &recipe,
                limits: self.limits,
                control: &self.control,
                base,
                splits,
                seed,
                start: &start,
                store: store.as_ref(),
                machine,
            };
            work.all(&pending, &mut cells)?;
        }
        Ok(Run { setting, cells: cells.into_iter().flatten().collect() })
    }

    /// The recipe with the likelihood, and so the noise, that suits the trained adapter's outputs best: of the held-out items, or of the
    /// training items where there are none.
    fn tuned(&self, start: &Start<M>, splits: &Splits<D>) -> Result<Recipe> {
        let mut recipe = self.recipe.clone();
        let likelihood = recipe.trainer.likelihood_or_default();
        let data = splits.held_out.unwrap_or(splits.train);
        let belief = predict_map(&start.model, data, &self.limits, &self.control)?;
        let targets = known_targets(data, &*likelihood, belief.n_classes())?;
        if let Some(tuned) = likelihood.tuned(&belief, &targets, LinkApprox::default())? {
            recipe.trainer = recipe.trainer.with_likelihood(tuned);
        }
        Ok(recipe)
    }

    /// Trains the adapter that post-hoc methods start from; a run in a directory is taken up there.
    fn train(&self, base: &M, data: &D, seed: u64, store: Option<&RunStore>) -> Result<Start<M>> {
        let control = match store {
            Some(store) => self.control.clone().with_checkpoints(Checkpoints::new(store.unfinished()))?,
            None => self.control.clone().without_checkpoints(),
        };
        Start::trained(base, &self.recipe, data, seed, &control)
    }
}

fn training_cost<M>(start: &Start<M>) -> TrainingCost {
    let of = |report: &TrainReport| TrainingCost {
        seconds: rounded(report.seconds),
        items: report.items,
        tokens: report.tokens,
    };
    start.report.as_ref().map(of).unwrap_or_default()
}
