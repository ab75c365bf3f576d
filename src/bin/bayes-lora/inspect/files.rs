//! What adapters, posteriors and sums of curvature hold.

use super::Told;
use crate::session::Outcome;
use bayes_lora::POSTERIOR_FILE;
use bayes_lora::curvature::{Curvature, ShardOf};
use bayes_lora::data::{AnswerForm, Asked};
use bayes_lora::number::bytes_text;
use bayes_lora::posterior::Laplace;
use bayes_lora::search::Search;
use bayes_lora::tensor_file::TensorFile;
use serde_json::{Value, json};
use std::path::Path;

/// Keys of the metadata of this crate's own files.
const POSTERIOR: &str = "bayes_lora_posterior";
const CURVATURE: &str = "bayes_lora_curvature";
const SHARD: &str = "bayes_lora_shard";

pub fn adapter(dir: &Path) -> Outcome<Told> {
    let path = dir.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let config: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let weights = TensorFile::open(dir.join("adapter_model.safetensors"))?;
    let names = weights.names();
    let size = |name: &String| weights.shape(name).unwrap_or_default().iter().product::<usize>();
    let types: std::collections::BTreeSet<String> =
        names.iter().filter_map(|name| weights.element_type(name)).collect();
    let told = Told::new(dir, "adapter")
        .with("base", config["base_model_name_or_path"].clone())
        .with("type", config["peft_type"].clone())
        .with("task", config["task_type"].clone())
        .with("rank", config["r"].clone())
        .with("alpha", config["lora_alpha"].clone())
        .with("dropout", config["lora_dropout"].clone())
        .with("targets", config["target_modules"].clone())
        .with("trained whole", config["modules_to_save"].clone())
        .with("adapted modules", names.iter().filter(|name| name.contains("lora_A")).count())
        .with("weights", names.iter().map(size).sum::<usize>())
        .with("element types", types.into_iter().collect::<Vec<_>>());
    let file = dir.join(POSTERIOR_FILE);
    if !file.is_file() {
        return Ok(told.with("posterior", "none beside it"));
    }
    let summary = Laplace::summary(&file)?;
    Ok(told
        .with("posterior", format!("{} over {} items", summary.structure, summary.fitted_on.n_items))
        .with("fingerprint", format!("{:016x}, as the posterior has it", summary.adapter_fingerprint)))
}

pub fn safetensors(path: &Path) -> Outcome<Told> {
    let mut file = TensorFile::open(path)?;
    if file.has_metadata(POSTERIOR) {
        return posterior(path);
    }
    if file.has_metadata(CURVATURE) {
        return curvature(path, file.has_metadata(SHARD));
    }
    file.check_all()?;
    let names = file.names();
    let size = |name: &String| file.shape(name).unwrap_or_default().iter().product::<usize>();
    Ok(Told::new(path, "tensors")
        .with("tensors", names.len())
        .with("numbers", names.iter().map(size).sum::<usize>())
        .with("size", bytes_text(std::fs::metadata(path)?.len())))
}

fn posterior(path: &Path) -> Outcome<Told> {
    let about = Laplace::summary(path)?;
    let precisions: Vec<f64> = about.prior_precisions.values().iter().map(|precision| precision.value()).collect();
    let searches: Vec<String> = about.prior_searches.iter().map(Search::to_string).collect();
    let temperature = about.answer_temperatures.as_ref().map(|[_, posterior]| 1.0 / posterior.value);
    let told = Told::new(path, "posterior")
        .with("structure", about.structure.to_string())
        .with("likelihood", about.likelihood.to_string())
        .with("items", about.fitted_on.n_items)
        .with("log-likelihood", about.log_likelihood)
        .with("prior precisions", precisions)
        .with("prior", searches)
        .with("prior groups", format!("{:?}", about.prior_grouping))
        .with("temperature of answers", temperature)
        .with("blocks", about.n_blocks);
    Ok(way(told, about.fitted_on.asked.as_ref())
        .with("adapter fingerprint", format!("{:016x}", about.adapter_fingerprint))
        .with("base fingerprint", format!("{:016x}", about.base_fingerprint))
        .with("items fingerprint", format!("{:016x}", about.fitted_on.fingerprint))
        .with("size", bytes_text(std::fs::metadata(path)?.len()))
        .with("written by", format!("bayes-lora {}", about.crate_version)))
}

fn curvature(path: &Path, is_shard: bool) -> Outcome<Told> {
    let sums = Curvature::load(path)?;
    let shard = is_shard.then(|| ShardOf::of_file(path)).transpose()?;
    let told = Told::new(path, if is_shard { "sums of curvature of a shard" } else { "sums of curvature" })
        .with("shard", shard.map(|part| json!({"index": part.index, "of": part.of, "all_items": part.n_items})))
        .with("structure", sums.config.structure.to_string())
        .with("likelihood", sums.config.likelihood_or_default().to_string())
        .with("items", sums.n_data)
        .with("log-likelihood", sums.log_likelihood)
        .with("sums", bytes_text(sums.bytes() as u64));
    Ok(way(told, sums.asked.as_ref()).with("adapter fingerprint", format!("{:016x}", sums.adapter_fingerprint)))
}

/// How questions were asked, where that is known.
fn way(told: Told, asked: Option<&Asked>) -> Told {
    let Some(Asked { encoding, class_tokens, tokenizer, .. }) = asked else {
        return told.with("asked", "unknown");
    };
    let answers = match &encoding.answers {
        AnswerForm::ClassTokens { classes } => format!("class tokens {}", classes.join(",")),
        AnswerForm::Labels { names } => format!("labels {}", names.join(", ")),
        AnswerForm::Continuation { normalization } => format!("continuations ({normalization:?})"),
        AnswerForm::Rewards => "rewards".into(),
        AnswerForm::Value => "a number".into(),
    };
    told.with("asked by", answers)
        .with("class tokens", (!class_tokens.is_empty()).then(|| json!(class_tokens)))
        .with("prompt", encoding.template.name.clone())
        .with("most tokens", encoding.max_tokens)
        .with("chat template", encoding.chat)
        .with("tokenizer fingerprint", format!("{tokenizer:016x}"))
}
