//! Reads single settings of a foreign configuration: one that is absent, of the wrong kind, or said twice.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fmt::Display;

/// A setting that this crate does not compute.
pub(super) fn unsupported(location: &str, field: &str, found: &str, supported: &str) -> Error {
    Error::Unsupported {
        what: format!("{location}: {field}"),
        found: found.to_string(),
        supported: supported.to_string(),
    }
}

/// The fields of a JSON object; null stands for an absent one, as in transformers.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    fields: &'a Map<String, Value>,
    /// The file.
    pub(super) location: &'a str,
    /// Where the object is in the file, with a dot at the end, or nothing.
    place: &'a str,
}

impl<'a> Settings<'a> {
    /// The fields of `value`, which stands under `name` in the file at `location`; `None` where it is absent, null or empty.
    pub(super) fn object(value: Option<&'a Value>, location: &'a str, name: &'a str) -> Result<Option<Self>> {
        let place = name;
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) if fields.is_empty() => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self { fields, location, place })),
            Some(other) => Err(unsupported(location, name, &other.to_string(), "an object")),
        }
    }

    /// The name of a field in errors.
    pub(super) fn name(&self, field: &str) -> String {
        if self.place.is_empty() { field.into() } else { format!("{}.{field}", self.place) }
    }

    pub(super) fn fields(&self) -> &'a Map<String, Value> {
        self.fields
    }

    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn read<T>(&self, field: &str, kind: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let wrong = || unsupported(self.location, &self.name(field), &value.to_string(), kind);
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn number(&self, field: &str) -> Result<Option<f64>> {
        self.read(field, "a number", Value::as_f64)
    }

    pub(super) fn count(&self, field: &str) -> Result<Option<usize>> {
        let whole = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.read(field, "a whole number, not negative", whole)
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>> {
        self.read(field, "true or false", Value::as_bool)
    }

    pub(super) fn numbers(&self, field: &str) -> Result<Option<Vec<f64>>> {
        let all = |value: &Value| value.as_array()?.iter().map(Value::as_f64).collect();
        self.read(field, "a list of numbers", all)
    }

    pub(super) fn texts(&self, field: &str) -> Result<Option<Vec<&'a str>>> {
        let all = |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect();
        self.read(field, "a list of texts", all)
    }

    /// Whether the field is there, be it null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>> {
        self.read(field, "a text", Value::as_str)
    }
}

/// The value of one setting that stands under two names.
///
/// # Errors
/// If both are there and say different things; both are named with their values.
pub(super) fn agreed<T: PartialEq + Display>(
    location: &str,
    [(first, a), (second, b)]: [(String, Option<T>); 2],
) -> Result<Option<T>> {
    match (&a, &b) {
        (Some(x), Some(y)) if x != y => Err(contradiction(location, [(&first, x), (&second, y)])),
        _ => Ok(a.or(b)),
    }
}

/// Two names of one setting with different values.
pub(super) fn contradiction(location: &str, [(first, a), (second, b)]: [(&str, &dyn Display); 2]) -> Error {
    Error::Incompatible(format!(
        "{location}: `{first}` is {a} and `{second}` is {b}, but both are names of one setting: remove the wrong one"
    ))
}
