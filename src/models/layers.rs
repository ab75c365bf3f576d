//! Which layers look back over a window only, and which rotate.

use super::family::{Traits, Windows};
use super::settings::{Settings, unsupported};
use crate::error::{Error, Result};

/// The entries of `layer_types`: a layer whose tokens look at all before them, and one whose tokens look at the nearest.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// What transformers takes for `max_window_layers` where it is absent.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

/// What one layer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    /// Its tokens look back over the window only.
    pub slides: bool,
    /// Its queries and keys rotate.
    pub rotates: bool,
}

/// Every layer, and the width of the window where one slides.
///
/// # Errors
/// If `layer_types` is not what the family can do, or asks for a window that there is not.
pub(super) fn layers(config: Settings<'_>, traits: &Traits, n: usize) -> Result<(Vec<LayerKind>, Option<usize>)> {
    let location = config.location;
    let rotates = rotating(config, traits, n)?;
    let switched = config.flag("use_sliding_window")?.unwrap_or(false);
    // absent and null differ: without a width there is no window
    let window = if config.has("sliding_window") { config.count("sliding_window")? } else { traits.window };
    let needs_switch = matches!(traits.windows, Windows::Switched | Windows::Unrotated);
    let window = window.filter(|_| switched || !needs_switch);
    let given = given(config, n)?;
    let full = config.count("max_window_layers")?.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    let computed: Box<dyn Fn(usize) -> bool> = match traits.windows {
        Windows::Never => Box::new(|_| false),
        Windows::Always => Box::new(|_| window.is_some()),
        Windows::Switched => Box::new(|layer| window.is_some() && layer >= full),
        Windows::Unrotated => Box::new(|layer| window.is_some() && !rotates[layer]),
        Windows::AllButEvery { n, key } => {
            let n = key.map(|key| config.count(key)).transpose()?.flatten().unwrap_or(n);
            if n == 0 {
                return Err(Error::config(format!("{location}: {}", key.unwrap_or_default()), "1 or more", n));
            }
            Box::new(move |layer| (layer + 1) % n != 0)
        }
    };
    let follows = matches!(traits.windows, Windows::Never | Windows::Always);
    let mut slides = Vec::with_capacity(n);
    for layer in 0..n {
        let expected = computed(layer);
        let found = given.as_ref().map_or(expected, |kinds| kinds[layer]);
        if follows && found != expected {
            let name = |slides| if slides { SLIDING } else { FULL };
            return Err(unsupported(location, &format!("layer_types[{layer}]"), name(found), name(expected)));
        }
        slides.push(found);
    }
    if given.is_none()
        && traits.windows == Windows::Never
        && switched
        && config.get("sliding_window").is_some()
        && full < n
    {
        let found = format!("true from layer {full} (max_window_layers) of {n} on");
        return Err(unsupported(location, "use_sliding_window", &found, "false, or full attention in all layers"));
    }
    let window = match (slides.iter().position(|slides| *slides), window) {
        (None, _) => None,
        (Some(_), Some(window)) if window > 0 => Some(window),
        (Some(layer), found) => {
            let found = found.map_or("none".into(), |n| n.to_string());
            let what = format!(
                "{location}: window of layer {layer}, which is `{SLIDING}` (sliding_window, use_sliding_window)"
            );
            return Err(Error::config(what, "1 or more", found));
        }
    };
    let both = slides.into_iter().zip(&rotates);
    Ok((both.map(|(slides, rotates)| LayerKind { slides, rotates: *rotates }).collect(), window))
}

/// `layer_types`: true for a layer that slides.
pub(super) fn given(config: Settings<'_>, n: usize) -> Result<Option<Vec<bool>>> {
    let Some(kinds) = config.texts("layer_types")? else { return Ok(None) };
    check_count(config, "layer_types", n, kinds.len())?;
    let slides = |(layer, kind): (usize, &&str)| match *kind {
        FULL => Ok(false),
        SLIDING => Ok(true),
        other => {
            let field = format!("layer_types[{layer}]");
            Err(unsupported(config.location, &field, other, &format!("{FULL}, {SLIDING}")))
        }
    };
    kinds.iter().enumerate().map(slides).collect::<Result<_>>().map(Some)
}

fn rotating(config: Settings<'_>, traits: &Traits, n: usize) -> Result<Vec<bool>> {
    let Some(every) = traits.unrotated_every else { return Ok(vec![true; n]) };
    if let Some(rotates) = config.numbers("no_rope_layers")? {
        // a longer list is allowed
        check_count(config, "no_rope_layers", n, rotates.len().min(n))?;
        return Ok(rotates.into_iter().take(n).map(|rotates| rotates != 0.0).collect());
    }
    let every = config.count("no_rope_layer_interval")?.unwrap_or(every);
    if every == 0 {
        return Err(Error::config(format!("{}: no_rope_layer_interval", config.location), "1 or more", every));
    }
    Ok((0..n).map(|layer| !(layer + 1).is_multiple_of(every)).collect())
}

fn check_count(config: Settings<'_>, field: &str, expected: usize, found: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("{}: entries of `{field}`, one for each of `num_hidden_layers`", config.location);
    Err(Error::Count { what, expected, found })
}
