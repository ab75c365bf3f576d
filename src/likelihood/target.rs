//! Holds what was observed of one unit of data.

use crate::error::{Error, Result, check_finite};

/// What was observed of one unit of data.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One of the outputs: a label.
    Class(usize),
    /// A number for every output of the model; those of outputs that the unit does not have are ignored.
    Values(Vec<f64>),
    /// What the model reads in the input itself, such as the next token at every place of a text.
    OfInput,
}

/// What kind of target a likelihood is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSpace {
    /// One of the outputs: beliefs about outputs become class probabilities.
    Classes,
    /// Another countable set, such as counts or texts: `log p(y | f) ≤ 0`, so that no evidence is above zero.
    Discrete,
    /// Real numbers: `p(y | f)` is a density, and its logarithm may have any sign.
    Continuous,
}

impl Target {
    /// The target's number for an output: that of [`Target::Values`], or 1 for the class and 0 elsewhere.
    pub fn component(&self, output: usize) -> f64 {
        match self {
            Self::Class(class) => f64::from(u8::from(*class == output)),
            Self::Values(values) => values.get(output).copied().unwrap_or(f64::NAN),
            Self::OfInput => f64::NAN,
        }
    }

    /// The class, if it is one.
    pub fn class(&self) -> Option<usize> {
        match self {
            Self::Class(class) => Some(*class),
            Self::Values(_) | Self::OfInput => None,
        }
    }

    /// The classes of all targets; `whose` they are, such as `training items`, is said in the error.
    ///
    /// # Errors
    /// If one is not a class.
    pub(crate) fn classes(targets: &[Self], whose: &str) -> Result<Vec<usize>> {
        let no_class = || Error::Incompatible(format!("these {whose} have values as targets, not labels"));
        targets.iter().map(|target| target.class().ok_or_else(no_class)).collect()
    }

    /// Checks that it is a class that the unit `item` has, or a finite number for each of its outputs; `present` says which
    /// outputs it has. Which targets an input holds is known to likelihoods that read them there alone.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Count`], [`Error::NonFinite`] or, for [`Target::OfInput`], [`Error::Incompatible`], with the item's name.
    pub fn check(&self, item: &str, present: &[bool]) -> Result<()> {
        match self {
            Self::Class(label) if present.get(*label) != Some(&true) => Err(Error::LabelOutOfRange {
                item: item.into(),
                label: *label,
                n_classes: present.iter().filter(|has| **has).count(),
            }),
            Self::Class(_) => Ok(()),
            Self::Values(values) if values.len() != present.len() => Err(Error::Count {
                what: format!("target values of item `{item}`"),
                expected: present.len(),
                found: values.len(),
            }),
            Self::OfInput => Err(Error::Incompatible(format!(
                "the targets of item `{item}` are in its text: train with `NextToken` as likelihood"
            ))),
            Self::Values(values) => {
                let finite = values.iter().zip(present).map(|(value, has)| !has || value.is_finite());
                check_finite(format_args!("target of item `{item}`"), finite)
            }
        }
    }
}

impl From<usize> for Target {
    fn from(class: usize) -> Self {
        Self::Class(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_does_not_fit_its_item_is_refused_with_both_numbers() {
        let two_of_three = [true, false, true];
        let message = |target: Target| target.check("q7", &two_of_three).unwrap_err().to_string();
        assert_eq!(message(Target::Class(1)), "item `q7`: label 1 is out of range for 2 classes");
        assert_eq!(message(Target::Class(3)), "item `q7`: label 3 is out of range for 2 classes");
        assert_eq!(message(Target::Values(vec![1.0])), "target values of item `q7`: expected 3, found 1");
        let error = message(Target::Values(vec![1.0, 2.0, f64::NAN]));
        assert_eq!(error, "target of item `q7`: 1 of 3 values are not finite");
        // what an item does not have is ignored
        assert!(Target::Values(vec![1.0, f64::NAN, 3.0]).check("q7", &two_of_three).is_ok());
        assert!(Target::Class(2).check("q7", &two_of_three).is_ok());
    }
}
