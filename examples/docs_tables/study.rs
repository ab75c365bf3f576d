//! Tables of the reports of the curvature study.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::Table;

const SAMPLED: &str = ", 1 sampled label";
const EMPIRICAL: &str = ", empirical";

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
    let scored = ["structure", "λ by evidence", "NLL", "ECE", "λ held out", "NLL", "ECE"];
    let compared = ["variance / exact", "log-variance correlation", "KL from exact", "variance / site block"];
    let last = ["variance / exact, each at its own λ", "best multiplier"];
    let mut table = Table::new(scored.into_iter().chain(compared).chain(last));
    for (name, row) in &rows {
        let mut cells = vec![name.clone()];
        cells.extend(scores(row, "by_evidence")?);
        cells.extend(scores(row, "by_held_out")?);
        cells.extend(against(row, "against_exact")?);
        cells.push(against(row, "against_site_block")?[0].clone());
        cells.push(against(row, "against_exact_by_evidence")?[0].clone());
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
