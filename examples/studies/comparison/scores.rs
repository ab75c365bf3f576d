//! What a comparing program says and leaves at its end.

use crate::Outcome;
use bayes_lora::compare::{Report, RowOutcome};
use std::path::Path;

/// Prints a short table, writes the report and, for each task, its scores with their intervals as a picture.
pub fn leave(report: &Report, dir: &Path) -> Outcome<()> {
    print_scores(report);
    println!("wrote {}", report.save(dir)?.html.display());
    for picture in report.save_forest_plots(dir)? {
        println!("wrote {}", picture.png.display());
    }
    Ok(())
}

fn print_scores(report: &Report) {
    for run in &report.runs {
        let info = &run.info;
        println!("\n{}, {}, seed {}: {} test items", info.task, info.model, info.seed, info.n_test);
        println!("{:<48} {:>23} {:>23} {:>23}", "", "accuracy", "NLL", "ECE");
        for row in &run.rows {
            match &row.outcome {
                RowOutcome::Answered(summary) => {
                    let scores = &summary.scores;
                    println!("{:<48} {:>23} {:>23} {:>23}", row.name, scores.accuracy, scores.nll, scores.ece);
                }
                RowOutcome::Failed(reason) => println!("{:<48} {reason}", row.name),
                RowOutcome::Predicted(_) => {}
            }
        }
    }
    println!();
}
