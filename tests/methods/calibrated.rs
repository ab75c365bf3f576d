//! A calibrator behind a belief: what it answers, what it keeps, what it refuses.

use super::{Case, laplace, points};
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::calibrate::{Calibration, Calibrator, Temperature, VectorScaling};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Result;
use bayes_lora::methods::{
    Belief, CalibratedBelief, Fitted, HeadLaplace, Keep, MaximumLikelihood, Method, Needs, PointBelief,
};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::predict::Predictive;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array2, ArrayView2, arr2};

const LIMITS: BatchLimits = BatchLimits { max_items: 64, max_tokens: 1000 };

/// A point, Gaussians of two kinds, draws.
fn beliefs(case: &Case<Mlp, Points>) -> Vec<Box<dyn Belief<Mlp, Points>>> {
    let sampled = Predictive::Sampled { n_samples: 10, seed: 0 };
    let methods: Vec<Box<dyn Method<Mlp, Points>>> = vec![
        Box::new(MaximumLikelihood),
        Box::new(HeadLaplace::default()),
        Box::new(laplace(CurvatureStructure::Core)),
        Box::new(laplace(CurvatureStructure::Core).with_predictive(sampled)),
    ];
    methods.iter().map(|method| method.fit(&case.context(5, &Control::silent())).unwrap().belief).collect()
}

/// Training points, every fourth with the other label, so that a temperature has a bound.
fn held_out(case: &Case<Mlp, Points>) -> Points {
    let labels = case.train.labels.iter().enumerate();
    let labels = labels.map(|(i, &label)| if i % 4 == 0 { 1 - label } else { label }).collect();
    Points::new(case.train.features.clone(), labels).unwrap()
}

fn answers(belief: &dyn Belief<Mlp, Points>, case: &Case<Mlp, Points>, data: &Points) -> LogitBelief {
    belief.believe(&case.map, data, &LIMITS, &Control::silent()).unwrap()
}

fn probabilities(belief: &dyn Belief<Mlp, Points>, case: &Case<Mlp, Points>, data: &Points) -> Array2<f64> {
    answers(belief, case, data).probabilities(belief.link()).unwrap()
}

fn fit(
    belief: Box<dyn Belief<Mlp, Points>>,
    case: &Case<Mlp, Points>,
    held_out: &Points,
    calibration: Calibration,
) -> Result<CalibratedBelief<Mlp, Points>> {
    CalibratedBelief::fit(belief, &case.map, held_out, calibration, &LIMITS, &Control::silent())
}

fn largest_difference(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn answers_are_the_calibrated_averages_of_the_belief_within() {
    let case = points(DType::F32);
    let held_out = held_out(&case);
    for calibration in [Calibration::Temperature, Calibration::VectorScaling] {
        for belief in beliefs(&case) {
            let by_hand = calibration.fit(probabilities(&*belief, &case, &held_out).view(), &held_out.labels).unwrap();
            let p = probabilities(&*belief, &case, &case.test);
            let expected = by_hand.apply_to_probabilities(p.view()).unwrap();
            let needs = belief.needs(&case.test, 2);
            let calibrated = fit(belief, &case, &held_out, calibration).unwrap();
            let calibrated: &dyn Belief<Mlp, Points> = &calibrated;
            assert!(matches!(answers(calibrated, &case, &case.test), LogitBelief::Point { .. }));
            let found = probabilities(calibrated, &case, &case.test);
            // a logarithm and a softmax
            assert!(largest_difference(&found, &expected) < 1e-12);
            assert!(largest_difference(&found, &p) > 1e-3, "the calibrator changed nothing");
            assert_eq!((calibrated.needs(&case.test, 2), calibrated.linearized().is_none()), (needs, true));
        }
    }
}

#[test]
fn a_temperature_of_1_changes_nothing() {
    let case = points(DType::F32);
    for belief in beliefs(&case) {
        let p = probabilities(&*belief, &case, &case.test);
        let same = CalibratedBelief { belief, calibrator: Box::new(Temperature::new(1.0).unwrap()) };
        assert!(largest_difference(&probabilities(&same, &case, &case.test), &p) < 1e-12);
    }
}

#[test]
fn what_was_saved_answers_with_the_same_bits() {
    let case = points(DType::F32);
    let held_out = held_out(&case);
    for calibration in [Calibration::Temperature, Calibration::VectorScaling] {
        for belief in beliefs(&case) {
            let fitted = Fitted::new(fit(belief, &case, &held_out, calibration).unwrap());
            let dir = tempfile::tempdir().unwrap();
            fitted.save(dir.path(), &case.map).unwrap();
            let loaded = Fitted::<Mlp, Points>::load(dir.path(), &case.map).unwrap();
            let of = |fitted: &Fitted<Mlp, Points>| answers(&*fitted.belief, &case, &case.test);
            assert_eq!(of(&loaded), of(&fitted));
        }
    }
}

/// A calibrator of one's own.
#[derive(Debug)]
struct Mine(VectorScaling);

impl Calibrator for Mine {
    fn calibrated_on(probabilities: ArrayView2<f64>, labels: &[usize]) -> Result<Self> {
        VectorScaling::calibrated_on(probabilities, labels).map(Self)
    }

    fn apply(&self, belief: &LogitBelief) -> Result<LogitBelief> {
        self.0.apply(belief)
    }

    fn apply_to_probabilities(&self, probabilities: ArrayView2<f64>) -> Result<Array2<f64>> {
        self.0.apply_to_probabilities(probabilities)
    }

    fn parameters(&self) -> Vec<(String, f64)> {
        self.0.parameters()
    }
}

#[test]
fn what_cannot_be_kept_is_not_saved_and_what_has_no_labels_is_not_fitted() {
    let case = points(DType::F32);
    let point = || Box::new(PointBelief) as Box<dyn Belief<Mlp, Points>>;
    let half = || Box::new(Temperature::new(0.5).unwrap()) as Box<dyn Calibrator>;
    let scaling = VectorScaling { weight: vec![1.0; 2], bias: vec![0.0; 2] };
    let once = CalibratedBelief { belief: point(), calibrator: half() };
    let twice = CalibratedBelief::<Mlp, Points> { belief: Box::new(once), calibrator: half() };
    let mine = CalibratedBelief { belief: point(), calibrator: Box::new(Mine(scaling)) };
    for belief in [twice, mine] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(probabilities(&belief, &case, &case.test).dim(), (case.test.labels.len(), 2));
        let error = Fitted::new(belief).save(dir.path(), &case.map).unwrap_err().to_string();
        assert!(error.contains("does not say what it keeps"), "{error}");
    }
    let unlabelled = Points::new(case.train.features.clone(), Vec::new()).unwrap();
    let error = fit(point(), &case, &unlabelled, Calibration::Temperature).err().unwrap().to_string();
    assert!(error.contains("has no label"), "{error}");
}

/// Two items with three classes; the second lacks the last one.
struct Lacking;

impl Keep for Lacking {}

impl Belief<Mlp, Points> for Lacking {
    fn believe(&self, _model: &Mlp, _data: &Points, _limits: &BatchLimits, _control: &Control) -> Result<LogitBelief> {
        Ok(LogitBelief::Point { logits: arr2(&[[1.0, 3.0, 0.0], [2.0, 0.0, f64::NEG_INFINITY]]) })
    }

    fn needs(&self, _data: &Points, _n_classes: usize) -> Needs {
        Needs::default()
    }
}

#[test]
fn a_class_that_an_item_lacks_keeps_its_logit() {
    let case = points(DType::F32);
    let half = Box::new(Temperature::new(0.5).unwrap());
    let calibrated = CalibratedBelief::<Mlp, Points> { belief: Box::new(Lacking), calibrator: half };
    let LogitBelief::Point { logits } = answers(&calibrated, &case, &case.test) else { panic!("no point") };
    assert_eq!(logits[[1, 2]], f64::NEG_INFINITY);
    assert_eq!(logits.iter().filter(|f| f.is_finite()).count(), 5);
    let p = LogitBelief::Point { logits }.probabilities(LinkApprox::default()).unwrap();
    // margins of 2 and 1, halved: the second item's odds are e
    assert!((p[[1, 0]] / p[[1, 1]] - 1f64.exp()).abs() < 1e-12 && p[[1, 2]] == 0.0);
}
