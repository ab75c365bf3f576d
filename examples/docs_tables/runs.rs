//! Tables of the reports of `quickstart`.

use crate::data::{Data, Failure, Node, Spec};
use crate::table::{Table, estimate};

const LABELS: [(&str, &str); 5] = [
    ("mle", "MLE"),
    ("mle_best_validation", "MLE, best validation epoch"),
    ("mle_temperature", "MLE + temperature"),
    ("laplace_sampled", "Laplace, sampled weights"),
    ("laplace_linearized", "Laplace, linearised"),
];

/// Scores of the methods with their intervals.
pub fn methods(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let mut table = Table::new(["method", "accuracy", "NLL", "ECE", "Brier"]);
    for method in data.json(spec.file()?)?.list("methods")? {
        let name = method.text("name")?;
        let (_, label) =
            LABELS.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("method `{name}` has no label"))?;
        let scores = ["accuracy", "nll", "ece", "brier"].map(|score| estimate(&method.at(score)?));
        table.row(std::iter::once(Ok(label.to_string())).chain(scores).collect::<Result<Vec<_>, Failure>>()?);
    }
    Ok(table.markdown())
}

fn by_seed(spec: &Spec, data: &mut Data) -> Result<Vec<Node>, Failure> {
    spec.files.iter().map(|file| data.json(file)).collect()
}

/// P(linearised Laplace better than maximum likelihood), a row a seed.
pub fn paired(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    let mut table = Table::new(["seed", "NLL", "ECE", "Brier", "accuracy", "accuracy difference"]);
    for run in by_seed(spec, data)? {
        let pair = run.at("paired_linearized_vs_mle")?;
        let mut row = vec![run.number("seed")?.to_string()];
        for score in ["nll", "ece", "brier", "accuracy"] {
            row.push(format!("{:.3}", pair.number(&format!("{score}.p_better"))?));
        }
        row.push(estimate(&pair.at("accuracy.difference")?)?);
        table.row(row);
    }
    Ok(table.markdown())
}
