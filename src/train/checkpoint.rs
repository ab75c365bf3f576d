//! Saves a training run after a step, and takes it up again to the same bits.

use super::config::TrainerConfig;
use super::freeze::{TrainingMode, set_trainable};
use super::parameters::{self, ParameterForm};
use super::report::{EpochRecord, TrainReport};
use super::snapshots::Snapshot;
use super::state::{Place, Run};
use super::update::UpdateRule;
use crate::checkpoints::Checkpoints;
use crate::draws;
use crate::error::{Error, Result};
use crate::file_header::parse_header;
use crate::identity::Identity;
use crate::lora::{AdapterWeights, adapter_fingerprint, model_fingerprint, read_adapter};
use crate::models::{Classifier, Dataset, data_fingerprint};
use crate::tape::Site;
use crate::tensor_file::{StoredArray, TensorFile, write_checked};
use ndarray::{Array1, Array2, ArrayView1};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version that this crate writes and reads; any change of the header or of a name needs another.
const FORMAT_VERSION: u64 = 4;
/// Where the header is among the metadata.
const KEY: &str = "bayes_lora_training";
/// Names are `step-00000120.safetensors`: their order is that of the steps.
const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";
/// Tensors that belong to no parameter.
const OPTIMIZER: &str = "optimizer";
const EPOCHS: &str = "epochs";
const SUMS: &str = "sums";

/// All settings, weights and data that a run's result depends on.
pub(super) fn identity<M: Classifier, D: Dataset<Input = M::Input>>(
    (config, rule): (&TrainerConfig, Identity),
    (start, centre): (&M, Option<&AdapterWeights>),
    data: &D,
    validation: Option<&D>,
) -> Result<Identity> {
    let of_data = |data: &D| Ok(format!("{} items, hash {:016x}", data.n_items(), data_fingerprint(data)?));
    Ok(config
        .identity()
        .with_part("update rule", rule)
        .with("random streams", draws::VERSION)
        .with("scale and dropout", adapter_settings(start))
        .with("training data", of_data(data)?)
        .with("validation data", validation.map_or(Ok("none".into()), of_data)?)
        .with("weights at the start", format!("{:016x}", model_fingerprint(start)?))
        // the prior's mean may be a start that is not this one
        .with("prior centre", centre.map_or("none".into(), |centre| format!("{:016x}", adapter_fingerprint(centre)))))
}

/// What the weights of adapted modules do not tell; each pair once.
fn adapter_settings<M: Classifier>(model: &M) -> String {
    let of_model = model.linears().into_iter().filter_map(|linear| linear.adapter.as_ref());
    let mut pairs: Vec<String> = of_model.map(|adapter| format!("{}, {}", adapter.scale, adapter.dropout)).collect();
    pairs.sort();
    pairs.dedup();
    pairs.join("; ")
}

/// Everything but the numbers in tensors: `parameters.PATH`, `best.PATH`, the optimiser's bytes, the epochs' figures.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u64,
    crate_version: String,
    run: Identity,
    epoch: usize,
    steps_of_epoch: usize,
    units_of_epoch: usize,
    log_bytes: u64,
    steps: usize,
    skipped_steps: usize,
    items: usize,
    tokens: usize,
    best_epoch: Option<usize>,
    n_epochs: usize,
    /// Columns of their figures: without validation 1, else 2, and 3 where there is an accuracy.
    n_figures: usize,
    optimizer_bytes: usize,
    /// After how many steps each snapshot was taken; its matrices are `snapshot.STEP.SITE`.
    snapshots: Vec<usize>,
    parameters: Vec<ParameterForm>,
    /// Those of the best epoch, where another epoch than the present one may still be it.
    best: Option<Vec<ParameterForm>>,
}

/// The files of one run.
pub(super) struct RunFiles {
    dir: PathBuf,
    keep: usize,
    identity: Identity,
}

impl RunFiles {
    pub(super) fn new(checkpoints: &Checkpoints, identity: Identity) -> Self {
        Self { dir: checkpoints.dir.join("train"), keep: checkpoints.keep, identity }
    }

    /// Where a checkpoint after `steps` steps is.
    pub(super) fn path(&self, steps: usize) -> PathBuf {
        self.dir.join(format!("{PREFIX}{steps:08}{SUFFIX}"))
    }

    /// The checkpoints that are there, oldest first; what a killed writer left half done is not one.
    fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io(&self.dir, e))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&self.dir, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.all()?.pop())
    }

    /// Saves the run to `path` and removes checkpoints that are older than the newest `keep`.
    ///
    /// # Errors
    /// If a value is not finite, or the disk refuses; older checkpoints are then untouched.
    pub(super) fn save<M: Classifier>(&self, path: &Path, run: &Run<M>, rule: &dyn UpdateRule<M>) -> Result<()> {
        let parameters = parameters::read(&run.model, None)?;
        let best = run.best.as_ref().map(|best| parameters::read(best, Some(&parameters))).transpose()?;
        let optimizer = rule.state()?;
        let place = &run.place;
        let report = &place.report;
        let epochs = figures(&report.epochs);
        let sums = Array1::from_vec(vec![place.epoch_nll, report.seconds]);
        let mut arrays = vec![
            (OPTIMIZER.to_string(), StoredArray::new(ArrayView1::from(&optimizer[..]))),
            (EPOCHS.to_string(), StoredArray::new(epochs.view())),
            (SUMS.to_string(), StoredArray::new(sums.view())),
        ];
        for (prefix, all) in [("parameters.", Some(&parameters)), ("best.", best.as_ref())] {
            for (name, (_, data)) in all.into_iter().flatten() {
                arrays.push((format!("{prefix}{name}"), StoredArray::of_tensor(name, data)?));
            }
        }
        for Snapshot { step, weights } in &run.snapshots {
            arrays.extend(weights.iter().map(|(site, w)| (snapshot_name(*step, site), StoredArray::new(w.view()))));
        }
        let header = Header {
            format_version: FORMAT_VERSION,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            run: self.identity.clone(),
            epoch: place.epoch,
            steps_of_epoch: place.steps_of_epoch,
            units_of_epoch: place.units_of_epoch,
            log_bytes: place.log_bytes,
            steps: report.steps,
            skipped_steps: report.skipped_steps,
            items: report.items,
            tokens: report.tokens,
            best_epoch: report.best_epoch,
            n_epochs: report.epochs.len(),
            n_figures: epochs.ncols(),
            optimizer_bytes: optimizer.len(),
            snapshots: run.snapshots.iter().map(|snapshot| snapshot.step).collect(),
            parameters: parameters::forms(&parameters),
            best: best.as_ref().map(parameters::forms),
        };
        write_checked(path, arrays, KEY, &header)?;
        self.remove_old()
    }

    fn remove_old(&self) -> Result<()> {
        let all = self.all()?;
        for old in &all[..all.len().saturating_sub(self.keep)] {
            std::fs::remove_file(old).map_err(|e| Error::io(old, e))?;
        }
        Ok(())
    }

    /// Takes up the newest checkpoint, if there is one, in place of the `run` that has just begun.
    ///
    /// # Errors
    /// If it is damaged, of another format version, or of a run with other settings, weights or data (named).
    pub(super) fn resume<M: Classifier>(
        &self,
        (run, rule): (Run<M>, &mut dyn UpdateRule<M>),
        start: &M,
        mode: &TrainingMode,
    ) -> Result<Run<M>> {
        let Some(path) = self.newest()? else { return Ok(run) };
        let mut file = TensorFile::open(&path)?;
        let header = self.header(file.checked_metadata(KEY)?, &path)?;
        check_epochs(&header, &path)?;
        let optimizer: Array1<u8> = file.read_array(OPTIMIZER, header.optimizer_bytes)?;
        let figures = file.read_array(EPOCHS, (header.n_epochs, header.n_figures))?;
        let sums: Array1<f64> = file.read_array(SUMS, 2)?;
        rule.restore(optimizer.to_vec()).map_err(|e| match e {
            Error::Format { location, reason } => Error::format(path.display(), format!("{location}: {reason}")),
            e => e,
        })?;
        let snapshots = read_snapshots(&mut file, &header.snapshots, start)?;
        let model = parameters::restore(start.clone(), &mut file, "parameters.", &header.parameters)?;
        let best =
            header.best.map(|forms| parameters::restore(start.clone(), &mut file, "best.", &forms)).transpose()?;
        let report = TrainReport {
            epochs: records(&figures),
            best_epoch: header.best_epoch,
            steps: header.steps,
            skipped_steps: header.skipped_steps,
            items: header.items,
            tokens: header.tokens,
            seconds: sums[1],
            resumed_after: Some(header.steps),
        };
        let place = Place {
            epoch: header.epoch,
            steps_of_epoch: header.steps_of_epoch,
            units_of_epoch: header.units_of_epoch,
            epoch_nll: sums[0],
            log_bytes: header.log_bytes,
            report,
        };
        Ok(Run { model: set_trainable(model, mode)?.train(), best, snapshots, place })
    }

    fn header(&self, text: &str, path: &Path) -> Result<Header> {
        let header: Header = parse_header(text, FORMAT_VERSION, "training checkpoint", path)?;
        match self.identity.difference(&header.run) {
            None => Ok(header),
            Some(difference) => Err(Error::Incompatible(format!(
                "{} is of another run: {difference}; train in another directory, or remove it",
                path.display()
            ))),
        }
    }
}

/// Checks that the header counts the epochs that it has figures of, and that the best one is among them.
fn check_epochs(header: &Header, path: &Path) -> Result<()> {
    let Header { epoch, n_epochs, best_epoch, n_figures, .. } = *header;
    if !(1..=3).contains(&n_figures) {
        return Err(Error::config(format!("{}: n_figures", path.display()), "1, 2 or 3", n_figures));
    }
    if epoch != n_epochs {
        let what = format!("{}: figures of finished epochs", path.display());
        return Err(Error::Count { what, expected: epoch, found: n_epochs });
    }
    match best_epoch.filter(|best| !(1..=epoch).contains(best)) {
        None => Ok(()),
        Some(best) => Err(Error::config(
            format!("{}: best_epoch", path.display()),
            format!("among the epochs 1 to {epoch}"),
            best,
        )),
    }
}

fn snapshot_name(step: usize, site: &Site) -> String {
    format!("snapshot.{step}.{site}")
}

/// The snapshots after `steps`, each of the shape of the adapter that `start` has.
fn read_snapshots<M: Classifier>(file: &mut TensorFile, steps: &[usize], start: &M) -> Result<Vec<Snapshot>> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let adapter = read_adapter(start)?;
    let mut snapshot = |&step: &usize| {
        let read = |(site, w): (&Site, &Array2<f64>)| {
            Ok((site.clone(), file.read_array(&snapshot_name(step, site), w.dim())?))
        };
        Ok(Snapshot { step, weights: adapter.iter().map(read).collect::<Result<AdapterWeights>>()? })
    };
    steps.iter().map(&mut snapshot).collect()
}

/// A row an epoch: training NLL, validation NLL where there was validation, and its accuracy where targets are classes.
fn figures(epochs: &[EpochRecord]) -> Array2<f64> {
    let row = |epoch: &EpochRecord| [Some(epoch.train_nll), epoch.validation_nll, epoch.validation_accuracy];
    let known = |epoch: &EpochRecord| row(epoch).iter().take_while(|figure| figure.is_some()).count();
    let columns = epochs.iter().map(known).max().unwrap_or(1);
    Array2::from_shape_fn((epochs.len(), columns), |(index, column)| row(&epochs[index])[column].unwrap_or(f64::NAN))
}

fn records(figures: &Array2<f64>) -> Vec<EpochRecord> {
    let record = |(epoch, row): (usize, ArrayView1<f64>)| EpochRecord {
        epoch: epoch + 1,
        train_nll: row[0],
        validation_nll: row.get(1).copied(),
        validation_accuracy: row.get(2).copied(),
    };
    figures.outer_iter().enumerate().map(record).collect()
}
