//! Parts that the JSON headers of this crate's own files share: exact numbers, and the format version.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A finite f64, written as text: serde_json's parser of numbers may miss the last bit, Rust's does not.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Exact(f64);

impl Exact {
    pub(crate) fn new(what: impl std::fmt::Display, value: f64) -> Result<Self> {
        if value.is_finite() {
            Ok(Self(value))
        } else {
            Err(Error::NonFinite { what: what.to_string(), count: 1, total: 1 })
        }
    }

    pub(crate) fn value(self) -> f64 {
        self.0
    }
}

impl From<Exact> for String {
    fn from(exact: Exact) -> Self {
        // the shortest text that is read back as the same bits
        format!("{:e}", exact.0)
    }
}

impl TryFrom<String> for Exact {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let value = text.parse().ok().filter(|v: &f64| v.is_finite());
        value.map(Self).ok_or_else(|| format!("`{text}` is not a finite number"))
    }
}

/// Reads the header of the file at `path`, of a `what`: the version before anything else, for another one may differ in all the
/// rest.
///
/// # Errors
/// If it is malformed, or of another version than `supported` (both are named).
pub(crate) fn parse_header<H: DeserializeOwned>(text: &str, supported: u64, what: &str, path: &Path) -> Result<H> {
    let format = |e: serde_json::Error| Error::format(path.display(), format!("{what} header: {e}"));
    let value: Value = serde_json::from_str(text).map_err(format)?;
    check_version(&value, supported, what, path)?;
    serde_json::from_value(value).map_err(format)
}

fn check_version(header: &Value, supported: u64, what: &str, path: &Path) -> Result<()> {
    let version = &header["format_version"];
    if *version == supported {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("{}: {what} format version", path.display()),
        found: version.to_string(),
        supported: supported.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_finite_number_survives_its_text(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = serde_json::to_string(&Exact::new("value", value).unwrap()).unwrap();
            let back: Exact = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.value().to_bits(), bits, "{}", text);
        }
    }

    #[test]
    fn what_is_not_finite_is_neither_written_nor_read() {
        assert!(Exact::new("log-likelihood", f64::NAN).is_err_and(|e| e.to_string().contains("log-likelihood")));
        for text in ["\"NaN\"", "\"inf\"", "\"1e999\"", "\"\"", "1.5"] {
            assert!(serde_json::from_str::<Exact>(text).is_err(), "{text}");
        }
    }
}
