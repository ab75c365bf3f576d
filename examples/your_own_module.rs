//! How any module that is made of linears gets an adapter and a posterior: three traits for the module and its data.
//!
//! Two layers with random weights stand for a pretrained network. An adapter on both learns to tell points inside a ring from those
//! outside; then the posterior says how sure it is, near the points and far away.
//!
//! ```sh
//! cargo run --release --example your_own_module
//! ```
//!
//! ```text
//! 967 of 1000 places are on the right side
//!        place    p(outside), weights alone   with the posterior    epistemic, nats
//!       (0, 0)                        0.004                0.005              0.002
//! (0.75, 0.75)                        0.641                0.616              0.094
//!   (1.5, 1.5)                        0.997                0.976              0.045
//!      (8, -8)                        0.253                0.478              0.623
//! ```
//!
//! Far from all points, where the weights alone are wrong, the posterior does not know.

use bayes_lora::BayesLoraConfig;
use bayes_lora::data::{BatchLimits, BatchOrder, ItemSize, plan_batches};
use bayes_lora::lora::{Adaptable, LoraConfig, LoraLinear, summarize};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset};
use bayes_lora::predict::Predictive;
use bayes_lora::progress::Control;
use bayes_lora::tape::Tape;
use bayes_lora::train::TrainerConfig;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData, activation::tanh};
use ndarray::Array2;
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
    type Input = Rows;

    fn n_classes(&self) -> usize {
        self.output.d_out()
    }

    /// The forward pass; the tape sees the inputs and the output gradients of every adapted matrix.
    fn logits(&self, batch: &Rows, tape: &mut Tape) -> Tensor<2> {
        self.output.forward(tanh(self.hidden.forward(batch.0.clone(), tape)), tape)
    }
}

/// A batch of your data, one row an item.
#[derive(Clone)]
struct Rows(Tensor<2>);

impl ClassifierInput for Rows {
    fn n_items(&self) -> usize {
        self.0.dims()[0]
    }

    fn token_mask(&self) -> Array2<bool> {
        Array2::from_elem((self.n_items(), 1), true)
    }

    fn repeat(&self, times: usize) -> bayes_lora::Result<Self> {
        Ok(Rows(self.0.clone().repeat(&[times, 1])))
    }
}

/// Your data: how many items, their labels, and how to make a batch.
struct Places(Vec<[f64; 2]>);

impl Dataset for Places {
    type Input = Rows;

    fn n_items(&self) -> usize {
        self.0.len()
    }

    fn label(&self, item: usize) -> Option<usize> {
        Some(usize::from(self.0[item][0].hypot(self.0[item][1]) > 1.0))
    }

    fn item_id(&self, item: usize) -> String {
        format!("place {item}")
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> bayes_lora::Result<Vec<Vec<usize>>> {
        let size = |item| ItemSize { n_rows: 1, longest: 1, key: self.item_key(item) };
        plan_batches(&(0..self.n_items()).map(size).collect::<Vec<_>>(), limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> bayes_lora::Result<Rows> {
        let values: Vec<f64> = indices.iter().flat_map(|&item| self.0[item]).collect();
        Ok(Rows(Tensor::from_data(
            TensorData::new(values, [indices.len(), 2]),
            (&device.clone().without_autodiff(), dtype),
        )))
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
    let mut places =
        |n: usize| Places((0..n).map(|_| [rng.random_range(-2.0..2.0), rng.random_range(-2.0..2.0)]).collect());
    let (train, test) = (places(200), places(1000));

    let limits = BatchLimits { max_items: 50, max_tokens: 50 };
    let trainer = TrainerConfig::default().with_epochs(60).with_learning_rate(1e-2).with_limits(limits);
    let bayes = BayesLoraConfig::new(LoraConfig::new(4)).with_trainer(trainer).with_limits(limits).init()?;
    let fitted = bayes.fit(network, &train)?;
    println!("{}", summarize(&fitted.model));

    let answers = fitted.predict_calibrated(&test)?;
    let is_right = |item: &usize| Some(usize::from(answers.probabilities[[*item, 1]] > 0.5)) == test.label(*item);
    let right = (0..test.n_items()).filter(is_right).count();
    println!("{right} of {} places are on the right side", test.n_items());
    let asked = Places(vec![[0.0, 0.0], [0.75, 0.75], [1.5, 1.5], [8.0, -8.0]]);
    let alone = fitted.predict(&asked, Predictive::Map, &Control::silent())?;
    let answers = fitted.predict_calibrated(&asked)?;
    println!(
        "{:>12} {:>28} {:>20} {:>18}",
        "place", "p(outside), weights alone", "with the posterior", "epistemic, nats"
    );
    for (item, [x, y]) in asked.0.iter().enumerate() {
        let (p, q) = (alone.probabilities[[item, 1]], answers.probabilities[[item, 1]]);
        println!("{:>12} {p:>28.3} {q:>20.3} {:>18.3}", format!("({x}, {y})"), answers.entropy.epistemic[item]);
    }
    Ok(())
}
