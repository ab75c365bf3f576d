//! Settings that are wrong by themselves, whatever the data.

use super::{adapted_mlp, check, file_in_the_way, mlp, points, silent, trainer};
use crate::support::device;
use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::belief::LinkApprox;
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Result;
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::MlpConfig;
use bayes_lora::predict::Predictive;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{TrainerConfig, TrainingMode, set_trainable};

const NO_TOKEN: BatchLimits = BatchLimits { max_items: 1, max_tokens: 0 };

/// What init says of a whole configuration.
fn whole(change: fn(&mut BayesLoraConfig)) -> Result<()> {
    let mut config = BayesLoraConfig::new(LoraConfig::new(2));
    change(&mut config);
    config.init().map(|_| ())
}

#[test]
fn bad_settings_are_refused_by_name_and_numbers() {
    check(&[
        ("learning rate 0", || trainer(|c| c.learning_rate = 0.0).map(|_| ()), &["learning_rate", "positive", "got 0"]),
        ("learning rate NaN", || trainer(|c| c.learning_rate = f64::NAN).map(|_| ()), &["learning_rate", "NaN"]),
        ("no epochs", || trainer(|c| c.epochs = 0).map(|_| ()), &["epochs", "at least 1", "got 0"]),
        ("no accumulation", || trainer(|c| c.accumulation = 0).map(|_| ()), &["accumulation", "at least 1", "got 0"]),
        (
            "warm-up to the end",
            || trainer(|c| c.warmup_fraction = 1.0).map(|_| ()),
            &["warmup_fraction", "[0, 1)", "got 1"],
        ),
        (
            "a negative norm",
            || trainer(|c| c.max_grad_norm = Some(-1.0)).map(|_| ()),
            &["max_grad_norm", "positive", "got -1"],
        ),
        (
            "negative decay",
            || trainer(|c| c.weight_decay = -0.1).map(|_| ()),
            &["weight_decay", "at least 0", "got -0.1"],
        ),
        ("settings that init checks", || whole(|c| c.curvature.low_rank = 0), &["low_rank", "at least 1", "got 0"]),
        ("batches of no item", || whole(|c| c.limits.max_items = 0), &["max_items", "at least 1", "got 0"]),
        ("batches of no token", || whole(|c| c.limits.max_tokens = 0), &["max_tokens", "at least 1", "got 0"]),
        ("steps of no item", || trainer(|c| c.limits.max_items = 0).map(|_| ()), &["max_items", "got 0"]),
        ("passes of no token", || whole(|c| c.curvature.limits = Some(NO_TOKEN)), &["max_tokens", "got 0"]),
        (
            "no draw",
            || whole(|c| c.predictive = Predictive::Sampled { n_samples: 0, seed: 0 }),
            &["n_samples", "at least 1", "got 0"],
        ),
        (
            "no draw of the link",
            || whole(|c| c.predictive = Predictive::Linearized(LinkApprox::MonteCarlo { n_samples: 0, seed: 0 })),
            &["n_samples", "at least 1", "got 0"],
        ),
        (
            "no node of the link",
            || whole(|c| c.predictive = Predictive::Linearized(LinkApprox::GaussHermite { points: 0 })),
            &["points", "at least 1", "got 0"],
        ),
        (
            "a log in a folder that is none",
            || {
                let (_dir, path) = file_in_the_way();
                let config = |c: &mut TrainerConfig| c.log = Some(path.join("log.jsonl"));
                trainer(config)?.fit(adapted_mlp(2), &points(), None, &silent()).map(|_| ())
            },
            &["occupied", "log.jsonl"],
        ),
        (
            "a partial mode that matches nothing",
            || set_trainable(mlp(), &TrainingMode::Partial(vec!["layers.7".into()])).map(|_| ()),
            &["layers.7"],
        ),
        ("prior precision 0", || PriorPrecision::new(0.0).map(|_| ()), &["prior precision", "positive", "got 0"]),
        ("prior precision NaN", || PriorPrecision::new(f64::NAN).map(|_| ()), &["prior precision", "NaN"]),
        ("a network of one width", || MlpConfig::new([3]).init(&device()).map(|_| ()), &["widths", "two", "[3]"]),
        ("no workers", || Control::silent().with_workers(0).map(|_| ()), &["workers", "at least 1", "got 0"]),
    ]);
}
