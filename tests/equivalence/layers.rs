//! A gradient that is taken layer by layer is that of the whole graph, bit for bit, and holds one layer's activations.

use crate::support::points::{adapted, blobs};
use crate::support::{FIXTURES, Fixture, continuation_dataset};
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Classifier, Dataset, RewardModel, SequenceClassifier, TokenBatch};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Objective, Trainer, TrainerConfig, TrainingMode};
use burn::module::{ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

/// All parameters of a model.
#[derive(Default)]
struct Values(Vec<f64>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().without_autodiff().into_data().convert::<f64>();
        self.0.extend(data.try_into_vec::<f64>().unwrap());
    }
}

/// A model after a few steps.
fn trained<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D, config: TrainerConfig) -> Vec<f64> {
    let config =
        config.with_epochs(2).with_learning_rate(1e-2).with_limits(BatchLimits { max_items: 3, max_tokens: 500 });
    let outcome = Trainer::new(config).unwrap().fit(model.clone(), data, None, &Control::silent()).unwrap();
    let mut values = Values::default();
    outcome.model.visit(&mut values);
    values.0
}

fn check<M: Classifier<Input = TokenBatch>>(model: &M, data: &EncodedDataset, config: &TrainerConfig, of: &str) {
    let whole = trained(model, data, config.clone());
    let by_layers = trained(model, data, config.clone().with_gradient_checkpointing(true));
    assert!(whole == by_layers, "{of}");
    let mut start = Values::default();
    model.visit(&mut start);
    assert_ne!(whole, start.0, "{of}");
}

#[test]
fn training_layer_by_layer_ends_in_the_same_bits_in_every_mode() {
    let map = Objective::MaximumAPosteriori { precision: PriorPrecision::new(3.0).unwrap(), mean: PriorMean::Initial };
    let modes = [
        TrainingMode::Lora,
        TrainingMode::Full,
        // above the first layer, and the norms of all
        TrainingMode::Partial(vec!["layers.1.self_attn.v_proj".into()]),
        TrainingMode::Partial(vec!["norms".into()]),
        TrainingMode::Partial(vec!["embedding".into()]),
    ];
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let lora = LoraConfig::new(3).with_dropout(0.3).with_target_modules(["q_proj", "down_proj"]);
        for (data, form) in [(fixture.train.clone(), "class tokens"), (continuation_dataset(), "continuations")] {
            let model = attach(fixture.model_for(&data, DType::F32), &lora, 0).unwrap();
            for mode in &modes {
                let config = TrainerConfig::default().with_mode(mode.clone());
                check(&model, &data, &config, &format!("{name}, {form}, {mode:?}"));
            }
            let config = TrainerConfig::default().with_objective(map.clone()).with_accumulation(2);
            check(&model, &data, &config, &format!("{name}, {form}, prior"));
        }
    }
}

#[test]
fn heads_on_a_decoder_train_layer_by_layer_too() {
    let fixture = Fixture::load("tiny_llama");
    let lora = LoraConfig::new(3).with_dropout(0.3).with_target_modules(["q_proj", "down_proj"]);
    let lm = fixture.bare(DType::F32).lm;
    let config = TrainerConfig::default();
    let labels = EncodedDataset { answers: ResolvedAnswers::Labels, ..fixture.train.clone() };
    let model = SequenceClassifier::new(lm.clone(), &labels, 0).unwrap();
    check(&attach(model, &lora, 0).unwrap(), &labels, &config, "labels");

    let mut pairs = EncodedDataset { answers: ResolvedAnswers::Rewards, n_classes: 2, ..fixture.train.clone() };
    let row = |item: &EncodedItem, shift: u32| EncodedRow {
        ids: item.rows[0].ids.iter().map(|id| (id + shift) % 64).collect(),
        ..item.rows[0].clone()
    };
    for item in &mut pairs.items {
        (item.rows, item.n_choices, item.label) = (vec![row(item, 0), row(item, 5)], 2, Some(0));
    }
    let model = RewardModel::new(lm, &pairs, 0).unwrap();
    check(&attach(model, &lora, 0).unwrap(), &pairs, &config, "rewards");
}

#[test]
fn a_model_that_has_no_layers_of_its_own_is_refused_by_name() {
    let config = TrainerConfig::default().with_gradient_checkpointing(true);
    let error = Trainer::new(config).unwrap().fit(adapted(0.0), &blobs(8, 1), None, &Control::silent()).unwrap_err();
    assert!(error.to_string().contains("gradient checkpointing"), "{error}");
}
