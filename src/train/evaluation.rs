//! Asks a model for its answers to items whose targets are known.

use super::config::TrainerConfig;
use super::layout;
use super::objective::outputs_on_host;
use crate::batches::in_order;
use crate::belief::top_class;
use crate::data::BatchOrder;
use crate::error::Result;
use crate::models::{Classifier, ClassifierInput, Dataset, OutputBatches, batch_targets, known_targets};
use crate::progress::Control;
use crate::tape::Tape;

/// Mean NLL of a unit in nats, and accuracy where all targets are classes; of tied classes the first is the answer, as everywhere
/// ([`top_class`]).
pub(super) fn evaluate<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &TrainerConfig,
    control: &Control,
) -> Result<(f64, Option<f64>)> {
    let model = model.valid();
    let likelihood = &*config.likelihood_or_default();
    let targets = known_targets(data, likelihood, model.n_classes())?;
    let (mut nll, mut right, mut labelled) = (0.0, 0usize, 0usize);
    let batches = layout::plan(config, data, BatchOrder::ByLength)?;
    let inputs = if config.packing.is_none() { Some(OutputBatches::new(&model, data)?) } else { None };
    let work = |index: usize| {
        let input = match &inputs {
            Some(inputs) => inputs.of(&batches[index])?,
            None => layout::batch(config, &model, data, &batches[index])?,
        };
        batch_targets(data, &batches[index], &input, (&targets, likelihood), model.n_classes())?;
        outputs_on_host(model.logits(&input, &mut Tape::off()), input.class_mask())
    };
    in_order("validation", batches.len(), control.workers(), work, |index, outputs| {
        for (row, &item) in outputs.outer_iter().zip(&batches[index]) {
            nll -= likelihood.log_density(row, &targets[item]);
            if let Some(label) = targets[item].class() {
                labelled += 1;
                right += usize::from(top_class(row) == label);
            }
        }
        control.check("validation", index + 1, batches.len())
    })?;
    let units: usize = (0..data.n_items()).map(|item| data.units(item)).sum();
    let accuracy = (labelled == targets.len()).then_some(right as f64 / targets.len() as f64);
    Ok((nll / units as f64, accuracy))
}
