//! Says by which settings a result was made: values by name, compared one by one, apart from any wording.
//!
//! Finished cells and checkpoints are taken up only where nothing that they depend on differs. What they depend on is data:
//! every setting is serialised under its field's name, so that a new field cannot be forgotten, and a text that describes the
//! same settings in other words refuses nothing.
//!
//! ```
//! use bayes_lora::identity::Identity;
//! let here = Identity::new().with("epochs", 3).with("decay", "linear");
//! let there = Identity::new().with("epochs", 5).with("decay", "linear");
//! assert_eq!(here.difference(&there).unwrap(), "epochs is 5 there and 3 here");
//! ```

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Settings by dotted name (`trainer.learning_rate`). Each is kept as text: of a number the shortest that is no other number's,
/// which a file does not change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, String>);

impl Identity {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every field of `settings`, by its name; fields within fields by dotted names.
    ///
    /// # Errors
    /// If a field cannot be told as JSON, such as a map whose keys are no text.
    pub fn of(settings: &impl Serialize) -> Result<Self> {
        let mut identity = Self::default();
        identity.insert(String::new(), serde_json::to_value(settings).map_err(|e| Error::format("settings", e))?);
        Ok(identity)
    }

    /// Adds a setting. What JSON cannot hold becomes null, which equals nothing but itself.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.insert(name.into(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }

    /// Adds all settings of a part, below the part's name.
    pub fn with_part(mut self, name: &str, part: Self) -> Self {
        self.0.extend(part.0.into_iter().map(|(inner, value)| (join(name, &inner), value)));
        self
    }

    /// The settings below a name, without it.
    pub fn part(&self, name: &str) -> Self {
        let prefix = format!("{name}.");
        let below = self.0.iter().filter_map(|(full, text)| Some((full.strip_prefix(&prefix)?.into(), text.clone())));
        Self(below.collect())
    }

    /// Every setting's name and value, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A setting's value as text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The first setting that differs with both its values, in words; `None` where none does. One that both have comes before
    /// one that only the other kind of setting has.
    pub fn difference(&self, there: &Self) -> Option<String> {
        let names = self.0.keys().chain(there.0.keys());
        let differing = names.filter(|name| self.0.get(*name) != there.0.get(*name));
        let differs = differing.min_by_key(|name| !(self.0.contains_key(*name) && there.0.contains_key(*name)))?;
        let value = |of: &Self| of.get(differs).unwrap_or("nothing").to_string();
        Some(format!("{differs} is {} there and {} here", value(there), value(self)))
    }

    fn insert(&mut self, name: String, value: Value) {
        match value {
            // a field that holds fields; an empty map is a value like any other
            Value::Object(fields) if !fields.is_empty() => {
                for (inner, value) in fields {
                    self.insert(join(&name, &inner), value);
                }
            }
            value => {
                let text = if let Value::String(text) = value { text } else { value.to_string() };
                self.0.insert(if name.is_empty() { "value".into() } else { name }, text);
            }
        }
    }
}

fn join(outer: &str, inner: &str) -> String {
    if outer.is_empty() { inner.into() } else { format!("{outer}.{inner}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    enum Rule {
        Plain,
        Scaled { factor: f64 },
    }

    #[derive(Serialize)]
    struct Settings {
        rate: f64,
        rule: Rule,
        steps: Option<usize>,
    }

    fn of(rate: f64, rule: Rule, steps: Option<usize>) -> Identity {
        Identity::of(&Settings { rate, rule, steps }).unwrap()
    }

    #[test]
    fn the_setting_that_differs_is_named_with_both_values() {
        let here = of(0.1, Rule::Scaled { factor: 2.0 }, None);
        assert_eq!(here.difference(&of(0.1, Rule::Scaled { factor: 2.0 }, None)), None);
        for (there, words) in [
            (of(0.2, Rule::Scaled { factor: 2.0 }, None), "rate is 0.2 there and 0.1 here"),
            (of(0.1, Rule::Scaled { factor: 3.0 }, None), "rule.Scaled.factor is 3.0 there and 2.0 here"),
            (of(0.1, Rule::Scaled { factor: 2.0 }, Some(7)), "steps is 7 there and null here"),
            (of(0.1, Rule::Plain, None), "rule.Scaled.factor is nothing there and 2.0 here"),
            (Identity::new(), "rate is nothing there and 0.1 here"),
        ] {
            assert_eq!(here.difference(&there).unwrap(), words);
        }
    }

    #[test]
    fn numbers_differ_in_their_last_bit_even_after_a_file() {
        let (a, b) = (0.1f64, f64::from_bits(0.1f64.to_bits() + 1));
        let read = |rate| -> Identity {
            serde_json::from_str(&serde_json::to_string(&of(rate, Rule::Plain, None)).unwrap()).unwrap()
        };
        assert_eq!(read(a), of(a, Rule::Plain, None));
        assert!(read(a).difference(&of(b, Rule::Plain, None)).is_some());
    }

    #[test]
    fn parts_are_named_below_their_whole() {
        let whole = Identity::new().with("seed", 1).with_part("rule", of(0.1, Rule::Plain, None));
        assert!(whole.get("rule.rate") == Some("0.1") && whole.get("rate").is_none());
        assert_eq!(whole.part("rule"), of(0.1, Rule::Plain, None));
        assert!(whole.part("nothing").is_empty());
    }
}
