//! Fetches a model from the Hugging Face Hub.

use super::config::DecoderConfig;
use super::pretrained::Pretrained;
use super::shards::{INDEX_FILE, SINGLE_FILE, shard_names};
use crate::error::Result;
use crate::hub::{HubOptions, Snapshot};
use crate::progress::Control;

/// Files that a tokenizer reads where they are.
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

impl Pretrained {
    /// Fetches `org/name` with the options of the environment and progress bars: [`Pretrained::from_hub_with`].
    ///
    /// # Errors
    /// Those of [`Pretrained::from_hub_with`].
    pub fn from_hub(id: &str) -> Result<Self> {
        Self::from_hub_with(id, &HubOptions::from_env(), &Control::with_bars())
    }

    /// Fetches what a model and its tokenizer need from a repository into the cache, as far as it is not there, and reads its
    /// configuration: `config.json`, `tokenizer.json`, the files beside it, and `model.safetensors` or the shards of its
    /// index. [`Pretrained::dir`] is then the directory for [`Tokenizer::from_dir`](crate::data::Tokenizer::from_dir).
    ///
    /// All files are of one commit. Each is verified before it enters the cache, see [`hub`](crate::hub). A model that this
    /// crate does not compute is refused before its weights are fetched.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub) with the address and what the server answered, when the retries are used up, where
    /// offline the cache lacks a file, or where the repository has no safetensors;
    /// [`Error::Config`](crate::Error::Config) for a repository, revision or shard whose name is not plain;
    /// [`Error::Cancelled`](crate::Error::Cancelled); and those of [`Pretrained::from_dir`].
    pub fn from_hub_with(id: &str, options: &HubOptions, control: &Control) -> Result<Self> {
        let mut snapshot = Snapshot::open(id, options, control)?;
        DecoderConfig::from_file(snapshot.require("config.json")?)?;
        snapshot.require("tokenizer.json")?;
        for name in OPTIONAL {
            snapshot.fetch(name)?;
        }
        if snapshot.fetch(SINGLE_FILE)?.is_none() {
            let index = snapshot.fetch(INDEX_FILE)?;
            let index = index.ok_or_else(|| {
                snapshot.lacks(&format!("{SINGLE_FILE} or {INDEX_FILE} (weights in other formats are not read)"))
            })?;
            for shard in shard_names(&index)? {
                snapshot.require(&shard)?;
            }
        }
        Self::from_dir(snapshot.finish()?)
    }
}
