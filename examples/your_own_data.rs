//! How data of any kind join: a trait for the data, and one for their batches.
//!
//! Words, as counts of their letters, are English or German. One linear layer learns it from forty words, and the posterior says how sure
//! it may be of others.
//!
//! ```sh
//! cargo run --release --example your_own_data
//! ```

use bayes_lora::BayesLoraConfig;
use bayes_lora::data::{BatchLimits, BatchOrder, ItemSize, plan_batches};
use bayes_lora::lora::{Adaptable, LoraConfig, LoraLinear};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset};
use bayes_lora::tape::Tape;
use bayes_lora::train::TrainerConfig;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::Array2;

const ENGLISH: &str =
    "the with that which would there could think through every why they know what light work year eye other way";
const GERMAN: &str = "und nicht zwischen sich auch werden zeigen jetzt zum ganz beide gegen sein ich kurz nach zusammen mich einen besser";

/// Your data: words, and the class of each where it is known.
struct Words(Vec<(&'static str, Option<usize>)>);

impl Dataset for Words {
    type Input = Letters;

    fn n_items(&self) -> usize {
        self.0.len()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.0[item].1
    }

    fn item_id(&self, item: usize) -> String {
        self.0[item].0.into()
    }

    /// Which items go through the network together: any, as all of them are one row of one vector.
    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> bayes_lora::Result<Vec<Vec<usize>>> {
        let size = |item| ItemSize { n_rows: 1, longest: 1, key: self.item_key(item) };
        plan_batches(&(0..self.n_items()).map(size).collect::<Vec<_>>(), limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> bayes_lora::Result<Letters> {
        let count = |word: &str, letter: u8| word.bytes().filter(|byte| *byte == letter).count() as f64;
        let of = |&item: &usize| (b'a'..=b'z').map(move |letter| count(self.0[item].0, letter));
        let counts = TensorData::new(indices.iter().flat_map(of).collect(), [indices.len(), 26]);
        Ok(Letters(Tensor::from_data(counts, (&device.clone().without_autodiff(), dtype))))
    }
}

/// A batch of your data, `[items, letters]`.
#[derive(Clone)]
struct Letters(Tensor<2>);

impl ClassifierInput for Letters {
    fn n_items(&self) -> usize {
        self.0.dims()[0]
    }

    fn token_mask(&self) -> Array2<bool> {
        Array2::from_elem((self.n_items(), 1), true)
    }

    fn repeat(&self, times: usize) -> bayes_lora::Result<Self> {
        Ok(Letters(self.0.clone().repeat(&[times, 1])))
    }
}

/// A network that reads it: `your_own_module` says more.
#[derive(Module, Debug)]
struct OneLayer {
    languages: LoraLinear,
}

impl Adaptable for OneLayer {
    fn linears(&self) -> Vec<&LoraLinear> {
        vec![&self.languages]
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        vec![&mut self.languages]
    }
}

impl Classifier for OneLayer {
    type Input = Letters;

    fn n_classes(&self) -> usize {
        self.languages.d_out()
    }

    fn logits(&self, batch: &Letters, tape: &mut Tape) -> Tensor<2> {
        self.languages.forward(batch.0.clone(), tape)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let of = |words: &'static str, class| words.split(' ').map(move |word| (word, class));
    let train = Words(of(ENGLISH, Some(0)).chain(of(GERMAN, Some(1))).collect());
    let nothing = Tensor::zeros([26, 2], (&Device::flex().without_autodiff(), DType::F32));
    let limits = BatchLimits { max_items: 8, max_tokens: 8 };
    let trainer = TrainerConfig::default().with_epochs(40).with_learning_rate(2e-2).with_limits(limits);
    let bayes = BayesLoraConfig::new(LoraConfig::new(2)).with_trainer(trainer).with_limits(limits).init()?;
    let fitted = bayes.fit(OneLayer { languages: LoraLinear::new("languages", nothing, None) }, &train)?;

    let asked = Words(of("house zimmer why zeit qu", None).collect());
    let answers = fitted.predict_calibrated(&asked)?;
    for item in 0..asked.n_items() {
        let (german, doubt) = (answers.probabilities[[item, 1]], answers.entropy.epistemic[item]);
        println!("{:>8}: German {german:.3}, epistemic {doubt:.3} nats", asked.0[item].0);
    }
    Ok(())
}
