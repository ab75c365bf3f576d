//! Checkpoints of a training run, taken up again.

use super::container::with_text;
use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::points::{adapted, blobs, quick};
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::error::Result;
use bayes_lora::progress::Control;
use bayes_lora::train::Trainer;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const NAME: &str = "step-00000002.safetensors";

/// Two epochs of two steps each, with everything that a checkpoint has a place for.
fn fit(dir: &Path, every: Duration) -> Result<()> {
    let config = quick(2).with_patience(2);
    let checkpoints = Checkpoints::new(dir).with_every(every).with_keep(9);
    let control = Control::silent().with_checkpoints(checkpoints).unwrap();
    Trainer::new(config).unwrap().fit(adapted(0.1), &blobs(16, 1), Some(&blobs(6, 2)), &control).map(drop)
}

#[test]
fn any_checkpoint_is_taken_up_or_refused() {
    let whole = scratch();
    fit(whole.path(), Duration::ZERO).unwrap();
    let corpus = [1, 2, 4].map(|step| {
        let path = whole.path().join(format!("train/step-{step:08}.safetensors"));
        vec![File::read(path, NAME, Kind::Tensors)]
    });
    let dir = scratch();
    let train = dir.path().join("train");
    fuzz("checkpoint", FIXED_BYTES, &corpus, |input| {
        // what the one before went on to
        if train.is_dir() {
            std::fs::remove_dir_all(&train).unwrap();
        }
        std::fs::create_dir(&train).unwrap();
        input.write(&train);
        fit(dir.path(), Duration::from_secs(3600))
    });
}

#[test]
fn a_checkpoint_that_contradicts_itself_is_refused_by_what_is_wrong() {
    type Damage = fn(&mut Value);
    let cases: [(usize, Damage, &[&str]); 5] = [
        (4, |header| header["best_epoch"] = json!(99), &["best_epoch", "1 to 2", "99"]),
        (4, |header| header["best_epoch"] = json!(0), &["best_epoch", "1 to 2", "0"]),
        (4, |header| header["epoch"] = json!(1), &["finished epochs", "1", "2"]),
        // the optimiser's state of one matrix would go to another, of another shape
        (
            1,
            |header| header["parameters"][3]["id"] = header["parameters"][2]["id"].clone(),
            &["training step 2", "step 1"],
        ),
        (
            1,
            |header| {
                let [a, b] = [0, 1].map(|at: usize| header["parameters"][at]["id"].clone());
                header["parameters"][0]["id"] = b;
                header["parameters"][1]["id"] = a;
            },
            &["training step 2", "step 1"],
        ),
    ];
    let whole = scratch();
    fit(whole.path(), Duration::ZERO).unwrap();
    for (step, damage, parts) in cases {
        let file = std::fs::read(whole.path().join(format!("train/step-{step:08}.safetensors"))).unwrap();
        let dir = scratch();
        std::fs::create_dir(dir.path().join("train")).unwrap();
        std::fs::write(dir.path().join("train").join(NAME), with_text(&file, damage)).unwrap();
        let error = fit(dir.path(), Duration::from_secs(3600)).unwrap_err().to_string();
        println!("{error}");
        for part in parts {
            assert!(error.contains(part), "«{error}» lacks «{part}»");
        }
    }
}
