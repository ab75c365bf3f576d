//! Asks the hub about files and for their bytes, and tries again what may pass.

use super::checksum::Checksum;
use super::names::is_commit;
use super::options::{HubOptions, token};
use crate::error::{Error, Result};
use crate::progress::Control;
use std::time::{Duration, Instant};
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

/// Most redirects followed.
const MAX_REDIRECTS: u32 = 5;

/// Longest wait before a retry, whatever the server asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often a wait looks whether the caller asked to stop.
pub(super) const WAIT_STEP: Duration = Duration::from_millis(100);

/// What the hub says about a file before it is downloaded.
#[derive(Debug)]
pub(super) struct Remote {
    /// Where it is, after redirects within the hub.
    pub url: String,
    /// The commit that the answer is about.
    pub commit: String,
    pub checksum: Checksum,
    /// Bytes.
    pub size: u64,
}

/// A failure that may pass, or one that will not.
pub(super) enum Failure {
    Passing {
        reason: String,
        /// The wait that the server asks for.
        wait: Option<Duration>,
    },
    Final(Error),
}

impl Failure {
    pub(super) fn passing(reason: impl std::fmt::Display) -> Self {
        Self::Passing { reason: reason.to_string(), wait: None }
    }

    pub(super) fn fatal(url: &str, reason: impl std::fmt::Display) -> Self {
        Self::Final(Error::hub(url, reason))
    }
}

/// Has no `Debug`, because it knows the token.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    retries: usize,
    first_wait: Duration,
}

impl Client {
    /// Prepares a client; nothing is sent yet.
    ///
    /// # Errors
    /// If the endpoint is no address.
    pub(super) fn new(options: &HubOptions) -> Result<Self> {
        let endpoint = options.endpoint()?.to_string();
        let (connect, stall) = (Some(options.connect_timeout), Some(options.stall_timeout));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("bayes-lora/", env!("CARGO_PKG_VERSION")))
            // sizes and checksums are those of the bytes as they are
            .accept_encoding("identity")
            .timeout_resolve(connect)
            .timeout_connect(connect)
            .timeout_send_request(stall)
            .timeout_recv_response(stall)
            .timeout_per_read(stall)
            .timeout_per_write(stall)
            .build();
        let token = if endpoint.starts_with("https://") { token() } else { None };
        Ok(Self {
            agent: config.new_agent(),
            endpoint,
            token,
            retries: options.retries,
            first_wait: options.first_wait,
        })
    }

    /// The address of a path below the endpoint.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Calls `act` until it succeeds, fails for good, or has failed once more than there are retries.
    ///
    /// # Errors
    /// The last failure, with the number of attempts; [`Error::Cancelled`].
    pub(super) fn retrying<T>(
        &self,
        url: &str,
        control: &Control,
        mut act: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut backoff = self.first_wait;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match act() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, .. }) if attempt > self.retries => {
                    return Err(Error::hub(url, format!("{reason}, in the last of {attempt} attempts")));
                }
                Err(Failure::Passing { wait, .. }) => {
                    pause(wait.unwrap_or(backoff), attempt, self.retries, control)?;
                    backoff = backoff.saturating_mul(2).min(MAX_WAIT);
                }
            }
        }
    }

    /// Asks for commit, checksum and size of a file; `None` if the hub says that there is none.
    pub(super) fn describe(&self, url: &str) -> std::result::Result<Option<Remote>, Failure> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let request = self.with_token(self.agent.head(&url)).config().max_redirects(0).build();
            let response = request.call().map_err(|error| of_transport(&url, error))?;
            let (status, headers) = (response.status(), response.headers());
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let linked = header("x-linked-etag");
            if status.as_u16() == 404 {
                return Ok(None);
            }
            if status.is_redirection() && linked.is_none() {
                url = self.within(&url, header("location").unwrap_or_default())?;
                continue;
            }
            if !status.is_success() && !status.is_redirection() {
                return Err(of_status(&url, &response));
            }
            let lacks = |what: &str| Failure::fatal(&url, format!("the answer has no {what}"));
            let etag = linked.or(header("etag")).unwrap_or_default();
            let checksum = Checksum::from_etag(etag)
                .ok_or_else(|| lacks(&format!("checksum by which the file could be verified (etag `{etag}`)")))?;
            let commit = header("x-repo-commit").filter(|commit| is_commit(commit));
            let commit = commit.ok_or_else(|| lacks("commit (x-repo-commit)"))?.to_string();
            // the length of a redirect is its own
            let own = header("content-length").filter(|_| status.is_success());
            let size = header("x-linked-size").or(own).and_then(|size| size.parse().ok());
            let size = size.ok_or_else(|| lacks("size (x-linked-size or content-length)"))?;
            return Ok(Some(Remote { url, commit, checksum, size }));
        }
        Err(Failure::fatal(&url, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Asks for the bytes from `start` on.
    pub(super) fn get(&self, url: &str, start: u64) -> std::result::Result<Response<Body>, Failure> {
        let mut request = self.with_token(self.agent.get(url));
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| of_transport(url, error))?;
        if response.status().is_success() { Ok(response) } else { Err(of_status(url, &response)) }
    }

    fn with_token(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// The target of a redirect that stays on the hub, as a renamed repository's does.
    fn within(&self, url: &str, location: &str) -> std::result::Result<String, Failure> {
        let host = self.endpoint.find("://").map_or(0, |at| at + 3);
        let origin = self.endpoint[host..].find('/').map_or(self.endpoint.as_str(), |at| &self.endpoint[..host + at]);
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(format!("{origin}{location}"));
        }
        match location.strip_prefix(origin) {
            Some(rest) if rest.starts_with('/') => Ok(location.to_string()),
            _ => Err(Failure::fatal(url, format!("is redirected to `{location}` without a checksum"))),
        }
    }
}

fn pause(wait: Duration, attempt: usize, retries: usize, control: &Control) -> Result<()> {
    let end = Instant::now() + wait.min(MAX_WAIT);
    loop {
        control.check("retries of a download", attempt - 1, retries)?;
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return Ok(()),
            left => std::thread::sleep(left.min(WAIT_STEP)),
        }
    }
}

fn of_transport(url: &str, error: ureq::Error) -> Failure {
    use ureq::Error as E;
    match error {
        E::Io(_) | E::Timeout(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_) => Failure::passing(error),
        _ => Failure::fatal(url, error),
    }
}

fn of_status(url: &str, response: &Response<Body>) -> Failure {
    let status = response.status();
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => {
            let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Failure::Passing { reason: format!("the server answered {status}"), wait: wait.map(Duration::from_secs) }
        }
        401 | 403 => Failure::fatal(
            url,
            format!("the server answered {status}: the repository is private, gated or absent; HF_TOKEN may help"),
        ),
        404 => Failure::fatal(url, format!("the server answered {status}: no such repository, revision or file")),
        _ => Failure::fatal(url, format!("the server answered {status}")),
    }
}
