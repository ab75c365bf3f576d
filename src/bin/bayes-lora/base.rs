//! Loads the model of a directory, and says what its files hold beyond their configuration.

use crate::session::{Outcome, Session};
use bayes_lora::models::{CausalLm, Pretrained};
use std::path::Path;

/// The language model without adapter.
pub fn load_base(dir: &Path, session: &Session) -> Outcome<CausalLm> {
    let (lm, report) = Pretrained::from_dir(dir)?.load_with_report(session.device())?;
    if !report.is_empty() {
        session.say(report);
    }
    Ok(lm)
}
