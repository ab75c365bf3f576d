//! Turns questions with a subject into a routing task: which area does this question belong to?

use std::collections::BTreeMap;
use std::path::Path;

use super::jsonl;
use super::task::{Item, Task};
use crate::error::{Error, Result};
use crate::file_kind::parse_json;

/// The most bytes that a table of subjects may hold (16 MiB).
pub const MAX_AREAS_BYTES: u64 = 1 << 24;

/// Reads a table of subjects: one JSON object whose keys are subjects and whose values are areas.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for anything else than a map of texts, [`Error::Empty`] for an empty map.
pub fn read_areas(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
    let path = path.as_ref();
    let bytes = jsonl::read_capped(path, MAX_AREAS_BYTES)?;
    let areas: BTreeMap<String, String> = parse_json(&bytes, path.display())?;
    if areas.is_empty() {
        return Err(Error::empty(format!("the table of subjects {}", path.display())));
    }
    Ok(areas)
}

impl Task {
    /// Replaces every item's choices by `classes` (areas) and its answer by the area of its subject.
    ///
    /// A table maps each subject to its area (for MMLU: 57 subjects, four areas). The areas become the choices and the
    /// area of the item's subject the answer.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use bayes_lora::data::{Item, Task};
    ///
    /// let areas = BTreeMap::from([("algebra".to_owned(), "STEM".to_owned()), ("law".to_owned(), "humanities".to_owned())]);
    /// let items = vec![Item::new("q", "What is 1 + 1?", ["1", "2"]).with_subject("algebra")];
    /// let routed = Task::new("mmlu", items)?.route_by_subject(&areas, &["humanities".into(), "STEM".into()])?;
    /// assert_eq!(routed.items[0].choices, ["humanities", "STEM"]);
    /// assert_eq!(routed.items[0].answer, Some(1));
    /// # Ok::<(), bayes_lora::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Empty`] without classes; [`Error::Format`] naming the item when it has no subject, when its subject
    /// is not in `areas`, or when that area is not among `classes`.
    pub fn route_by_subject(&self, areas: &BTreeMap<String, String>, classes: &[String]) -> Result<Self> {
        if classes.is_empty() {
            return Err(Error::empty("the list of areas"));
        }
        let items = self
            .items
            .iter()
            .map(|item| {
                Ok(Item { choices: classes.to_vec(), answer: Some(area_index(item, areas, classes)?), ..item.clone() })
            })
            .collect::<Result<Vec<Item>>>()?;
        Ok(Self { name: self.name.clone(), items })
    }
}

fn area_index(item: &Item, areas: &BTreeMap<String, String>, classes: &[String]) -> Result<usize> {
    let place = || format!("item `{}`", item.id);
    let subject = item.subject.as_ref().ok_or_else(|| Error::format(place(), "has no subject to route by"))?;
    let area = areas
        .get(subject)
        .ok_or_else(|| Error::format(place(), format!("subject `{subject}` is not among the {} known", areas.len())))?;
    classes.iter().position(|class| class == area).ok_or_else(|| {
        Error::format(place(), format!("area `{area}` of subject `{subject}` is not among the classes {classes:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas() -> BTreeMap<String, String> {
        BTreeMap::from([("algebra".to_owned(), "STEM".to_owned()), ("law".to_owned(), "humanities".to_owned())])
    }

    fn task_of(subject: Option<&str>) -> Task {
        let mut item = Item::new("q1", "Q?", ["a", "b", "c"]).with_answer(2);
        item.subject = subject.map(str::to_owned);
        Task::new("t", vec![item]).unwrap()
    }

    #[test]
    fn the_answer_becomes_the_area_of_the_subject() {
        let classes = ["STEM".to_owned(), "humanities".to_owned()];
        let routed = task_of(Some("law")).route_by_subject(&areas(), &classes).unwrap();
        assert_eq!(routed.items[0].choices, classes);
        assert_eq!(routed.items[0].answer, Some(1));
        assert_eq!(routed.items[0].question, "Q?");
    }

    #[test]
    fn what_cannot_be_routed_is_named() {
        let stem = ["STEM".to_owned()];
        for (subject, classes, named) in [
            (Some("alchemy"), &stem[..], "alchemy"),
            (Some("law"), &stem[..], "humanities"),
            (None, &stem[..], "q1"),
            (Some("law"), &[][..], "areas"),
        ] {
            let error = task_of(subject).route_by_subject(&areas(), classes).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn a_table_of_subjects_is_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("areas.json");
        std::fs::write(&path, r#"{"algebra": "STEM", "law": "humanities"}"#).unwrap();
        assert_eq!(read_areas(&path).unwrap(), areas());
        for bad in ["{}", r#"{"algebra": 3}"#, "[]"] {
            std::fs::write(&path, bad).unwrap();
            let error = read_areas(&path).unwrap_err();
            assert!(error.to_string().contains("areas.json"), "{error}");
        }
    }
}
