//! Which training items made an answer?

use super::bench::{Bench, Linearized, select, shown};
use super::mislabelled::Trained;
use crate::Outcome;
use bayes_lora::likelihood::Target;
use bayes_lora::posterior::largest_first;
use serde::Serialize;

const N_TEST: usize = 100;
const N_SHOWN: usize = 3;
const AREAS: [&str; 4] = ["STEM", "humanities", "social sciences", "other"];

#[derive(Serialize)]
struct TrainingItem {
    id: String,
    label: usize,
    is_wrong: bool,
    /// Change of the answer's loss in nats if the item had been left out.
    loss_change: f64,
}

#[derive(Serialize)]
pub struct Influential {
    test_item: String,
    label: usize,
    answer: usize,
    loss: f64,
    helped: Vec<TrainingItem>,
    harmed: Vec<TrainingItem>,
    /// Mean over the test items' losses of the change if a training item had been left out: of wrong labels, and of right ones.
    mean_change_without_wrong: f64,
    mean_change_without_right: f64,
}

/// The items that helped and harmed the worst answer of some test items most.
pub fn of_an_answer(bench: &Bench, trained: &Trained) -> Outcome<Influential> {
    let test = select(&bench.test, &(0..N_TEST.min(bench.test.len())).collect::<Vec<_>>());
    let labels = test.labels()?;
    let Linearized { model, mode, rows, .. } = &trained.linearized;
    let others = bench.rows_of(&trained.linearized, &trained.adapted, &test)?;
    let influence = model.influence(mode, rows, &others)?;
    let targets: Vec<Target> = labels.iter().map(|label| Target::Class(*label)).collect();
    let changes = influence.loss_changes(&targets)?;
    let losses = bench.losses(&trained.adapted, &test)?;
    let worst = largest_first(&losses)[0];
    let answer = bayes_lora::belief::top_class(others.items.outputs.row(worst));
    println!("\n\"{}\"", shown(&bench.test_questions, worst));
    println!("  is {} and was answered {} ({:.2} nats)", AREAS[labels[worst]], AREAS[answer], losses[worst]);

    let of_worst = changes.column(worst).to_vec();
    let order = largest_first(&of_worst);
    let show = |title: &str, items: &[usize]| {
        println!("  {title}");
        let one = |&item: &usize| {
            let label = trained.labels()[item];
            let note = if trained.is_wrong[item] { ", a wrong label" } else { "" };
            let question = shown(&bench.questions, trained.places[item]);
            println!("    {:+.3} nats without \"{question}\" ({}{note})", of_worst[item], AREAS[label]);
            TrainingItem {
                id: trained.data.items[item].id.clone(),
                label,
                is_wrong: trained.is_wrong[item],
                loss_change: of_worst[item],
            }
        };
        items.iter().map(one).collect::<Vec<_>>()
    };
    let helped = show("what spoke for the right answer:", &order[..N_SHOWN]);
    let last: Vec<usize> = order.iter().rev().take(N_SHOWN).copied().collect();
    let harmed = show("what spoke against it:", &last);
    let mean = |wrong: bool| {
        let items: Vec<usize> = (0..trained.is_wrong.len()).filter(|&i| trained.is_wrong[i] == wrong).collect();
        let sum: f64 = items.iter().map(|&i| changes.row(i).sum()).sum();
        sum / (items.len().max(1) * labels.len()) as f64
    };
    let (mean_change_without_wrong, mean_change_without_right) = (mean(true), mean(false));
    println!(
        "  over {N_TEST} test items the loss changes by {:+.5} nats without a wrong label, {:+.5} without a right one",
        mean_change_without_wrong, mean_change_without_right
    );
    Ok(Influential {
        test_item: test.items[worst].id.clone(),
        label: labels[worst],
        answer,
        loss: losses[worst],
        helped,
        harmed,
        mean_change_without_wrong,
        mean_change_without_right,
    })
}
