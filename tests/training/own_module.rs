//! A module that the library does not know takes part.

use crate::support::points::{changed, nll, quick, train};
use crate::support::{central_difference, device, has_f64, relative_error};
use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::data::{BatchLimits, BatchOrder};
use bayes_lora::error::Result;
use bayes_lora::lora::{Adaptable, LoraConfig, LoraLinear, attach, merge};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset};
use bayes_lora::tape::Tape;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::Array2;
use std::collections::BTreeSet;

/// A network that the library does not know: `f(x) = V sin(Ux) + skip`, with inputs of its own.
#[derive(Module, Debug)]
struct SineNet {
    first: LoraLinear,
    second: LoraLinear,
}

impl SineNet {
    fn new(dtype: DType) -> Self {
        let weight = |rows: usize, columns: usize| {
            let values: Vec<f64> = (0..rows * columns).map(|i| (1.0 + 2.7 * i as f64).sin()).collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), (&device(), dtype))
        };
        Self {
            first: LoraLinear::new("first", weight(2, 6), None),
            second: LoraLinear::new("second", weight(6, 3), None),
        }
    }
}

impl Adaptable for SineNet {
    fn linears(&self) -> Vec<&LoraLinear> {
        vec![&self.first, &self.second]
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        vec![&mut self.first, &mut self.second]
    }
}

impl Classifier for SineNet {
    type Input = Rows;

    fn n_classes(&self) -> usize {
        3
    }

    fn logits(&self, input: &Rows, tape: &mut Tape) -> Tensor<2> {
        let hidden = self.first.forward(input.0.clone(), tape).sin();
        self.second.forward(hidden, tape)
    }
}

#[derive(Clone)]
struct Rows(Tensor<2>);

impl ClassifierInput for Rows {
    fn n_items(&self) -> usize {
        self.0.dims()[0]
    }

    fn token_mask(&self) -> Array2<bool> {
        Array2::from_elem((self.n_items(), 1), true)
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        Ok(Rows(self.0.clone().repeat(&[times, 1])))
    }
}

/// Points on rings: the class is the ring.
struct Rings(usize);

impl Rings {
    fn features(&self, item: usize) -> [f64; 2] {
        let (angle, radius) = (item as f64 * 2.399, 0.4 + 0.8 * (item % 3) as f64);
        [radius * angle.cos(), radius * angle.sin()]
    }
}

impl Dataset for Rings {
    type Input = Rows;

    fn n_items(&self) -> usize {
        self.0
    }

    fn label(&self, item: usize) -> Option<usize> {
        Some(item % 3)
    }

    fn item_id(&self, item: usize) -> String {
        format!("ring point {item}")
    }

    fn plan(&self, limits: BatchLimits, _order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        let items: Vec<usize> = (0..self.0).collect();
        Ok(items.chunks(limits.max_items).map(<[usize]>::to_vec).collect())
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<Rows> {
        let values: Vec<f64> = indices.iter().flat_map(|&i| self.features(i)).collect();
        Ok(Rows(Tensor::from_data(TensorData::new(values, [indices.len(), 2]), (device, dtype))))
    }
}

#[test]
fn a_module_of_ones_own_joins_by_two_traits() {
    let lora = LoraConfig::new(2).with_target_modules(["first", "second"]);
    let bayes = BayesLoraConfig::new(lora.clone()).with_trainer(quick(30)).init().unwrap();
    let (data, model) = (Rings(60), SineNet::new(DType::F32));
    let fitted = bayes.fit(model.clone(), &data).unwrap();
    assert!(nll(&fitted.model, &data) < 0.8 * nll(&model, &data));
    let sites: Vec<String> = fitted.laplace.blocks().iter().map(|block| block.spaces()[0].site.to_string()).collect();
    assert_eq!(sites, ["first.lora_A", "first.lora_B", "second.lora_A", "second.lora_B"]);
    let answer = fitted.predict_calibrated(&Rings(9)).unwrap();
    assert!(answer.entropy.epistemic.iter().all(|v| *v > 0.0));
    assert_eq!(changed(&model, &merge(fitted.model)), BTreeSet::from(["first.weight".into(), "second.weight".into()]));
    if has_f64() {
        // its Jacobians are right without a word about them from the user
        let model = train(quick(2), attach(SineNet::new(DType::F64), &lora, 0).unwrap(), &Rings(9), None).model;
        let input = Rings(9).batch(&[0, 1, 2, 3, 4, 5, 6, 7, 8], &model.device(), DType::F64).unwrap();
        let pass = bayes_lora::curvature::probe(&model, &input, bayes_lora::curvature::Cotangents::Classes).unwrap();
        for site in &pass.sites {
            let found = site.jacobians().unwrap().slice_move(ndarray::s![.., .., 1, 1]);
            let expected = central_difference(&model, &Rings(9), &site.site, [1, 1]);
            assert!(relative_error(&found, &expected) < 1e-7, "{}", site.site); // rounding: see support
        }
    }
}
