//! Fetches files of a repository on the Hugging Face Hub into the cache that `huggingface_hub` and other programs share.
//!
//! **What is verified.** Every file is written beside the cache's blobs, compared with the size and the checksum that the
//! server announced before the download (SHA-256 of large files, the git hash of small ones), synchronised, and only
//! then renamed into the cache. What fails is never in the cache; what is in the cache is trusted by its size and not
//! hashed again. A server that announces no such checksum is refused. The checksum comes from the server itself: it
//! finds damage, not dishonesty. [`HubOptions::revision`] can be a commit, whose files do not change.
//!
//! **What goes on by itself.** Lost connections, stalls, bodies that end early, wrong checksums and the statuses 408,
//! 425, 429 and 5xx are tried again, after waits that double; a partial download goes on where it ended, in the next
//! call too. Two processes that want the same file wait for each other.
//!
//! **What leaves the machine.** The repository's name and the file's, a `User-Agent`, and a token, which comes from
//! `HF_TOKEN` or the file that `hf auth login` writes and goes to the endpoint's host alone, over https alone. It is
//! never logged.
//!
//! ```
//! use bayes_lora::{hub::HubOptions, models::Pretrained, progress::Control};
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path();
//! let options = HubOptions::default().with_offline(true).with_cache_dir(dir.to_path_buf());
//! let error = Pretrained::from_hub_with("org/name", &options, &Control::silent()).unwrap_err();
//! assert!(error.to_string().contains("offline"));
//! ```

mod checksum;
mod client;
mod download;
mod names;
mod options;
mod snapshot;

pub use download::MAX_FILE_BYTES;
pub use options::HubOptions;
pub(crate) use snapshot::Snapshot;
