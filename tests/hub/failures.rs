//! Failures that pass, and failures that do not.

use super::server::{Fault, Hub, etag};
use super::{WEIGHTS, assert_is, assert_not_poisoned, blobs, bodies, fetch, hub, options, requests, stories};
use bayes_lora::error::Error;
use bayes_lora::models::Pretrained;
use bayes_lora::progress::Control;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn partial(hub: &Hub, cache: &TempDir) -> PathBuf {
    let name = format!("{}.incomplete", etag(WEIGHTS, &hub.file(WEIGHTS)));
    cache.path().join("hub/models--org--tiny/blobs").join(name)
}

/// The call fails with an error of these parts, lets no weights into the cache, and succeeds when the server is well again.
fn fails_then_heals(hub: &Hub, cache: &TempDir, parts: &[&str]) {
    let error = fetch(&options(hub, cache)).unwrap_err();
    assert!(matches!(error, Error::Hub { .. }), "{error:?}");
    let error = error.to_string();
    println!("{error}");
    for part in parts {
        assert!(error.contains(part), "«{error}» lacks «{part}»");
    }
    assert_not_poisoned(cache);
    assert!(blobs(cache).iter().all(|(name, _)| name.len() != 64), "weights are in the cache");
    hub.heal();
    assert_is(&fetch(&options(hub, cache)).unwrap(), &stories());
    assert_not_poisoned(cache);
}

#[test]
fn a_missing_repository_is_an_error_at_once() {
    let (hub, cache) = hub();
    hub.remove("config.json");
    let error = fetch(&options(&hub, &cache)).unwrap_err().to_string();
    for part in ["org/tiny", "main", "config.json", "404", &hub.endpoint] {
        assert!(error.contains(part), "«{error}» lacks «{part}»");
    }
    assert_eq!(hub.take_seen().len(), 1);
}

#[test]
fn a_repository_without_safetensors_says_which_files_it_lacks() {
    let (hub, cache) = hub();
    hub.remove(WEIGHTS);
    let error = fetch(&options(&hub, &cache)).unwrap_err().to_string();
    assert!(error.contains("model.safetensors or model.safetensors.index.json"), "{error}");
}

#[test]
fn a_private_repository_is_an_error_at_once() {
    let (hub, cache) = hub();
    hub.always("HEAD", "config.json", Fault::Status(401));
    let error = fetch(&options(&hub, &cache)).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("HF_TOKEN"), "{error}");
    assert_eq!(hub.take_seen().len(), 1);
}

#[test]
fn an_unsupported_model_is_refused_before_its_weights_are_fetched() {
    let (hub, cache) = hub();
    hub.put("config.json", br#"{"model_type": "mamba"}"#.to_vec());
    let error = fetch(&options(&hub, &cache)).unwrap_err().to_string();
    assert!(error.contains("mamba"), "{error}");
    assert_eq!(requests(&hub.take_seen(), "HEAD", WEIGHTS).len(), 0);
}

#[test]
fn a_busy_or_broken_server_is_asked_again() {
    let (hub, cache) = hub();
    hub.once("HEAD", "config.json", Fault::TooMany(0));
    hub.once("HEAD", WEIGHTS, Fault::Status(500));
    hub.once("GET", WEIGHTS, Fault::Status(503));
    hub.once("GET", WEIGHTS, Fault::TooMany(1));
    let begin = Instant::now();
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
    assert!(begin.elapsed() >= Duration::from_secs(1), "the wait that the server asked for was not kept");
    let seen = hub.take_seen();
    let counts =
        [requests(&seen, "HEAD", "config.json").len(), requests(&seen, "HEAD", WEIGHTS).len(), bodies(&seen).len()];
    assert_eq!(counts, [2, 2, 3]);
    assert_not_poisoned(&cache);
}

#[test]
fn a_server_that_stays_broken_is_an_error_with_the_number_of_attempts() {
    let (hub, cache) = hub();
    hub.always("GET", WEIGHTS, Fault::Status(500));
    let error = fetch(&options(&hub, &cache)).unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("4 attempts") && error.contains(WEIGHTS), "{error}");
    assert_eq!(bodies(&hub.take_seen()).len(), 4);
    fails_then_heals(&hub, &cache, &["500"]);
}

#[test]
fn nobody_at_the_address_is_an_error() {
    let (hub, cache) = hub();
    // the port of a listener that is gone
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = options(&hub, &cache).with_endpoint(format!("http://{port}"));
    let error = fetch(&options).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("4 attempts"), "{error}");
}

#[test]
fn a_truncated_body_goes_on_where_it_ended() {
    let (hub, cache) = hub();
    hub.once("GET", WEIGHTS, Fault::Truncate(300_000));
    hub.once("GET", WEIGHTS, Fault::Truncate(200_000));
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
    let seen = hub.take_seen();
    let ranges: Vec<_> = bodies(&seen).iter().map(|s| s.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=300000-"), Some("bytes=500000-")]);
    assert_not_poisoned(&cache);
}

#[test]
fn a_body_that_never_comes_is_an_error() {
    let (hub, cache) = hub();
    hub.always("GET", WEIGHTS, Fault::Truncate(0));
    let size = hub.file(WEIGHTS).len().to_string();
    fails_then_heals(&hub, &cache, &["after 0 of", &size, "4 attempts"]);
}

#[test]
fn the_next_call_goes_on_where_the_last_one_ended() {
    let (hub, cache) = hub();
    let impatient = options(&hub, &cache).with_retries(0);
    hub.once("GET", WEIGHTS, Fault::Truncate(400_000));
    let error = fetch(&impatient).unwrap_err().to_string();
    assert!(error.contains("400000 of"), "{error}");
    assert_eq!(std::fs::metadata(partial(&hub, &cache)).unwrap().len(), 400_000);
    hub.take_seen();
    assert_is(&fetch(&impatient).unwrap(), &stories());
    let seen = hub.take_seen();
    assert_eq!(bodies(&seen)[0].range.as_deref(), Some("bytes=400000-"));
    assert!(!partial(&hub, &cache).exists());
    assert_not_poisoned(&cache);
}

#[test]
fn a_partial_file_of_other_bytes_is_thrown_away() {
    for length in [1000, 2_000_000] {
        let (hub, cache) = hub();
        let path = partial(&hub, &cache);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![7; length]).unwrap();
        assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
        assert_not_poisoned(&cache);
    }
}

#[test]
fn a_server_that_knows_no_ranges_starts_over() {
    let (hub, cache) = hub();
    hub.once("GET", WEIGHTS, Fault::Truncate(300_000));
    hub.once("GET", WEIGHTS, Fault::IgnoreRange);
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
    assert_eq!(bodies(&hub.take_seen()).len(), 2);
    assert_not_poisoned(&cache);
}

#[test]
fn damaged_bytes_are_fetched_again() {
    let (hub, cache) = hub();
    hub.once("GET", WEIGHTS, Fault::Damage);
    hub.once("GET", "tokenizer.json", Fault::Damage);
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
    assert_not_poisoned(&cache);
}

#[test]
fn bytes_that_stay_damaged_are_an_error_with_both_checksums() {
    let (hub, cache) = hub();
    hub.always("GET", WEIGHTS, Fault::Damage);
    let right = hub.file(WEIGHTS);
    let mut wrong = right.clone();
    wrong[0] ^= 1;
    let (right, wrong) = (etag(WEIGHTS, &right), etag(WEIGHTS, &wrong));
    fails_then_heals(&hub, &cache, &[&right, &wrong, "checksum", "4 attempts"]);
}

#[test]
fn a_server_that_falls_silent_is_left_and_asked_again() {
    let (hub, cache) = hub();
    hub.once("GET", WEIGHTS, Fault::Stall(300_000));
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
    assert_eq!(bodies(&hub.take_seen())[1].range.as_deref(), Some("bytes=300000-"));
    assert_not_poisoned(&cache);
}

#[test]
fn a_server_that_stays_silent_is_an_error_soon() {
    let (hub, cache) = hub();
    hub.always("GET", WEIGHTS, Fault::Stall(0));
    let begin = Instant::now();
    let error = fetch(&options(&hub, &cache)).unwrap_err().to_string();
    assert!(error.contains("timeout") && error.contains("4 attempts"), "{error}");
    // four silences of 0.4 s; the server would wait for 20 s each
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert_not_poisoned(&cache);
}

#[test]
fn a_cancelled_call_leaves_a_cache_that_works() {
    let (hub, cache) = hub();
    let control = Control::silent();
    control.cancel();
    let error = Pretrained::from_hub_with(super::ID, &options(&hub, &cache), &control).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    assert_not_poisoned(&cache);
    assert_is(&fetch(&options(&hub, &cache)).unwrap(), &stories());
}

#[test]
fn two_callers_at_once_get_the_same_files() {
    let (hub, cache) = hub();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(|| fetch(&options(&hub, &cache)).unwrap())).collect();
        callers.into_iter().for_each(|caller| assert_is(&caller.join().unwrap(), &stories()));
    });
    assert_eq!(bodies(&hub.take_seen()).len(), 1, "who waited fetched again");
    assert_not_poisoned(&cache);
}
