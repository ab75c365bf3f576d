//! Chooses which parameters train.

use crate::error::{Error, Result};
use crate::lora::Adaptable;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use regex::Regex;

/// The three ways of fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub enum TrainingMode {
    /// A and B of the adapter, and the head of a classifier; everything else is frozen.
    #[default]
    Lora,
    /// Every parameter.
    Full,
    /// Parameters whose module path (such as `blocks.3.attention.q_proj.weight`) contains a match of one of these
    /// regular expressions.
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
            let mut mapper = ByPath { path: Vec::new(), patterns };
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

struct ByPath {
    path: Vec<String>,
    patterns: Vec<(Regex, usize)>,
}

impl ModuleMapper for ByPath {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let mut matched = false;
        for (pattern, count) in &mut self.patterns {
            if pattern.is_match(&path) {
                *count += 1;
                matched = true;
            }
        }
        param.set_require_grad(matched)
    }
}
