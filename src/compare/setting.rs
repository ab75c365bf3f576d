//! Says what a run is about: names, sizes, labels, and hashes of everything that its cells depend on.

use super::cell::{CELL_FORMAT, ClassName, Setting, ShiftedSplit, SplitValues, TrainingCost, rounded};
use crate::data::BatchLimits;
use crate::draws;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::{Likelihood, TargetSpace};
use crate::lora::{LoraConfig, model_fingerprint};
use crate::methods::Recipe;
use crate::models::{Classifier, Dataset, data_fingerprint, known_labels, known_targets};
use crate::train::TrainerConfig;
use std::fmt::Debug;

/// Under what name the hash of the test items is kept.
pub(super) const TEST_DATA: &str = "test data";
/// Below what name the settings of the recipe are kept.
pub(super) const RECIPE: &str = "recipe";

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
    /// The classes; none of a regression.
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
    /// Data from elsewhere.
    pub shifted: Vec<Shifted<'a, D>>,
}

/// Data from another distribution, asked as the test is.
#[derive(Debug, Clone)]
pub struct Shifted<'a, D> {
    /// Its name.
    pub name: String,
    /// The items.
    pub data: &'a D,
    /// Their labels are of the task's classes, and answers are scored. Otherwise labels are not looked at.
    pub labelled: bool,
}

/// The setting of one run; the training's cost is not known yet.
///
/// # Errors
/// If two splits have one name, a label is missing where it is needed, or the data cannot tell what an item holds.
pub(super) fn setting<M: Classifier, D: Dataset<Input = M::Input>>(
    base: &M,
    about: &About,
    splits: &Splits<D>,
    (recipe, limits, seed): (&Recipe, BatchLimits, u64),
) -> Result<Setting> {
    let n_classes = base.n_classes();
    let likelihood = recipe.trainer.likelihood_or_default();
    let values = match likelihood.target_space() {
        TargetSpace::Classes => None,
        TargetSpace::Continuous => Some(values(base, splits, &*likelihood)?),
        TargetSpace::Discrete => {
            let reason = format!("classes and numbers can be compared, and the targets of `{likelihood}` are neither");
            return Err(Error::Incompatible(reason));
        }
    };
    let labels = |data| if values.is_some() { Ok(Vec::new()) } else { known_labels(data, n_classes) };
    let mut identity = Identity::new()
        .with("weights of the base", format!("{:016x}", model_fingerprint(base)?))
        .with("batches", limits)
        .with("random streams", draws::VERSION)
        .with_part(RECIPE, recipe.identity()?);
    let held_out = splits.held_out.map(|data| ("held-out data", data));
    let shifted = splits.shifted.iter().map(|split| (split.name.as_str(), split.data));
    for (name, data) in
        [("training data", splits.train), (TEST_DATA, splits.test)].into_iter().chain(held_out).chain(shifted)
    {
        let hash = format!("{} items, hash {:016x}", data.n_items(), data_fingerprint(data)?);
        if identity.get(name).is_some() {
            return Err(Error::config("splits", "names that differ", format!("`{name}` twice")));
        }
        identity = identity.with(name, hash);
    }
    let About { protocol, task, model, prompt_hash, prompt_example, classes } = about.clone();
    Ok(Setting {
        format_version: CELL_FORMAT,
        crate_version: env!("CARGO_PKG_VERSION").into(),
        protocol,
        task,
        model,
        seed,
        recipe: describe(recipe),
        prompt_hash,
        prompt_example,
        classes,
        n_train: splits.train.n_items(),
        training: TrainingCost::default(),
        held_out: splits.held_out.map_or(Ok(Vec::new()), labels)?,
        test: labels(splits.test)?,
        shifted: splits.shifted.iter().map(|split| split.kept(n_classes)).collect::<Result<_>>()?,
        values,
        identity,
    })
}

/// The numbers of a regression, as JSON keeps them.
fn values<M: Classifier, D: Dataset<Input = M::Input>>(
    base: &M,
    splits: &Splits<D>,
    likelihood: &dyn Likelihood,
) -> Result<SplitValues> {
    let n_outputs = base.n_classes();
    if n_outputs != 1 {
        let what = "outputs of a model whose numbers are compared";
        return Err(Error::Count { what: what.into(), expected: 1, found: n_outputs });
    }
    if let Some(split) = splits.shifted.first() {
        let reason = format!("`{}`: data from elsewhere are told by classes, and these are numbers", split.name);
        return Err(Error::Incompatible(reason));
    }
    let of = |data: &D| -> Result<Vec<f64>> {
        Ok(known_targets(data, likelihood, n_outputs)?.iter().map(|target| rounded(target.component(0))).collect())
    };
    Ok(SplitValues { held_out: splits.held_out.map_or(Ok(Vec::new()), of)?, test: of(splits.test)? })
}

impl<D: Dataset> Shifted<'_, D> {
    fn kept(&self, n_classes: usize) -> Result<ShiftedSplit> {
        let labels = if self.labelled { known_labels(self.data, n_classes)? } else { Vec::new() };
        Ok(ShiftedSplit { name: self.name.clone(), n_items: self.data.n_items(), labels })
    }
}

/// A setting where it is not the usual one.
fn unusual<T: PartialEq + Debug>(name: &str, value: &T, usual: &T) -> Option<String> {
    (value != usual).then(|| format!("{name} {value:?}"))
}

/// The recipe in one line of words, for the report; what a run is recognised by is [`Recipe::identity`].
fn describe(recipe: &Recipe) -> String {
    let (lora, trainer) = (&recipe.lora, &recipe.trainer);
    let mut parts = vec![
        format!("LoRA of rank {}, alpha {}, dropout {}", lora.rank, lora.alpha, lora.dropout),
        format!("on {}", lora.target_modules.entries().join(", ")),
        format!("{} epochs at {}", trainer.epochs, trainer.learning_rate),
        format!("warm-up {}, then {:?}", trainer.warmup_fraction, trainer.decay),
        format!(
            "{} batches of {} items and at most {} tokens a step",
            trainer.accumulation, trainer.limits.max_items, trainer.limits.max_tokens
        ),
        format!("weight decay {}", trainer.weight_decay),
        format!("{:?}", trainer.objective),
    ];
    parts.extend(trainer.max_grad_norm.map(|norm| format!("gradients of norm {norm} at most")));
    parts.extend(trainer.max_steps.map(|steps| format!("{steps} steps at most")));
    parts.extend((!trainer.shuffle).then(|| "never shuffled".to_string()));
    parts.extend(lora.use_rslora.then(|| "rank-stabilised".to_string()));
    let usual = LoraConfig::new(lora.rank);
    parts.extend(unusual("excluded", &lora.exclude_modules, &usual.exclude_modules));
    parts.extend(unusual("layers", &lora.layers_to_transform, &usual.layers_to_transform));
    parts.extend(unusual("layers at", &lora.layers_pattern, &usual.layers_pattern));
    parts.extend(unusual("ranks", &lora.rank_pattern, &usual.rank_pattern));
    parts.extend(unusual("alphas", &lora.alpha_pattern, &usual.alpha_pattern));
    parts.extend(unusual(
        "likelihood",
        &trainer.likelihood_or_default(),
        &TrainerConfig::default().likelihood_or_default(),
    ));
    parts.extend(unusual("training", &trainer.mode, &TrainerConfig::default().mode));
    let snapshots = trainer.snapshots;
    parts.push(format!("{} snapshots from {} on", snapshots.count, snapshots.from));
    parts.join("; ")
}
