//! How any module that is made of linears gets an adapter and a posterior: two traits.
//!
//! Two layers with random weights stand for a pretrained network. An adapter on both learns to tell points inside a ring from those
//! outside; then the posterior says how sure it is, near the points and far away.
//!
//! ```sh
//! cargo run --release --example your_own_module
//! ```
//!
//! Far from all points the weights alone may be sure and wrong; the posterior says that it does not know. Data of other kinds than points
//! join by two more traits: `your_own_data`.

use bayes_lora::BayesLoraConfig;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{Adaptable, LoraConfig, LoraLinear, summarize};
use bayes_lora::models::{Classifier, Points, PointsBatch};
use bayes_lora::predict::Predictive;
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::TrainerConfig;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData, activation::tanh};
use ndarray::{Array2, array};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// Your network. Its linears are `LoraLinear`s: that is what an adapter can be attached to.
#[derive(Module, Debug)]
struct TwoLayers {
    hidden: LoraLinear,
    output: LoraLinear,
}

impl Adaptable for TwoLayers {
    fn linears(&self) -> Vec<&LoraLinear> {
        vec![&self.hidden, &self.output]
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        vec![&mut self.hidden, &mut self.output]
    }
}

impl Classifier for TwoLayers {
    type Input = PointsBatch;

    fn n_classes(&self) -> usize {
        self.output.d_out()
    }

    /// The forward pass; the tape sees the inputs and the output gradients of every adapted matrix.
    fn logits(&self, batch: &PointsBatch, tape: &mut Tape) -> Tensor<2> {
        self.output.forward(tanh(self.hidden.forward(batch.features().clone(), tape)), tape)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let device = Device::flex().without_autodiff();
    let mut numbers = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let mut linear = |name: &str, [d_in, d_out]: [usize; 2]| {
        let weight = Tensor::from_data(TensorData::new(numbers(d_in * d_out), [d_in, d_out]), (&device, DType::F32));
        let bias = Tensor::from_data(TensorData::new(numbers(d_out), [d_out]), (&device, DType::F32));
        LoraLinear::new(name, weight, Some(bias))
    };
    let network = TwoLayers { hidden: linear("hidden", [2, 64]), output: linear("output", [64, 2]) };
    let places = Array2::<f64>::from_shape_fn((200, 2), |_| rng.random_range(-2.0..2.0));
    let is_outside = places.outer_iter().map(|place| usize::from(place[0].hypot(place[1]) > 1.0)).collect();
    let train = Points::new(places, is_outside)?;

    let limits = BatchLimits { max_items: 50, max_tokens: 50 };
    let trainer = TrainerConfig::default().with_epochs(60).with_learning_rate(1e-2).with_limits(limits);
    let bayes = BayesLoraConfig::new(LoraConfig::new(4)).with_trainer(trainer).with_limits(limits).init()?;
    let fitted = bayes.fit(network, &train)?;
    println!("{}", summarize(&fitted.model));

    let asked = Points::new(array![[0.0, 0.0], [0.75, 0.75], [1.5, 1.5], [8.0, -8.0]], vec![])?;
    let alone = fitted.predict(&asked, Predictive::Map, &Control::silent())?;
    let answers = fitted.predict_calibrated(&asked)?;
    let titles = ["p(outside), weights alone", "with the posterior", "epistemic, nats"];
    println!("{:>12} {:>28} {:>20} {:>18}", "place", titles[0], titles[1], titles[2]);
    for (item, place) in asked.features.outer_iter().enumerate() {
        let (p, q) = (alone.probabilities[[item, 1]], answers.probabilities[[item, 1]]);
        let place = format!("({}, {})", place[0], place[1]);
        println!("{place:>12} {p:>28.3} {q:>20.3} {:>18.3}", answers.entropy.epistemic[item]);
    }
    Ok(())
}
