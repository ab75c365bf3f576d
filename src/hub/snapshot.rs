//! Brings the files of one commit together in the cache's layout.

use super::client::{Client, Remote};
use super::download::download;
use super::names::{check_file, check_repository, check_revision, is_commit};
use super::options::HubOptions;
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::progress::Control;
use hf_hub::{Cache, Repo, RepoType};
use std::path::{Path, PathBuf};

/// The files of a repository at one commit: `blobs/<checksum>` and, linked to them, `snapshots/<commit>/<name>`.
pub(crate) struct Snapshot<'a> {
    cache: Cache,
    repo: Repo,
    /// `None` when offline.
    client: Option<Client>,
    /// Known from the start if the revision is one, else since the first answer; all files are of it.
    commit: Option<String>,
    control: &'a Control,
}

impl<'a> Snapshot<'a> {
    /// Checks the names and finds the cache; offline it also finds the commit there.
    ///
    /// # Errors
    /// [`Error::Config`] for a repository, revision or endpoint that is none; [`Error::Hub`] offline, where the cache
    /// does not know the revision.
    pub(crate) fn open(id: &str, options: &HubOptions, control: &'a Control) -> Result<Self> {
        check_repository(id)?;
        check_revision(&options.revision)?;
        let client = if options.offline { None } else { Some(Client::new(options)?) };
        let repo = Repo::with_revision(id.into(), RepoType::Model, options.revision.clone());
        let commit = is_commit(&options.revision).then(|| options.revision.clone());
        let mut snapshot = Self { cache: options.cache()?, repo, client, commit, control };
        if snapshot.client.is_none() && snapshot.commit.is_none() {
            let known = std::fs::read_to_string(snapshot.reference()).ok();
            let known = known.map(|text| text.trim().to_string()).filter(|text| is_commit(text));
            snapshot.commit = Some(known.ok_or_else(|| snapshot.lacks("this revision"))?);
        }
        Ok(snapshot)
    }

    /// The path of a file that must be there.
    ///
    /// # Errors
    /// Those of [`Snapshot::fetch`], and [`Error::Hub`] if there is none.
    pub(crate) fn require(&mut self, name: &str) -> Result<PathBuf> {
        self.fetch(name)?.ok_or_else(|| self.lacks(name))
    }

    /// The path of a file, downloaded if the cache does not have it; `None` if the repository, or offline the cache, does not.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is no plain file name; [`Error::Hub`]; [`Error::Io`]; [`Error::Cancelled`].
    pub(crate) fn fetch(&mut self, name: &str) -> Result<Option<PathBuf>> {
        check_file(name)?;
        if let Some(known) = self.cached(name) {
            return Ok(Some(known));
        }
        let Some(client) = &self.client else { return Ok(None) };
        let revision = self.commit.clone().unwrap_or_else(|| self.repo.url_revision());
        let url = client.url(&format!("{}/resolve/{revision}/{name}", self.repo.url()));
        let Some(remote) = client.retrying(&url, self.control, || client.describe(&url))? else { return Ok(None) };
        match &self.commit {
            Some(commit) if *commit != remote.commit => {
                let reason = format!("the answer is about commit {}, not {commit}", remote.commit);
                return Err(Error::hub(&url, reason));
            }
            _ => self.commit = Some(remote.commit.clone()),
        }
        if let Some(known) = self.cached(name) {
            return Ok(Some(known));
        }
        self.bring(client, &remote, name)
    }

    /// Downloads the blob and links the file to it.
    fn bring(&self, client: &Client, remote: &Remote, name: &str) -> Result<Option<PathBuf>> {
        let files = self.cache.repo(self.repo.clone());
        let blob = files.blob_path(remote.checksum.hex());
        download(client, remote, &blob, name, self.control)?;
        let pointer = files.pointer_path(&remote.commit).join(name);
        let linked = std::fs::create_dir_all(files.pointer_path(&remote.commit)).and_then(|()| link(&blob, &pointer));
        match linked {
            // a link that waited for its blob, or another process
            Err(_) if pointer.is_file() => {}
            linked => linked.map_err(|e| Error::io(&pointer, e))?,
        }
        Ok(Some(pointer))
    }

    /// Remembers which commit the revision means, now that its files are there, and gives their directory.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Hub`] if no file was ever found.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        let commit = self.commit.as_deref().ok_or_else(|| self.lacks("any file"))?;
        if self.client.is_some() && commit != self.repo.revision() {
            let reference = self.reference();
            let folder = reference.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            write_atomic(&reference, commit.as_bytes())?;
        }
        Ok(self.cache.repo(self.repo.clone()).pointer_path(commit))
    }

    /// Says what is missing and where it was looked for.
    pub(crate) fn lacks(&self, what: &str) -> Error {
        let name = format!("{} at revision {}", self.repo.url(), self.repo.revision());
        let place = match &self.client {
            Some(client) => format!("there is no {what} (404 from {})", client.url("")),
            None => format!("offline, and the cache {} has no {what}", self.cache.path().display()),
        };
        Error::hub(&name, place)
    }

    fn cached(&self, name: &str) -> Option<PathBuf> {
        let folder = self.cache.repo(self.repo.clone()).pointer_path(self.commit.as_deref()?);
        Some(folder.join(name)).filter(|path| path.is_file())
    }

    /// Where the cache keeps the commit of a branch or tag.
    fn reference(&self) -> PathBuf {
        self.cache.path().join(self.repo.folder_name()).join("refs").join(self.repo.revision())
    }
}

/// Links relative to the snapshot, so that the cache can be moved.
#[cfg(unix)]
fn link(blob: &Path, pointer: &Path) -> std::io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer)
}

/// Where symbolic links need a privilege, the file has two names.
#[cfg(not(unix))]
fn link(blob: &Path, pointer: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, pointer)
}
