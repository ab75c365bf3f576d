//! A hub on the loopback interface that answers as the real one does, and fails when told to.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const ID: &str = "org/tiny";

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16),
    /// 429 with a wait in seconds.
    TooMany(u64),
    /// Ends after so many bytes of the body that was announced.
    Truncate(usize),
    /// Falls silent after so many bytes of the body.
    Stall(usize),
    /// One byte differs.
    Damage,
    /// Sends the whole file whatever range was asked for.
    IgnoreRange,
    /// Sends the client to another address.
    Redirect(&'static str),
    /// A header with another value.
    Header(&'static str, &'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    once: HashMap<(String, String), VecDeque<Fault>>,
    always: HashMap<(String, String), Fault>,
    seen: Vec<Seen>,
}

#[derive(Clone)]
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Large files go by SHA-256, small ones by git's hash.
pub fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The name of a content in the cache.
pub fn etag(name: &str, content: &[u8]) -> String {
    if is_large(name) {
        return hex(digest(&SHA256, content).as_ref());
    }
    let blob = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

impl Hub {
    /// Serves the files of the folders, the later ones on top.
    pub fn of(folders: &[&Path]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hub = Self { endpoint, state: Arc::default() };
        for folder in folders {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                hub.put(&name, std::fs::read(path).unwrap());
            }
        }
        let server = hub.clone();
        // ends with the test's process
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        hub
    }

    pub fn put(&self, name: &str, content: Vec<u8>) {
        self.state.lock().unwrap().files.insert(name.into(), content);
    }

    pub fn remove(&self, name: &str) {
        self.state.lock().unwrap().files.remove(name).unwrap();
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[name].clone()
    }

    /// The next answer to this method about this file goes wrong.
    pub fn once(&self, method: &str, name: &str, fault: Fault) {
        self.state.lock().unwrap().once.entry((method.into(), name.into())).or_default().push_back(fault);
    }

    /// Every answer goes wrong, until [`Hub::heal`].
    pub fn always(&self, method: &str, name: &str, fault: Fault) {
        self.state.lock().unwrap().always.insert((method.into(), name.into()), fault);
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().always.clear();
    }

    /// Requests so far, and forgets them.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let headers: HashMap<String, String> = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(':').map(|(k, v)| (k.to_lowercase(), v.trim().to_string())))
            .collect();
        let mut words = request.split(' ').map(String::from);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (range, authorization) = (headers.get("range").cloned(), headers.get("authorization").cloned());
        let name = path.rsplit('/').next().unwrap().to_string();
        let from_cdn = path.starts_with("/cdn/");
        let (content, fault) = {
            let mut state = self.state.lock().unwrap();
            state.seen.push(Seen { method: method.clone(), path: path.clone(), range: range.clone(), authorization });
            // the redirect of a large file's GET is not where its body goes wrong
            let key = (method.clone(), name.clone());
            let skips = method == "GET" && is_large(&name) && !from_cdn;
            let once = if skips { None } else { state.once.get_mut(&key).and_then(VecDeque::pop_front) };
            let fault = once.or_else(|| state.always.get(&key).filter(|_| !skips).cloned());
            (state.files.get(&name).cloned(), fault)
        };
        let known = [format!("/{ID}/resolve/main/"), format!("/{ID}/resolve/{COMMIT}/"), "/cdn/".into()];
        let content = content.filter(|_| known.iter().any(|prefix| path.starts_with(prefix)));
        let reply = Reply { hub: self, method: &method, path: &path, name: &name, range, fault };
        // a client that has hung up is its own business
        reply.write(&mut stream, content).ok();
    }
}

struct Reply<'a> {
    hub: &'a Hub,
    method: &'a str,
    path: &'a str,
    name: &'a str,
    range: Option<String>,
    fault: Option<Fault>,
}

impl Reply<'_> {
    fn write(&self, stream: &mut TcpStream, content: Option<Vec<u8>>) -> std::io::Result<()> {
        if let Some(rest) = self.path.strip_prefix("/old/name/") {
            return self.head(stream, "307 Moved", &[("location", format!("/{ID}/{rest}"))], 0);
        }
        match self.fault {
            Some(Fault::Status(status)) => return self.head(stream, &format!("{status} Told so"), &[], 0),
            Some(Fault::TooMany(wait)) => {
                return self.head(stream, "429 Too many", &[("retry-after", wait.to_string())], 0);
            }
            Some(Fault::Redirect(to)) => return self.head(stream, "307 Moved", &[("location", to.to_string())], 0),
            _ => {}
        }
        let Some(mut content) = content else { return self.head(stream, "404 Not found", &[], 0) };
        let tag = etag(self.name, &content);
        let mut headers = vec![("x-repo-commit", COMMIT.to_string()), ("etag", format!("\"{tag}\""))];
        if is_large(self.name) && !self.path.starts_with("/cdn/") {
            headers.push(("x-linked-etag", format!("\"{tag}\"")));
            headers.push(("x-linked-size", content.len().to_string()));
            headers.push(("location", format!("{}/cdn/{}", self.hub.endpoint, self.name)));
            return self.head(stream, "302 Found", &headers, 0);
        }
        if matches!(self.fault, Some(Fault::Damage)) {
            content[0] ^= 1;
        }
        let start = self.range.as_ref().filter(|_| !matches!(self.fault, Some(Fault::IgnoreRange)));
        let start = start.map_or(0, |range| range["bytes=".len()..range.len() - 1].parse().unwrap());
        let mut status = "200 OK";
        if start > 0 {
            status = "206 Partial";
            headers.push(("content-range", format!("bytes {start}-{}/{}", content.len() - 1, content.len())));
        }
        let body = &content[start..];
        self.head(stream, status, &headers, body.len())?;
        if self.method == "HEAD" {
            return Ok(());
        }
        match self.fault {
            Some(Fault::Truncate(n)) => stream.write_all(&body[..n.min(body.len())]),
            Some(Fault::Stall(n)) => {
                stream.write_all(&body[..n.min(body.len())])?;
                // until the client gives up
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                stream.read(&mut [0]).map(|_| ())
            }
            _ => stream.write_all(body),
        }
    }

    fn head(
        &self,
        stream: &mut TcpStream,
        status: &str,
        headers: &[(&str, String)],
        length: usize,
    ) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            let value = match self.fault {
                Some(Fault::Header(changed, value)) if changed == *name => value,
                _ => value,
            };
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all((text + "\r\n").as_bytes())
    }
}
