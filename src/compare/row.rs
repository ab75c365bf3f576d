//! Makes rows of tables from a method's answers: the method as it answered, and what calibrators make of its answers at no
//! further pass.

use super::cell::{Answered, Answers, Cell, Outcome, Setting};
use super::options::ReportOptions;
use crate::belief::entropy;
use crate::calibrate::{Calibration, halves};
use crate::error::Result;
use ndarray::Array2;
use std::collections::BTreeMap;

/// Largest mutual information, in nats, that rounding can leave where there is none: answers are kept to nine digits.
const ROUNDING: f64 = 1e-7;

/// A method, or a method with a calibrator behind it.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub cell: &'a Cell,
    pub calibration: Option<Calibration>,
    /// The answers, or why there are none.
    pub answers: std::result::Result<RowAnswers, String>,
}

/// The answers of a row.
#[derive(Debug, Clone)]
pub(super) struct RowAnswers {
    /// To the second half of the held-out items, for sets and abstention, with the labels; none where there are no such items.
    pub for_sets: Option<(Array2<f64>, Vec<usize>)>,
    pub test: SplitAnswers,
    /// In the order of [`Setting::shifted`].
    pub shifted: Vec<SplitAnswers>,
    /// Numbers of the calibrator.
    pub parameters: BTreeMap<String, f64>,
    /// What a reader must know of the calibrator's fit.
    pub caveat: Option<&'static str>,
}

/// The answers of a row to one set of items.
#[derive(Debug, Clone)]
pub(super) struct SplitAnswers {
    /// `[n_items, n_classes]`
    pub probabilities: Array2<f64>,
    /// `H[p̄]` in nats, of the probabilities above. `[n_items]`
    pub entropy: Vec<f64>,
    /// `H[p̄] − E[H[p]]` in nats; none of a row that says nothing about the weights. `[n_items]`
    pub mutual_information: Option<Vec<f64>>,
    /// `−log Σ_c exp f̄_c`; none after a calibrator, which leaves the logits and so the energy as they were. `[n_items]`
    pub energy: Option<Vec<f64>>,
}

impl Row<'_> {
    /// `method` or `method + calibrator`.
    pub fn name(&self) -> String {
        let method = &self.cell.method;
        self.calibration.map_or_else(|| method.clone(), |c| format!("{method} + {}", c.name()))
    }
}

/// All rows of a checked run: every method, each directly before its calibrated ones.
///
/// Calibrators are fitted to the first half of the held-out answers, in the post form, on averaged probabilities. Where
/// the fit fails the row says why.
pub(super) fn rows<'a>(setting: &Setting, cells: &'a [Cell], options: &ReportOptions) -> Result<Vec<Row<'a>>> {
    let mut rows = Vec::new();
    for cell in cells {
        let answered = match &cell.outcome {
            Outcome::Answered(answered) => answered,
            Outcome::Predicted(_) => {
                let reason = "its answers are about numbers, not classes";
                rows.push(Row { cell, calibration: None, answers: Err(reason.into()) });
                continue;
            }
            Outcome::Failed(reason) => {
                rows.push(Row { cell, calibration: None, answers: Err(reason.clone()) });
                continue;
            }
        };
        let held_out = match &answered.held_out {
            Some(answers) if setting.held_out.len() > 1 => Some(halves(answers.matrix()?.view(), &setting.held_out)?),
            _ => None,
        };
        let as_answered = as_answered(answered, held_out.as_ref().map(|[_, second]| second.clone()))?;
        let mut calibrated_rows = Vec::new();
        if let Some([(first, labels), _]) = &held_out {
            for calibration in options.calibrations_of(&cell.method) {
                let answers = calibrated(&as_answered, calibration, first, labels).map_err(|e| e.to_string());
                calibrated_rows.push(Row { cell, calibration: Some(calibration), answers });
            }
        }
        rows.push(Row { cell, calibration: None, answers: Ok(as_answered) });
        rows.append(&mut calibrated_rows);
    }
    Ok(rows)
}

fn as_answered(answered: &Answered, for_sets: Option<(Array2<f64>, Vec<usize>)>) -> Result<RowAnswers> {
    let mut test = SplitAnswers::new(&answered.test)?;
    let mut shifted = answered.shifted.iter().map(SplitAnswers::new).collect::<Result<Vec<_>>>()?;
    // zero up to rounding everywhere: a point, whose rounding errors would be ranked otherwise
    let says_nothing = std::iter::once(&test)
        .chain(&shifted)
        .flat_map(|split| split.mutual_information.iter().flatten())
        .all(|information| *information <= ROUNDING);
    if says_nothing {
        std::iter::once(&mut test).chain(&mut shifted).for_each(|split| split.mutual_information = None);
    }
    Ok(RowAnswers { for_sets, test, shifted, parameters: BTreeMap::new(), caveat: None })
}

/// What a calibrator fitted to `held_out` makes of the answers.
fn calibrated(
    row: &RowAnswers,
    calibration: Calibration,
    held_out: &Array2<f64>,
    labels: &[usize],
) -> Result<RowAnswers> {
    let calibrator = calibration.fit(held_out.view(), labels)?;
    let apply = |split: &SplitAnswers| -> Result<SplitAnswers> {
        let probabilities = calibrator.apply_to_probabilities(split.probabilities.view())?;
        let entropy = probabilities.outer_iter().map(entropy).collect();
        Ok(SplitAnswers { entropy, probabilities, mutual_information: None, energy: None })
    };
    let for_sets = match &row.for_sets {
        Some((p, labels)) => Some((calibrator.apply_to_probabilities(p.view())?, labels.clone())),
        None => None,
    };
    Ok(RowAnswers {
        for_sets,
        test: apply(&row.test)?,
        shifted: row.shifted.iter().map(apply).collect::<Result<_>>()?,
        parameters: calibrator.parameters().into_iter().collect(),
        caveat: calibrator.caveat(),
    })
}

impl SplitAnswers {
    fn new(answers: &Answers) -> Result<Self> {
        Ok(Self {
            probabilities: answers.matrix()?,
            entropy: answers.entropy().to_vec(),
            mutual_information: Some(answers.mutual_information().to_vec()),
            energy: Some(answers.log_sum_exp.iter().map(|l| -l).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Temperature;
    use crate::compare::options::MethodSelection;
    use crate::compare::synthetic;

    #[test]
    fn the_temperature_row_is_the_temperature_by_hand() {
        let run = synthetic::run("task", 0, &["map", "laplace"]);
        let rows = rows(&run.setting, &run.cells, &ReportOptions::default()).unwrap();
        let names: Vec<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names, ["map", "map + temperature", "laplace", "laplace + temperature"]);
        let Outcome::Answered(answered) = &run.cells[1].outcome else { panic!("it answered") };
        let held_out = answered.held_out.as_ref().unwrap().matrix().unwrap();
        let middle = run.setting.held_out.len() / 2;
        let first = held_out.slice(ndarray::s![..middle, ..]);
        let by_hand = Temperature::fit_probabilities(first, &run.setting.held_out[..middle]).unwrap().temperature;
        let row = rows[3].answers.as_ref().unwrap();
        assert_eq!(row.parameters["inverse temperature"], by_hand.beta);
        let test = answered.test.matrix().unwrap();
        for (item, p) in test.outer_iter().enumerate() {
            let powers: Vec<f64> = p.iter().map(|p| p.powf(by_hand.beta)).collect();
            let sum: f64 = powers.iter().sum();
            // Powers against exponentials of logarithms.
            let near = |(c, power): (usize, &f64)| (power / sum - row.test.probabilities[[item, c]]).abs() < 1e-13;
            assert!(powers.iter().enumerate().all(near));
        }
        let (second, labels) = row.for_sets.as_ref().unwrap();
        assert_eq!((second.nrows(), labels.as_slice()), (held_out.nrows() - middle, &run.setting.held_out[middle..]));
    }

    #[test]
    fn a_calibrated_row_knows_neither_mutual_information_nor_energy_and_a_point_no_information() {
        let run = synthetic::run("task", 0, &["map", "laplace"]);
        let rows = rows(&run.setting, &run.cells, &ReportOptions::default()).unwrap();
        let known = |row: &Row| {
            let test = &row.answers.as_ref().unwrap().test;
            (test.mutual_information.is_some(), test.energy.is_some())
        };
        let found: Vec<_> = rows.iter().map(known).collect();
        assert_eq!(found, [(false, true), (false, false), (true, true), (false, false)]);
        let energy = rows[0].answers.as_ref().unwrap().test.energy.clone().unwrap();
        let Outcome::Answered(answered) = &run.cells[0].outcome else { panic!("it answered") };
        assert_eq!(energy[3], -answered.test.log_sum_exp[3]);
    }

    #[test]
    fn without_held_out_labels_there_are_no_calibrated_rows() {
        let mut run = synthetic::run("task", 0, &["map", "laplace"]);
        run.setting.held_out.clear();
        for cell in &mut run.cells {
            let Outcome::Answered(answered) = &mut cell.outcome else { panic!("it answered") };
            answered.held_out = None;
        }
        let rows = rows(&run.setting, &run.cells, &ReportOptions::default()).unwrap();
        assert_eq!(rows.iter().map(Row::name).collect::<Vec<_>>(), ["map", "laplace"]);
        assert!(rows[0].answers.as_ref().unwrap().for_sets.is_none());
    }

    #[test]
    fn a_failed_method_has_one_row_and_a_failed_fit_says_why() {
        let mut run = synthetic::run("task", 0, &["map", "laplace"]);
        run.cells[0].outcome = Outcome::Failed("no memory".into());
        let Outcome::Answered(answered) = &mut run.cells[1].outcome else { panic!("it answered") };
        // the label of held-out item 0 has probability 0
        let label = run.setting.held_out[0];
        let row = &mut answered.held_out.as_mut().unwrap().probabilities[0];
        *row = vec![0.5; 3];
        row[label] = 0.0;
        let options = ReportOptions { vector_scaling: MethodSelection::All, ..Default::default() };
        let rows = rows(&run.setting, &run.cells, &options).unwrap();
        let names: Vec<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names, ["map", "laplace", "laplace + temperature", "laplace + vector scaling"]);
        assert_eq!(rows[0].answers.as_ref().unwrap_err(), "no memory");
        assert!(rows[1].answers.is_ok());
        assert!(rows[2].answers.as_ref().unwrap_err().contains("held-out item 0"));
        assert!(rows[3].answers.as_ref().unwrap_err().contains("not finite"));
    }
}
