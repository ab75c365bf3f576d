//! Tables of the reports of `curvature_study`.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::{Table, probability};

const SAMPLED: &str = ", 1 sampled label";
const EMPIRICAL: &str = ", empirical";
const AGAINST_EXACT: [&str; 3] = ["variance / exact", "log-variance correlation", "KL from exact"];

fn three(node: &Node, path: &str) -> Result<String, Failure> {
    Ok(format!("{:.3}", node.number(path)?))
}

/// A prior precision; from 1,000 on without a decimal.
fn precision(node: &Node, path: &str) -> Result<String, Failure> {
    let value = node.number(path)?;
    Ok(if value < 1000.0 { format!("{value:.1}") } else { format!("{value:.0}") })
}

/// λ, NLL and ECE.
fn scores(row: &Node, of: &str) -> Result<Vec<String>, Failure> {
    let found = row.at(of)?;
    Ok(vec![precision(&found, "prior_precision")?, three(&found, "nll.value")?, three(&found, "ece.value")?])
}

/// Ratio of variances, correlation of their logarithms, KL; dashes where the structure is not compared.
fn against(row: &Node, of: &str) -> Result<[String; 3], Failure> {
    let Some(found) = row.find(of) else { return Ok(["–"; 3].map(String::from)) };
    Ok([
        format!("{:.2}", found.number("median_variance_ratio")?),
        format!("{:.2}", found.number("log_variance_correlation")?),
        format!("{:.4}", found.number("mean_kl")?),
    ])
}

/// The multiplier on the covariance with its interval, in three decimals below 0.005 and in none from 1,000 on.
fn multiplier(row: &Node) -> Result<String, Failure> {
    let [value, low, high] = ["value", "low", "high"].map(|end| {
        let value = row.number(&format!("dispersion.best_log2.{end}"))?.exp2();
        Ok::<_, Failure>(match value {
            v if v < 0.005 => format!("{v:.3}"),
            v if v < 1000.0 => format!("{v:.2}"),
            v => format!("{v:.0}"),
        })
    });
    Ok(format!("{} [{}, {}]", value?, low?, high?))
}

/// The structures under one kind of Fisher information.
fn rows(study: &Node, fisher: &str) -> Result<Vec<(String, Node)>, Failure> {
    let named = study.list("rows")?.into_iter().map(|row| Ok((row.text("name")?, row)));
    let named = named.collect::<Result<Vec<_>, Failure>>()?;
    let is_asked = |name: &str| match fisher {
        "" => !name.ends_with(SAMPLED) && !name.ends_with(EMPIRICAL),
        suffix => name.ends_with(suffix),
    };
    Ok(named.into_iter().filter(|(name, _)| is_asked(name)).collect())
}

/// Every structure by evidence and by held-out items, against the exact covariance where there is one.
pub fn study(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let study = data.json(spec.file()?)?;
    let fisher = match spec.values("fisher")[..] {
        [] => "",
        ["sampled"] => SAMPLED,
        ["empirical"] => EMPIRICAL,
        _ => return Err("`fisher` is `sampled` or `empirical`".into()),
    };
    let rows = rows(&study, fisher)?;
    let has = |of: &str| rows.iter().any(|(_, row)| row.find(of).is_some());
    let (exact, own) = (has("against_exact"), has("against_exact_by_evidence"));
    let mut columns = vec!["structure", "λ by evidence", "NLL", "ECE", "λ held out", "NLL", "ECE"];
    if exact {
        columns.extend(AGAINST_EXACT);
        columns.push("variance / site block");
    }
    if own {
        columns.push("variance / exact, each at its own λ");
    }
    columns.push("best multiplier");
    let mut table = Table::new(columns);
    for (name, row) in &rows {
        let mut cells = vec![name.clone()];
        cells.extend(scores(row, "by_evidence")?);
        cells.extend(scores(row, "by_held_out")?);
        if exact {
            cells.extend(against(row, "against_exact")?);
            cells.push(against(row, "against_site_block")?[0].clone());
        }
        if own {
            cells.push(against(row, "against_exact_by_evidence")?[0].clone());
        }
        cells.push(multiplier(row)?);
        table.row(cells);
    }
    if fisher.is_empty() {
        table.row([
            "maximum likelihood".into(),
            String::new(),
            three(&study, "mle.1.value")?,
            three(&study, "mle.2.value")?,
        ]);
    }
    Ok(table.markdown())
}

/// One sampled label and the empirical Fisher information side by side.
pub fn fishers(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let study = data.json(spec.file()?)?;
    let columns = ["structure", "λ by evidence: sampled, empirical", "NLL"].into_iter().chain(AGAINST_EXACT);
    let mut table = Table::new(columns.chain(["variance / site block"]));
    for ((name, sampled), (_, empirical)) in rows(&study, SAMPLED)?.iter().zip(&rows(&study, EMPIRICAL)?) {
        let both = |of: &dyn Fn(&Node) -> Result<String, Failure>| -> Result<String, Failure> {
            let (one, other) = (of(sampled)?, of(empirical)?);
            Ok(if one == "–" && other == "–" { one } else { format!("{one}, {other}") })
        };
        table.row([
            name.trim_end_matches(SAMPLED).to_string(),
            both(&|row| precision(row, "by_evidence.prior_precision"))?,
            both(&|row| three(row, "by_evidence.nll.value"))?,
            both(&|row| Ok(against(row, "against_exact")?[0].clone()))?,
            both(&|row| Ok(against(row, "against_exact")?[1].clone()))?,
            both(&|row| Ok(against(row, "against_exact")?[2].clone()))?,
            both(&|row| Ok(against(row, "against_site_block")?[0].clone()))?,
        ]);
    }
    Ok(table.markdown())
}

/// The ratio of variances at one λ, a column a task; below them how many directions the data determine, of how many.
pub fn ratios(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let studies = spec.files.iter().map(|file| rows(&data.json(file)?, "")).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<&str> = Vec::new();
    for (name, row) in studies.iter().flatten() {
        if name != "function space" && row.find("against_exact").is_some() && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut table = Table::new(["variance / exact at one λ"].into_iter().chain(spec.values("tasks")));
    for name in names {
        let mut cells = vec![name.to_string()];
        for study in &studies {
            let row = study.iter().find(|(other, _)| other == name);
            cells.push(
                row.map_or(Ok("–".into()), |(_, row)| Ok::<_, Failure>(against(row, "against_exact")?[0].clone()))?,
            );
        }
        table.row(cells);
    }
    let mut cells = vec!["effective dimension of the exact posterior, of its rank".to_string()];
    for (study, rank) in studies.iter().zip(spec.values("ranks")) {
        let exact = study.iter().find(|(name, _)| name == "function space").ok_or("a study has no function space")?;
        cells.push(format!("{:.0} of {rank}", exact.1.number("effective_dimension")?));
    }
    table.row(cells);
    Ok(table.markdown())
}

/// NLL and ECE of what Kronecker factors and core space choose by evidence, a row a study; the least NLL is in bold.
pub fn choices(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let structures = ["Kronecker, expand", "core space"];
    let columns = structures.map(|name| format!("{name} NLL, ECE (P)"));
    let mut table = Table::new(["task, seed".into(), "maximum likelihood NLL, ECE".into()].into_iter().chain(columns));
    for (file, task) in spec.files.iter().zip(spec.values("task")) {
        let study = data.json(file)?;
        let rows = rows(&study, "")?;
        let found = structures.map(|structure| {
            let row = rows.iter().find(|(name, _)| name == structure);
            row.ok_or_else(|| format!("{file}: there is no `{structure}`"))?.1.at("by_evidence")
        });
        let found = found.into_iter().collect::<Result<Vec<_>, Failure>>()?;
        let mut least = study.number("mle.1.value")?;
        for one in &found {
            least = least.min(one.number("nll.value")?);
        }
        let bold = |nll: f64| if nll == least { format!("**{nll:.3}**") } else { format!("{nll:.3}") };
        let mut cells = vec![format!("{task}, {}", study.number("seed")?)];
        cells.push(format!("{}, {}", bold(study.number("mle.1.value")?), three(&study, "mle.2.value")?));
        for one in &found {
            let p = probability(one.number("p_better_nll_than_mle")?);
            cells.push(format!("{}, {} ({p})", bold(one.number("nll.value")?), three(one, "ece.value")?));
        }
        table.row(cells);
    }
    Ok(table.markdown())
}
