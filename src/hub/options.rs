//! Says from where, which revision, into which cache and with how much patience.

use crate::error::{Error, Result};
use crate::setters::setters;
use hf_hub::Cache;
use std::path::PathBuf;
use std::time::Duration;

/// How files are fetched from the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubOptions {
    /// A branch, a tag, or the 40 hexadecimal digits of a commit, which pins the files (`main` by default).
    pub revision: String,
    /// The cache's directory; `None` is the one that all programs share, `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub cache_dir: Option<PathBuf>,
    /// Makes no request: what the cache lacks is an error (off by default).
    pub offline: bool,
    /// Where the hub is (`https://huggingface.co` by default). Over plain http no token is sent.
    pub endpoint: String,
    /// How often a file is tried again after a failure that may pass (6 by default).
    pub retries: usize,
    /// The wait before the first retry (half a second by default); every further one waits twice as long, a minute at most.
    /// What the server asks for by `Retry-After` replaces it, within the same minute.
    pub first_wait: Duration,
    /// How long connecting may take (10 s by default).
    pub connect_timeout: Duration,
    /// How long the server may be silent, before or within an answer (30 s by default).
    pub stall_timeout: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            revision: "main".into(),
            cache_dir: None,
            offline: false,
            endpoint: "https://huggingface.co".into(),
            retries: 6,
            first_wait: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

impl HubOptions {
    setters! {
        /// Sets the branch, tag or commit.
        with_revision(revision: impl Into<String>);
        /// Sets the cache's directory; `None` is the shared one.
        with_cache_dir(cache_dir: impl Into<Option<PathBuf>>);
        /// Says whether to make no request.
        with_offline(offline: bool);
        /// Sets where the hub is.
        with_endpoint(endpoint: impl Into<String>);
        /// Sets how often a file is tried again.
        with_retries(retries: usize);
        /// Sets the wait before the first retry.
        with_first_wait(first_wait: Duration);
        /// Sets how long connecting may take.
        with_connect_timeout(connect_timeout: Duration);
        /// Sets how long the server may be silent.
        with_stall_timeout(stall_timeout: Duration);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// If the endpoint is no plain http or https address.
    pub fn validate(&self) -> Result<()> {
        self.endpoint().map(|_| ())
    }

    /// The defaults, with `HF_ENDPOINT`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE` (`1`, `ON`, `YES`, `TRUE`) where they are set.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let defaults = Self::default();
        let offline = set("HF_HUB_OFFLINE").map(|value| value.to_ascii_uppercase());
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or(defaults.endpoint),
            cache_dir: set("HF_HUB_CACHE").map(PathBuf::from),
            offline: offline.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.as_str())),
            ..defaults
        }
    }

    /// The cache to use.
    ///
    /// # Errors
    /// If no directory is given and the user has no home.
    pub(super) fn cache(&self) -> Result<Cache> {
        match &self.cache_dir {
            Some(dir) => Ok(Cache::new(dir.clone())),
            None => shared_cache()
                .ok_or_else(|| Error::config("cache_dir", "given where there is no home directory", "None")),
        }
    }

    /// Checks the endpoint and drops a slash at its end.
    ///
    /// # Errors
    /// If it is no plain http or https address.
    pub(super) fn endpoint(&self) -> Result<&str> {
        let endpoint = self.endpoint.trim_end_matches('/');
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:/[]".contains(c);
        match rest {
            Some(rest) if !rest.is_empty() && rest.chars().all(plain) => Ok(endpoint),
            _ => Err(Error::config(
                "endpoint",
                "http:// or https:// with a host and no more than a path",
                &self.endpoint,
            )),
        }
    }
}

fn shared_cache() -> Option<Cache> {
    // without a home, hf-hub panics
    (std::env::var_os("HF_HOME").is_some() || std::env::home_dir().is_some()).then(Cache::from_env)
}

/// The token of the environment, else of the file that `hf auth login` writes.
pub(super) fn token() -> Option<String> {
    let given = std::env::var("HF_TOKEN").ok().map(|token| token.trim().to_string());
    given.filter(|token| !token.is_empty()).or_else(|| shared_cache()?.token())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_and_nothing_else() {
        let endpoint =
            |text: &str| HubOptions { endpoint: text.into(), ..HubOptions::default() }.endpoint().map(String::from);
        assert_eq!(endpoint("https://huggingface.co/").unwrap(), "https://huggingface.co");
        assert_eq!(endpoint("http://[::1]:80/hf").unwrap(), "http://[::1]:80/hf");
        for bad in ["", "huggingface.co", "ftp://a", "https://", "https://user:secret@a", "https://a?b", "https://a b"]
        {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
