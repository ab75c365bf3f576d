//! What holds for every belief of every method.

use super::{Case, item_nlls, link, llama, mean, methods, points};
use crate::support::points::LIMITS;
use crate::support::{f64_or_skip, relative_error};
use bayes_lora::belief::{LogitBelief, softmax};
use bayes_lora::data::BatchLimits;
use bayes_lora::methods::{Belief, FitContext, Fitted};
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::Axis;
use std::collections::BTreeSet;

const BATCHES: BatchLimits = BatchLimits { max_items: 4, max_tokens: 1000 };

fn check<M: Classifier + 'static, D: Dataset<Input = M::Input> + 'static>(case: &Case<M, D>) {
    let (control, three) = (Control::silent(), Control::silent().with_workers(3).unwrap());
    let mut names = BTreeSet::new();
    for method in methods::<M, D>() {
        let what = format!("{}: {}", case.name, method.name());
        assert!(names.insert(method.name()), "{what}: two methods of one name");
        method.requirements().check(&method.name(), &case.base, &case.recipe, Some(&case.test)).unwrap();
        let fitted = method.fit(&case.context(5, &control)).unwrap();
        let belief: &dyn Belief<M, D> = &*fitted.belief;
        let over = |data: &D, max_items| {
            let limits = BatchLimits { max_items, ..BATCHES };
            belief.believe(&case.map, data, &limits, &control).unwrap()
        };
        let whole = over(&case.test, 4);
        let p = whole.probabilities(link()).unwrap();
        assert_eq!(p.dim(), (case.test.n_items(), case.map.n_classes()), "{what}");
        assert!(p.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12), "{what}: sums differ from 1");
        assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{what}");

        let entropy = whole.decompose(link()).unwrap();
        // from its definition, for the field is cut at 0
        let information = &entropy.total - &entropy.expected;
        assert!(information.iter().all(|i| *i > -1e-12), "{what}: negative mutual information, {information}");
        // labels of noise ask for answers so soft that the weights no longer matter
        let is_uniform = p.iter().all(|p| (p * case.map.n_classes() as f64 - 1.0).abs() < 1e-5);
        let random = !matches!(whole, LogitBelief::Point { .. }) && !is_uniform;
        assert_eq!(information.iter().any(|i| *i > 1e-12), random, "{what}: {information}");

        for max_items in [1, 64] {
            let error = relative_error(&over(&case.test, max_items).probabilities(link()).unwrap(), &p);
            assert!(error < case.rounding, "{what}: batches of {max_items} differ by {error:e}");
        }
        let mut backwards = over(&case.reversed, 3).probabilities(link()).unwrap();
        backwards.invert_axis(Axis(0));
        let error = relative_error(&backwards, &p);
        assert!(error < case.rounding, "{what}: another order differs by {error:e}");

        assert_eq!(over(&case.test, 4), whole, "{what}: the same belief gave other bits");
        let by_three = belief.believe(&case.map, &case.test, &BATCHES, &three).unwrap();
        assert_eq!(by_three, whole, "{what}: three workers gave other bits");
        let fit = |seed| method.fit(&case.context(seed, &control)).unwrap();
        let of = |belief: &dyn Belief<M, D>| belief.believe(&case.map, &case.test, &BATCHES, &control).unwrap();
        let context = || case.context(5, &control);
        let again = [("the same seed", context()), ("three workers", FitContext { control: &three, ..context() })];
        for (how, context) in again {
            let again = method.fit(&context).unwrap();
            assert_eq!(of(&*again.belief), whole, "{what}: fitted with {how} it gave other bits");
            assert_eq!(again.found, fitted.found, "{what}: fitted with {how}");
        }
        // the size of batches that train is part of the recipe, that of others is not
        let limits = BatchLimits { max_items: 3, ..LIMITS };
        let sums = [
            ("reordered data", FitContext { train: &case.reversed_train, ..context() }),
            ("other batches", FitContext { limits, ..context() }),
        ];
        for (how, context) in sums {
            let other = of(&*method.fit(&context).unwrap().belief);
            let error = relative_error(&other.probabilities(link()).unwrap(), &p);
            println!("{what}, {how}: {}", if other == whole { "the same bits".into() } else { format!("{error:e}") });
            assert!(error < case.rounding, "{what}: fitted with {how} it differs by {error:e}");
        }
        assert!(fitted.found.values().all(|v| v.is_finite()), "{what}: {:?}", fitted.found);
        let is_gaussian = matches!(whole, LogitBelief::Gaussian { .. });
        let fixed = ["maximum likelihood", "maximum likelihood, leave-one-out temperature", "checkpoint ensemble"];
        let fixed = is_gaussian || fixed.contains(&method.name().as_str());
        assert_eq!(of(&*fit(6).belief) == whole, fixed, "{what}: another seed");

        let dir = tempfile::tempdir().unwrap();
        fitted.save(dir.path(), &case.map).unwrap();
        let loaded = Fitted::<M, D>::load(dir.path(), &case.map).unwrap();
        assert_eq!(of(&*loaded.belief), whole, "{what}: saved and loaded, it gave other bits");
        assert_eq!((loaded.spent, &loaded.found), (fitted.spent, &fitted.found), "{what}");
        let needs = belief.needs(&case.test, case.map.n_classes());
        let of_loaded = loaded.belief.needs(&case.test, case.map.n_classes());
        assert_eq!((of_loaded, loaded.belief.link()), (needs, belief.link()), "{what}");

        if let LogitBelief::Samples { logits, log_weights } = &whole {
            assert_eq!(logits.len_of(Axis(0)), needs.forwards, "{what}");
            assert!(log_weights.iter().all(|w| *w == log_weights[0]), "{what}: members of several weights");
            let of_member = |member| item_nlls(&softmax(member), &case.test);
            let members: Vec<Vec<f64>> = logits.outer_iter().map(of_member).collect();
            for (item, averaged) in item_nlls(&p, &case.test).into_iter().enumerate() {
                // Jensen: −log is convex
                let of_members = mean(&members.iter().map(|losses| losses[item]).collect::<Vec<_>>());
                assert!(averaged <= of_members + 1e-12, "{what}, item {item}: {averaged} over {of_members}");
            }
        } else {
            // an item that is repeated for its Jacobians goes forward as often as backward
            assert_eq!(needs.forwards, needs.backwards.max(1), "{what}");
        }
        println!("{what}: NLL {:.4}, found {:?}", mean(&item_nlls(&p, &case.test)), fitted.found);
    }
}

#[test]
fn of_points_in_f64() {
    if f64_or_skip("properties of beliefs in f64") {
        check(&points(DType::F64));
    }
}

#[test]
fn of_points_in_f32() {
    check(&points(DType::F32));
}

#[test]
fn of_a_language_model() {
    if f64_or_skip("properties of beliefs of a language model") {
        check(&llama());
    }
}
