//! Walks through epochs and steps, from the start or from a checkpoint.

use super::checkpoint::{RunFiles, identity};
use super::clip::clip_global_norm;
use super::config::TrainerConfig;
use super::evaluation::evaluate;
use super::freeze::set_trainable;
use super::layout;
use super::log::TrainLog;
use super::report::{EpochRecord, StepRecord, TrainOutcome};
use super::schedule::Schedule;
use super::snapshots::Snapshot;
use super::state::{Place, Run};
use super::step::{Loss, OfEpoch};
use super::update::{StepPosition, UpdateRule};
use crate::checkpoints::Saver;
use crate::data::BatchOrder;
use crate::error::{Error, Result};
use crate::lora::read_adapter;
use crate::models::{Classifier, Dataset, activation_budget, known_targets};
use crate::number::significant;
use crate::progress::{Bar, Control};
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

/// Most items that an error about a step names.
const NAMED_ITEMS: usize = 16;

/// Trains `start` as [`super::Trainer::fit`] says.
pub(super) fn run<M: Classifier, D: Dataset<Input = M::Input>>(
    config: &TrainerConfig,
    rule: &mut dyn UpdateRule<M>,
    start: M,
    (data, validation): (&D, Option<&D>),
    control: &Control,
) -> Result<TrainOutcome<M>> {
    let targets = known_targets(data, &*config.likelihood_or_default(), start.n_classes())?;
    let centre = config.objective.centre(&start)?;
    let start = start.valid();
    let n_units = (0..data.n_items()).map(|item| data.units(item)).sum();
    let epochs = plan(config, data)?;
    let total = epochs.iter().map(|epoch| epoch.batches.len().div_ceil(config.accumulation)).sum();
    let model = set_trainable(start.clone(), &config.mode)?.train();
    let mut run = Run { model, best: None, snapshots: Vec::new(), place: Place::default() };
    let files = match control.saver() {
        None => None,
        Some((checkpoints, saver)) => {
            let point = (&start, centre.as_ref());
            let files = RunFiles::new(checkpoints, identity((config, rule.identity()?), point, data, validation)?);
            run = files.resume((run, &mut *rule), &start, &config.mode)?;
            Some((files, saver))
        }
    };
    let log = config.log.as_ref().map(|path| TrainLog::resume(path, run.place.log_bytes)).transpose()?;
    let budget = activation_budget(&start, control, "training");
    let mut training = Training {
        config,
        n_epochs: epochs.len(),
        rule,
        total,
        snapshot_steps: config.snapshots.steps(total),
        loss: Loss { config, data, targets: &targets, n_units, centre: centre.as_ref(), budget },
        schedule: Schedule::new(config.learning_rate, config.warmup_fraction, config.decay, total)?,
        validation,
        control,
        log,
        files,
        run,
    };
    let mut bar = control.bar("train", data.n_items() * config.epochs);
    bar.skip(training.run.place.report.items);
    while training.is_unfinished() {
        training.epoch(&epochs[training.run.place.epoch], &mut bar)?;
    }
    let Run { model, best, snapshots, place } = training.run;
    Ok(TrainOutcome { model: model.valid(), best, snapshots, report: place.report })
}

/// What one epoch goes through.
struct Epoch {
    /// Cut off where the last step of the run is.
    batches: Vec<Vec<usize>>,
    /// Of the whole epoch's steps.
    mean_units: f64,
}

/// All epochs up to the last step.
fn plan<D: Dataset>(config: &TrainerConfig, data: &D) -> Result<Vec<Epoch>> {
    let mut left = config.max_steps.map(|steps| steps * config.accumulation);
    let mut epochs = Vec::new();
    for epoch in 0..config.epochs as u64 {
        let order = match config.shuffle {
            true => BatchOrder::Shuffled { seed: config.seed_or_default(), epoch, step: config.accumulation },
            false => BatchOrder::Sequential,
        };
        let mut batches = layout::plan(config, data, order)?;
        let steps = batches.len().div_ceil(config.accumulation);
        let mean_units = units_of(data, &batches) as f64 / steps.max(1) as f64;
        if let Some(left) = &mut left {
            // an epoch ends with a step, however many batches that has
            let of_epoch = batches.len().next_multiple_of(config.accumulation);
            batches.truncate(*left);
            *left = left.saturating_sub(of_epoch);
        }
        if batches.is_empty() {
            break;
        }
        epochs.push(Epoch { batches, mean_units });
    }
    Ok(epochs)
}

/// Units of the items of some batches.
fn units_of<D: Dataset>(data: &D, batches: &[Vec<usize>]) -> usize {
    batches.iter().flatten().map(|&item| data.units(item)).sum()
}

struct Training<'a, M, D> {
    config: &'a TrainerConfig,
    n_epochs: usize,
    rule: &'a mut dyn UpdateRule<M>,
    /// Steps of the whole run.
    total: usize,
    snapshot_steps: Vec<usize>,
    loss: Loss<'a, D>,
    schedule: Schedule,
    validation: Option<&'a D>,
    control: &'a Control,
    log: Option<TrainLog>,
    files: Option<(RunFiles, Saver)>,
    run: Run<M>,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Training<'_, M, D> {
    fn is_unfinished(&self) -> bool {
        let Place { epoch, report, .. } = &self.run.place;
        let waited = report.best_epoch.map_or(0, |best| epoch - best);
        *epoch < self.n_epochs && self.config.patience.is_none_or(|patience| waited < patience)
    }

    /// The rest of an epoch, with its validation.
    fn epoch(&mut self, epoch: &Epoch, bar: &mut Bar) -> Result<()> {
        let of_epoch = OfEpoch { epoch: self.run.place.epoch as u64, mean_units: epoch.mean_units };
        for step in epoch.batches.chunks(self.config.accumulation).skip(self.run.place.steps_of_epoch) {
            let message = self.guarded_step(step, of_epoch)?;
            let n_items = step.iter().map(Vec::len).sum();
            let go_on = bar.advance(n_items, || message);
            self.keep(go_on.is_err());
            go_on?;
        }
        let place = &mut self.run.place;
        if place.units_of_epoch == 0 {
            return Err(Error::numerical(
                format!("training epoch {}", place.epoch + 1),
                format!("none of its {} steps had a finite loss and gradient", place.steps_of_epoch),
            ));
        }
        let mut record = EpochRecord {
            epoch: place.epoch + 1,
            train_nll: place.epoch_nll / place.units_of_epoch as f64,
            validation_nll: None,
            validation_accuracy: None,
        };
        if let Some(validation) = self.validation {
            let evaluated = evaluate(&self.run.model, validation, self.config, self.control);
            // the epoch's steps are done, its validation is done again
            self.keep(self.control.is_cancelled());
            let (nll, accuracy) = evaluated?;
            record.validation_nll = Some(nll);
            record.validation_accuracy = accuracy;
            let report = &mut self.run.place.report;
            let best = report.best_epoch.and_then(|epoch| report.epochs[epoch - 1].validation_nll);
            if best.is_none_or(|best| nll < best) {
                self.run.best = Some(self.run.model.valid());
                report.best_epoch = Some(record.epoch);
            }
        }
        self.log(&record);
        let place = &mut self.run.place;
        place.report.epochs.push(record);
        *place = Place {
            epoch: place.epoch + 1,
            report: std::mem::take(&mut place.report),
            log_bytes: place.log_bytes,
            ..Place::default()
        };
        // the last state is kept, so that a finished run is not trained again
        let finished = !self.is_unfinished();
        self.keep(finished);
        Ok(())
    }

    /// A step. After a checkpoint it runs behind a net: burn panics where the file's state of the optimiser, or an identity of a
    /// parameter, does not fit the model.
    fn guarded_step(&mut self, batches: &[Vec<usize>], of_epoch: OfEpoch) -> Result<String> {
        let Some(steps) = self.run.place.report.resumed_after else { return self.step(batches, of_epoch) };
        let step = self.run.place.report.steps + 1;
        catch_unwind(AssertUnwindSafe(|| self.step(batches, of_epoch))).unwrap_or_else(|_| {
            let reason = format!(
                "panicked; the run was taken up from a checkpoint after step {steps} that may not fit the model"
            );
            Err(Error::numerical(format!("training step {step}"), reason))
        })
    }

    /// One step through some of the data; says how it went.
    fn step(&mut self, batches: &[Vec<usize>], of_epoch: OfEpoch) -> Result<String> {
        let start = Instant::now();
        let step = self.run.place.report.steps;
        let learning_rate = self.schedule.rate(step);
        let position = StepPosition { step, total: self.total, learning_rate };
        let point = self.rule.point(&self.run.model, position)?;
        let mut gradient = self.loss.gradient(&point, batches, of_epoch, self.control)?;
        let norm = clip_global_norm(&point, &mut gradient.gradients, self.config.max_grad_norm);
        let skipped = !(gradient.nll.is_finite() && norm.is_finite());
        let n_items: usize = batches.iter().map(Vec::len).sum();
        let n_units = units_of(self.loss.data, batches);
        let mean_nll = gradient.nll / n_units as f64;
        if skipped {
            self.skip(batches, mean_nll, norm)?;
        } else {
            self.run.model = self.rule.update(self.run.model.clone(), gradient.gradients, position)?;
            self.run.place.units_of_epoch += n_units;
            self.run.place.epoch_nll += gradient.nll;
        }
        let seconds = start.elapsed().as_secs_f64();
        let place = &mut self.run.place;
        place.steps_of_epoch += 1;
        place.report.steps += 1;
        place.report.items += n_items;
        place.report.tokens += gradient.tokens;
        place.report.seconds += seconds;
        let steps = place.report.steps;
        if self.snapshot_steps.contains(&steps) {
            let weights = read_adapter(&self.run.model)?;
            self.run.snapshots.push(Snapshot { step: steps, weights });
        }
        let place = &self.run.place;
        let tokens_per_second = gradient.tokens as f64 / seconds;
        let epoch = place.epoch + 1;
        self.log(&StepRecord {
            step: step + 1,
            epoch,
            mean_nll,
            learning_rate,
            gradient_norm: norm,
            tokens_per_second,
            skipped,
        });
        let unit = self.config.likelihood_or_default().unit();
        Ok(format!("loss {} nats an {unit}, {} tokens/s", significant(mean_nll), significant(tokens_per_second)))
    }

    /// Counts a step that must not change anything.
    fn skip(&mut self, batches: &[Vec<usize>], mean_nll: f64, norm: f64) -> Result<()> {
        let skipped = self.run.place.report.skipped_steps;
        if skipped < self.config.max_skipped_steps {
            self.run.place.report.skipped_steps += 1;
            return Ok(());
        }
        let items: Vec<usize> = batches.concat();
        let named: Vec<String> = items.iter().take(NAMED_ITEMS).map(|&i| self.loss.data.item_id(i)).collect();
        let rest = if items.len() > NAMED_ITEMS { ", …" } else { "" };
        Err(Error::numerical(
            format!("training step {}", self.run.place.report.steps + 1),
            format!(
                "mean loss {mean_nll}, gradient norm {norm} after {skipped} steps skipped for the same reason (at most {}); \
                 its {} items are {}{rest}; last checkpoint: {}",
                self.config.max_skipped_steps,
                items.len(),
                named.join(", "),
                self.last_checkpoint()
            ),
        ))
    }

    fn last_checkpoint(&self) -> String {
        let newest = self.files.as_ref().and_then(|(files, _)| files.newest().ok().flatten());
        newest.map_or("none".into(), |path: PathBuf| path.display().to_string())
    }

    /// Saves the run if it is time to, or `now`; a failure is counted and stops nothing.
    fn keep(&mut self, now: bool) {
        let Some((files, saver)) = &mut self.files else { return };
        if now || saver.is_due() {
            let (run, rule) = (&self.run, &*self.rule);
            saver.save(&files.path(run.place.report.steps), |path| files.save(path, run, rule));
        }
    }

    /// Writes a line; a failure is counted and stops nothing.
    fn log(&mut self, record: &impl Serialize) {
        let Some(log) = &mut self.log else { return };
        if let Err(reason) = log.write(record) {
            self.control.count_save_failure(&reason);
        }
        self.run.place.log_bytes = log.length();
    }
}
