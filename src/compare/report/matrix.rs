//! Sets the matrices of P(better) as tables, whose cells a reader can select and a page can colour.

use super::row::{RunReport, Score};
use serde::Serialize;

/// Most rows of a matrix; more are in the JSON alone.
const MOST: usize = 100;
/// Steps of colour on either side of ½.
const STEPS: f64 = 5.0;

/// P(row better than column) on one metric.
#[derive(Serialize)]
pub(super) struct Matrix {
    pub metric: &'static str,
    pub names: Vec<String>,
    pub rows: Vec<Vec<MatrixCell>>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct MatrixCell {
    /// A letter for the colour: from `a`, the column is better, over `f`, neither, to `k`, the row is better.
    pub shade: char,
    /// Per cent; empty on the diagonal.
    pub text: String,
}

/// One for each metric; none where fewer than two rows answered.
pub(super) fn matrices(run: &RunReport) -> Vec<Matrix> {
    let Some(names) = run.compared().filter(|names| names.len() <= MOST) else {
        return Vec::new();
    };
    let matrix = |score: &Score| {
        Some(Matrix {
            metric: score.name,
            names: names.to_vec(),
            rows: run.metric(score.name)?.p_better.iter().enumerate().map(|(i, row)| cells(i, row)).collect(),
        })
    };
    run.scores().iter().filter_map(matrix).collect()
}

fn cells(i: usize, row: &[f64]) -> Vec<MatrixCell> {
    let cell = |(j, p): (usize, &f64)| match i == j {
        true => MatrixCell { shade: 'f', text: String::new() },
        false => MatrixCell { shade: shade(*p), text: written(*p) },
    };
    row.iter().enumerate().map(cell).collect()
}

fn shade(p: f64) -> char {
    let step = (STEPS * (2.0 * p.clamp(0.0, 1.0) - 1.0)).round() + STEPS;
    char::from(b'a' + step as u8)
}

/// Per cent without a sign, and without claiming a certainty that draws cannot give.
fn written(p: f64) -> String {
    match p {
        p if p < 0.005 => "<1".into(),
        p if p > 0.995 => ">99".into(),
        p => format!("{:.0}", 100.0 * p),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_per_cent_and_shades_go_from_column_to_row() {
        let found: Vec<(char, String)> =
            [0.0, 0.004, 0.25, 0.5, 0.55, 0.951, 1.0].map(|p| (shade(p), written(p))).into();
        let expected = [('a', "<1"), ('a', "<1"), ('c', "25"), ('f', "50"), ('g', "55"), ('k', "95"), ('k', ">99")];
        assert_eq!(found, expected.map(|(shade, text)| (shade, text.to_string())));
        let row = cells(1, &[0.9, 0.5]);
        assert_eq!(row[1], MatrixCell { shade: 'f', text: String::new() });
        assert_eq!((row[0].shade, row[0].text.as_str()), ('j', "90"));
    }
}
