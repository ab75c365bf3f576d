//! Makes runs whose answers come from a generator, for tests.

use super::cell::Run;
use super::cell::{
    Answered, Answers, CELL_FORMAT, Cell, ClassName, Cost, ExtraData, Outcome, Setting, ShiftedSplit, TrainingCost,
};
use crate::belief::{LinkApprox, LogitBelief};
use crate::draws::{Purpose, generator, place};
use crate::identity::Identity;
use ndarray::{Array1, Array2, Array3};
use rand::RngExt;
use std::collections::BTreeMap;

const N_CLASSES: usize = 3;
const N_HELD_OUT: usize = 61;
const N_TEST: usize = 90;
const N_FOREIGN: usize = 40;

/// A run of one task and seed. The method `map` answers with a point, every other with samples.
pub(super) fn run(task: &str, seed: u64, methods: &[&str]) -> Run {
    let mut rng = generator(seed, Purpose::Synthetic, place("labels"), 0);
    let mut labels = |n: usize| -> Vec<usize> { (0..n).map(|_| rng.random_range(0..N_CLASSES)).collect() };
    let setting = Setting {
        format_version: CELL_FORMAT,
        crate_version: "0.1.0".into(),
        protocol: "clean".into(),
        task: task.into(),
        model: "tiny".into(),
        seed,
        recipe: "rank 8, two epochs".into(),
        prompt_hash: "0123456789abcdef".into(),
        prompt_example: "Question: 1 < 2?\nAnswer:".into(),
        classes: ["A", "B", "C"].map(|name| ClassName { name: name.into(), token: Some(7) }).to_vec(),
        n_train: 300,
        training: TrainingCost { seconds: 12.5, items: 600, tokens: 9000 },
        held_out: labels(N_HELD_OUT),
        test: labels(N_TEST),
        shifted: vec![ShiftedSplit { name: "foreign".into(), n_items: N_FOREIGN, labels: Vec::new() }],
        values: None,
        identity: Identity::new().with("train", "00ff").with("recipe.lora.r", 8),
    };
    let cells = methods.iter().enumerate().map(|(index, method)| cell(&setting, method, index)).collect();
    Run { setting, cells }
}

fn cell(setting: &Setting, method: &str, index: usize) -> Cell {
    let mut rng = generator(setting.seed, Purpose::Synthetic, place("answers"), 0);
    let mut answers = |labels: &[Option<usize>]| {
        let scale = 2.5 - 0.3 * index as f64;
        let mean = Array2::from_shape_fn((labels.len(), N_CLASSES), |(item, class)| {
            let signal = if labels[item] == Some(class) { 1.0 } else { 0.0 };
            scale * (signal + rng.random_range(-0.9..0.9))
        });
        let belief = if method == "map" {
            LogitBelief::Point { logits: mean }
        } else {
            let logits = Array3::from_shape_fn((4, labels.len(), N_CLASSES), |(_, item, class)| {
                mean[[item, class]] + rng.random_range(-1.0..1.0)
            });
            LogitBelief::Samples { logits, log_weights: Array1::zeros(4) }
        };
        Answers::new(&belief, LinkApprox::default()).unwrap()
    };
    let known = |labels: &[usize]| labels.iter().copied().map(Some).collect::<Vec<_>>();
    let held_out = Some(answers(&known(&setting.held_out)));
    let test = answers(&known(&setting.test));
    let shifted = setting.shifted.iter().map(|split| answers(&vec![None; split.n_items])).collect();
    Cell {
        format_version: CELL_FORMAT,
        method: method.into(),
        description: format!("settings of {method}"),
        identity: None,
        extra_data: ExtraData::None,
        sharing: None,
        outcome: Outcome::Answered(Box::new(Answered {
            held_out,
            test,
            shifted,
            cost: Cost {
                fit_seconds: 3.25,
                fit_forwards: 300,
                fit_backwards: 300,
                predict_seconds: 0.5,
                forwards_per_item: 1 + index,
                backwards_per_item: 0,
                stored_bytes: 4096,
            },
            machine: None,
            found: BTreeMap::from([("prior precision".to_string(), 20.0)]),
            searches: Vec::new(),
        })),
    }
}
