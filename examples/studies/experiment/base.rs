//! Loads the model of a directory, and says what its files hold beyond their configuration.

use bayes_lora::models::{CausalLm, Pretrained};
use burn::tensor::Device;
use std::path::Path;

/// The language model without adapter; what a reader should know of its files goes to standard error.
pub fn load_base(dir: &Path) -> bayes_lora::Result<CausalLm> {
    let (lm, report) = Pretrained::from_dir(dir)?.load_with_report(&Device::flex())?;
    if !report.is_empty() {
        eprintln!("{report}");
    }
    Ok(lm)
}
