//! Lays all tasks of a model side by side, a table for each score: methods down, tasks across.

use super::table::{Order, Table, TableCell, TableRow, merged};
use crate::compare::seeds::{SeedGroup, on_split};

/// The scores that have a table, with the arrow that says which way is better.
const OF_CLASSES: [(&str, &str); 3] = [("accuracy", "↑"), ("NLL", "↓"), ("ECE", "↓")];
/// Those where all tasks are regressions.
const OF_VALUES: [(&str, &str); 3] = [("NLL", "↓"), ("RMSE", "↓"), ("CRPS", "↓")];

/// A column: the seeds of a task, and the name of the number that is shown.
struct Column<'a> {
    heading: String,
    group: &'a SeedGroup,
    number: String,
}

/// The tables of each model that has several tasks, and those of its labelled data from elsewhere.
pub(super) fn overview(groups: &[SeedGroup]) -> Vec<Table> {
    let mut models: Vec<&str> = groups.iter().map(|group| group.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let mut tables = Vec::new();
    for model in models {
        let of_model: Vec<&SeedGroup> = groups.iter().filter(|group| group.model == model).collect();
        let is_of_values =
            |group: &&SeedGroup| group.rows.iter().any(|row| row.numbers.iter().any(|(name, _)| name == "RMSE"));
        let scores = if of_model.iter().all(is_of_values) { OF_VALUES } else { OF_CLASSES };
        if of_model.len() > 1 {
            tables.extend(scores.map(|(score, arrow)| {
                let columns: Vec<Column> = of_model.iter().map(|group| Column::of_test(group, score)).collect();
                table(format!("{score} {arrow} by task, {model}"), &columns)
            }));
        }
        for (score, arrow) in scores {
            let columns: Vec<Column> = of_model.iter().flat_map(|group| Column::of_shifted(group, score)).collect();
            if !columns.is_empty() {
                tables.push(table(format!("{score} {arrow} on data from elsewhere, {model}"), &columns));
            }
        }
    }
    tables
}

impl<'a> Column<'a> {
    fn of_test(group: &'a SeedGroup, score: &str) -> Self {
        Self { heading: group.task.clone(), group, number: score.into() }
    }

    fn of_shifted(group: &'a SeedGroup, score: &str) -> Vec<Self> {
        let column = |split: &String| Self {
            heading: format!("{} → {split}", group.task),
            group,
            number: on_split(score, split),
        };
        group.labelled.iter().map(column).collect()
    }

    fn cell(&self, row: &str) -> TableCell {
        let row = self.group.rows.iter().find(|found| found.name == row);
        let Some((_, spread)) = row.and_then(|row| row.numbers.iter().find(|(name, _)| *name == self.number)) else {
            return TableCell::none();
        };
        TableCell::of_spread(spread, self.group.seeds.len())
    }
}

fn table(title: String, columns: &[Column]) -> Table {
    let all =
        merged(columns.iter().map(|column| column.group.rows.iter().map(|row| (row.name.as_str(), row.calibration))));
    let rows = all.into_iter().map(|(name, calibration)| TableRow {
        name: name.into(),
        cells: columns.iter().map(|column| column.cell(name)).collect(),
        reason: None,
        variant: calibration.is_some(),
    });
    Table {
        title,
        note: "Mean over the seeds, and in brackets the smallest and the largest; where a row has fewer seeds than its task, it says so \
               and is not to be compared by its mean. A dash: not run, failed, or not possible there. \
               Nothing is averaged over tasks; whether a difference is more than chance, P(better) of each task says."
            .into(),
        first: "method".into(),
        columns: columns.iter().map(|column| column.heading.clone()).collect(),
        rows: rows.collect(),
        order: Order::Rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::format::{interval, number};
    use crate::compare::seeds::{SeedRow, Spread};

    fn row(name: &str, numbers: &[(&str, f64, usize)]) -> SeedRow {
        let spread = |mean, n_seeds| Spread { mean, low: mean - 0.1, high: mean + 0.1, n_seeds };
        SeedRow {
            name: name.into(),
            calibration: None,
            numbers: numbers.iter().map(|(name, mean, n)| (name.to_string(), spread(*mean, *n))).collect(),
            against: Vec::new(),
            failures: Vec::new(),
            caveats: Vec::new(),
        }
    }

    fn group(task: &str, labelled: &[&str], rows: Vec<SeedRow>) -> SeedGroup {
        SeedGroup {
            model: "tiny".into(),
            task: task.into(),
            seeds: vec![0, 1],
            same_test_items: true,
            labelled: labelled.iter().map(|split| split.to_string()).collect(),
            rows,
        }
    }

    fn texts(table: &Table) -> Vec<(&str, Vec<String>)> {
        let text = |cell: &TableCell| format!("{} {}", cell.text, cell.detail).trim().to_string();
        table.rows.iter().map(|row| (row.name.as_str(), row.cells.iter().map(text).collect())).collect()
    }

    #[test]
    fn methods_stand_down_and_tasks_across_with_a_dash_where_nothing_is_known() {
        let groups = [
            group("a", &[], vec![row("map", &[("NLL", 1.0, 2)]), row("swag", &[("NLL", 2.0, 1)])]),
            group("b", &["far"], vec![row("map", &[("NLL", 3.0, 1)]), row("head", &[("NLL on far", 4.0, 1)])]),
        ];
        let tables = overview(&groups);
        let titles: Vec<&str> = tables.iter().map(|table| table.title.as_str()).collect();
        let by_task = ["accuracy ↑ by task, tiny", "NLL ↓ by task, tiny", "ECE ↓ by task, tiny"];
        assert_eq!(titles[..3], by_task);
        assert_eq!(titles[4], "NLL ↓ on data from elsewhere, tiny");
        assert_eq!(tables[1].columns, ["a", "b"]);
        let dash = || "—".to_string();
        let expected = [
            ("map", vec![format!("{} {}", number(1.0), interval(0.9, 1.1)), format!("{} 1 of 2 seeds", number(3.0))]),
            ("head", vec![dash(), dash()]),
            ("swag", vec![format!("{} 1 of 2 seeds", number(2.0)), dash()]),
        ];
        assert_eq!(texts(&tables[1]), expected);
        assert_eq!(tables[4].columns, ["b → far"]);
        let one = format!("{} 1 of 2 seeds", number(4.0));
        assert_eq!(texts(&tables[4]), [("map", vec![dash()]), ("head", vec![one])]);
    }

    #[test]
    fn one_task_without_labelled_shifts_needs_no_overview() {
        assert!(overview(&[group("a", &[], vec![row("map", &[("NLL", 1.0, 2)])])]).is_empty());
    }
}
