//! Runs methods on one task under one seed, and keeps what each of them answered.

use super::cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Setting, ShiftedSplit, TrainingCost,
};
use super::store::RunStore;
use crate::belief::LogitBelief;
use crate::checkpoints::Checkpoints;
use crate::curvature::{Curvature, CurvatureConfig, fit_curvatures};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::lora::{attach, model_fingerprint};
use crate::methods::{FitContext, Fitted, Method, Recipe, Spent};
use crate::models::{Classifier, Dataset, data_fingerprint, known_labels};
use crate::posterior::{Laplace, LogitGauge};
use crate::predict::predict_linearized_for_all;
use crate::progress::Control;
use crate::train::{Snapshot, Trainer, TrainerConfig};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// What a comparison is about, for its report.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The protocol's name.
    pub protocol: String,
    /// The task's name.
    pub task: String,
    /// The base model's name.
    pub model: String,
    /// A hash of the prompt's form.
    pub prompt_hash: String,
    /// One prompt as the model sees it.
    pub prompt_example: String,
    /// The classes.
    pub classes: Vec<ClassName>,
}

/// The data of one run.
#[derive(Debug, Clone)]
pub struct Splits<'a, D> {
    /// What adapters are trained on.
    pub train: &'a D,
    /// What calibrators, set predictors and held-out priors may read.
    pub held_out: Option<&'a D>,
    /// What is scored.
    pub test: &'a D,
    /// Data from elsewhere, by name.
    pub shifted: Vec<(String, &'a D)>,
}

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
///     .with_method(LaplaceMethod::with_structure(CurvatureStructure::Kronecker))
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

/// What one run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What its methods have in common.
    pub setting: Setting,
    /// A cell a method, in their order.
    pub cells: Vec<Cell>,
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

    /// Sets the size of a batch of predictions.
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

    /// Runs every method that has no cell yet. A method that fails is a cell that says why, and is tried again next time.
    ///
    /// Post-hoc methods share one trained adapter; those that ask for curvature share its passes, and those that are linearised
    /// the Jacobians of their predictions.
    ///
    /// # Errors
    /// If two methods have one name, a label is missing, the training of the shared adapter fails, the directory holds a run
    /// with other data, weights or settings, or the caller cancels.
    pub fn run(&self, base: &M, about: &About, splits: &Splits<D>, seed: u64) -> Result<Run> {
        let names: Vec<String> = self.methods.iter().map(|method| method.name()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(k, name)| names[..*k].contains(name)) {
            return Err(Error::config("methods", "names that differ", format!("`{}` twice", twice.1)));
        }
        let mut setting = self.setting(base, about, splits, seed)?;
        let store = self.dir.as_ref().map(|dir| RunStore::open(dir, &setting)).transpose()?;
        let mut cells: Vec<Option<Cell>> = Vec::new();
        for method in &self.methods {
            let missing = method.requirements().check(&method.name(), &self.recipe, splits.held_out).err();
            cells.push(match (missing, &store) {
                (Some(reason), _) => Some(failed(method.as_ref(), &reason)),
                (None, Some(store)) => store.finished(&method.name(), &method.describe())?,
                (None, None) => None,
            });
        }
        let pending: Vec<usize> = (0..cells.len()).filter(|&k| cells[k].is_none()).collect();
        if !pending.is_empty() {
            let map = self.train(base, splits.train, seed, store.as_ref())?;
            setting.training = map.cost;
            if let Some(store) = &store {
                store.keep_setting(&setting)?;
            }
            let work = Work { comparison: self, base, splits, seed, map: &map, store: store.as_ref() };
            work.all(&pending, &mut cells)?;
        } else if let Some(store) = &store {
            setting.training = store.setting()?.training;
        }
        Ok(Run { setting, cells: cells.into_iter().flatten().collect() })
    }

    fn setting(&self, base: &M, about: &About, splits: &Splits<D>, seed: u64) -> Result<Setting> {
        let n_classes = base.n_classes();
        let mut identity = BTreeMap::from([
            ("weights of the base".to_string(), format!("{:016x}", model_fingerprint(base)?)),
            ("recipe".to_string(), format!("{:?}", self.recipe)),
            ("batches".to_string(), format!("{:?}", self.limits)),
        ]);
        let held_out = splits.held_out.map(|data| ("held-out data", data));
        let shifted = splits.shifted.iter().map(|(name, data)| (name.as_str(), *data));
        for (name, data) in
            [("training data", splits.train), ("test data", splits.test)].into_iter().chain(held_out).chain(shifted)
        {
            let hash = format!("{} items, hash {:016x}", data.n_items(), data_fingerprint(data)?);
            if identity.insert(name.to_string(), hash).is_some() {
                return Err(Error::config("splits", "names that differ", format!("`{name}` twice")));
            }
        }
        let About { protocol, task, model, prompt_hash, prompt_example, classes } = about.clone();
        Ok(Setting {
            format_version: CELL_FORMAT,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            protocol,
            task,
            model,
            seed,
            recipe: describe(&self.recipe),
            prompt_hash,
            prompt_example,
            classes,
            n_train: splits.train.n_items(),
            training: TrainingCost::default(),
            held_out: splits.held_out.map_or(Ok(Vec::new()), |data| known_labels(data, n_classes))?,
            test: known_labels(splits.test, n_classes)?,
            shifted: splits
                .shifted
                .iter()
                .map(|(name, data)| ShiftedSplit { name: name.clone(), n_items: data.n_items() })
                .collect(),
            identity,
        })
    }

    /// Trains the adapter that post-hoc methods start from; a run in a directory is taken up there.
    fn train(&self, base: &M, data: &D, seed: u64, store: Option<&RunStore>) -> Result<Map<M>> {
        let control = match store {
            Some(store) => self.control.clone().with_checkpoints(Checkpoints::new(store.unfinished()))?,
            None => self.control.clone().without_checkpoints(),
        };
        let start = attach(base.clone(), &self.recipe.lora, seed)?;
        let trainer = TrainerConfig { seed, ..self.recipe.trainer.clone() };
        let outcome = Trainer::new(trainer)?.fit(start, data, None, &control)?;
        let report = outcome.report;
        let cost = TrainingCost { seconds: report.seconds, items: report.items, tokens: report.tokens };
        Ok(Map { model: outcome.model, snapshots: outcome.snapshots, cost })
    }
}

/// The recipe in one line.
fn describe(recipe: &Recipe) -> String {
    let (lora, trainer) = (&recipe.lora, &recipe.trainer);
    format!(
        "LoRA rank {}, alpha {}, dropout {}, on {:?}; {} epochs at {}, {:?} decay, {} items a batch, {} batches a step, weight decay {}, \
         {:?}",
        lora.rank,
        lora.alpha,
        lora.dropout,
        lora.target_modules.entries(),
        trainer.epochs,
        trainer.learning_rate,
        trainer.decay,
        trainer.limits.max_items,
        trainer.accumulation,
        trainer.weight_decay,
        trainer.objective
    )
}

struct Map<M> {
    model: M,
    snapshots: Vec<Snapshot>,
    cost: TrainingCost,
}

/// The methods of one run that are still to do.
struct Work<'a, M, D> {
    comparison: &'a Comparison<M, D>,
    base: &'a M,
    splits: &'a Splits<'a, D>,
    seed: u64,
    map: &'a Map<M>,
    store: Option<&'a RunStore>,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Work<'_, M, D> {
    fn all(&self, pending: &[usize], cells: &mut [Option<Cell>]) -> Result<()> {
        let curvature_of = |k: usize| self.comparison.methods[k].requirements().curvature;
        let (with_curvature, others): (Vec<usize>, Vec<usize>) =
            pending.iter().partition(|&&k| curvature_of(k).is_some());
        for k in others {
            cells[k] = Some(self.one(k)?);
        }
        if with_curvature.is_empty() {
            return Ok(());
        }
        let mut configs: Vec<CurvatureConfig> = Vec::new();
        for config in with_curvature.iter().filter_map(|&k| curvature_of(k)) {
            if !configs.contains(&config) {
                configs.push(config);
            }
        }
        let clock = Instant::now();
        let control = &self.comparison.control;
        let curvatures = match fit_curvatures(&self.map.model, self.splits.train, &configs, control) {
            Ok(curvatures) => configs.into_iter().zip(curvatures).collect::<Vec<_>>(),
            Err(reason @ Error::Cancelled { .. }) => return Err(reason),
            Err(reason) => {
                for k in with_curvature {
                    cells[k] = Some(self.keep(failed(self.comparison.methods[k].as_ref(), &reason))?);
                }
                return Ok(());
            }
        };
        let share = clock.elapsed().as_secs_f64() / with_curvature.len() as f64;
        let mut fitted = Vec::new();
        for k in with_curvature {
            match self.fit(k, &curvatures, share) {
                Ok(method) => fitted.push((k, method)),
                Err(reason @ Error::Cancelled { .. }) => return Err(reason),
                Err(reason) => cells[k] = Some(self.keep(failed(self.comparison.methods[k].as_ref(), &reason))?),
            }
        }
        let (linearized, others): (Vec<_>, Vec<_>) =
            fitted.into_iter().partition(|(_, method)| method.fitted.belief.linearized().is_some());
        for (k, method) in others {
            cells[k] = Some(self.answer(k, method)?);
        }
        self.answer_linearized(linearized, cells)
    }

    /// Fits and asks a method that shares nothing.
    fn one(&self, k: usize) -> Result<Cell> {
        match self.fit(k, &[], 0.0) {
            Ok(method) => self.answer(k, method),
            Err(reason @ Error::Cancelled { .. }) => Err(reason),
            Err(reason) => self.keep(failed(self.comparison.methods[k].as_ref(), &reason)),
        }
    }

    fn fit(&self, k: usize, curvatures: &[(CurvatureConfig, Curvature)], shared: f64) -> Result<TimedFit<M, D>> {
        let clock = Instant::now();
        let context = FitContext {
            base: self.base,
            map: &self.map.model,
            snapshots: &self.map.snapshots,
            recipe: &self.comparison.recipe,
            curvatures,
            train: self.splits.train,
            held_out: self.splits.held_out,
            limits: self.comparison.limits,
            seed: self.seed,
            control: &self.comparison.control,
        };
        let fitted = self.comparison.methods[k].fit(&context)?;
        Ok(TimedFit { fitted, seconds: shared + clock.elapsed().as_secs_f64() })
    }

    /// The data of a run in the order in which answers are kept: held-out where there are such, test, shifted.
    fn asked(&self) -> Vec<&D> {
        let Splits { held_out, test, shifted, .. } = self.splits;
        held_out.iter().copied().chain([*test]).chain(shifted.iter().map(|(_, data)| *data)).collect()
    }

    fn answer(&self, k: usize, method: TimedFit<M, D>) -> Result<Cell> {
        let clock = Instant::now();
        let Comparison { limits, control, .. } = self.comparison;
        let belief = &method.fitted.belief;
        let ask = |data: &&D| Answers::new(&belief.believe(&self.map.model, data, limits, control)?, belief.link());
        match self.asked().iter().map(ask).collect::<Result<Vec<_>>>() {
            Ok(answers) => self.keep(self.cell(k, &method, answers, clock.elapsed().as_secs_f64())),
            Err(reason @ Error::Cancelled { .. }) => Err(reason),
            Err(reason) => self.keep(failed(self.comparison.methods[k].as_ref(), &reason)),
        }
    }

    /// Asks all linearised methods with one pass of Jacobians.
    fn answer_linearized(&self, methods: Vec<(usize, TimedFit<M, D>)>, cells: &mut [Option<Cell>]) -> Result<()> {
        if methods.is_empty() {
            return Ok(());
        }
        let clock = Instant::now();
        let posteriors: Vec<&Laplace> = methods.iter().filter_map(|(_, m)| m.fitted.belief.linearized()).collect();
        let Comparison { limits, control, .. } = self.comparison;
        let mut answers: Vec<Vec<Answers>> = vec![Vec::new(); methods.len()];
        for data in self.asked() {
            let gauge = LogitGauge::Centred;
            let beliefs: Vec<LogitBelief> =
                predict_linearized_for_all(&self.map.model, &posteriors, data, gauge, limits, control)?;
            for ((kept, belief), (_, method)) in answers.iter_mut().zip(&beliefs).zip(&methods) {
                kept.push(Answers::new(belief, method.fitted.belief.link())?);
            }
        }
        let share = clock.elapsed().as_secs_f64() / methods.len() as f64;
        for ((k, method), answers) in methods.iter().zip(answers) {
            cells[*k] = Some(self.keep(self.cell(*k, method, answers, share))?);
        }
        Ok(())
    }

    fn cell(&self, k: usize, method: &TimedFit<M, D>, mut answers: Vec<Answers>, predict_seconds: f64) -> Cell {
        let held_out = self.splits.held_out.map(|_| answers.remove(0));
        let test = answers.remove(0);
        let Fitted { belief, spent, found } = &method.fitted;
        let needs = belief.needs(self.map.model.n_classes());
        let cost = Cost {
            fit_seconds: method.seconds,
            fit_forwards: spent.forwards,
            fit_backwards: spent.backwards,
            predict_seconds,
            forwards_per_item: needs.forwards,
            backwards_per_item: needs.backwards,
            stored_bytes: needs.bytes as u64,
        };
        let answered = Answered { held_out, test, shifted: answers, cost, found: found.clone() };
        let method = self.comparison.methods[k].as_ref();
        cell_of(method, extra_data(spent), Outcome::Answered(Box::new(answered)))
    }

    fn keep(&self, cell: Cell) -> Result<Cell> {
        if let Some(store) = self.store {
            store.keep(&cell)?;
        }
        Ok(cell)
    }
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

fn failed<M: Classifier, D: Dataset<Input = M::Input>>(method: &dyn Method<M, D>, reason: &Error) -> Cell {
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
        extra_data,
        sharing: method.sharing().map(|sharing| sharing.to_string()),
        outcome,
    }
}
