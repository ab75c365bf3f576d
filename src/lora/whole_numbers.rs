//! Writes whole numbers as integers, as PEFT does.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// The largest whole number below which every one is an f64.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// PEFT writes `16`, not `16.0`.
pub(super) fn whole_as_integer<S: Serializer>(value: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < EXACT {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// The same for every value of a map.
pub(super) fn wholes_as_integers<S: Serializer>(
    values: &BTreeMap<String, f64>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Whole(#[serde(serialize_with = "whole_as_integer")] f64);
    serializer.collect_map(values.iter().map(|(key, value)| (key, Whole(*value))))
}
