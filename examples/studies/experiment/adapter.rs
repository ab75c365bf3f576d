//! Trains an adapter and keeps it, or takes the one that an earlier run kept.

use crate::Outcome;
use bayes_lora::data::EncodedDataset;
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, save_peft, write_adapter};
use bayes_lora::models::PromptClassifier;
use bayes_lora::outputs::save_or_rescue;
use bayes_lora::progress::Control;
use bayes_lora::train::{TrainOutcome, TrainReport, Trainer, TrainerConfig};
use std::path::Path;

/// The folder of a run's adapter, in PEFT's format.
const FOLDER: &str = "adapter";

/// Trains on `train` and saves the adapter under `out` before anything else can fail; or, where `trained` is the directory
/// of an earlier run, loads that one's, with the start that its seed gives.
pub fn train_or_load(
    model: PromptClassifier,
    (train, validation): (&EncodedDataset, Option<&EncodedDataset>),
    lora: &LoraConfig,
    trainer: &TrainerConfig,
    trained: Option<&Path>,
    out: &Path,
    control: &Control,
) -> Outcome<TrainOutcome<PromptClassifier>> {
    let start = attach(model.clone(), lora, trainer.seed_or_default())?;
    let Some(dir) = trained else {
        let outcome = Trainer::new(trainer.clone())?.fit(start, train, validation, control)?;
        save_or_rescue(out.join(FOLDER), |dir| save_peft(&outcome.model, lora, &train.name, dir))?;
        return Ok(outcome);
    };
    let weights = read_adapter(&load_peft(model, dir.join(FOLDER))?.0)?;
    Ok(TrainOutcome {
        model: write_adapter(start, &weights)?,
        best: None,
        snapshots: Vec::new(),
        report: TrainReport::default(),
    })
}
