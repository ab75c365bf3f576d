//! Downloads a file beside the cache's blobs, goes on where an earlier download ended, and lets it in when it is right.

use super::client::{Client, Failure, Remote, WAIT_STEP};
use crate::error::{Error, Result};
use crate::progress::{Bar, Control};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Largest file that is downloaded (128 GiB).
pub const MAX_FILE_BYTES: u64 = 1 << 37;

/// How many bytes are read from the network at once.
const CHUNK: usize = 1 << 16;

/// Makes sure that `blob` is the file that `remote` describes, `name` in messages.
///
/// # Errors
/// [`Error::Hub`] when the retries are used up, [`Error::Io`], [`Error::Cancelled`]. What has arrived is kept for the next call
/// as `<blob>.incomplete`, unless its checksum was wrong.
pub(super) fn download(client: &Client, remote: &Remote, blob: &Path, name: &str, control: &Control) -> Result<()> {
    if is_whole(blob, remote.size) {
        return Ok(());
    }
    if remote.size > MAX_FILE_BYTES {
        let reason = format!("{} bytes are more than the limit of {MAX_FILE_BYTES}", remote.size);
        return Err(Error::hub(&remote.url, reason));
    }
    let partial = blob.with_extension("incomplete");
    let of_partial = |e| Error::io(&partial, e);
    std::fs::create_dir_all(blob.parent().unwrap_or(Path::new("."))).map_err(of_partial)?;
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&partial);
    let mut file = open.map_err(of_partial)?;
    while !is_mine(&file).map_err(of_partial)? {
        control.check("waiting for another download", 0, kib(remote.size))?;
        std::thread::sleep(WAIT_STEP);
    }
    if is_whole(blob, remote.size) {
        return Ok(());
    }
    let mut progress = Progress { bar: control.bar("download", kib(remote.size)), shown: 0, name };
    client.retrying(&remote.url, control, || {
        fill(client, remote, &mut file, &mut progress)?;
        verify(remote, &mut file).inspect_err(|_| {
            // emptied, not removed: a process that waits for the lock has it open. A failure shows in the next length.
            file.set_len(0).ok();
        })
    })?;
    file.sync_all().map_err(of_partial)?;
    // closed first, because Windows renames only what is closed
    drop(file);
    match std::fs::rename(&partial, blob) {
        // a process that waited was faster
        Err(_) if is_whole(blob, remote.size) => Ok(()),
        renamed => renamed.map_err(|e| Error::io(blob, e)),
    }
}

/// Takes the lock of a partial file, which another process may hold.
fn is_mine(file: &File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        // on a file system without locks the checksum alone decides
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// A blob was verified before it got its name.
fn is_whole(blob: &Path, size: u64) -> bool {
    std::fs::metadata(blob).is_ok_and(|m| m.is_file() && m.len() == size)
}

fn kib(bytes: u64) -> usize {
    (bytes / 1024) as usize
}

/// A bar in KiB.
struct Progress<'a> {
    bar: Bar,
    shown: usize,
    name: &'a str,
}

impl Progress<'_> {
    fn at(&mut self, bytes: u64) -> Result<()> {
        let done = kib(bytes);
        let more = done.saturating_sub(self.shown);
        self.shown += more;
        self.bar.advance(more, || format!("KiB of {}", self.name))
    }
}

fn of_file(e: std::io::Error, remote: &Remote) -> Failure {
    Failure::fatal(&remote.url, format!("the partial file cannot be used: {e}"))
}

/// Asks for what is missing and appends it.
fn fill(
    client: &Client,
    remote: &Remote,
    file: &mut File,
    progress: &mut Progress<'_>,
) -> std::result::Result<(), Failure> {
    let mut done = file.metadata().map_err(|e| of_file(e, remote))?.len();
    if done > remote.size {
        // of another file under this name, or beyond what was announced
        file.set_len(0).map_err(|e| of_file(e, remote))?;
        done = 0;
    }
    if done == remote.size {
        return Ok(());
    }
    let response = client.get(&remote.url, done)?;
    if response.status().as_u16() == 206 {
        let range = response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !range.starts_with(&format!("bytes {done}-")) {
            return Err(Failure::passing(format!("asked for bytes from {done} on, the server answered `{range}`")));
        }
    } else if done > 0 {
        // the server starts over
        file.set_len(0).map_err(|e| of_file(e, remote))?;
        done = 0;
    }
    file.seek(SeekFrom::Start(done)).map_err(|e| of_file(e, remote))?;
    // one byte more than announced is enough to know
    let mut body = response.into_body().into_reader().take((remote.size - done).saturating_add(1));
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = body
            .read(&mut chunk)
            .map_err(|e| Failure::passing(format!("the body stopped after {done} of {} bytes ({e})", remote.size)))?;
        if n == 0 {
            break;
        }
        file.write_all(&chunk[..n]).map_err(|e| of_file(e, remote))?;
        done += n as u64;
        progress.at(done).map_err(Failure::Final)?;
    }
    if done == remote.size {
        return Ok(());
    }
    let more = if done > remote.size { "more than " } else { "" };
    let reason = format!("the body has {more}{} of {} bytes", done.min(remote.size), remote.size);
    Err(Failure::passing(reason))
}

/// Compares the whole file with its checksum.
fn verify(remote: &Remote, file: &mut File) -> std::result::Result<(), Failure> {
    let found = file.rewind().and_then(|()| remote.checksum.of(&*file, remote.size)).map_err(|e| of_file(e, remote))?;
    if found == remote.checksum {
        return Ok(());
    }
    Err(Failure::passing(format!("the checksum is {}, not {}", found.hex(), remote.checksum.hex())))
}
