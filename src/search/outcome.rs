//! Holds what a search found and where it ended, and says so in words.

use crate::error::{Error, Result};
use crate::number::significant;
use serde::{Deserialize, Serialize};

/// How a search for one number ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// At an optimum between its bounds.
    #[default]
    Inside,
    /// At the lower bound: smaller is better, or no worse.
    AtLower,
    /// At the upper bound: larger is better, or no worse.
    AtUpper,
    /// Nothing depends on the number, which stayed where the search began.
    Undetermined,
}

/// What a search was over, where it was bounded, what it found, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What was sought, such as `prior precision`.
    pub quantity: String,
    /// What was found.
    pub value: f64,
    /// The lower bound, in the units of the value.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
    /// Where it ended.
    pub end: SearchEnd,
    /// What that end means; empty inside.
    pub meaning: String,
}

impl Search {
    /// A search that ended so.
    pub fn new(quantity: impl Into<String>, value: f64, (low, high): (f64, f64), end: SearchEnd) -> Self {
        Self { quantity: quantity.into(), value, low, high, end, meaning: String::new() }
    }

    /// Says what its end means.
    pub fn with_meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = meaning.into();
        self
    }

    /// True where the optimum lies between the bounds.
    pub fn is_inside(&self) -> bool {
        self.end == SearchEnd::Inside
    }

    /// What a reader of the number must know; nothing where it lies inside and needs no words.
    pub fn remark(&self) -> Option<String> {
        (!self.is_inside() || !self.meaning.is_empty()).then(|| self.to_string())
    }

    /// The search, if its number lies inside.
    ///
    /// # Errors
    /// In the words of [`Search`]'s text, where it does not.
    pub fn inside(self) -> Result<Self> {
        if self.is_inside() {
            return Ok(self);
        }
        Err(Error::numerical(format!("search of the {}", self.quantity), self.to_string()))
    }
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = format!("[{}, {}]", significant(self.low), significant(self.high));
        write!(f, "{} {}", self.quantity, significant(self.value))?;
        match self.end {
            SearchEnd::Inside => write!(f, ", inside its search {range}")?,
            SearchEnd::AtLower => write!(f, " is at the lower end of its search {range}")?,
            SearchEnd::AtUpper => write!(f, " is at the upper end of its search {range}")?,
            SearchEnd::Undetermined => write!(f, " is undetermined in its search {range}")?,
        }
        if self.meaning.is_empty() { Ok(()) } else { write!(f, ": {}", self.meaning) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_says_in_words_how_it_ended() {
        let search = |end| Search::new("sigma", 0.02, (1e-4, 1.0), end);
        let inside = search(SearchEnd::Inside);
        assert_eq!(
            (inside.to_string().as_str(), inside.remark()),
            ("sigma 0.02, inside its search [1.00e-4, 1]", None)
        );
        assert_eq!(inside.clone().inside().unwrap(), inside);
        let lower = search(SearchEnd::AtLower).with_meaning("no noise passes");
        let words = "sigma 0.02 is at the lower end of its search [1.00e-4, 1]: no noise passes";
        assert_eq!(lower.remark().unwrap(), words);
        let error = lower.inside().unwrap_err().to_string();
        assert!(error.contains("search of the sigma") && error.contains(words), "{error}");
        assert!(search(SearchEnd::Undetermined).to_string().contains("undetermined in its search"));
    }
}
