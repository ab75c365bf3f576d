//! Tables of the cells of `next_task`.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::{Table, mean, range};

/// Every row over the seeds: means with the smallest and the largest; the mean NLL of both tasks, the least but for that of the row
/// trained on both in bold.
pub fn next_task(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let dir = spec.file()?;
    let names = data.names(dir)?;
    let cells = names.iter().map(|name| data.json(&format!("{dir}/{name}"))?.list("rows"));
    let cells = cells.collect::<Result<Vec<_>, _>>()?;
    let first = cells.first().ok_or_else(|| format!("{dir} has no cells"))?;
    let figures = |index: usize, path: &str| -> Result<Vec<f64>, Failure> {
        let of_cell = |rows: &Vec<Node>| rows.get(index).ok_or("cells have other rows")?.number(path);
        cells.iter().map(of_cell).collect()
    };
    let mut both = Vec::new();
    for index in 0..first.len() {
        let nll = [figures(index, "tasks.0.nll.value")?, figures(index, "tasks.1.nll.value")?];
        both.push(0.5 * nll.iter().map(|values| mean(values)).sum::<f64>());
    }
    let least = both.iter().rev().skip(1).fold(f64::INFINITY, |least, v| least.min(*v));
    let mut table = Table::new([
        "row",
        "task 1: accuracy",
        "NLL",
        "task 2: accuracy",
        "NLL",
        "mean NLL of both",
        "distance from θ₁",
        "log evidence of task 2",
    ]);
    for (index, row) in first.iter().enumerate() {
        let name = row.text("name")?;
        let mut line = vec![name.clone()];
        for path in ["tasks.0.accuracy", "tasks.0.nll", "tasks.1.accuracy", "tasks.1.nll"] {
            line.push(range(&figures(index, &format!("{path}.value"))?));
        }
        line.push(if both[index] == least { format!("**{:.3}**", both[index]) } else { format!("{:.3}", both[index]) });
        line.push(format!("{:.2}", mean(&figures(index, "distance")?)));
        line.push(match row.find("log_marginal_likelihood") {
            Some(_) => format!("{:.0}", mean(&figures(index, "log_marginal_likelihood")?)),
            None => "–".into(),
        });
        for rows in &cells {
            if rows.get(index).ok_or("cells have other rows")?.text("name")? != name {
                return Err(format!("the cells of {dir} have other rows than `{name}`").into());
            }
        }
        table.row(line);
    }
    Ok(table.markdown())
}
