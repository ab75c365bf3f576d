//! Settings that a configuration says in two places.

use super::{assert_logits, configure, load, logits, refused, tiny, widest};
use bayes_lora::models::Pretrained;
use serde_json::{Value, json};

#[test]
fn rotary_scaling_in_two_places_is_refused_and_in_one_gives_the_logits_of_transformers() {
    let dir = tiny();
    configure(dir.path(), |config| {
        config["rope_parameters"] = json!({"rope_theta": 500_000.0, "rope_type": "default"});
        config["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
    });
    let parts = ["`rope_scaling` is", "\"factor\":4.0", "`rope_parameters` is", "\"rope_theta\":500000.0"];
    refused(Pretrained::from_dir(dir.path()), &parts);
    // what transformers makes of both: it takes the first, and forgets the base in the second
    configure(dir.path(), |config| config["rope_parameters"] = Value::Null);
    let (lm, report) = load(dir.path(), widest()).unwrap();
    assert!(report.is_empty(), "{report}");
    assert_logits(&logits(lm), [-7.048625424, 557.047924474], &[]);
}

#[test]
fn full_attention_in_every_layer_is_no_window() {
    let expected = logits(load(tiny().path(), widest()).unwrap().0);
    let dir = tiny();
    configure(dir.path(), |config| {
        config["use_sliding_window"] = json!(true);
        config["sliding_window"] = json!(2);
        config["layer_types"] = json!(["full_attention", "full_attention"]);
    });
    assert_eq!(logits(load(dir.path(), widest()).unwrap().0), expected);
    configure(dir.path(), |config| config["layer_types"][1] = json!("sliding_attention"));
    refused(Pretrained::from_dir(dir.path()), &["layer_types[1]", "sliding_attention"]);
}
