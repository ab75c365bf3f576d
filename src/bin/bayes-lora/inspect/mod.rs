//! `bayes-lora inspect`.

mod data;
mod files;
mod model;

use crate::session::{Outcome, Session};
use clap::Args;
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::{Path, PathBuf};

/// Say what files and directories hold: bases, adapters, posteriors, sums of curvature, data
///
/// A posterior and sums are checked for damage from end to end. With `--load` a base is read whole, and what its files hold beyond
/// its configuration is told.
#[derive(Args)]
#[command(after_help = "Example:\n  bayes-lora inspect my_adapter my_adapter/posterior.safetensors questions.jsonl")]
pub struct Inspect {
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Read every weight of a base, and say what else its files hold
    #[arg(long)]
    load: bool,
}

impl Inspect {
    pub fn run(&self, session: &Session) -> Outcome {
        let of = |path: &PathBuf| told(path, self.load.then_some(session));
        let all = self.paths.iter().map(of).collect::<Outcome<Vec<Told>>>()?;
        if self.load && !all.iter().any(|told| told.what == model::BASE) {
            return Err("--load reads the weights of a base, and none is among the paths".into());
        }
        session.show(&All(all))
    }
}

fn told(path: &Path, load: Option<&Session>) -> Outcome<Told> {
    let is_file = |name: &str| path.join(name).is_file();
    let ends = |ending: &str| path.extension().is_some_and(|found| found == ending);
    match path {
        dir if dir.is_dir() && is_file("adapter_config.json") => files::adapter(dir),
        dir if dir.is_dir() && is_file("config.json") => model::base(dir, load),
        dir if dir.is_dir() => {
            Err(format!("{}: neither an adapter (adapter_config.json) nor a base (config.json)", dir.display()).into())
        }
        file if ends("gguf") => model::base(file, load),
        file if ends("safetensors") => files::safetensors(file),
        file => data::lines(file),
    }
}

/// What one path holds: named facts, in order.
pub struct Told {
    path: PathBuf,
    what: &'static str,
    facts: Vec<(&'static str, Value)>,
}

impl Told {
    fn new(path: &Path, what: &'static str) -> Self {
        Self { path: path.to_path_buf(), what, facts: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.push((name, value.into()));
        self
    }

    fn json(&self) -> Value {
        let mut fields = Map::from_iter([("path".into(), json!(self.path)), ("what".into(), json!(self.what))]);
        fields.extend(self.facts.iter().map(|(name, value)| (name.replace(' ', "_"), value.clone())));
        Value::Object(fields)
    }
}

struct All(Vec<Told>);

impl serde::Serialize for All {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.iter().map(Told::json).collect::<Vec<_>>().serialize(serializer)
    }
}

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, told) in self.0.iter().enumerate() {
            let apart = if index == 0 { "" } else { "\n\n" };
            write!(f, "{apart}{}: {}", told.path.display(), told.what)?;
            for (name, value) in told.facts.iter().filter(|(_, value)| !value.is_null()) {
                write!(f, "\n  {name}: {}", words(value))?;
            }
        }
        Ok(())
    }
}

/// A value as a person reads it.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name} {}", words(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, bayes_lora::number::significant)
        }
        other => other.to_string(),
    }
}
