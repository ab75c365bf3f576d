//! Reads what the head of a checkpoint is for: `problem_type` and the names of the labels in `config.json`.

use super::settings::{Settings, unsupported};
use crate::error::{Error, Result};
use serde_json::Value;

/// How many labels transformers takes where a configuration says nothing of them.
const ABSENT: usize = 2;

/// What the outputs of a head are, `problem_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    /// One of several labels: the outputs are logits of a softmax.
    SingleLabel,
    /// A number.
    Regression,
}

impl ProblemType {
    const ALL: [Self; 2] = [Self::SingleLabel, Self::Regression];

    /// As in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleLabel => "single_label_classification",
            Self::Regression => "regression",
        }
    }

    /// Reads `problem_type`, where it is there, and checks it against the number of labels: `num_labels`, else as many as `id2label` has,
    /// else two.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for `multi_label_classification` and what is unknown; [`Error::Config`] for one that contradicts the number
    /// of labels, with both values, and for two numbers of labels.
    pub(super) fn read(settings: Settings<'_>) -> Result<Option<Self>> {
        let location = settings.location;
        let names = settings.get("id2label").and_then(Value::as_object).map(|names| names.len());
        let said = settings.count("num_labels")?;
        if let (Some(said), Some(names)) = (said, names)
            && said != names
        {
            return Err(Error::config(format!("{location}: num_labels"), format!("the {names} of id2label"), said));
        }
        let Some(found) = settings.text("problem_type")? else { return Ok(None) };
        let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == found) else {
            let known = Self::ALL.map(Self::name).join(", ");
            return Err(unsupported(location, "problem_type", found, &known));
        };
        let n = said.or(names).unwrap_or(ABSENT);
        if (kind == Self::Regression) == (n == 1) {
            return Ok(Some(kind));
        }
        let bound = if kind == Self::Regression { "1" } else { "2 or more" };
        let bound = format!("{bound}, since problem_type is {found}");
        Err(Error::config(format!("{location}: num_labels"), bound, n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Option<ProblemType>> {
        ProblemType::read(Settings::object(Some(&config), "c.json", "")?.unwrap())
    }

    fn names(n: usize) -> Value {
        (0..n).map(|i| (i.to_string(), json!(format!("LABEL_{i}")))).collect::<serde_json::Map<_, _>>().into()
    }

    #[test]
    fn a_problem_type_goes_with_its_number_of_labels() {
        let (single, regression) = ("single_label_classification", "regression");
        for (config, expected) in [
            (json!({"a": 1}), None),
            (json!({"problem_type": null, "id2label": names(1)}), None),
            // two, where nothing is said
            (json!({"problem_type": single}), Some(ProblemType::SingleLabel)),
            (json!({"problem_type": single, "id2label": names(5)}), Some(ProblemType::SingleLabel)),
            (json!({"problem_type": regression, "id2label": names(1)}), Some(ProblemType::Regression)),
            (json!({"problem_type": regression, "num_labels": 1}), Some(ProblemType::Regression)),
        ] {
            assert_eq!(read(config.clone()).unwrap(), expected, "{config}");
        }
        for (config, words) in [
            (json!({"problem_type": single, "id2label": names(1)}), ["num_labels", single, "got 1"]),
            (json!({"problem_type": regression, "id2label": names(3)}), ["num_labels", regression, "got 3"]),
            (json!({"problem_type": regression}), ["num_labels", regression, "got 2"]),
            (json!({"num_labels": 4, "id2label": names(3)}), ["num_labels", "the 3 of id2label", "4"]),
            (
                json!({"problem_type": "multi_label_classification", "id2label": names(3)}),
                ["problem_type", "multi_label_classification", single],
            ),
            (json!({"problem_type": 3}), ["problem_type", "3", "text"]),
        ] {
            let error = read(config.clone()).unwrap_err().to_string();
            assert!(error.contains("c.json") && words.iter().all(|word| error.contains(word)), "{config}: {error}");
        }
    }
}
