//! Sums the gradient of the log-likelihood over labelled data.

use crate::batches::for_each_batch;
use crate::data::{BatchLimits, BatchOrder};
use crate::error::Result;
use crate::likelihood::Likelihood;
use crate::lora::{AdapterWeights, adapter_gradients};
use crate::models::{
    Classifier, ClassifierInput, Dataset, activation_budget, batch_targets, gradient_within, known_targets,
    output_batch_for,
};
use crate::progress::Control;
use crate::tape::Tape;
use crate::train::{TrainingMode, negative_log_likelihood, set_trainable};

/// `∇ Σ log p(y | x, θ)` at the adapter's present weights, **summed** over the data.
///
/// # Errors
/// If a target is missing or is none for its item, the model has no adapter, or the caller cancels.
pub fn log_likelihood_gradient<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    likelihood: &dyn Likelihood,
    limits: &BatchLimits,
    control: &Control,
) -> Result<AdapterWeights> {
    let plain = model.valid();
    let targets = known_targets(data, likelihood, model.n_classes())?;
    let budget = activation_budget(&plain, control, "gradient");
    let work = |indices: &[usize]| {
        // leaves of its own, so that several batches can be differentiated at once
        let model = set_trainable(plain.clone(), &TrainingMode::Lora)?.train();
        let input = output_batch_for(&model, data, indices)?;
        let targets = batch_targets(data, indices, &input, (&targets, likelihood), model.n_classes())?;
        let mut loss =
            |outputs| Ok(negative_log_likelihood(outputs, likelihood, &targets, input.class_mask())?.differentiable);
        let gradients = gradient_within(&model, &input, &mut Tape::off(), &mut loss, &budget)?;
        let all = adapter_gradients(&model, &gradients)?;
        Ok(all.into_iter().map(|(site, gradient)| (site, -gradient)).collect::<AdapterWeights>())
    };
    let mut total = AdapterWeights::new();
    let batches = data.plan(*limits, BatchOrder::ByLength)?;
    for_each_batch("gradient", &batches, control, work, |_, gradient| {
        for (site, new) in gradient {
            match total.get_mut(&site) {
                Some(sum) => *sum += &new,
                None => {
                    total.insert(site, new);
                }
            }
        }
        Ok(())
    })?;
    Ok(total)
}
