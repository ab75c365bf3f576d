//! Refuses runs that cannot stand in one report, naming the thing and both numbers.

use crate::compare::cell::{Answered, Answers, CELL_FORMAT, Found, Outcome, Run, Setting};
use crate::compare::setting::RECIPE;
use crate::error::{Error, Result, check_finite};
use crate::metrics::ValuePredictions;

/// How far from 1 the probabilities of an item may sum.
const SUM_TOLERANCE: f64 = 1e-6;

/// True for the same model and task.
pub(super) fn same_group(a: &Run, b: &Run) -> bool {
    (&a.setting.model, &a.setting.task) == (&b.setting.model, &b.setting.task)
}

/// Checks all runs; answers their protocol.
pub(super) fn runs(runs: &[Run]) -> Result<String> {
    let first = runs.first().ok_or_else(|| Error::empty("list of runs"))?;
    for (index, run) in runs.iter().enumerate() {
        let place = place(&run.setting);
        version(&format!("setting of {place}"), run.setting.format_version)?;
        if run.setting.protocol != first.setting.protocol {
            return Err(Error::Incompatible(format!(
                "protocols are never mixed in one report: {} has `{}`, {place} has `{}`",
                self::place(&first.setting),
                first.setting.protocol,
                run.setting.protocol
            )));
        }
        for other in runs[..index].iter().filter(|other| same_group(run, other)) {
            if other.setting.seed == run.setting.seed {
                return Err(Error::Incompatible(format!("{place} is given twice")));
            }
            same_but_for_seed(&other.setting, &run.setting)?;
        }
        self::run(run, &place)?;
    }
    Ok(first.setting.protocol.clone())
}

fn place(setting: &Setting) -> String {
    format!("task `{}`, model `{}`, seed {}", setting.task, setting.model, setting.seed)
}

fn version(what: &str, found: u64) -> Result<()> {
    if found == CELL_FORMAT {
        return Ok(());
    }
    Err(Error::config(format!("format_version in the {what}"), CELL_FORMAT.to_string(), found))
}

/// Seeds are averaged only where nothing else differs.
fn same_but_for_seed(a: &Setting, b: &Setting) -> Result<()> {
    let names = |s: &Setting| s.classes.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
    let splits = |s: &Setting| s.shifted.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(", ");
    let recipe = |s: &Setting| s.identity.part(RECIPE);
    if let Some(difference) = recipe(b).difference(&recipe(a)) {
        return Err(Error::Incompatible(format!(
            "seeds {} and {} of task `{}`, model `{}` differ in the recipe: {difference}",
            a.seed, b.seed, a.task, a.model
        )));
    }
    let compared = [
        ("prompt hash", a.prompt_hash.clone(), b.prompt_hash.clone()),
        ("classes", names(a), names(b)),
        ("shifted splits", splits(a), splits(b)),
        ("number of training items", a.n_train.to_string(), b.n_train.to_string()),
    ];
    match compared.into_iter().find(|(_, a, b)| a != b) {
        None => Ok(()),
        Some((what, of_a, of_b)) => Err(Error::Incompatible(format!(
            "seeds {} and {} of task `{}`, model `{}` differ in the {what}: `{of_a}` and `{of_b}`",
            a.seed, b.seed, a.task, a.model
        ))),
    }
}

fn run(run: &Run, place: &str) -> Result<()> {
    let setting = &run.setting;
    if run.cells.is_empty() {
        return Err(Error::empty(format!("list of methods of {place}")));
    }
    if setting.n_test() == 0 {
        return Err(Error::empty(format!("set of test items of {place}")));
    }
    let n_classes = setting.classes.len();
    let shifted = setting.shifted.iter().map(|split| (split.name.as_str(), &split.labels));
    for (split, labels) in [("held-out", &setting.held_out), ("test", &setting.test)].into_iter().chain(shifted) {
        if let Some((item, &label)) = labels.iter().enumerate().find(|(_, label)| **label >= n_classes) {
            let item = format!("{split} item {item} of {place}");
            return Err(Error::LabelOutOfRange { item, label, n_classes });
        }
    }
    for split in &setting.shifted {
        let what = format!("shifted split `{}` of {place}", split.name);
        if split.n_items == 0 {
            return Err(Error::empty(what));
        }
        if !split.labels.is_empty() && split.labels.len() != split.n_items {
            let what = format!("labels of {what}");
            return Err(Error::Count { what, expected: split.n_items, found: split.labels.len() });
        }
    }
    for (index, cell) in run.cells.iter().enumerate() {
        version(&format!("cell of method `{}`, {place}", cell.method), cell.format_version)?;
        if let Some(earlier) = run.cells[..index].iter().position(|other| other.method == cell.method) {
            let message = format!("method `{}` is in cells {earlier} and {index} of {place}", cell.method);
            return Err(Error::Incompatible(message));
        }
        let place = format!("method `{}`, {place}", cell.method);
        match (&cell.outcome, &setting.values) {
            (Outcome::Answered(answered), None) => self::answered(answered, setting, &place)?,
            (Outcome::Predicted(answered), Some(values)) => predictions(&answered.test, values.test.len(), &place)?,
            (Outcome::Failed(_), _) => {}
            _ => return Err(Error::Incompatible(format!("{place}: classes and numbers are mixed"))),
        }
        if let Some(found) = cell.outcome.found() {
            self::found(&found, &place)?;
        }
    }
    Ok(())
}

fn answered(answered: &Answered, setting: &Setting, place: &str) -> Result<()> {
    let n_classes = setting.classes.len();
    answers(&answered.test, setting.test.len(), n_classes, &format!("test answers of {place}"))?;
    let what = format!("held-out answers of {place}");
    match &answered.held_out {
        Some(held_out) => answers(held_out, setting.held_out.len(), n_classes, &what)?,
        None if setting.held_out.is_empty() => {}
        None => return Err(Error::Count { what, expected: setting.held_out.len(), found: 0 }),
    }
    if answered.shifted.len() != setting.shifted.len() {
        let what = format!("shifted splits answered by {place}");
        return Err(Error::Count { what, expected: setting.shifted.len(), found: answered.shifted.len() });
    }
    for (split, found) in setting.shifted.iter().zip(&answered.shifted) {
        answers(found, split.n_items, n_classes, &format!("answers on `{}` of {place}", split.name))?;
    }
    Ok(())
}

fn predictions(predictions: &ValuePredictions, n_items: usize, place: &str) -> Result<()> {
    for (column, values) in predictions.columns() {
        let what = format!("{column} of the test items, {place}");
        if values.len() != n_items {
            return Err(Error::Count { what, expected: n_items, found: values.len() });
        }
        check_finite(what, values.iter().map(|v| v.is_finite()))?;
    }
    Ok(())
}

fn found(answered: &Found, place: &str) -> Result<()> {
    let cost = answered.cost;
    for (what, value) in [("fit_seconds", cost.fit_seconds), ("predict_seconds", cost.predict_seconds)] {
        check_finite(format_args!("{what} of {place}"), [value.is_finite()])?;
    }
    let sought = answered.searches.iter().flat_map(|search| [search.value, search.low, search.high]);
    let found = answered.found.values().copied().chain(sought);
    check_finite(format_args!("numbers found by {place}"), found.map(f64::is_finite))
}

fn answers(answers: &Answers, n_items: usize, n_classes: usize, what: &str) -> Result<()> {
    if answers.n_items() != n_items {
        return Err(Error::Count { what: what.into(), expected: n_items, found: answers.n_items() });
    }
    let columns = [("expected entropies", &answers.expected_entropy), ("log-sum-exps", &answers.log_sum_exp)];
    for (column, values) in columns {
        if values.len() != n_items {
            return Err(Error::Count { what: format!("{column}, {what}"), expected: n_items, found: values.len() });
        }
        check_finite(format_args!("{column}, {what}"), values.iter().map(|v| v.is_finite()))?;
    }
    for (item, row) in answers.probabilities.iter().enumerate() {
        if row.len() != n_classes {
            let what = format!("classes of item {item}, {what}");
            return Err(Error::Count { what, expected: n_classes, found: row.len() });
        }
        check_finite(format_args!("probabilities of item {item}, {what}"), row.iter().map(|v| v.is_finite()))?;
        let sum: f64 = row.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(Error::config(format!("sum of the probabilities of item {item}, {what}"), "1", sum));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::synthetic;

    fn both_seeds() -> Vec<Run> {
        [0, 1].map(|seed| synthetic::run("obqa", seed, &["map", "laplace"])).into()
    }

    fn refusal(change: impl FnOnce(&mut Vec<Run>)) -> String {
        let mut given = both_seeds();
        assert_eq!(runs(&given).unwrap(), "clean");
        change(&mut given);
        runs(&given).unwrap_err().to_string()
    }

    fn refused_answers(change: impl FnOnce(&mut Answered)) -> String {
        refusal(|runs| match &mut runs[1].cells[1].outcome {
            Outcome::Answered(answered) => change(answered),
            other => panic!("{other:?}"),
        })
    }

    const PLACE: &str = "method `laplace`, task `obqa`, model `tiny`, seed 1";

    #[test]
    fn runs_that_cannot_stand_together_are_refused() {
        assert_eq!(refusal(|r| r.clear()), "list of runs is empty");
        let mixed = refusal(|r| r[1].setting.protocol = "blob2024".into());
        assert!(mixed.contains("`clean`") && mixed.contains("`blob2024`") && mixed.contains("seed 1"), "{mixed}");
        let twice = refusal(|r| r[1].setting.seed = 0);
        assert_eq!(twice, "task `obqa`, model `tiny`, seed 0 is given twice");
        let recipes = refusal(|r| {
            let identity = std::mem::take(&mut r[1].setting.identity);
            r[1].setting.identity = identity.with("recipe.lora.r", 16);
        });
        assert!(recipes.contains("differ in the recipe: lora.r is 8 there and 16 here"), "{recipes}");
        let mut reworded = both_seeds();
        reworded[1].setting.recipe = "the same in other words".into();
        assert_eq!(runs(&reworded).unwrap(), "clean");
        let sizes = refusal(|r| r[0].setting.n_train = 299);
        assert!(sizes.contains("`299` and `300`"), "{sizes}");
    }

    #[test]
    fn foreign_versions_and_doubled_methods_are_refused() {
        let version = refusal(|r| r[1].setting.format_version = 9);
        assert!(version.contains("must be 2, got 9"), "{version}");
        let version = refusal(|r| r[0].cells[1].format_version = 0);
        assert!(version.contains("cell of method `laplace`") && version.contains("must be 2, got 0"), "{version}");
        let doubled = refusal(|r| r[0].cells[1].method = "map".into());
        assert_eq!(doubled, "method `map` is in cells 0 and 1 of task `obqa`, model `tiny`, seed 0");
        assert!(refusal(|r| r[0].cells.clear()).contains("list of methods of task `obqa`"));
        let label = refusal(|r| r[0].setting.test[4] = 3);
        assert!(label.contains("test item 4") && label.contains("label 3 is out of range for 3 classes"), "{label}");
    }

    #[test]
    fn answers_that_do_not_fit_their_setting_are_refused() {
        let cases: [(String, String); 7] = [
            (
                refused_answers(|a| a.test.probabilities.truncate(89)),
                format!("test answers of {PLACE}: expected 90, found 89"),
            ),
            (refused_answers(|a| a.held_out = None), format!("held-out answers of {PLACE}: expected 61, found 0")),
            (
                refused_answers(|a| a.shifted.clear()),
                format!("shifted splits answered by {PLACE}: expected 1, found 0"),
            ),
            (
                refused_answers(|a| a.shifted[0].expected_entropy.truncate(2)),
                format!("expected entropies, answers on `foreign` of {PLACE}: expected 40, found 2"),
            ),
            (
                refused_answers(|a| a.test.log_sum_exp[3] = f64::NAN),
                format!("log-sum-exps, test answers of {PLACE}: 1 of 90 values are not finite"),
            ),
            (
                refused_answers(|a| a.test.probabilities[2][1] = f64::NAN),
                format!("probabilities of item 2, test answers of {PLACE}: 1 of 3 values are not finite"),
            ),
            (
                refused_answers(|a| a.test.probabilities[2].truncate(2)),
                format!("classes of item 2, test answers of {PLACE}: expected 3, found 2"),
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
        let sum = refused_answers(|a| a.test.probabilities[2] = vec![0.5; 3]);
        assert!(sum.contains("must be 1, got 1.5"), "{sum}");
        assert!(refused_answers(|a| a.cost.fit_seconds = f64::INFINITY).contains("fit_seconds"));
    }
}
