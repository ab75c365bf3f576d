//! Tables of the files of `leave_one_out_cost`.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::Table;

/// The stages of a way to find prior and temperatures, in order.
const STAGES: [&str; 5] = ["Jacobian pass", "kernel", "matched prior", "leaving every item out", "temperatures"];

/// The files of a directory, by their number of items.
fn files(spec: &Spec, data: &mut Data) -> Result<Vec<(f64, Node)>, Failure> {
    let dir = spec.file()?;
    let mut found = Vec::new();
    for name in data.names(dir)? {
        let file = data.json(&format!("{dir}/{name}"))?;
        found.push((file.number("n")?, file));
    }
    found.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    Ok(found)
}

fn seconds(stage: &Node) -> Result<String, Failure> {
    Ok(format!("{:.1}", stage.number("cpu_seconds")?))
}

/// Seconds of the processor of the fit's own stages, a line a number of items.
pub fn fit(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let mut table: Option<Table> = None;
    for (n, file) in files(spec, data)? {
        let (mut names, mut line) = (vec!["items".to_string()], vec![n.to_string()]);
        for stage in file.list("stages")? {
            // the epochs of the training stand in its name
            let (what, spent) = (stage.text("what")?, seconds(&stage)?);
            let (name, detail) = what.split_once(", ").unwrap_or((&what, ""));
            names.push(name.into());
            line.push(if detail.is_empty() { spent } else { format!("{spent} ({detail})") });
        }
        table.get_or_insert_with(|| Table::new(names)).row(line);
    }
    Ok(table.ok_or("there is no file")?.markdown())
}

/// Seconds of the processor, memory and what was found, a line a way.
pub fn ways(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let columns = ["items", "way", "rows", "numbers a row"].into_iter().chain(STAGES);
    let mut table = Table::new(columns.chain(["all", "MB foretold", "λ", "β of the network, of the posterior"]));
    for (n, file) in files(spec, data)? {
        for way in file.list("approaches")? {
            let mut line = vec![n.to_string(), way.text("name")?];
            line.extend([way.number("n_rows")?.to_string(), way.number("width")?.to_string()]);
            let (stages, mut sum) = (way.list("stages")?, 0.0);
            for name in STAGES {
                let mut own = "–".to_string();
                for stage in &stages {
                    if stage.text("what")? == name {
                        own = seconds(stage)?;
                        sum += stage.number("cpu_seconds")?;
                    }
                }
                line.push(own);
            }
            line.extend([format!("{sum:.1}"), format!("{:.0}", way.number("peak_bytes_foretold")? / 1e6)]);
            match way.find("beta_posterior") {
                None => line.extend(["none".into(), "–".into()]),
                Some(_) => {
                    line.push(format!("{:.0}", way.number("precision")?));
                    let betas = ["beta_network", "beta_posterior"].map(|name| way.number(name));
                    let [network, posterior] = betas;
                    line.push(format!("{:.2}, {:.2}", network?, posterior?));
                }
            }
            table.row(line);
        }
    }
    Ok(table.markdown())
}
