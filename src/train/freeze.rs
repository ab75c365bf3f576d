//! Chooses which parameters train.

use crate::error::{Error, Result};
use crate::lora::{Adaptable, trained_matrices};
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::Tensor;
use regex::Regex;
use std::collections::HashMap;

/// The three ways of fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub enum TrainingMode {
    /// A and B of the adapter, and the head of a classifier; everything else is frozen.
    #[default]
    Lora,
    /// Every parameter.
    Full,
    /// Parameters whose name contains a match of one of these regular expressions: that of a linear's is its path in Hugging Face's files
    /// (`model.layers.3.self_attn.q_proj.weight`), that of an adapter's matrix its site (`model.layers.3.self_attn.q_proj.lora_B`), that of any
    /// other its place in the module (`embedding.weight`, `blocks.3.norms.0.gamma`).
    Partial(Vec<String>),
}

/// The model with exactly the chosen parameters trainable.
///
/// # Errors
/// If there is no adapter to train, a pattern is invalid, or a pattern matches nothing.
pub fn set_trainable<M: Adaptable>(model: M, mode: &TrainingMode) -> Result<M> {
    match mode {
        TrainingMode::Full => Ok(model.set_require_grad(true)),
        TrainingMode::Lora => {
            let mut model = model.no_grad();
            let mut found = false;
            for linear in model.linears_mut() {
                if let Some(adapter) = linear.adapter.take() {
                    found = true;
                    linear.adapter = Some(adapter.set_require_grad(true));
                }
            }
            for head in model.heads_mut() {
                found = true;
                head.weight = head.weight.clone().set_require_grad(true);
            }
            if found { Ok(model) } else { Err(Error::empty("adapter to train")) }
        }
        TrainingMode::Partial(patterns) => {
            let patterns = patterns
                .iter()
                .map(|p| {
                    Regex::new(p).map(|r| (r, 0)).map_err(|e| Error::config("patterns", "valid regular expressions", e))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut mapper = ByName { path: Vec::new(), of_linears: names_of_linears(&model), patterns };
            let model = model.map(&mut mapper);
            match mapper.patterns.iter().find(|(_, n)| *n == 0) {
                Some((pattern, _)) => {
                    Err(Error::Incompatible(format!("pattern `{pattern}` matches no parameter of the model")))
                }
                None => Ok(model),
            }
        }
    }
}

/// What Hugging Face's files call the parameters of the model's linears.
fn names_of_linears<M: Adaptable>(model: &M) -> HashMap<ParamId, String> {
    let mut names = HashMap::new();
    for linear in model.linears() {
        names.insert(linear.weight.id, format!("{}.weight", linear.path));
        if let Some(bias) = &linear.bias {
            names.insert(bias.id, format!("{}.bias", linear.path));
        }
    }
    names.extend(trained_matrices(model).into_iter().map(|trained| (trained.param.id, trained.site.to_string())));
    names
}

struct ByName {
    path: Vec<String>,
    of_linears: HashMap<ParamId, String>,
    patterns: Vec<(Regex, usize)>,
}

impl ModuleMapper for ByName {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.of_linears.get(&param.id).cloned().unwrap_or_else(|| self.path.join("."));
        let mut matched = false;
        for (pattern, count) in &mut self.patterns {
            if pattern.is_match(&name) {
                *count += 1;
                matched = true;
            }
        }
        param.set_require_grad(matched)
    }
}
