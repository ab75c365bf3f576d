//! Where a `config.json` says how queries and keys rotate: in an older or a newer place, for all layers or for each kind.

use super::family::{SlidingTheta, Traits};
use super::rope_scaling::{ORIGINAL, RopeScaling, scaling};
use super::settings::{Settings, agreed, contradiction, unsupported};
use crate::error::Result;
use serde_json::Value;

const SHARE: &str = "partial_rotary_factor";

/// The older and the newer key. transformers 5 takes the first that is not empty.
const PLACES: [&str; 2] = ["rope_scaling", "rope_parameters"];

/// Where families with two rotations say each, in the newer spelling.
const BY_LAYER: [(&str, &str); 2] =
    [("full_attention", "rope_parameters.full_attention"), ("sliding_attention", "rope_parameters.sliding_attention")];

/// How queries and keys rotate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: RopeScaling,
    /// The part of each head that rotates.
    pub(super) share: f64,
}

/// What a place does not say for itself.
#[derive(Clone, Copy)]
struct Outside<'a> {
    config: Settings<'a>,
    /// Where the base is said outside the place, and what it is if nowhere.
    theta: (Option<&'a str>, f64),
    partial: bool,
}

/// Rotation of all layers, or of those that look at everything and those that slide.
///
/// Each place is read as transformers reads it where it stands alone. Two that come out different are refused: transformers drops
/// the second one whole, its base too, which nobody who wrote it can have meant.
pub(super) fn ropes(config: Settings<'_>, traits: &Traits) -> Result<(Rope, Option<Rope>)> {
    let outside = Outside { config, theta: (Some("rope_theta"), traits.theta), partial: traits.partial };
    match traits.sliding_theta {
        None => Ok((everywhere(outside)?, None)),
        Some(sliding) => by_layer(outside, sliding).map(|(full, sliding)| (full, Some(sliding))),
    }
}

/// As [`ropes`] for a network that always has two rotations, each with a base under a key of its own.
pub(super) fn two_ropes(config: Settings<'_>, [full, sliding]: [SlidingTheta; 2]) -> Result<(Rope, Rope)> {
    by_layer(Outside { config, theta: (full.key, full.default), partial: false }, sliding)
}

fn everywhere(outside: Outside<'_>) -> Result<Rope> {
    let location = outside.config.location;
    let mut read: Option<(&str, &Value, Rope)> = None;
    for place in PLACES {
        let value = outside.config.get(place);
        let (Some(object), Some(value)) = (Settings::object(value, location, place)?, value) else { continue };
        let found = outside.with(object)?;
        match &read {
            Some((first, said, earlier)) if *earlier != found => {
                return Err(contradiction(location, [(first, said), (place, value)]));
            }
            Some(_) => {}
            None => read = Some((place, value, found)),
        }
    }
    match read {
        Some((_, _, found)) => Ok(found),
        None => outside.alone(),
    }
}

/// The older spelling is about the layers that look at everything, but for the other layers' base.
fn by_layer(full: Outside<'_>, own: SlidingTheta) -> Result<(Rope, Rope)> {
    let (config, location) = (full.config, full.config.location);
    let sliding = Outside { theta: (own.key, own.default), ..full };
    let [older, newer] = PLACES.map(|place| Settings::object(config.get(place), location, place));
    let (older, newer) = (older?, newer?);
    let nested = |(key, name): (&str, &'static str)| match newer {
        Some(newer) => Settings::object(newer.get(key), location, name),
        None => Ok(None),
    };
    let found = [nested(BY_LAYER[0])?, nested(BY_LAYER[1])?];
    if let (Some(newer), [None, None]) = (newer, &found) {
        let shown = Value::Object(newer.fields().clone()).to_string();
        return Err(unsupported(location, PLACES[1], &shown, "`full_attention` and `sliding_attention` in it"));
    }
    for object in found.iter().flatten() {
        if object.flag("truncate")? == Some(false) {
            return Err(unsupported(
                location,
                &object.name("truncate"),
                "false",
                "true: transformers does not read it here",
            ));
        }
    }
    let theta = config.number("rope_theta")?;
    if own.key.is_none() && found[1].is_none() && theta.is_some_and(|theta| theta != own.default) {
        let supported = format!("{}: versions of transformers take another one in sliding layers", own.default);
        return Err(unsupported(location, "rope_theta", &theta.unwrap_or_default().to_string(), &supported));
    }
    let read = |outside: Outside<'_>, object: Option<Settings<'_>>| match object {
        Some(object) => outside.with(object),
        None => outside.alone(),
    };
    let rope = read(full, found[0])?;
    if let Some(older) = older {
        let said = full.with(older)?;
        if found[0].is_none() {
            return Ok((said, read(sliding, found[1])?));
        }
        if said != rope {
            let shown = [config.get(PLACES[0]), newer.and_then(|newer| newer.get(BY_LAYER[0].0))];
            let shown = shown.map(|value| value.map_or("nothing".into(), Value::to_string));
            return Err(contradiction(location, [(PLACES[0], &shown[0]), (BY_LAYER[0].1, &shown[1])]));
        }
    }
    Ok((rope, read(sliding, found[1])?))
}

impl Outside<'_> {
    /// Where there is no place.
    fn alone(self) -> Result<Rope> {
        let theta = self.theta.0.map(|key| self.config.number(key)).transpose()?.flatten();
        Ok(Rope {
            theta: theta.unwrap_or(self.theta.1),
            scaling: RopeScaling::None,
            share: self.share(self.config.number(SHARE)?, SHARE.into())?,
        })
    }

    /// What one place says, with the keys outside it that belong to it.
    fn with(self, object: Settings<'_>) -> Result<Rope> {
        let location = self.config.location;
        if let Some((key, _)) = object.fields().iter().find(|(_, value)| value.is_object()) {
            return Err(unsupported(location, &object.name(key), "an object", "one setting for all layers"));
        }
        let both = |key: &str, outside: Option<&str>| {
            let inside = object.number(key)?;
            let Some(outside) = outside else { return Ok(inside) };
            agreed(location, [(object.name(key), inside), (outside.into(), self.config.number(outside)?)])
        };
        let theta = both("rope_theta", self.theta.0)?.unwrap_or(self.theta.1);
        let share = both(SHARE, Some(SHARE))?;
        let share = self.share(share, object.name(SHARE))?;
        let original = both(ORIGINAL, Some(ORIGINAL))?;
        let scaling = scaling(object, self.config, theta, original)?;
        Ok(Rope { theta, scaling, share })
    }

    fn share(self, found: Option<f64>, name: String) -> Result<f64> {
        let share = found.unwrap_or(1.0);
        if share == 1.0 || self.partial && share > 0.0 && share < 1.0 {
            return Ok(share);
        }
        let supported = if self.partial { "above 0, at most 1" } else { "1: all of each head" };
        Err(unsupported(self.config.location, &name, &share.to_string(), supported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Family;

    const DEFAULT_THETA: f64 = 10_000.0;

    fn read(json: &str) -> Result<(f64, RopeScaling)> {
        of_family(Family::Llama, json).map(|(rope, _)| (rope.theta, rope.scaling))
    }

    fn of_family(family: Family, json: &str) -> Result<(Rope, Option<Rope>)> {
        let value: Value = serde_json::from_str(json).unwrap();
        ropes(Settings::object(Some(&value), "config.json", "")?.unwrap(), family.traits())
    }

    #[test]
    fn the_places_and_names_of_one_setting_mean_the_same() {
        let linear = (500_000.0, RopeScaling::Linear { factor: 4.0 });
        for json in [
            r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}}"#,
            r#"{"rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}}"#,
            r#"{"rope_parameters": {"rope_type": "linear", "type": "linear", "factor": 4, "rope_theta": 5e5}}"#,
            r#"{"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 4}, "rope_scaling": {}}"#,
            r#"{"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 500000},
                "rope_scaling": {"type": "linear", "factor": 4}, "partial_rotary_factor": 1.0}"#,
        ] {
            assert_eq!(read(json).unwrap(), linear, "{json}");
        }
        assert_eq!(read(r#"{"rope_scaling": null, "other": 1}"#).unwrap(), (DEFAULT_THETA, RopeScaling::None));
    }

    #[test]
    fn what_is_said_twice_differently_is_refused_with_both() {
        for (json, parts) in [
            (
                r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
                    "rope_scaling": {"type": "linear", "factor": 4.0}}"#,
                &["`rope_scaling` is", "\"factor\":4.0", "`rope_parameters` is", "500000.0"][..],
            ),
            (
                // the same stretching, but transformers would forget the base
                r#"{"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 5e5},
                    "rope_scaling": {"type": "linear", "factor": 4}}"#,
                &["rope_scaling", "rope_parameters"],
            ),
            (
                r#"{"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}"#,
                &["`rope_parameters.rope_theta` is 500000", "`rope_theta` is 10000"],
            ),
            (
                r#"{"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2}}"#,
                &["`rope_scaling.rope_type` is default", "`rope_scaling.type` is linear"],
            ),
            (
                r#"{"original_max_position_embeddings": 4096, "rope_scaling": {"rope_type": "llama3", "factor": 8,
                    "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}}"#,
                &["original_max_position_embeddings", "8192", "4096"],
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_in_either_place() {
        for (json, parts) in [
            (
                r#"{"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "dynamic", "factor": 4}}"#,
                "dynamic",
            ),
            (r#"{"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "ntk"}}"#, "ntk"),
            (r#"{"rope_parameters": {"full_attention": {"rope_type": "default"}}}"#, "rope_parameters.full_attention"),
            (r#"{"rope_parameters": {"partial_rotary_factor": 0.5}}"#, "rope_parameters.partial_rotary_factor"),
            (r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor `0.5`"),
            (r#"{"rope_theta": "1e4"}"#, "rope_theta"),
            (r#"{"rope_scaling": ["linear", 4]}"#, "rope_scaling"),
            (r#"{"rope_scaling": {"type": "linear", "factor": -1}}"#, "rope_scaling.factor: must be positive"),
            (
                r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                    "original_max_position_embeddings": 8192}}"#,
                "high_freq_factor: must be at least `low_freq_factor`, which is 4, got 1",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(parts), "{error}");
        }
    }

    #[test]
    fn both_spellings_of_two_rotations_mean_the_same() {
        let linear = Rope { theta: 1e6, scaling: RopeScaling::Linear { factor: 8.0 }, share: 1.0 };
        let plain = Rope { theta: 1e4, scaling: RopeScaling::None, share: 1.0 };
        for json in [
            r#"{"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8}, "rope_local_base_freq": 10000}"#,
            r#"{"rope_scaling": {"rope_type": "linear", "factor": 8}}"#,
            r#"{"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}"#,
            r#"{"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}},
                "rope_scaling": {"type": "linear", "factor": 8}}"#,
        ] {
            assert_eq!(of_family(Family::Gemma3, json).unwrap(), (linear.clone(), Some(plain.clone())), "{json}");
        }
        for (family, json, part) in [
            (Family::Gemma3, r#"{"rope_parameters": {"rope_theta": 1e6}}"#, "`full_attention` and"),
            (
                Family::Gemma3,
                r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e6}}, "rope_theta": 1e5}"#,
                "rope_parameters.full_attention.rope_theta",
            ),
            (
                Family::Gemma3,
                r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e6}},
                    "rope_scaling": {"rope_type": "linear", "factor": 8}}"#,
                "`rope_parameters.full_attention` is",
            ),
            (Family::Olmo3, r#"{"rope_theta": 1e4}"#, "rope_theta `10000`"),
        ] {
            let error = of_family(family, json).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn part_of_a_head_rotates_where_the_family_can() {
        let share = |json: &str| of_family(Family::Phi3, json).map(|(rope, _)| rope.share);
        assert_eq!(share(r#"{"partial_rotary_factor": 0.5}"#).unwrap(), 0.5);
        assert_eq!(share(r#"{"rope_parameters": {"partial_rotary_factor": 0.75}}"#).unwrap(), 0.75);
        assert!(share(r#"{"partial_rotary_factor": 1.5}"#).unwrap_err().to_string().contains("1.5"));
    }

    #[test]
    fn what_stretching_needs_is_asked_for_by_name() {
        let yarn = r#"{"rope_parameters": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64}}"#;
        let factors = r#""short_factor": [1, 1], "long_factor": [1, 2], "original_max_position_embeddings": 64"#;
        let su = format!("{{\"max_position_embeddings\": 128, \"rope_scaling\": {{\"type\": \"su\", {factors}}}}}");
        assert!(matches!(read(yarn).unwrap().1, RopeScaling::Yarn { attention_factor, .. } if attention_factor > 1.13));
        assert!(
            matches!(read(&su).unwrap().1, RopeScaling::LongRope { attention_factor, .. } if attention_factor > 1.08)
        );
        for (json, part) in [
            (yarn.replace("64", "0"), "original_max_position_embeddings"),
            (yarn.replace("\"factor\"", "\"other\""), "rope_parameters.factor"),
            (yarn.replace("\"factor\"", "\"rope_theta\": 1, \"factor\""), "above 1, got 1"),
            (su.replace("[1, 2]", "[1, -2]"), "rope_scaling.long_factor"),
            (su.replace("[1, 2]", "[1, \"2\"]"), "rope_scaling.long_factor"),
            (su.replace("\"max_position", "\"max_other"), "max_position_embeddings"),
            (su.replace("64", "1"), "rope_scaling.attention_factor"), // ln 1 = 0
        ] {
            let error = read(&json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
