//! The trainer on small models: validation, accumulation, priors, what trains and what does not, the log.

use crate::support::points::{
    LIMITS, adapted, blobs, changed, distance, flipped, log_lines, nll, quick, train, values,
};
use crate::support::{Fixture, device, f64_or_skip, logits, relative_error};
use bayes_lora::belief::softmax;
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::data::{BatchLimits, BatchOrder};
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::{Categorical, Target};
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, attach, initial_weights, read_adapter, write_adapter};
use bayes_lora::metrics::accuracy;
use bayes_lora::models::{Classifier, Dataset, Mlp, MlpConfig, Points};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::{
    Decay, Objective, Snapshots, StepPosition, TrainReport, Trainer, TrainerConfig, TrainingMode, UpdateRule,
    negative_log_likelihood, set_trainable,
};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use ndarray::Array2;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn validation_keeps_the_best_epoch_and_early_stopping_stops() {
    let data = blobs(40, 1);
    // against flipped labels every epoch of training is for the worse
    let validation = flipped(&blobs(20, 2));
    let run = |patience| train(quick(10).with_patience(patience), adapted(0.0), &data, Some(&validation));
    let outcome = run(None);
    let scores: Vec<f64> = outcome.report.epochs.iter().map(|e| e.validation_nll.unwrap()).collect();
    assert_eq!((scores.len(), outcome.report.best_epoch), (10, Some(1)));
    assert!(scores[9] > scores[0]);
    let best = outcome.best.unwrap();
    // the trainer's own figures, which it took in other batches in f32
    assert!((nll(&best, &validation) - scores[0]).abs() < 1e-5);
    assert!((nll(&outcome.model, &validation) - scores[9]).abs() < 1e-5);

    let stopped = run(Some(3));
    assert_eq!(stopped.report.epochs.len(), 4);
    assert_eq!(stopped.report.steps, 4 * 5);
    assert_eq!(stopped.report.epochs[..], outcome.report.epochs[..4]);
    assert_eq!(read_adapter(&stopped.best.unwrap()).unwrap(), read_adapter(&best).unwrap());

    // where training helps, the last epochs are the best ones and nothing stops early
    let helpful = train(quick(10).with_patience(3), adapted(0.0), &data, Some(&blobs(20, 2)));
    let scores: Vec<f64> = helpful.report.epochs.iter().map(|e| e.validation_nll.unwrap()).collect();
    let lowest = (0..scores.len()).min_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
    assert_eq!(helpful.report.best_epoch, Some(lowest + 1));
    assert!(lowest > 3);
}

#[test]
fn two_batches_of_four_accumulate_to_one_of_eight() {
    let dir = tempfile::tempdir().unwrap();
    let run = |max_items, accumulation| {
        let log = dir.path().join(format!("{max_items}.jsonl"));
        let config = quick(1)
            .with_accumulation(accumulation)
            .with_limits(BatchLimits { max_items, max_tokens: 100 })
            .with_log(log.clone());
        let outcome = train(config, adapted(0.0), &blobs(8, 1), None);
        assert_eq!(outcome.report.steps, 1);
        (read_adapter(&outcome.model).unwrap(), log_lines(&log).swap_remove(0))
    };
    let ((weights, record), (accumulated, other)) = (run(8, 1), run(4, 2));
    let start = read_adapter(&adapted(0.0)).unwrap();
    assert!(distance(&weights, &start) > 0.01);
    // f32 rounding of sums of eight terms; Adam's first step is the sign of the gradient times the rate
    assert!(distance(&weights, &accumulated) < 1e-6);
    for field in ["gradient_norm", "mean_nll"] {
        let (a, b) = (record[field].as_f64().unwrap(), other[field].as_f64().unwrap());
        assert!(a > 0.0 && (a / b - 1.0).abs() < 1e-5, "{field}: {a} and {b}");
    }
}

#[test]
fn a_prior_holds_the_adapter_the_nearer_to_its_centre_the_stronger_it_is() {
    let data = blobs(40, 1);
    let run = |objective| {
        let outcome = train(quick(20).with_objective(objective), adapted(0.0), &data, None);
        distance(&read_adapter(&outcome.model).unwrap(), &initial_weights(&outcome.model).unwrap())
    };
    let map = |lambda| Objective::MaximumAPosteriori {
        precision: PriorPrecision::new(lambda).unwrap(),
        mean: PriorMean::Initial,
    };
    let free = run(Objective::MaximumLikelihood);
    let held = [0.1, 10.0, 1e6].map(|lambda| run(map(lambda)));
    println!("distances: free {free}, held {held:?}");
    assert!(free > held[0] && held[0] > held[1] && held[1] > held[2]);
    // AdamW's first step follows the likelihood alone; the prior brings it back, and the overshoot fades with the rate
    assert!(held[2] < 0.01 * free, "{} of {free}", held[2]);
}

#[test]
fn a_maximum_a_posteriori_is_stationary_for_the_sum_over_the_data() {
    // two micro-batches a step: the prior must count once
    check_stationary(&blobs(40, 1), quick(1500).with_accumulation(2));
    // steps of 20, 20 and 4 items, the four of labels that the others contradict
    let mut data = blobs(44, 1);
    data.labels[40..].iter_mut().for_each(|label| *label = 1 - *label);
    check_stationary(&data, quick(1500).with_shuffle(false));
}

fn check_stationary(data: &Points, config: TrainerConfig) {
    let lambda = 2.0;
    let objective =
        Objective::MaximumAPosteriori { precision: PriorPrecision::new(lambda).unwrap(), mean: PriorMean::Initial };
    let limits = BatchLimits { max_items: 20, max_tokens: 100 };
    let config =
        config.with_objective(objective).with_limits(limits).with_max_grad_norm(None).with_decay(Decay::Cosine);
    let model = train(config, adapted(0.0), data, None).model;
    let centre = initial_weights(&model).unwrap();
    let model = set_trainable(model, &TrainingMode::Lora).unwrap().train();
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let targets: Vec<Target> = data.labels.iter().copied().map(Target::Class).collect();
    let outputs = model.logits(&input, &mut Tape::off());
    let loss = negative_log_likelihood(outputs, &Categorical, &targets, None).unwrap().differentiable;
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let (mut pull, mut rest) = (0.0, 0.0);
    let weights = read_adapter(&model).unwrap();
    for linear in model.linears() {
        let adapter = linear.adapter.as_ref().unwrap();
        for (site, w) in weights.iter().filter(|(site, _)| site.module == linear.path) {
            let param = if site.to_string().ends_with('A') { &adapter.a } else { &adapter.b };
            let gradient = gradients.get::<2>(param.id).unwrap();
            let gradient = gradient.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
            let prior = (w - &centre[site]) * lambda;
            pull += prior.mapv(|v| v * v).sum();
            rest += prior.iter().zip(&gradient).map(|(p, g)| (p + g).powi(2)).sum::<f64>();
        }
    }
    println!("prior's pull {:.4}, remainder {:.4}", pull.sqrt(), rest.sqrt());
    // what 1,500 steps of a decaying rate leave; a prior counted twice, or divided by another count, leaves half or more
    assert!(pull.sqrt() > 0.1 && rest.sqrt() < 0.1 * pull.sqrt());
}

/// Stays where it is and sums the gradients of all steps.
#[derive(Default)]
struct Sum(BTreeMap<String, Array2<f64>>);

impl<M: Classifier> UpdateRule<M> for Sum {
    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new().with("rule", "sum of the gradients"))
    }

    fn point(&mut self, model: &M, _: StepPosition) -> Result<M> {
        Ok(model.clone())
    }

    fn update(&mut self, model: M, found: GradientsParams, _: StepPosition) -> Result<M> {
        for linear in model.linears() {
            let Some(adapter) = &linear.adapter else { continue };
            for (matrix, param) in [("lora_A", &adapter.a), ("lora_B", &adapter.b)] {
                let gradient = array(found.get::<2>(param.id).unwrap());
                let sum = self.0.entry(format!("{}.{matrix}", linear.path)).or_insert(&gradient * 0.0);
                *sum += &gradient;
            }
        }
        Ok(model)
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: Vec<u8>) -> Result<()> {
        Ok(())
    }
}

fn array(tensor: Tensor<2>) -> Array2<f64> {
    let [rows, columns] = tensor.dims();
    let values = tensor.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
    Array2::from_shape_vec((rows, columns), values).unwrap()
}

/// Over one epoch in uneven steps the gradients sum to S/N times that of the objective over all items.
fn check_epoch<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    limits: BatchLimits,
    accumulation: usize,
) {
    let sizes: Vec<usize> = data
        .plan(limits, BatchOrder::Sequential)
        .unwrap()
        .chunks(accumulation)
        .map(|step| step.iter().map(Vec::len).sum())
        .collect();
    assert!(sizes.iter().any(|n| *n != sizes[0]), "even steps: {sizes:?}");
    let (steps, n) = (sizes.len() as f64, data.n_items() as f64);
    let of_likelihood = log_likelihood_gradient(model, data, &Categorical, &limits, &Control::silent()).unwrap();
    let weights = read_adapter(model).unwrap();
    for lambda in [0.0, 30.0] {
        let objective = match PriorPrecision::new(lambda) {
            Ok(precision) => Objective::MaximumAPosteriori { precision, mean: PriorMean::Zero },
            Err(_) => Objective::MaximumLikelihood,
        };
        let config = quick(1)
            .with_objective(objective)
            .with_limits(limits)
            .with_accumulation(accumulation)
            .with_shuffle(false)
            .with_max_grad_norm(None);
        let mut sum = Sum::default();
        let control = Control::silent();
        Trainer::new(config).unwrap().fit_by(&mut sum, model.clone(), data, None, &control).unwrap();
        let mut pull = 0.0f64;
        for (site, g) in &of_likelihood {
            let prior = &weights[site] * lambda;
            pull = prior.iter().fold(pull, |m, v| m.max(v.abs()));
            let expected = (prior - g) * (steps / n);
            let error = relative_error(&sum.0[&site.to_string()], &expected);
            // sums of some hundred terms in another order
            assert!(error < 1e-11, "{site} in steps of {sizes:?}, precision {lambda}: {error:e}");
        }
        assert!(lambda == 0.0 || pull > 0.1);
    }
}

#[test]
fn in_an_epoch_every_item_weighs_the_same_and_the_prior_counts_once_however_uneven_its_steps_are() {
    if !f64_or_skip("gradients of an epoch") {
        return;
    }
    let mlp = MlpConfig::new([2, 8, 2]).with_dtype(DType::F64).init(&device()).unwrap();
    let points = attach(mlp, &LoraConfig::new(2), 3).unwrap();
    // B away from 0, where A would have no gradient
    let mut away: AdapterWeights = read_adapter(&points).unwrap();
    let shift = |(i, j): (usize, usize)| ((i * 3 + j) % 5) as f64 / 5.0 - 0.4;
    away.values_mut().for_each(|w| w.indexed_iter_mut().for_each(|(at, v)| *v += shift(at)));
    let points = write_adapter(points, &away).unwrap();
    // 8, 8, 8, 8, 8, 4 and 32, 12
    check_epoch(&points, &blobs(44, 1), LIMITS, 1);
    check_epoch(&points, &blobs(44, 1), LIMITS, 4);
    // as many items as fit
    let fixture = Fixture::load("tiny_llama");
    check_epoch(&fixture.model(DType::F64), &fixture.train, BatchLimits { max_items: 64, max_tokens: 40 }, 1);
}

#[test]
fn neither_the_order_of_the_items_nor_the_number_of_workers_changes_a_bit_of_a_run() {
    let data = blobs(44, 1);
    let order: Vec<usize> = (0..44).map(|i| (i * 17 + 5) % 44).collect();
    let features = Array2::from_shape_fn((44, 2), |(i, j)| data.features[[order[i], j]]);
    let other = Points::new(features, order.iter().map(|i| data.labels[*i]).collect()).unwrap();
    let config = quick(3).with_accumulation(2);
    let run = |data: &Points, workers| {
        let control = Control::silent().with_workers(workers).unwrap();
        let outcome = Trainer::new(config.clone()).unwrap().fit(adapted(0.4), data, None, &control).unwrap();
        values(&outcome.model)
    };
    let whole = run(&data, 1);
    assert!(run(&data, 3) == whole && run(&other, 1) == whole);
    let fixture = Fixture::load("tiny_llama");
    let lora = LoraConfig::new(2).with_target_modules(["q_proj"]).with_dropout(0.3);
    let model = attach(fixture.bare(DType::F32), &lora, 0).unwrap();
    let mut backwards = fixture.train.clone();
    backwards.items.reverse();
    let [one, two] = [&fixture.train, &backwards].map(|data| values(&train(quick(2), model.clone(), data, None).model));
    assert_eq!(one, two);
}

#[test]
fn each_training_mode_moves_exactly_its_parameters() {
    let fixture = Fixture::load("tiny_llama");
    let targets = LoraConfig::new(2).with_target_modules(["q_proj"]);
    let model = attach(fixture.bare(DType::F32), &targets, 0).unwrap();
    let everything: BTreeSet<String> = values(&model).into_keys().collect();
    let matching = |parts: &[&str]| -> BTreeSet<String> {
        everything.iter().filter(|path| parts.iter().any(|part| path.contains(part))).cloned().collect()
    };
    let adapters = matching(&["adapter"]);
    assert_eq!((everything.len(), adapters.len()), (3 + 2 * 9 + 4, 4));
    let partial = |patterns: &[&str]| TrainingMode::Partial(patterns.iter().map(|p| p.to_string()).collect());
    let cases = [
        (TrainingMode::Lora, adapters),
        (TrainingMode::Full, everything.clone()),
        (partial(&[r"layers\.1\.mlp\.up_proj", "embedding"]), matching(&["blocks.1.gate_up.linears.1", "embedding"])),
        (partial(&[r"blocks\.0\..*norm"]), matching(&["blocks.0.norms"])),
    ];
    for (mode, expected) in cases {
        assert!(!expected.is_empty());
        let outcome = train(quick(3).with_mode(mode.clone()), model.clone(), &fixture.train, None);
        assert_eq!(changed(&model, &outcome.model), expected, "{mode:?}");
        assert!(nll(&outcome.model, &fixture.train) < nll(&model, &fixture.train), "{mode:?} did not learn");
    }
}

#[test]
fn dropout_acts_in_training_and_nowhere_else() {
    let data = blobs(40, 1);
    let run = |dropout| train(quick(5), adapted(dropout), &data, None).model;
    let (with, without) = (run(0.4), run(0.0));
    assert!(distance(&read_adapter(&with).unwrap(), &read_adapter(&without).unwrap()) > 1e-3);
    assert_eq!(read_adapter(&run(0.4)).unwrap(), read_adapter(&with).unwrap());
    assert!(nll(&with, &data) < nll(&adapted(0.4), &data));

    assert_eq!(logits(&with, &data), logits(&with, &data));
    let mut off = with.clone();
    off.linears_mut().into_iter().for_each(|linear| linear.adapter.as_mut().unwrap().dropout = 0.0);
    assert_eq!(logits(&off, &data), logits(&with, &data));
    let fit = |model: &Mlp| fit_curvature(model, &data, &CurvatureConfig::default(), &Control::silent()).unwrap();
    assert_eq!(fit(&off), fit(&with));
}

#[test]
fn the_log_has_one_line_a_step_and_one_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    let (data, validation) = (blobs(20, 1), blobs(10, 2));
    let config = quick(4).with_log(path.clone()).with_warmup_fraction(0.3);
    let TrainReport { steps, epochs, .. } = train(config, adapted(0.0), &data, Some(&validation)).report;
    let lines = log_lines(&path);
    let of_steps: Vec<_> = lines.iter().filter(|l| l.get("step").is_some()).collect();
    assert_eq!((steps, of_steps.len(), lines.len()), (12, 12, 12 + 4)); // 20 points in batches of 8, four times
    for (i, line) in of_steps.iter().enumerate() {
        assert_eq!((line["step"].as_u64(), line["epoch"].as_u64()), (Some(i as u64 + 1), Some(i as u64 / 3 + 1)));
        for field in ["mean_nll", "learning_rate", "gradient_norm", "tokens_per_second"] {
            assert!(line[field].as_f64().unwrap() > 0.0, "{field} of step {i}");
        }
    }
    // warm-up over 4 of 12 steps, the peak after it
    let rates: Vec<f64> = of_steps.iter().map(|l| l["learning_rate"].as_f64().unwrap()).collect();
    assert!(rates[0] < rates[3] && rates[4] == 0.01 && rates[11] < 0.002);
    let of_epochs: Vec<_> = lines.iter().filter(|l| l.get("step").is_none()).collect();
    for (line, record) in of_epochs.iter().zip(&epochs) {
        assert_eq!(line["epoch"].as_u64(), Some(record.epoch as u64));
        // serde_json reads a number within an ulp
        let (found, expected) = (line["validation_nll"].as_f64().unwrap(), record.validation_nll.unwrap());
        assert!((found / expected - 1.0).abs() <= f64::EPSILON, "{found} and {expected}");
    }
}

#[test]
fn snapshots_are_the_adapter_at_their_steps_and_the_last_step_ends_the_run() {
    let data = blobs(40, 1);
    let snapshots = Snapshots { count: 4, from: 0.5 };
    let config = quick(4).with_snapshots(snapshots).with_decay(Decay::Constant).with_warmup_fraction(0.0);
    let outcome = train(config.clone(), adapted(0.1), &data, None);
    // 5 steps an epoch
    assert_eq!(outcome.snapshots.iter().map(|s| s.step).collect::<Vec<_>>(), [13, 15, 18, 20]);
    assert_eq!(outcome.snapshots[3].weights, read_adapter(&outcome.model).unwrap());
    // a run that ends there, at the same constant rate, has the same weights
    for snapshot in &outcome.snapshots {
        let config = config.clone().with_max_steps(snapshot.step).with_snapshots(Snapshots::default());
        let short = train(config, adapted(0.1), &data, None);
        assert_eq!(short.report.steps, snapshot.step);
        assert_eq!(short.report.epochs.len(), snapshot.step.div_ceil(5));
        assert!(short.snapshots.is_empty());
        assert_eq!(read_adapter(&short.model).unwrap(), snapshot.weights);
    }
    let error = Trainer::new(quick(1).with_max_steps(0)).unwrap_err().to_string();
    assert!(error.contains("max_steps"), "{error}");
}

#[test]
fn without_shuffling_every_epoch_has_the_data_s_order() {
    let data = blobs(40, 1);
    let config = quick(2).with_shuffle(false);
    let run = |seed| train(config.clone().with_seed(seed), adapted(0.0), &data, None).model;
    // the seed of the shuffle has no part, and there is no dropout
    assert_eq!(values(&run(1)), values(&run(2)));
    let shuffled = train(config.clone().with_shuffle(true), adapted(0.0), &data, None).model;
    assert_ne!(values(&run(1)), values(&shuffled));
}

#[test]
fn of_classes_that_tie_the_first_is_the_answer_in_training_as_in_metrics() {
    // without biases every point at zero has equal logits, whatever the adapter
    let labels = vec![0, 1, 1, 0, 0, 1, 0];
    let tied = Points::new(Array2::zeros((7, 2)), labels.clone()).unwrap();
    let outcome = train(quick(1), adapted(0.0), &blobs(16, 1), Some(&tied));
    let probabilities = softmax(logits(&outcome.model, &tied).view());
    assert!(probabilities.iter().all(|p| *p == 0.5));
    let accuracy = accuracy(probabilities.view(), &labels).unwrap();
    assert_eq!(accuracy, 4.0 / 7.0);
    assert_eq!(outcome.report.epochs[0].validation_accuracy, Some(accuracy));
}
