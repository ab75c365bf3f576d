//! Batches, order, padding, workers, frozen weights.

use super::{ROUNDING, TREATMENTS, check_jacobians, check_sums, difference, exact, question_cases, reversed};
use crate::support::{Padded, relative_error};
use bayes_lora::curvature::{Cotangents, FisherKind, TokenTreatment};
use bayes_lora::data::{EncodedDataset, PaddingSide};
use bayes_lora::predict::Predictive;
use bayes_lora::train::{TrainingMode, set_trainable};
use burn::module::Module;
use burn::tensor::DType;
use ndarray::{Axis, s};

#[test]
fn sums_do_not_depend_on_batch_size_order_padding_side_or_workers() {
    for case in question_cases("sums") {
        for treatment in TREATMENTS {
            for fisher in [FisherKind::Exact, FisherKind::Sampled { n: 3, seed: 5 }, FisherKind::Empirical] {
                check_sums(&case, &exact(treatment).with_fisher(fisher));
            }
        }
    }
}

#[test]
fn logits_and_jacobians_do_not_depend_on_the_padding_side_or_the_neighbours() {
    for case in question_cases("padding") {
        let (name, data) = (case.fixture.name, &case.fixture.test);
        let right = case.pass(Cotangents::Classes);
        let left = case.pass_over(&Padded(data, PaddingSide::Left), Cotangents::Classes);
        assert!(relative_error(&left.logits, &right.logits) < ROUNDING);
        let mut sites = left.sites.iter().zip(&right.sites);
        assert!(sites.all(|(l, r)| l.mask != r.mask), "the padding side made no difference to the layout");
        check_jacobians(&left, &right, |whole| whole, name);
        for (i, item) in data.items.iter().enumerate() {
            let alone = EncodedDataset { items: vec![item.clone()], ..data.clone() };
            let alone = case.pass_over(&alone, Cotangents::Classes);
            check_jacobians(&alone, &right, |whole| whole.slice_move(s![i..i + 1, .., .., ..]), name);
        }
    }
}

#[test]
fn predictions_do_not_depend_on_batch_size_order_or_workers() {
    let Some(case) = question_cases("predictions").next() else { return };
    let (data, posterior) = (&case.fixture.test, case.laplace(&case.fit(&exact(TokenTreatment::Expand)), 1.0));
    for how in [Predictive::Map, Predictive::Sampled { n_samples: 3, seed: 1 }, Predictive::default()] {
        let run = |data: &EncodedDataset, items, workers| case.predict(&posterior, data, how, items, workers);
        let reference = run(data, 5, 1);
        assert_eq!(run(data, 5, 3), reference, "workers changed bits");
        let mut backwards = run(&reversed(data), 2, 1).probabilities;
        backwards.invert_axis(Axis(0));
        for (what, found) in [("alone", run(data, 1, 1).probabilities), ("backwards", backwards)] {
            let error = relative_error(&found, &reference.probabilities);
            assert!(error < ROUNDING, "{how:?} {what}: {error:e}");
        }
    }
}

#[test]
fn it_does_not_matter_whether_the_adapter_or_the_base_is_frozen() {
    let config = exact(TokenTreatment::Expand);
    for mut case in question_cases("frozen") {
        case.model = case.model.no_grad();
        let (sums, jacobians) = (case.fit(&config), case.pass(Cotangents::Classes));
        for mode in [TrainingMode::Lora, TrainingMode::Full] {
            case.model = set_trainable(case.fixture.model(DType::F64), &mode).unwrap().train();
            assert!(difference(&case.fit(&config), &sums) < ROUNDING);
            check_jacobians(&case.pass(Cotangents::Classes), &jacobians, |whole| whole, case.fixture.name);
        }
    }
}
