//! Pairs of texts of which one is preferred.

use super::{LIMITS, adapter, dataset, decoder, encoder, expected, expected_gradient, pairs, precisions, row};
use crate::support::{Padded, central_difference, device, f64_or_skip, logits, relative_error};
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset, EncodedItem, PaddingSide, ResolvedAnswers};
use bayes_lora::likelihood::Categorical;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, save_peft};
use bayes_lora::models::{Classifier, Encoder, LanguageModel, PromptClassifier, RewardModel, SequenceClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig, log_likelihood_gradient};
use bayes_lora::predict::{Predictive, predict, predict_rewards};
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use bayes_lora::{BayesLoraConfig, FittedBayesLora};
use burn::tensor::DType;
use ndarray::{Array2, Array3, Axis, s};

fn model<L: LanguageModel>(network: L, name: &str) -> RewardModel<L> {
    load_peft(RewardModel::new(network, &pairs(), 0).unwrap(), adapter(name)).unwrap().0
}

fn equals_torch<L: LanguageModel>(network: L, name: &str, tolerance: f64) {
    let (model, data) = (model(network, name), pairs());
    let rewards = expected(name, "rewards").unwrap();
    let error = relative_error(&logits(&model, &data).into_dyn(), &rewards);
    assert!(error < tolerance, "{name}: rewards {error:e}");
    let gradient = log_likelihood_gradient(&model, &data, &Categorical, &LIMITS, &Control::silent()).unwrap();
    assert_eq!(gradient.len(), 9); // A and B of two matrices in two layers, and the head
    for (site, gradient) in gradient {
        let error = relative_error(&-&gradient, &expected_gradient(name, "pair", &site));
        // rotary tables of f32
        assert!(error < 2.0 * tolerance, "{name}: gradient at {site} {error:e}");
        if site.matrix == LoraMatrix::Whole && model.head.has_bias() {
            // a common shift of the rewards
            assert!(gradient.column(gradient.ncols() - 1).iter().all(|bias| bias.abs() < tolerance));
        }
    }
}

#[test]
fn rewards_and_gradients_of_the_pairwise_loss_equal_those_of_transformers_and_peft() {
    for (dtype, tolerance) in precisions() {
        equals_torch(encoder(dtype), "bert", tolerance);
        equals_torch(decoder(dtype), "llama", tolerance);
    }
}

/// The same with each pair the other way round.
fn swapped(data: &EncodedDataset) -> EncodedDataset {
    let mut data = data.clone();
    for item in &mut data.items {
        item.rows.reverse();
        item.label = item.label.map(|label| 1 - label);
    }
    data
}

#[test]
fn neither_the_order_of_a_pair_nor_pads_nor_batches_change_anything() {
    let (dtype, tolerance) = *precisions().last().unwrap();
    let (model, data) = (model(encoder(dtype), "bert"), pairs());
    let here = logits(&model, &data);
    assert!(relative_error(&logits(&model, &swapped(&data)).slice(s![.., ..;-1]).to_owned(), &here) < tolerance);
    assert!(relative_error(&logits(&model, &Padded(&data, PaddingSide::Left)), &here) < tolerance);
    let control = Control::silent();
    let gradient =
        |data: &EncodedDataset, limits| log_likelihood_gradient(&model, data, &Categorical, &limits, &control).unwrap();
    let one = BatchLimits { max_items: 1, ..LIMITS };
    for (site, expected) in gradient(&data, LIMITS) {
        for other in [gradient(&swapped(&data), LIMITS), gradient(&data, one)] {
            assert!(relative_error(&other[&site], &expected) < tolerance, "{site}");
        }
    }
}

/// Pairs, and items of one text and of three.
fn of_several_sizes() -> EncodedDataset {
    let texts: Vec<_> = pairs().items.into_iter().flat_map(|item| item.rows).collect();
    let item = |id: &str, places: &[usize]| EncodedItem {
        id: id.into(),
        rows: places.iter().map(|&place| texts[place].clone()).collect(),
        label: None,
        n_choices: places.len(),
    };
    dataset(vec![item("a", &[4]), item("b", &[0, 3, 5]), item("c", &[6, 1])], ResolvedAnswers::Rewards, 3)
}

/// `J` by central differences `[n_items, n_texts, P]`, and the dense posterior covariance `(Σ JᵀΛJ + λI)⁻¹` of the pairs.
struct Dense {
    covariance: Array2<f64>,
    log_det_ratio: f64,
}

fn jacobians(model: &RewardModel<Encoder>, data: &EncodedDataset) -> Array3<f64> {
    let model = model.clone().with_choices(data.n_classes);
    let mut columns = Vec::new();
    for (site, weight) in read_adapter(&model).unwrap() {
        for (at, _) in weight.indexed_iter() {
            columns.push(central_difference(&model, data, &site, at.into()));
        }
    }
    let (n, c) = columns[0].dim();
    Array3::from_shape_fn((n, c, columns.len()), |(i, k, p)| columns[p][[i, k]])
}

fn dense(model: &RewardModel<Encoder>, lambda: f64) -> Dense {
    let data = pairs();
    let (rewards, jacobians) = (logits(model, &data), jacobians(model, &data));
    let n = jacobians.len_of(Axis(2));
    let mut h = Array2::<f64>::zeros((n, n));
    for (item, rewards) in rewards.outer_iter().enumerate() {
        let p = 1.0 / (1.0 + (rewards[1] - rewards[0]).exp());
        let difference = &jacobians.slice(s![item, 0, ..]) - &jacobians.slice(s![item, 1, ..]);
        let column: Array2<f64> = difference.insert_axis(Axis(1));
        h = h + p * (1.0 - p) * column.dot(&column.t());
    }
    let eigen = eigh(h.view()).unwrap();
    let values = eigen.values.mapv(|e| e.max(0.0));
    let covariance = (&eigen.vectors / &(&values + lambda)).dot(&eigen.vectors.t());
    Dense { covariance, log_det_ratio: values.iter().map(|e| (e / lambda).ln_1p()).sum() }
}

fn laplace(model: &RewardModel<Encoder>, structure: CurvatureStructure, lambda: f64) -> Laplace {
    let config = CurvatureConfig::default().with_structure(structure).with_limits(LIMITS);
    let curvature = fit_curvature(model, &pairs(), &config, &Control::silent()).unwrap();
    let prior = LaplaceConfig::default()
        .with_prior_mean(PriorMean::Zero)
        .with_prior_precision(PriorPrecision::new(lambda).unwrap());
    Laplace::new(model, &curvature, &prior).unwrap()
}

#[test]
fn curvature_and_joint_beliefs_of_rewards_are_those_of_a_dense_fisher_by_finite_differences() {
    if !f64_or_skip("the dense Fisher of pairs") {
        return;
    }
    let (model, lambda) = (model(encoder(DType::F64), "bert"), 0.8);
    let dense = dense(&model, lambda);
    let others = of_several_sizes();
    let (rewards, jacobians) = (logits(&model.clone().with_choices(3), &others), jacobians(&model, &others));
    for structure in [CurvatureStructure::Full, CurvatureStructure::FunctionSpace] {
        let laplace = laplace(&model, structure, lambda);
        let ratio = laplace.log_det_ratio(PriorPrecision::new(lambda).unwrap()).unwrap();
        // central differences of step 1e-5 in f64, as all that follows
        assert!((ratio / dense.log_det_ratio - 1.0).abs() < 1e-6, "{structure}: {ratio} {}", dense.log_det_ratio);
        let found = predict_rewards(&model, &laplace, &others, &LIMITS, &Control::silent()).unwrap();
        assert!(found.rewards()[[0, 1]] == f64::NEG_INFINITY && found.rewards()[[2, 2]] == f64::NEG_INFINITY);
        let (_, covariance) = found.belief.moments();
        for (item, texts) in [1, 3, 2].into_iter().enumerate() {
            let j = jacobians.slice(s![item, ..texts, ..]);
            let expected = j.dot(&dense.covariance).dot(&j.t());
            let own = covariance.slice(s![item, ..texts, ..texts]).to_owned();
            assert!(relative_error(&own, &expected) < 1e-6, "{structure}, item {item}");
            // the bias is as unknown as before: its 1/λ is in every variance, and in no deviation from the mean
            assert!(own.diag().iter().all(|variance| *variance > 1.0 / lambda));
            let mean = expected.mean_axis(Axis(0)).unwrap();
            for c in 0..texts {
                let variance = expected[[c, c]] - 2.0 * mean[c] + mean.mean().unwrap();
                let deviation = found.deviations_from_mean()[[item, c]];
                assert!((deviation * deviation - variance).abs() < 1e-6 * expected[[c, c]]);
            }
        }
        // of the third item's two texts, in closed form but for the integral
        let link = LinkApprox::GaussHermite { points: 64 };
        let pair = EncodedDataset { items: others.items[2..].to_vec(), n_classes: 2, ..others.clone() };
        let answer =
            predict(&model, &laplace, &pair, Predictive::Linearized(link), &LIMITS, &Control::silent()).unwrap();
        let by_pair = predict_rewards(&model, &laplace, &pair, &LIMITS, &Control::silent()).unwrap();
        let preference = by_pair.preference(0, 1).unwrap();
        assert!((answer.probabilities[[0, 0]] - preference.probability[0]).abs() < 1e-9); // the raw and the centred gauge
        assert!((answer.entropy.epistemic[0] - preference.epistemic[0]).abs() < 1e-9);
        assert!(preference.epistemic[0] > 0.0);
        let certain = 1.0 / (1.0 + (rewards[[2, 1]] - rewards[[2, 0]]).exp());
        assert!((preference.probability[0] - 0.5).abs() < (certain - 0.5).abs());
    }
}

#[test]
fn a_pair_of_one_text_twice_says_nothing_to_any_structure_but_kronecker_factors() {
    let model = model(encoder(DType::F32), "bert");
    let mut twins = pairs();
    twins.items.iter_mut().for_each(|item| item.rows[1] = item.rows[0].clone());
    let one = PriorPrecision::new(1.0).unwrap();
    for structure in CurvatureStructure::ALL {
        let config = CurvatureConfig::default().with_structure(structure).with_limits(LIMITS);
        let curvature = fit_curvature(&model, &twins, &config, &Control::silent()).unwrap();
        let prior = LaplaceConfig::default().with_prior_mean(PriorMean::Zero).with_prior_precision(one);
        let learned = Laplace::new(&model, &curvature, &prior).unwrap().log_det_ratio(one).unwrap();
        match structure {
            // each row counts for itself
            CurvatureStructure::Kronecker => assert!(learned > 0.1, "{learned}"),
            // the difference of the two rows' Jacobians is nothing; of f32
            _ => assert!(learned.abs() < 1e-8, "{structure}: {learned:e}"),
        }
    }
}

#[test]
fn every_structure_is_fitted_and_an_item_with_fewer_texts_has_the_same_rewards() {
    let model = model(encoder(DType::F32), "bert");
    let others = of_several_sizes();
    for structure in CurvatureStructure::ALL {
        let laplace = laplace(&model, structure, 2.0);
        let control = Control::silent();
        let found = predict_rewards(&model, &laplace, &others, &LIMITS, &control).unwrap();
        for (item, texts) in [1, 3, 2].into_iter().enumerate() {
            let alone =
                EncodedDataset { items: others.items[item..=item].to_vec(), n_classes: texts, ..others.clone() };
            let alone = predict_rewards(&model, &laplace, &alone, &LIMITS, &control).unwrap();
            for (of, all) in [(alone.rewards(), found.rewards()), (alone.deviations(), found.deviations())] {
                let expected = all.slice(s![item..=item, ..texts]).to_owned();
                assert!(relative_error(&of, &expected) < 1e-4, "{structure}"); // f32
            }
        }
    }
}

#[test]
fn a_reward_model_is_trained_saved_as_peft_has_it_and_loaded_with_its_posterior() {
    let data = pairs();
    let trainer = bayes_lora::train::TrainerConfig::default().with_epochs(20).with_learning_rate(1e-2);
    let lora = LoraConfig::new(2).with_target_modules(["query", "value"]);
    let bayes = BayesLoraConfig::new(lora).with_trainer(trainer).with_limits(LIMITS).init().unwrap();
    let fresh = |seed| RewardModel::new(encoder(DType::F32), &data, seed).unwrap();
    let fitted = bayes.fit(fresh(0), &data).unwrap();
    let report = fitted.report.as_ref().unwrap();
    let losses: Vec<f64> = report.epochs.iter().map(|epoch| epoch.train_nll).collect();
    // a fresh head prefers nothing: ln 2 a pair
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 0.1 && losses[19] < 0.5, "{losses:?}");
    let out = tempfile::tempdir().unwrap();
    fitted.save(out.path(), "tiny_bert").unwrap();
    let again = FittedBayesLora::load(fresh(5), out.path(), LIMITS).unwrap();
    let answer = |fitted: &FittedBayesLora<RewardModel<Encoder>>| {
        predict_rewards(&fitted.model, &fitted.laplace, &of_several_sizes(), &LIMITS, &Control::silent()).unwrap()
    };
    assert_eq!(answer(&again), answer(&fitted));
    let config = std::fs::read_to_string(out.path().join("adapter_config.json")).unwrap();
    assert!(config.contains("SEQ_CLS") && config.contains("classifier"), "{config}");

    // PEFT's own adapter, written again
    for name in ["bert", "llama"] {
        let config = |targets: [&str; 2]| LoraConfig::new(2).with_alpha(4.0).with_target_modules(targets);
        let out = tempfile::tempdir().unwrap();
        let (mut before, mut after) = (0, 0);
        if name == "bert" {
            let model = model(encoder(DType::F32), name);
            save_peft(&model, &config(["query", "value"]), "tiny_bert", out.path()).unwrap();
            let again = load_peft(RewardModel::new(encoder(DType::F32), &data, 3).unwrap(), out.path()).unwrap().0;
            assert_eq!(logits(&again, &data), logits(&model, &data));
        } else {
            let model = model(decoder(DType::F32), name);
            save_peft(&model, &config(["q_proj", "v_proj"]), "tiny_llama", out.path()).unwrap();
            let again = load_peft(RewardModel::new(decoder(DType::F32), &data, 3).unwrap(), out.path()).unwrap().0;
            assert_eq!(logits(&again, &data), logits(&model, &data));
        }
        for (dir, count) in [(adapter(name), &mut before), (out.path().to_path_buf(), &mut after)] {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            *count = safetensors::SafeTensors::deserialize(&bytes).unwrap().names().len();
        }
        assert_eq!(after, before, "{name}");
    }
}

#[test]
fn models_and_data_of_different_forms_are_refused_in_words() {
    let (data, base) = (pairs(), || encoder(DType::F32));
    let refused = |error: String, words: [&str; 2]| assert!(words.iter().all(|word| error.contains(word)), "{error}");
    let labels = EncodedDataset { answers: ResolvedAnswers::Labels, ..data.clone() };
    refused(RewardModel::new(base(), &labels, 0).unwrap_err().to_string(), ["RewardModel", "Rewards"]);
    refused(SequenceClassifier::new(base(), &data, 0).unwrap_err().to_string(), ["RewardModel", "rewards"]);
    refused(PromptClassifier::new(decoder(DType::F32), &data).unwrap_err().to_string(), ["RewardModel", "rewards"]);
    let two = SequenceClassifier::new(base(), &labels, 0).unwrap().head;
    refused(RewardModel::with_head(base(), two, &data).unwrap_err().to_string(), ["expected 1", "found 2"]);
    let model = RewardModel::new(base(), &data, 0).unwrap();
    let predicted = |data: &EncodedDataset| {
        bayes_lora::predict::predict_map(&model, data, &LIMITS, &Control::silent()).unwrap_err().to_string()
    };
    refused(predicted(&of_several_sizes()), ["expected 2", "found 3"]);
    let mut one_row = labels;
    one_row.items.iter_mut().for_each(|item| item.rows.truncate(1));
    refused(predicted(&one_row), ["one number for each text", "another form"]);
    let mut long = data.clone();
    long.items[2].rows[1] = row(vec![5; 17]);
    refused(predicted(&long), ["17", "16"]);
    let site = Site { module: "classifier".into(), matrix: LoraMatrix::Whole };
    assert!(
        read_adapter(&attach(model.clone(), &LoraConfig::new(2).with_target_modules(["query"]), 0).unwrap())
            .unwrap()
            .contains_key(&site)
    );
    assert_eq!((model.n_classes(), model.device()), (2, device()));
}
