use super::*;
use crate::compare::cell::ShiftedSplit;
use crate::compare::row::rows;
use crate::compare::synthetic;
use ndarray::{Array2, arr2};
use std::collections::BTreeMap;

fn split(probabilities: Array2<f64>, entropy: &[f64], information: Option<&[f64]>, energy: &[f64]) -> SplitAnswers {
    SplitAnswers {
        probabilities,
        entropy: entropy.to_vec(),
        mutual_information: information.map(<[f64]>::to_vec),
        energy: Some(energy.to_vec()),
    }
}

/// Three test items and three foreign ones.
fn three_and_three() -> (RowAnswers, Setting) {
    let mut setting = synthetic::run("task", 0, &["map"]).setting;
    setting.classes.truncate(2);
    setting.test = vec![0, 1, 1];
    setting.shifted = vec![ShiftedSplit { name: "foreign".into(), n_items: 3, labels: Vec::new() }];
    let p = arr2(&[[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]);
    let row = RowAnswers {
        for_sets: None,
        test: split(p.clone(), &[0.1, 0.4, 0.2], Some(&[0.0, 0.1, 0.3]), &[-5.0, -4.0, -1.0]),
        shifted: vec![split(p, &[0.3, 0.5, 0.6], Some(&[0.2, 0.2, 0.2]), &[-6.0, -4.0, -2.0])],
        parameters: BTreeMap::new(),
        caveat: None,
    };
    (row, setting)
}

#[test]
fn detection_is_that_counted_by_hand() {
    let (row, setting) = three_and_three();
    let summary = Summary::new(&row, &setting, &ReportOptions::default()).unwrap();
    let [shift] = &summary.shifted[..] else { panic!("one split was given") };
    assert_eq!((shift.split.as_str(), shift.n_items), ("foreign", 3));
    let [entropy, information, energy] = &shift.detections[..] else { panic!("three scores were given") };
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    // entropy: of nine pairs only 0.3 against 0.4 is wrong
    assert_eq!(entropy.score, UncertaintyScore::Entropy);
    assert!(near(entropy.auroc.value, 8.0 / 9.0));
    // alarms 0.6 ✓, 0.5 ✓, 0.4 ✗, 0.3 ✓: precisions 1, 1, 3/4
    assert!(near(entropy.aupr.value, (1.0 + 1.0 + 0.75) / 3.0));
    // all three foreign ones are found at 0.3, with one false alarm of three
    assert!(near(entropy.fpr95.value, 1.0 / 3.0));
    // mutual information: 0.2 beats two of three
    assert!(near(information.auroc.value, 2.0 / 3.0));
    // alarms 0.3 ✗, then all three: precision 3/4
    assert!(near(information.aupr.value, 0.75));
    assert!(near(information.fpr95.value, 1.0 / 3.0));
    // energy, −4 against −4 counts half: −6: 0, −4: 1½, −2: 2 of nine
    assert_eq!(energy.score, UncertaintyScore::Energy);
    assert!(near(energy.auroc.value, 3.5 / 9.0));
    assert!(near(energy.fpr95.value, 1.0));
}

#[test]
fn a_score_that_a_row_lacks_has_no_detection() {
    let (mut row, setting) = three_and_three();
    row.test.mutual_information = None;
    let summary = Summary::new(&row, &setting, &ReportOptions::default()).unwrap();
    let scores: Vec<_> = summary.shifted[0].detections.iter().map(|d| d.score).collect();
    assert_eq!(scores, [UncertaintyScore::Entropy, UncertaintyScore::Energy]);
    assert!(summary.sets.is_empty() && summary.abstention.is_none());
}

#[test]
fn entropies_are_counted_by_right_wrong_and_split() {
    let (mut row, setting) = three_and_three();
    row.test.entropy[1] = 2f64.ln();
    let histogram = EntropyHistogram::new(&row, &setting);
    assert_eq!(histogram.groups, ["right", "wrong", "foreign"]);
    let totals: Vec<usize> = histogram.counts.iter().map(|counts| counts.iter().sum()).collect();
    assert_eq!(totals, [2, 1, 3]);
    // the item answered wrongly has the largest entropy that two classes allow
    assert_eq!(histogram.counts[1][19], 1);
    // 0.1 and 0.2 of 0.693 in twenty bins
    assert_eq!((histogram.counts[0][2], histogram.counts[0][5]), (1, 1));
    assert_eq!((histogram.edges[0], histogram.edges[20]), (0.0, 2f64.ln()));
}

#[test]
fn sets_and_abstention_are_those_of_the_rules_by_hand() {
    let run = synthetic::run("task", 0, &["map"]);
    let options = ReportOptions {
        set_scores: vec![ConformalScore::LeastAmbiguous, ConformalScore::Adaptive { randomized: true }],
        risk: 0.3,
        ..Default::default()
    };
    let rows = rows(&run.setting, &run.cells, &options).unwrap();
    let row = rows[0].answers.as_ref().unwrap();
    let summary = Summary::new(row, &run.setting, &options).unwrap();
    let (p, labels) = row.for_sets.as_ref().unwrap();
    assert_eq!(summary.sets.len(), 2);
    for (set, score) in summary.sets.iter().zip(&options.set_scores) {
        let rule = ConformalSets::fit(p.view(), labels, 0.1, *score, 0).unwrap();
        let members = rule.sets(row.test.probabilities.view()).unwrap();
        let n = run.setting.test.len() as f64;
        let covered = run.setting.test.iter().enumerate().filter(|(i, y)| members[[*i, **y]]).count() as f64;
        assert_eq!((set.coverage.value, set.n_items), (covered / n, labels.len()));
        let mean_size = members.iter().filter(|member| **member).count() as f64 / n;
        assert!((set.mean_size.value - mean_size).abs() < 1e-12); // a sum of shares
        assert!(set.mean_size.low <= set.mean_size.value && set.mean_size.value <= set.mean_size.high);
        assert_eq!(set.threshold, Some(rule.threshold));
    }
    let abstention = summary.abstention.unwrap();
    let threshold = abstention.threshold.unwrap();
    let top = |i: usize| row.test.probabilities.row(i).iter().copied().fold(0.0, f64::max);
    let answered: Vec<usize> = (0..run.setting.test.len()).filter(|&i| top(i) >= threshold).collect();
    assert_eq!(abstention.coverage.value, answered.len() as f64 / run.setting.test.len() as f64);
    let wrong = answered.iter().filter(|&&i| row.test.probabilities[[i, run.setting.test[i]]] < top(i)).count();
    assert_eq!(abstention.selective_risk.unwrap().value, wrong as f64 / answered.len() as f64);
    assert!(!answered.is_empty());
}

#[test]
fn no_temperature_has_less_nll_than_the_oracle() {
    let (row, mut setting) = three_and_three();
    let nll = |beta: f64| {
        let loss = |(p, label): (ndarray::ArrayView1<f64>, &usize)| {
            let powers = p.mapv(|p| p.powf(beta));
            -(powers[*label] / powers.sum()).ln()
        };
        row.test.probabilities.outer_iter().zip(&[0, 1, 1]).map(loss).sum::<f64>() / 3.0
    };
    let oracle = Summary::new(&row, &setting, &ReportOptions::default()).unwrap().oracle.unwrap();
    assert!((oracle.nll.value - nll(oracle.beta)).abs() < 1e-12);
    assert!((1..=60).all(|step| nll(0.05 * f64::from(step)) >= oracle.nll.value - 1e-12));
    assert!(oracle.nll.low < oracle.nll.value && oracle.nll.value < oracle.nll.high);
    // every answer is right: the sharper, the better
    setting.test = vec![0, 0, 1];
    assert_eq!(Summary::new(&row, &setting, &ReportOptions::default()).unwrap().oracle, None);
}

#[test]
fn curves_keep_their_end_and_few_points() {
    let confidence: Vec<f64> = (0..1000).map(|i| 1.0 - f64::from(i) / 2000.0).collect();
    let right: Vec<bool> = (0..1000).map(|i| i % 7 > 0).collect();
    let curve = RiskCoverage::from_confidence(&confidence, &right).unwrap();
    let points = thinned(&curve);
    assert_eq!((points.len(), points[0].0), (101, 0.01));
    assert_eq!(points[100], (1.0, curve.risk[999]));
    let short = RiskCoverage::from_confidence(&[0.9, 0.8], &[true, false]).unwrap();
    assert_eq!(thinned(&short), [(1.0, 0.5)]);
}
