//! Adapters, from a configuration and from files.

use super::{
    NAME, Tensors, adapted, adapted_mlp, check, file_in_the_way, mlp, points, silent, spoilt, train_data, trainer,
    with_field, with_tensors, zeros,
};
use crate::support::Fixture;
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::error::Result;
use bayes_lora::lora::{LoraConfig, attach, load_peft, read_adapter, save_peft, write_adapter};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::PriorMean;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;
use ndarray::Array2;
use serde_json::{Value, json};
use std::path::Path;

/// The model of the fixture without adapter.
fn bare() -> PromptClassifier {
    Fixture::load(NAME).bare(DType::F32)
}

fn load_adapter(spoil: impl FnOnce(&Path)) -> Result<()> {
    let dir = spoilt("adapter", spoil);
    load_peft(bare(), dir.path()).map(|_| ())
}

fn with_config(field: &str, value: Value) -> impl FnOnce(&Path) {
    with_field("adapter_config.json", field, value)
}

fn with_weights(edit: impl FnOnce(&mut Tensors)) -> impl FnOnce(&Path) {
    with_tensors("adapter_model.safetensors", edit)
}

#[test]
fn a_bad_adapter_is_refused_by_name_and_numbers() {
    const B: &str = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    check(&[
        ("rank 0", || attach(mlp(), &LoraConfig::new(0), 0).map(|_| ()), &["rank", "at least 1", "got 0"]),
        (
            "dropout 1",
            || attach(mlp(), &LoraConfig::new(2).with_dropout(1.0), 0).map(|_| ()),
            &["dropout", "[0, 1)", "got 1"],
        ),
        (
            "alpha NaN",
            || attach(mlp(), &LoraConfig::new(2).with_alpha(f64::NAN), 0).map(|_| ()),
            &["alpha", "positive", "NaN"],
        ),
        (
            "a target that matches nothing",
            || attach(bare(), &LoraConfig::new(2).with_target_modules(["q_proj", "query"]), 0).map(|_| ()),
            &["`query`", "15 linear modules", "model.layers.0.self_attn.q_proj"],
        ),
        (
            "no targets",
            || attach(mlp(), &LoraConfig::new(2).with_target_modules([""; 0]), 0).map(|_| ()),
            &["target_modules", "empty"],
        ),
        (
            "a pattern that is none",
            || attach(mlp(), &LoraConfig::new(2).with_target_pattern("("), 0).map(|_| ()),
            &["target_modules", "regular expression"],
        ),
        (
            "an adapter on an adapter",
            || attach(adapted_mlp(2), &LoraConfig::new(2), 0).map(|_| ()),
            &["layers.0", "already"],
        ),
        ("rank 0 in the file", || load_adapter(with_config("r", json!(0))), &["rank", "at least 1", "got 0"]),
        ("another rank in the file", || load_adapter(with_config("r", json!(3))), &["lora_A", "[3, 32]", "[4, 32]"]),
        (
            "no adapter weights",
            || load_adapter(|d| std::fs::remove_file(d.join("adapter_model.safetensors")).unwrap()),
            &["adapter_model.safetensors"],
        ),
        ("a missing adapter tensor", || load_adapter(with_weights(|t| drop(t.remove(B).unwrap()))), &[B, "missing"]),
        (
            "an adapter tensor of another shape",
            || load_adapter(with_weights(|t| drop(t.insert(B.into(), zeros(&[16, 5]))))),
            &[B, "[16, 4]", "[16, 5]"],
        ),
        (
            "an unexpected adapter tensor",
            || load_adapter(with_weights(|t| drop(t.insert("more.weight".into(), zeros(&[2, 3]))))),
            &["1 unexpected", "more.weight", "[2, 3]"],
        ),
        (
            "a posterior without an adapter",
            || fit_curvature(&mlp(), &points(), &CurvatureConfig::default(), &silent()).map(|_| ()),
            &["adapter"],
        ),
        (
            "training without an adapter",
            || trainer(|_| ())?.fit(mlp(), &points(), None, &silent()).map(|_| ()),
            &["adapter"],
        ),
        (
            "saving without an adapter",
            || {
                let dir = tempfile::tempdir().unwrap();
                save_peft(&mlp(), &LoraConfig::new(2), "none", dir.path())
            },
            &["adapter"],
        ),
        (
            "saving into a file",
            || {
                let (_dir, path) = file_in_the_way();
                save_peft(&adapted_mlp(2), &LoraConfig::new(2), "none", path)
            },
            &["occupied"],
        ),
        (
            "weights of another shape",
            || {
                let mut weights = read_adapter(&adapted_mlp(2))?;
                let site = Site { module: "layers.1".into(), matrix: LoraMatrix::B };
                weights.insert(site, Array2::zeros((3, 4)));
                write_adapter(adapted_mlp(2), &weights).map(|_| ())
            },
            &["layers.1.lora_B", "[3, 2]", "[3, 4]"],
        ),
        (
            "weights that lack a site",
            || {
                let mut weights = read_adapter(&adapted_mlp(2))?;
                weights.remove(&Site { module: "layers.0".into(), matrix: LoraMatrix::A });
                write_adapter(adapted_mlp(2), &weights).map(|_| ())
            },
            &["layers.0.lora_A"],
        ),
        (
            "a prior at an unknown start",
            || {
                let (model, data) = (adapted(), train_data());
                let curvature = fit_curvature(&model, &data, &CurvatureConfig::default(), &silent())?;
                let config = LaplaceConfig::default().with_prior_mean(PriorMean::Initial);
                Laplace::new(&model, &curvature, &config).map(|_| ())
            },
            &["start", "model.layers.0.self_attn.q_proj.lora_A"],
        ),
    ]);
}
