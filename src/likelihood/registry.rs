//! Makes likelihoods from their names and settings in files.

use super::categorical::Categorical;
use super::gaussian::Gaussian;
use super::next_token::NextToken;
use super::settings::Settings;
use super::shared::{SharedLikelihood, Stored};
use crate::error::{Error, Result};
use crate::file_header::Exact;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// Makes a likelihood from its settings.
pub type Restore = fn(&Settings) -> Result<SharedLikelihood>;

/// The likelihoods of this crate: one line each.
const OWN: &[(&str, Restore)] = &[
    (Categorical::NAME, |_| Ok(Categorical.into())),
    (Gaussian::NAME, |settings| Gaussian::restore(settings).map(Into::into)),
    (NextToken::NAME, |_| Ok(NextToken.into())),
];

/// Those of others, see [`register`].
static REGISTERED: RwLock<BTreeMap<&'static str, Restore>> = RwLock::new(BTreeMap::new());

/// Lets files that name a likelihood of your own be read, in this process from now on; call it once, before the first of them.
///
/// ```
/// use bayes_lora::likelihood::{Gaussian, register};
/// # fn main() -> bayes_lora::error::Result<()> {
/// register("unit-gaussian", |_| Ok(Gaussian { noise_variance: 1.0 }.into()))?;
/// assert!(register("gaussian", |_| Ok(Gaussian { noise_variance: 1.0 }.into())).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the name is taken.
pub fn register(name: &'static str, restore: Restore) -> Result<()> {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    if OWN.iter().any(|(own, _)| *own == name) || registered.contains_key(name) {
        return Err(Error::config("name of a likelihood", "one that is not taken", name));
    }
    registered.insert(name, restore);
    Ok(())
}

/// The likelihood of a name with settings.
///
/// # Errors
/// If nothing makes one of that name, or not with these settings.
fn restore(name: &str, settings: &Settings) -> Result<SharedLikelihood> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    let own = OWN.iter().find(|(own, _)| *own == name).map(|(_, restore)| *restore);
    let Some(make) = own.or_else(|| registered.get(name).copied()) else {
        let known: Vec<&str> = OWN.iter().map(|(own, _)| *own).chain(registered.keys().copied()).collect();
        return Err(Error::Unsupported {
            what: "likelihood".into(),
            found: name.into(),
            supported: format!("{}, and what `likelihood::register` adds", known.join(", ")),
        });
    };
    drop(registered);
    let context = |e: Error| Error::Incompatible(format!("likelihood `{name}`: {e}"));
    let made = make(settings).map_err(context)?;
    made.check().map_err(context)?;
    let found: BTreeMap<String, f64> = made.settings().into_iter().map(|(name, v)| (name.into(), v)).collect();
    if found != *settings.all() {
        return Err(Error::Incompatible(format!(
            "likelihood `{name}`: the file's settings are {:?}, it has {found:?}",
            settings.all()
        )));
    }
    Ok(made)
}

impl<'de> Deserialize<'de> for SharedLikelihood {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let Stored { name, settings } = Stored::deserialize(deserializer)?;
        let settings = settings.into_iter().map(|(name, value)| (name, Exact::value(value))).collect();
        restore(&name, &Settings::new(settings)).map_err(D::Error::custom)
    }
}

impl Default for SharedLikelihood {
    /// Categorical.
    fn default() -> Self {
        Categorical.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<SharedLikelihood, String> {
        serde_json::from_str(text).map_err(|e: serde_json::Error| e.to_string())
    }

    #[test]
    fn a_likelihood_survives_its_file_bit_by_bit() {
        // 0.1 + 0.2 has digits that a careless reader of numbers loses
        let all: [SharedLikelihood; 3] =
            [Categorical.into(), Gaussian { noise_variance: 0.1 + 0.2 }.into(), NextToken.into()];
        for likelihood in &all {
            let text = serde_json::to_string(likelihood).unwrap();
            assert_eq!(read(&text).as_ref(), Ok(likelihood), "{text}");
        }
        assert_ne!(all[0], all[1]);
        assert_ne!(all[1], Gaussian { noise_variance: 0.3 }.into());
    }

    #[test]
    fn what_no_likelihood_is_made_of_is_refused_by_name() {
        let refused = [
            (r#"{"name": "cauchy", "settings": {}}"#, &["`cauchy`", "categorical, gaussian, next-token"][..]),
            (r#"{"name": "gaussian", "settings": {}}"#, &["`gaussian`", "noise_variance", "missing"]),
            (r#"{"name": "gaussian", "settings": {"noise_variance": "-1"}}"#, &["noise_variance", "positive", "-1"]),
            (r#"{"name": "categorical", "settings": {"noise_variance": "1"}}"#, &["`categorical`", "noise_variance"]),
        ];
        for (text, parts) in refused {
            let error = read(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
