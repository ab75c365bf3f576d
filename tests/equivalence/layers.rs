//! A gradient that is taken layer by layer is that of the whole graph, bit for bit, and holds one layer's activations.

use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::points::{adapted, blobs};
use crate::support::{FIXTURES, Fixture, continuation_dataset, device, heads, root};
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::data::{
    BatchLimits, EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers, TextDataset, TextExample,
};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, attach, load_peft};
use bayes_lora::memory::{Activations, GradientCheckpointing};
use bayes_lora::models::{
    Classifier, Dataset, LoadedEncoder, Pretrained, RewardModel, SequenceClassifier, TextModel, TokenBatch,
};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::predict_linearized;
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Objective, Trainer, TrainerConfig, TrainingMode, set_trainable};
use burn::module::{Module, ModuleVisitor, Param};
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
fn trained<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: TrainerConfig,
    checkpointing: GradientCheckpointing,
) -> Vec<f64> {
    let config =
        config.with_epochs(2).with_learning_rate(1e-2).with_limits(BatchLimits { max_items: 3, max_tokens: 500 });
    let control = Control::silent().with_gradient_checkpointing(checkpointing);
    let outcome = Trainer::new(config).unwrap().fit(model.clone(), data, None, &control).unwrap();
    let mut values = Values::default();
    outcome.model.visit(&mut values);
    values.0
}

fn check<M: Classifier<Input = TokenBatch>>(model: &M, data: &EncodedDataset, config: &TrainerConfig, of: &str) {
    let whole = trained(model, data, config.clone(), GradientCheckpointing::Off);
    let by_layers = trained(model, data, config.clone(), GradientCheckpointing::On);
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
fn encoders_train_layer_by_layer_too() {
    for (name, targets) in [("tiny_bert", ["query", "output.dense"]), ("tiny_modernbert", ["Wqkv", "mlp.Wo"])] {
        let lora = LoraConfig::new(3).with_dropout(0.3).with_target_modules(targets);
        let data = heads::data(name);
        let LoadedEncoder { encoder, head, .. } = heads::loaded(&heads::dir(name).join("base"), DType::F32);
        let model = SequenceClassifier::with_head(encoder, head.unwrap(), &data).unwrap();
        let model = attach(model, &lora, 0).unwrap();
        for mode in [
            TrainingMode::Lora,
            TrainingMode::Full,
            TrainingMode::Partial(vec![r"layers?\.1\.".into()]),
            TrainingMode::Partial(vec![r"words\.weight".into()]),
        ] {
            check(&model, &data, &TrainerConfig::default().with_mode(mode.clone()), &format!("{name}, {mode:?}"));
        }
    }
}

/// Curvature, Jacobians and what follows from them, by the whole graph and layer by layer.
fn check_curvature<M: Classifier, D: Dataset<Input = M::Input>>(
    (model, data): (&M, &D),
    configs: &[CurvatureConfig],
    of: &str,
) {
    let limits = BatchLimits { max_items: 6, max_tokens: 1000 };
    let with = |checkpointing| Control::silent().with_gradient_checkpointing(checkpointing);
    let [whole, by_layers] = [GradientCheckpointing::Off, GradientCheckpointing::On].map(with);
    let mut fitted = None;
    for config in configs {
        let config = config.clone().with_limits(limits);
        let fit = |control: &Control| fit_curvature(model, data, &config, control).unwrap();
        let expected = fit(&whole);
        assert!(fit(&by_layers) == expected, "{of}: {} {:?}", config.structure, config.fisher);
        fitted = Some(expected);
    }
    let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
    let laplace = Laplace::new(model, &fitted.unwrap(), &prior).unwrap();
    let predict =
        |control: &Control| predict_linearized(model, &laplace, data, LogitGauge::Raw, &limits, control).unwrap();
    assert!(predict(&by_layers) == predict(&whole), "{of}: predictions");
}

#[test]
fn curvature_and_jacobians_are_the_same_bits_layer_by_layer() {
    let fishers = [FisherKind::Exact, FisherKind::Sampled { n: 2, seed: 3 }, FisherKind::Empirical];
    let mut configs: Vec<_> = fishers.map(|fisher| CurvatureConfig::default().with_fisher(fisher)).into();
    configs.push(CurvatureConfig::new(CurvatureStructure::FunctionSpace));
    for name in FIXTURES {
        let mut fixture = Fixture::load(name);
        check_curvature((&fixture.model(DType::F32), &fixture.train), &configs, name);
        // every choice is a row of its own, and a graph gives its gradients
        fixture.train = continuation_dataset();
        check_curvature((&fixture.model(DType::F32), &fixture.train), &configs, &format!("{name}, continuations"));
    }
    for name in FAMILIES {
        // windows, norms behind, caps, layers that do not rotate; and an adapter on the head in some
        let fixture = FamilyFixture::load(name);
        let model = fixture.model(SPELLINGS[0], DType::F32);
        let one = [CurvatureConfig::new(CurvatureStructure::Diagonal).with_fisher(fishers[1])];
        check_curvature((&model, &fixture.data), &one, name);
    }
    for name in ["tiny_bert", "tiny_modernbert"] {
        let data = heads::data(name);
        let dir = heads::dir(name);
        let model = heads::adapted(&dir.join("base"), &dir.join("adapter"), &data, DType::F32);
        check_curvature((&model, &data), &configs, name);
    }
}

#[test]
fn texts_draw_their_own_targets_layer_by_layer_too() {
    let dir = root().join("tests/fixtures/tiny_llama");
    let lm = Pretrained::from_dir(dir.join("base")).unwrap().with_dtype(DType::F32).load(&device()).unwrap();
    let model = load_peft(TextModel::new(lm.clone()), dir.join("adapter")).unwrap().0;
    let lora = LoraConfig::new(3).with_target_modules(["q_proj", "lm_head"]);
    let headed = attach(TextModel::new(lm), &lora, 0).unwrap();
    let text = |i: usize| TextExample {
        id: i.to_string(),
        ids: (0..6 + i % 4).map(|t| (3 + (31 * i + 17 * t) % 90) as u32).collect(),
        scored: [1..3, 4..6].to_vec(),
    };
    let data = TextDataset::new("texts", (0..7).map(text).collect()).unwrap();
    let config = CurvatureConfig::default().with_likelihood(NextToken);
    let configs = [FisherKind::Empirical, FisherKind::Sampled { n: 3, seed: 1 }].map(|f| config.clone().with_fisher(f));
    check_curvature((&model, &data), &configs, "texts");
    // with B = 0 the head's A has no gradient; its B has
    check_curvature((&headed, &data), &configs, "texts, an adapted head");
}

#[test]
fn layers_are_computed_twice_where_the_activations_do_not_fit_and_only_there() {
    let fixture = Fixture::load("tiny_llama");
    let model = fixture.model(DType::F32);
    let all: Vec<usize> = (0..fixture.train.len()).collect();
    let largest = fixture.train.batch(&all, &device(), DType::F32).unwrap();
    let trained = set_trainable(model.clone(), &TrainingMode::Lora).unwrap().train();
    let Activations { whole, by_layers } = trained.activations(&largest, None).unwrap();
    assert!(by_layers < whole, "{by_layers} of {whole}");
    let config = TrainerConfig::default().with_epochs(1).with_limits(BatchLimits { max_items: 64, max_tokens: 10_000 });
    let run = |bytes: u64| {
        let control = Control::silent().with_memory_limit(bytes);
        let outcome = Trainer::new(config.clone()).unwrap().fit(model.clone(), &fixture.train, None, &control).unwrap();
        let mut values = Values::default();
        outcome.model.visit(&mut values);
        (values.0, control.remarks())
    };
    let (fits, remarks) = run(whole);
    assert!(remarks.is_empty(), "{remarks:?}");
    let (does_not, remarks) = run(whole - 1);
    assert!(remarks.len() == 1 && remarks[0].contains("training: gradient checkpointing is on"), "{remarks:?}");
    assert_eq!(fits, does_not);

    let control = Control::silent().with_memory_limit(1);
    let sampled = CurvatureConfig::default().with_fisher(FisherKind::Sampled { n: 1, seed: 0 });
    fit_curvature(&model, &fixture.train, &sampled, &control).unwrap();
    assert!(control.remarks().concat().contains("curvature"), "{:?}", control.remarks());
    // of a model that says nothing of its activations
    let (control, trainer) = (Control::silent().with_memory_limit(1), Trainer::new(config).unwrap());
    trainer.fit(adapted(0.0), &blobs(8, 1), None, &control).unwrap();
    assert!(control.remarks().is_empty());
}

#[test]
fn a_model_that_has_no_layers_of_its_own_is_refused_by_name() {
    let control = Control::silent().with_gradient_checkpointing(GradientCheckpointing::On);
    let trainer = Trainer::new(TrainerConfig::default()).unwrap();
    let error = trainer.fit(adapted(0.0), &blobs(8, 1), None, &control).unwrap_err();
    assert!(error.to_string().contains("gradient checkpointing"), "{error}");
}
