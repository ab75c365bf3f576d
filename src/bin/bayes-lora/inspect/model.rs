//! What a base holds.

use super::Told;
use crate::base::{encoder, pretrained};
use crate::session::{Outcome, Session};
#[cfg(feature = "gguf")]
use bayes_lora::gguf::GgufFile;
use bayes_lora::models::Pretrained;
use bayes_lora::number::bytes_text;
use bayes_lora::tensor_file::TensorFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a base is called.
pub const BASE: &str = "base";

pub fn base(path: &Path, load: Option<&Session>) -> Outcome<Told> {
    let told = Told::new(path, BASE);
    let told = match encoder(path)? {
        Some(encoder) => {
            let config = encoder.config();
            let told = told
                .with("family", format!("{:?}", config.family).split('(').next().unwrap_or_default().to_string())
                .with("layers", config.n_layers)
                .with("hidden size", config.hidden_size)
                .with("vocabulary", config.vocab_size)
                .with("longest row", config.max_positions)
                .with("pooling", format!("{:?}", config.pooling))
                .with("labels", config.labels.clone());
            match load {
                None => told,
                Some(session) => told.with("read", encoder.load(session.device())?.report.to_string()),
            }
        }
        None => {
            let model: Pretrained = pretrained(path)?;
            let config = model.config();
            let told = told
                .with("family", format!("{:?}", config.family))
                .with("layers", config.n_layers)
                .with("hidden size", config.hidden_size)
                .with("heads", config.n_heads)
                .with("vocabulary", config.vocab_size)
                .with("longest row", config.max_positions)
                .with("tied head", config.tied_head);
            match load {
                None => told,
                Some(session) => told.with("read", model.load_with_report(session.device())?.1.to_string()),
            }
        }
    };
    let Weights { parameters, bytes, types } = Weights::of(path)?;
    let parameters = (parameters > 0).then_some(parameters);
    Ok(told.with("parameters", parameters).with("element types", types).with("size of the weights", bytes_text(bytes)))
}

/// What stands in the headers of the weights' files.
struct Weights {
    parameters: usize,
    bytes: u64,
    types: Vec<String>,
}

impl Weights {
    fn of(path: &Path) -> Outcome<Self> {
        let files: Vec<PathBuf> = match path.is_dir() {
            false => vec![path.to_path_buf()],
            true => {
                let entries = std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
                let files = entries.into_iter().map(|entry| entry.path());
                let stored = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "safetensors");
                files.filter(stored).collect::<BTreeSet<_>>().into_iter().collect()
            }
        };
        // a tensor may stand in several files
        let (mut tensors, mut types, mut bytes) = (BTreeMap::new(), BTreeSet::new(), 0);
        for file in &files {
            bytes += std::fs::metadata(file)?.len();
            #[cfg(feature = "gguf")]
            if file.extension().is_some_and(|ending| ending == "gguf") {
                let file = GgufFile::open(file)?;
                for name in file.names() {
                    types.extend(file.block_type(&name).map(|block| block.name().to_string()));
                    tensors.insert(name.clone(), file.shape(&name).unwrap_or_default().iter().product());
                }
                continue;
            }
            let file = TensorFile::open(file)?;
            for name in file.names() {
                types.extend(file.element_type(&name));
                let n: usize = file.shape(&name).unwrap_or_default().iter().product();
                tensors.insert(name, n);
            }
        }
        Ok(Self { parameters: tensors.values().sum(), bytes, types: types.into_iter().collect() })
    }
}
