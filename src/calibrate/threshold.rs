//! Writes a threshold, which may be infinite, to files that hold no infinity: nothing stands for it.

use crate::file_header::Exact;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error, Serialize, Serializer};

/// Finite ones are kept to the last bit: items of the fit lie on the threshold. NaN and −∞ are refused.
pub(super) fn serialize<S: Serializer>(threshold: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let finite = (*threshold != f64::INFINITY).then(|| Exact::new("threshold", *threshold));
    finite.transpose().map_err(S::Error::custom)?.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<Exact>::deserialize(deserializer)?.map_or(f64::INFINITY, Exact::value))
}

#[cfg(test)]
mod tests {
    use crate::calibrate::{Abstention, ConformalScore, ConformalSets};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn sets(threshold: f64) -> ConformalSets {
        let score = ConformalScore::RegularizedAdaptive { randomized: true, penalty: 0.25, free_ranks: 1 };
        ConformalSets { score, miscoverage: 0.1, threshold, n_items: 9, seed: u64::MAX }
    }

    fn abstention(threshold: f64) -> Abstention {
        Abstention { threshold, risk: 0.1, failure_probability: 0.05, n_items: 40, n_accepted: 30, n_wrong: 1 }
    }

    fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(rule: impl Fn(f64) -> T) {
        // thirds and their kind have no short decimal form
        for threshold in [0.8, 0.0, -1.5, 1.0 / 3.0, 2.0 / 3.0 - 1e-16, f64::MIN_POSITIVE, f64::INFINITY] {
            let text = serde_json::to_string(&rule(threshold)).unwrap();
            assert_eq!(serde_json::from_str::<T>(&text).unwrap(), rule(threshold), "{text}");
        }
        for threshold in [f64::NAN, f64::NEG_INFINITY] {
            let error = serde_json::to_string(&rule(threshold)).unwrap_err().to_string();
            assert!(error.contains("threshold"), "{error}");
        }
    }

    fn refused<T: DeserializeOwned + std::fmt::Debug>(written: Value) {
        let error = |change: &dyn Fn(&mut Value)| {
            let mut changed = written.clone();
            change(&mut changed);
            serde_json::from_value::<T>(changed).unwrap_err().to_string()
        };
        let unknown = error(&|value: &mut Value| value["colour"] = json!("red"));
        assert!(unknown.contains("unknown field `colour`"), "{unknown}");
        let missing = error(&|value: &mut Value| drop(value.as_object_mut().unwrap().remove("threshold")));
        assert!(missing.contains("missing field `threshold`"), "{missing}");
        let wrong = error(&|value: &mut Value| value["threshold"] = json!("inf"));
        assert!(wrong.contains("not a finite number"), "{wrong}");
        assert_eq!(written["threshold"], Value::Null);
    }

    #[test]
    fn rules_come_back_from_json_with_finite_and_infinite_thresholds() {
        survives(sets);
        survives(abstention);
    }

    #[test]
    fn unknown_and_missing_fields_and_other_thresholds_are_refused() {
        refused::<ConformalSets>(serde_json::to_value(sets(f64::INFINITY)).unwrap());
        refused::<Abstention>(serde_json::to_value(abstention(f64::INFINITY)).unwrap());
    }
}
