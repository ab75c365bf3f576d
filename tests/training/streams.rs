//! Random streams end to end: what is drawn for one thing tells nothing about another, and depends on nothing beside its name.

use crate::support::points::blobs;
use crate::support::{Fixture, continuation_dataset, device, f64_or_skip, heads, relative_error};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset, MlpConfig, RewardModel, SequenceClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::{RowKeys, Tape};
use burn::tensor::DType;
use ndarray::{Array2, Axis};

#[test]
fn one_target_more_changes_no_other_start() {
    let bare = Fixture::load("tiny_llama").bare(DType::F32);
    let start = |modules: &[&str]| {
        let config = LoraConfig::new(2).with_target_modules(modules.iter().copied());
        read_adapter(&attach(bare.clone(), &config, 7).unwrap()).unwrap()
    };
    let (few, many) = (start(&["v_proj"]), start(&["q_proj", "v_proj", "down_proj"]));
    assert!(few.len() < many.len());
    assert!(few.iter().all(|(site, w)| many[site] == *w));
    // and two modules do not start alike
    let a: Vec<_> = many.values().filter(|w| w.iter().any(|v| *v != 0.0)).collect();
    assert!((1..a.len()).all(|k| a[k] != a[k - 1]));
}

#[test]
fn the_start_of_a_and_a_draw_from_the_posterior_are_uncorrelated() {
    let data = blobs(40, 1);
    let bare = MlpConfig::new([2, 512, 2]).init(&device()).unwrap();
    for seed in [0, 1, 42] {
        let model = attach(bare.clone(), &LoraConfig::new(8).with_target_modules(["layers.1"]), seed).unwrap();
        let config = CurvatureConfig::new(CurvatureStructure::Diagonal);
        let curvature = fit_curvature(&model, &data, &config, &Control::silent()).unwrap();
        let prior = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0).unwrap());
        let laplace = Laplace::new(&model, &curvature, &prior).unwrap();
        let map = read_adapter(&model).unwrap();
        let standard = |values: Array2<f64>| (&values - values.mean().unwrap()) / values.std(0.0);
        let a = map.iter().find(|(_, w)| w.ncols() == 512).unwrap();
        for index in [0, 1] {
            let draw = laplace.sample(seed, index);
            let correlation = (standard(a.1.clone()) * standard(&draw[a.0] - a.1)).mean().unwrap();
            println!("seed {seed}, draw {index}: {correlation:.4}");
            // of independent values: 1/√4096, five times
            assert!(correlation.abs() < 5.0 / 64.0, "seed {seed}, draw {index}: {correlation}");
        }
    }
}

/// Away from B = 0, where dropout would change nothing, and from rows of B that are alike, which move all logits of a head alike.
fn shifted<M: Classifier>(model: M) -> M {
    let mut weights: AdapterWeights = read_adapter(&model).unwrap();
    let values = weights.values_mut().flat_map(|w| w.indexed_iter_mut());
    values.for_each(|((row, _), value)| *value += 0.1 * (1 + row % 5) as f64);
    write_adapter(model, &weights).unwrap()
}

/// Logits of the items at `indices` in one batch with dropout.
fn dropped<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    indices: &[usize],
    (seed, epoch): (u64, u64),
) -> Array2<f64> {
    let input = data.batch(indices, &model.device(), model.dtype()).unwrap();
    let keys = RowKeys::new(indices.iter().map(|i| data.item_key(*i)).collect(), &input.token_mask());
    let keys = keys.with_read(input.read_tokens());
    let logits = model.valid().logits(&input, &mut Tape::dropout(seed, epoch, keys));
    let dims = logits.dims();
    let values = logits.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
    Array2::from_shape_vec(dims, values).unwrap()
}

fn check_masks<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) {
    let all: Vec<usize> = (0..data.n_items()).collect();
    let whole = dropped(model, data, &all, (3, 1));
    for size in [1, 3] {
        for batch in all.chunks(size) {
            let part = dropped(model, data, batch, (3, 1));
            // rows of another length in another batch: rounding in f64
            assert!(relative_error(&part, &whole.select(Axis(0), batch)) < 1e-10);
        }
    }
    for other in [(3, 0), (4, 1), (1 << 20, 0), (0, 1)] {
        assert!(relative_error(&dropped(model, data, &all, other), &whole) > 1e-3, "{other:?}");
    }
}

#[test]
fn an_item_has_the_same_dropout_mask_in_every_batch_and_another_in_every_epoch() {
    if !f64_or_skip("dropout masks") {
        return;
    }
    let lora = LoraConfig::new(2).with_dropout(0.4);
    let network = MlpConfig::new([2, 8, 2]).with_dtype(DType::F64).init(&device()).unwrap();
    check_masks(&shifted(attach(network, &lora, 1).unwrap()), &blobs(11, 1));
    // items of several lengths
    let fixture = Fixture::load("tiny_llama");
    let lora = lora.with_target_modules(["q_proj", "v_proj", "down_proj"]);
    let data: &EncodedDataset = &fixture.train;
    check_masks(&shifted(attach(fixture.bare(DType::F64), &lora, 1).unwrap()), data);
    // a head that reads any number of tokens of a row
    let data = continuation_dataset();
    for targets in [&["lm_head"][..], &["q_proj", "lm_head"]] {
        let lora = lora.clone().with_target_modules(targets.iter().copied());
        check_masks(&shifted(attach(fixture.model_for(&data, DType::F64), &lora, 1).unwrap()), &data);
    }
}

/// The texts of a fixture in twos, as answers of which the first was preferred.
fn pairs(data: &EncodedDataset) -> EncodedDataset {
    let mut rows: Vec<_> = data.items.iter().flat_map(|item| item.rows.clone()).collect();
    rows.extend([rows[3].clone(), rows[0].clone()]);
    let item = |(i, rows): (usize, &[EncodedRow])| EncodedItem {
        id: i.to_string(),
        rows: rows.to_vec(),
        label: Some(0),
        n_choices: rows.len(),
    };
    let items = rows.chunks(2).enumerate().map(item).collect();
    EncodedDataset { answers: ResolvedAnswers::Rewards, n_classes: 2, items, ..data.clone() }
}

#[test]
fn dropout_in_what_pools_a_row_is_the_items_too_of_one_row_or_of_several() {
    if !f64_or_skip("dropout masks of poolers") {
        return;
    }
    // attention, the feed-forward network, and the pooler
    let lora = LoraConfig::new(2).with_dropout(0.4).with_target_modules(["query", "dense"]);
    for name in ["tiny_bert", "tiny_modernbert"] {
        let lora = if name == "tiny_bert" { lora.clone() } else { lora.clone().with_target_modules(["Wqkv", "dense"]) };
        let (data, base) = (heads::data(name), heads::dir(name).join("base"));
        let encoder = || heads::loaded(&base, DType::F64).encoder;
        let labels = SequenceClassifier::new(encoder(), &data, 0).unwrap();
        check_masks(&shifted(attach(labels, &lora, 1).unwrap()), &data);
        // items of two rows
        let pairs = pairs(&data);
        let rewards = RewardModel::new(encoder(), &pairs, 0).unwrap();
        check_masks(&shifted(attach(rewards, &lora, 1).unwrap()), &pairs);
        // two answers of an item do not share their mask
        let mut twins = pairs.clone();
        twins.items[0].rows[1] = twins.items[0].rows[0].clone();
        let rewards = RewardModel::new(encoder(), &twins, 0).unwrap();
        let only_pooler = lora.clone().with_target_pattern(r".*(pooler|head)\.dense");
        let both = dropped(&shifted(attach(rewards, &only_pooler, 1).unwrap()), &twins, &[0], (3, 1));
        assert!((both[[0, 0]] - both[[0, 1]]).abs() > 1e-3, "{name}: {both}");
    }
}
