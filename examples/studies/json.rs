//! Leaves what a study found.

use crate::Outcome;
use bayes_lora::atomic_file::write_atomic;
use bayes_lora::outputs::save_or_rescue;
use serde::Serialize;
use std::path::Path;

/// Writes JSON in one step; elsewhere, if the place has gone meanwhile.
pub fn save(path: &Path, value: &impl Serialize) -> Outcome<()> {
    let json = serde_json::to_vec_pretty(value)?;
    save_or_rescue(path, |path| write_atomic(path, &json))?;
    println!("wrote {}", path.display());
    Ok(())
}
