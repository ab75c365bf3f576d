//! One idiom of configuration: a setter for every field, shared settings given once, and no order of the calls that matters.

use crate::support::points::{LIMITS, blobs, mlp, quick, train};
use crate::support::{device, f64_or_skip};
use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, RandomProjection, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Error;
use bayes_lora::likelihood::{Categorical, Gaussian, SharedLikelihood};
use bayes_lora::lora::{LoraConfig, attach, read_adapter};
use bayes_lora::methods::Recipe;
use bayes_lora::models::MlpConfig;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::Predictive;
use bayes_lora::prior::{PriorGrouping, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::DType;

type Setter = Box<dyn Fn(BayesLoraConfig) -> BayesLoraConfig>;

const SMALL: BatchLimits = BatchLimits { max_items: 3, max_tokens: 100 };

/// All setters of a whole, with these parts.
fn setters(trainer: TrainerConfig, curvature: CurvatureConfig, likelihood: SharedLikelihood) -> [Setter; 8] {
    [
        Box::new(|c| c.with_lora(LoraConfig::new(2).with_dropout(0.2))),
        Box::new(move |c| c.with_trainer(trainer.clone())),
        Box::new(move |c| c.with_curvature(curvature.clone())),
        Box::new(|c| c.with_laplace(LaplaceConfig::default().with_prior_grouping(PriorGrouping::PerMatrix))),
        Box::new(|c| c.with_predictive(Predictive::Sampled { n_samples: 5, seed: 1 })),
        Box::new(move |c| c.with_likelihood(likelihood.clone())),
        Box::new(|c| c.with_limits(SMALL)),
        Box::new(|c| c.with_seed(5)),
    ]
}

fn apply(setters: &[Setter], order: &[usize]) -> BayesLoraConfig {
    order.iter().fold(BayesLoraConfig::new(LoraConfig::new(1)), |config, &k| setters[k](config))
}

/// Calls `f` with every order of the first `n` of `order`.
fn orders(order: &mut [usize], n: usize, f: &mut impl FnMut(&[usize])) {
    if n <= 1 {
        return f(order);
    }
    for k in 0..n {
        order.swap(k, n - 1);
        orders(order, n - 1, f);
        order.swap(k, n - 1);
    }
}

#[test]
fn no_order_of_the_setters_changes_what_they_resolve_to() {
    let gaussian = || SharedLikelihood::from(Gaussian { noise_variance: 0.5 });
    let silent = (quick(2), CurvatureConfig::new(CurvatureStructure::Diagonal));
    let spoken = (
        quick(2).with_seed(9).with_likelihood(Categorical),
        CurvatureConfig::default().with_limits(LIMITS).with_likelihood(Categorical),
    );
    for (trainer, curvature) in [silent, spoken] {
        let setters = setters(trainer, curvature, gaussian());
        let mut order: Vec<usize> = (0..setters.len()).collect();
        let first = apply(&setters, &order).resolved();
        let mut count = 0;
        orders(&mut order, setters.len(), &mut |order| {
            assert_eq!(apply(&setters, order).resolved(), first, "{order:?}");
            count += 1;
        });
        assert_eq!(count, 40_320);
    }
}

#[test]
fn no_order_of_the_setters_changes_a_bit_of_the_fit() {
    // a structure that the grouping by matrix fits, and dropout, so that the seed has a part in the training
    let setters = setters(quick(2), CurvatureConfig::new(CurvatureStructure::Diagonal), Categorical.into());
    let data = blobs(20, 1);
    let fit = |order: &[usize]| {
        let fitted = apply(&setters, order).init().unwrap().fit(mlp(), &data).unwrap();
        let answer = fitted.predict_calibrated(&data).unwrap();
        (read_adapter(&fitted.model).unwrap(), fitted.laplace.prior_precisions().clone(), fitted.limits, answer)
    };
    let n = setters.len();
    let first = fit(&(0..n).collect::<Vec<_>>());
    // every setter is the last one once, after the others forwards and backwards
    for last in 0..n {
        let mut order: Vec<usize> = (0..n).filter(|&k| k != last).chain([last]).collect();
        assert_eq!(fit(&order), first, "{order:?}");
        order[..n - 1].reverse();
        assert_eq!(fit(&order), first, "{order:?}");
    }
    let other = apply(&setters, &(0..n).collect::<Vec<_>>()).with_seed(6).init().unwrap().fit(mlp(), &data).unwrap();
    assert_ne!(read_adapter(&other.model).unwrap(), first.0);
}

#[test]
fn parts_take_seed_likelihood_and_batches_of_the_whole_unless_they_set_their_own() {
    let gaussian = SharedLikelihood::from(Gaussian { noise_variance: 0.5 });
    let whole = || {
        let config = BayesLoraConfig::new(LoraConfig::new(1));
        config.with_seed(5).with_limits(SMALL).with_likelihood(gaussian.clone())
    };
    let BayesLoraConfig { trainer, curvature, .. } = whole().resolved();
    assert_eq!((trainer.seed_or_default(), curvature.limits_or_default()), (5, SMALL));
    assert_eq!(
        (trainer.likelihood_or_default(), curvature.likelihood_or_default()),
        (gaussian.clone(), gaussian.clone())
    );
    // the size of a step's batches changes the result, and is the trainer's alone
    assert_eq!(trainer.limits, TrainerConfig::default().limits);

    let trainer = TrainerConfig::default().with_seed(0).with_likelihood(Categorical);
    let curvature = CurvatureConfig::default().with_limits(LIMITS);
    let own = whole().with_trainer(trainer.clone()).with_curvature(curvature).resolved();
    assert_eq!((&own.trainer, own.curvature.limits_or_default()), (&trainer, LIMITS));
    assert_eq!(own.curvature.likelihood_or_default(), gaussian);
    // a posterior around the optimum of another likelihood is refused
    let error = own.init().unwrap().fit(mlp(), &blobs(8, 1)).err().unwrap().into_reason();
    assert!(matches!(&error, Error::Incompatible(text) if text.contains("with_likelihood")), "{error}");
}

#[test]
fn what_is_unset_and_its_default_set_by_hand_are_recognised_as_one() {
    let trainer = |c: TrainerConfig| c.identity();
    let usual = trainer(TrainerConfig::default());
    assert_eq!(trainer(TrainerConfig::default().with_seed(0).with_likelihood(Categorical)), usual);
    assert!(usual.difference(&trainer(TrainerConfig::default().with_seed(7))).unwrap().contains("seed"));
    let gaussian = || Gaussian { noise_variance: 0.5 };
    assert!(usual.difference(&trainer(TrainerConfig::default().with_likelihood(gaussian()))).is_some());
    let curvature = CurvatureConfig::default().identity();
    assert_eq!(CurvatureConfig::default().with_likelihood(Categorical).identity(), curvature);
    assert!(curvature.difference(&CurvatureConfig::default().with_likelihood(gaussian()).identity()).is_some());
    // the seed of an adapter is the context's, and no part of its recipe
    let recipe = |seed| Recipe::new(LoraConfig::new(1)).with_trainer(TrainerConfig::default().with_seed(seed));
    assert_eq!(recipe(7).identity().unwrap(), Recipe::new(LoraConfig::new(1)).identity().unwrap());
}

#[test]
fn the_size_of_batches_is_a_setting_exactly_where_sums_depend_on_it() {
    if !f64_or_skip("sizes of batches") {
        return;
    }
    let data = blobs(44, 1);
    let model =
        attach(MlpConfig::new([2, 8, 2]).with_dtype(DType::F64).init(&device()).unwrap(), &LoraConfig::new(2), 3);
    // B is zero at the start, and gives A no gradient
    let model = train(quick(2), model.unwrap(), &data, None).model;
    let trace = |config: CurvatureConfig| {
        let curvature = fit_curvature(&model, &data, &config, &Control::silent()).unwrap();
        let laplace = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0).unwrap());
        let laplace = Laplace::new(&model, &curvature, &laplace).unwrap();
        laplace.log_det_ratio(laplace.prior_precisions()).unwrap()
    };
    let (large, projection) = (BatchLimits { max_items: 44, max_tokens: 1000 }, RandomProjection { width: 6, seed: 0 });
    for structure in CurvatureStructure::ALL {
        let config = CurvatureConfig::new(structure).with_dense_limit(1).with_low_rank(1);
        let sums = [SMALL, large].map(|limits| trace(config.clone().with_limits(limits)));
        let difference = (sums[0] / sums[1] - 1.0).abs();
        let is_setting = config.identity() != config.clone().with_limits(SMALL).identity();
        // sums of 44 items in another order: an ulp of 1e-16 each; one direction of eight is kept, of what batches hold
        let depends = difference > 1e-10;
        println!("{structure}: {difference:e}");
        assert_eq!(is_setting, depends, "{structure}: {difference:e}");
    }
    let sketched = CurvatureConfig::new(CurvatureStructure::FunctionSpace).with_projection(projection);
    assert_eq!(sketched.identity(), sketched.clone().with_limits(SMALL).identity());
    assert!((trace(sketched.clone().with_limits(SMALL)) / trace(sketched.with_limits(large)) - 1.0).abs() < 1e-10);
    // shards differ in it as in the order of their vectors
    let shard = |n, seed, limits| {
        let config = CurvatureConfig::default().with_dense_limit(1).with_low_rank(1).with_limits(limits);
        let mut shard = fit_curvature(&model, &blobs(n, seed), &config, &Control::silent()).unwrap();
        shard.item_keys.clear();
        shard
    };
    assert_eq!(shard(20, 1, SMALL).merge(shard(24, 2, large)).unwrap().n_data, 44);
}

#[test]
fn every_field_of_every_configuration_has_a_setter() {
    let sources = [
        include_str!("../../src/bayes_lora.rs"),
        include_str!("../../src/compare/options.rs"),
        include_str!("../../src/curvature/config.rs"),
        include_str!("../../src/hub/options.rs"),
        include_str!("../../src/lora/config.rs"),
        include_str!("../../src/methods/anchored_ensemble.rs"),
        include_str!("../../src/methods/blob_settings.rs"),
        include_str!("../../src/methods/checkpoint_ensemble.rs"),
        include_str!("../../src/methods/deep_ensemble.rs"),
        include_str!("../../src/methods/head_laplace.rs"),
        include_str!("../../src/methods/ivon.rs"),
        include_str!("../../src/methods/laplace.rs"),
        include_str!("../../src/methods/mc_dropout.rs"),
        include_str!("../../src/methods/method.rs"),
        include_str!("../../src/methods/monte_clora_settings.rs"),
        include_str!("../../src/methods/swag.rs"),
        include_str!("../../src/methods/tfb.rs"),
        include_str!("../../src/metrics/scores.rs"),
        include_str!("../../src/models/mlp.rs"),
        include_str!("../../src/posterior/config.rs"),
        include_str!("../../src/train/config.rs"),
    ];
    let mut fields = 0;
    for source in sources {
        let (_, rest) = source.split_once("#[non_exhaustive]\npub struct ").expect("a configuration");
        let (body, _) = rest.split_once("\n}\n").unwrap();
        let (name, body) = body.split_once(" {\n").unwrap();
        for field in body.lines().filter_map(|line| line.strip_prefix("    pub ")?.split(':').next()) {
            fields += 1;
            let has = ["(", "<"].iter().any(|end| source.contains(&format!("with_{field}{end}")));
            assert!(has, "{name} has no `with_{field}`");
        }
        assert!(source.contains("pub fn validate(&self) -> Result<()>"), "{name} has no `validate`");
    }
    assert!(fields > 115, "{fields}"); // all were read
}
