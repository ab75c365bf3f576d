//! A hub that wants more than to serve files.

use super::server::{Fault, Hub, Seen};
use super::{WEIGHTS, assert_not_poisoned, blobs, fetch, hub, options};
use bayes_lora::error::Error;
use bayes_lora::models::Pretrained;
use bayes_lora::progress::Control;
use serde_json::json;
use tempfile::TempDir;

/// The call fails with an error of these parts, and nothing is anywhere that it should not be.
fn refused(hub: &Hub, cache: &TempDir, parts: &[&str]) -> Vec<Seen> {
    let error = fetch(&options(hub, cache)).unwrap_err().to_string();
    println!("{error}");
    for part in parts {
        assert!(error.contains(part), "«{error}» lacks «{part}»");
    }
    assert_not_poisoned(cache);
    assert!(blobs(cache).iter().all(|(name, _)| name.len() != 64), "weights are in the cache");
    hub.take_seen()
}

#[test]
fn shards_that_lead_out_of_the_directory_are_not_asked_for() {
    for name in ["../../evil", "/etc/passwd", "..", "a\\b", "C:evil", "sub/evil.safetensors", "evil?x=1", ".bashrc"] {
        let (hub, cache) = hub();
        hub.remove(WEIGHTS);
        let index = json!({"weight_map": {"lm_head.weight": name}});
        hub.put("model.safetensors.index.json", index.to_string().into_bytes());
        let shown = name.replace('\\', "\\\\");
        let error_names = if name.contains('\\') { &shown } else { name };
        let seen = refused(&hub, &cache, &[error_names, "plain file name"]);
        assert!(seen.iter().all(|s| !s.path.contains("evil") && !s.path.contains("passwd")), "{seen:?}");
    }
}

#[test]
fn headers_that_would_become_paths_are_refused() {
    for (header, value, parts) in [
        ("etag", "\"../../../evil\"", &["etag", "../../../evil"][..]),
        ("etag", "\"5d41402abc4b2a76b9719d911017c592\"", &["checksum", "5d41402abc4b2a76b9719d911017c592"]),
        ("x-repo-commit", "../../evil", &["x-repo-commit"]),
    ] {
        let (hub, cache) = hub();
        hub.always("HEAD", "config.json", Fault::Header(header, value));
        refused(&hub, &cache, parts);
    }
    for (header, value, parts) in [
        ("x-linked-size", "99999999999999999", &["99999999999999999", "limit of 137438953472"][..]),
        ("x-linked-size", "-1", &["size"]),
        ("x-linked-size", "1000", &["more than 1000 of 1000 bytes"]),
        ("x-repo-commit", "ffffffffffffffffffffffffffffffffffffffff", &["ffffffff", super::COMMIT]),
    ] {
        let (hub, cache) = hub();
        hub.always("HEAD", WEIGHTS, Fault::Header(header, value));
        refused(&hub, &cache, parts);
    }
}

#[test]
fn redirects_that_leave_the_hub_without_a_checksum_or_never_end_are_refused() {
    let endless = ["/org/tiny/resolve/main/config.json", "more than 5 redirects"];
    let elsewhere = ["http://example.invalid/x", "//example.invalid/x", ""].map(|to| [to, "without a checksum"]);
    for [to, reason] in elsewhere.into_iter().chain([endless]) {
        let (hub, cache) = hub();
        hub.always("HEAD", "config.json", Fault::Redirect(to));
        let seen = refused(&hub, &cache, &[to, reason]);
        assert!(seen.iter().all(|s| s.path == endless[0]), "{seen:?}");
    }
}

#[test]
fn names_that_are_no_repository_or_revision_make_no_request() {
    let (hub, cache) = hub();
    let good = options(&hub, &cache);
    for id in ["../evil", "/etc/passwd", "a/b/c", "org\\name", "C:/x", "org/..", "a?b/c"] {
        let error = Pretrained::from_hub_with(id, &good, &Control::silent()).unwrap_err();
        assert!(matches!(&error, Error::Config { value, .. } if value == id), "{error}");
    }
    for revision in ["../../evil", "a\\b", "/x", "main?x"] {
        let error = fetch(&good.clone().with_revision(revision)).unwrap_err();
        assert!(matches!(&error, Error::Config { value, .. } if value == revision), "{error}");
    }
    assert_eq!(hub.take_seen(), []);
}
