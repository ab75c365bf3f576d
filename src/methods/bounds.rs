//! Bounds that settings of several methods have.

use crate::error::{Error, Result};

/// Checks that there is at least one of what a setting counts.
///
/// # Errors
/// Names the setting.
pub(super) fn check_some(field: &str, count: usize) -> Result<()> {
    if count > 0 { Ok(()) } else { Err(Error::config(field, "at least 1", count)) }
}

/// Checks that a setting is positive and finite.
///
/// # Errors
/// Names the setting and its value.
pub(super) fn check_positive(field: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(Error::config(field, "positive and finite", value)) }
}

/// Checks that a setting is at least 0 and finite.
///
/// # Errors
/// Names the setting and its value.
pub(super) fn check_not_negative(field: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(Error::config(field, "at least 0 and finite", value)) }
}
