//! Draws of a posterior are adapters: saved, loaded, and in lockstep they are the same networks.

use crate::support::{Fixture, root};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::data::{TextDataset, TextExample, Tokenizer};
use bayes_lora::generate::{GenerationConfig, Generator, Request, Token};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{
    AdapterWeights, LoraConfig, SavedDraws, attach, load_peft, read_adapter, save_draws, write_adapter,
};
use bayes_lora::models::{CausalLm, TextModel};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use burn::tensor::DType;

fn posterior(fixture: &Fixture, structure: CurvatureStructure) -> Laplace {
    let model = fixture.model(DType::F32);
    let config = CurvatureConfig::default().with_structure(structure);
    let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
    let prior = PriorChoice::Fixed(PriorPrecision::new(10.0).unwrap());
    Laplace::new(&model, &curvature, &LaplaceConfig::default().with_prior(prior)).unwrap()
}

/// What several draws say of an answer to each test prompt.
fn tokens(lm: &CausalLm, fixture: &Fixture, draws: &[AdapterWeights]) -> Vec<Token> {
    // any tokenizer will do: nothing is decoded
    let tokenizer = Tokenizer::from_dir(root().join("assets/stories260K")).unwrap();
    let config = GenerationConfig::default().with_end_tokens(Vec::new());
    let generator = Generator::new(lm, &tokenizer, config).unwrap().with_draws(draws).unwrap();
    let prompts = fixture.test.items.iter().map(|item| Request::new(&item.id, item.rows[0].ids.clone()));
    prompts.flat_map(|request| generator.follow(&request, &[5, 17, 40]).unwrap()).collect()
}

#[test]
fn draws_of_an_adapted_head_of_a_text_model_generate_and_come_back_from_files() {
    let fixture = Fixture::load("tiny_llama");
    let config = LoraConfig::new(2).with_target_modules(["q_proj", "lm_head"]);
    let model = attach(TextModel::new(fixture.bare(DType::F32).lm), &config, 1).unwrap();
    let weights = read_adapter(&model).unwrap().into_iter().map(|(site, w)| (site, w + 0.02)).collect();
    let model = write_adapter(model, &weights).unwrap();
    let text = |i: usize| TextExample {
        id: i.to_string(),
        ids: (0..8).map(|t| (3 + (31 * i + 17 * t) % 90) as u32).collect(),
        scored: [2..4, 5..7 - i % 2].to_vec(),
    };
    let data = TextDataset::new("texts", (0..5).map(text).collect()).unwrap();
    for structure in [CurvatureStructure::Core, CurvatureStructure::Kronecker, CurvatureStructure::Ekfac] {
        let sampled = FisherKind::Sampled { n: 2, seed: 0 };
        let curvature = CurvatureConfig::new(structure).with_likelihood(NextToken).with_fisher(sampled);
        // the vocabulary's factor at low rank
        let curvature = curvature.with_dense_limit(40).with_low_rank(4);
        let curvature = fit_curvature(&model, &data, &curvature, &Control::silent()).unwrap();
        let prior = PriorChoice::Fixed(PriorPrecision::new(10.0).unwrap());
        let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default().with_prior(prior)).unwrap();
        let (out, draws) = (tempfile::tempdir().unwrap(), SavedDraws { n: 3, seed: 7 });
        let places = save_draws((&model.lm, &config), "base", &laplace, draws, out.path().join("draws")).unwrap();
        let drawn: Vec<AdapterWeights> = (0..3).map(|index| laplace.sample(7, index)).collect();
        let load = |place| read_adapter(&load_peft(fixture.bare(DType::F32).lm, place).unwrap().0).unwrap();
        let loaded: Vec<AdapterWeights> = places.iter().map(load).collect();
        let found = tokens(&model.lm, &fixture, &loaded);
        assert_eq!(tokens(&model.lm, &fixture, &drawn), found, "{structure}");
        assert!(found.iter().any(|token| token.epistemic > 1e-4), "{structure}");
        // the draws move the head
        let b = Site { module: "lm_head".into(), matrix: LoraMatrix::B };
        assert_ne!(loaded[0][&b], loaded[1][&b]);
    }
}

#[test]
fn saved_draws_come_back_as_the_networks_that_were_drawn() {
    let fixture = Fixture::load("tiny_llama");
    let (model, config) = load_peft(fixture.bare(DType::F32), fixture.dir().join("adapter")).unwrap();
    for structure in [CurvatureStructure::Core, CurvatureStructure::Kronecker] {
        let laplace = posterior(&fixture, structure);
        let (out, draws) = (tempfile::tempdir().unwrap(), SavedDraws { n: 4, seed: 7 });
        let places = save_draws((&model.lm, &config), "base", &laplace, draws, out.path().join("draws")).unwrap();
        assert_eq!(places.len(), 4);
        let drawn: Vec<AdapterWeights> = (0..4).map(|index| laplace.sample(7, index)).collect();
        let load = |place| read_adapter(&load_peft(fixture.bare(DType::F32).lm, place).unwrap().0).unwrap();
        let loaded: Vec<AdapterWeights> = places.iter().map(load).collect();
        for (drawn, loaded) in drawn.iter().zip(&loaded) {
            for (site, value) in drawn {
                // the ranks of the trained adapter, and f32
                assert_eq!(loaded[site], value.mapv(|v| f64::from(v as f32)), "{structure} {site}");
            }
            let product = |weights: &AdapterWeights| -> f64 {
                let (site, a) = weights.iter().find(|(site, _)| site.matrix == LoraMatrix::A).unwrap();
                let b = &weights[&bayes_lora::tape::Site { matrix: LoraMatrix::B, ..site.clone() }];
                b.dot(a)[[3, 5]]
            };
            assert_ne!(product(drawn), product(laplace.map()));
        }
        assert_eq!(tokens(&model.lm, &fixture, &drawn), tokens(&model.lm, &fixture, &loaded));
        let most = tokens(&model.lm, &fixture, &drawn).iter().fold(0.0f64, |most, token| most.max(token.epistemic));
        assert!(most > 1e-4, "{structure}: {most}");
    }
    let nowhere = tempfile::NamedTempFile::new().unwrap();
    let laplace = posterior(&fixture, CurvatureStructure::Core);
    let save = |n, dir| save_draws((&model.lm, &config), "base", &laplace, SavedDraws { n, seed: 0 }, dir);
    let error = save(0, root()).unwrap_err().to_string();
    assert!(error.contains("n: must be at least 1, got 0"), "{error}");
    let error = save(2, nowhere.path().to_path_buf()).unwrap_err().to_string();
    assert!(error.contains(&nowhere.path().display().to_string()), "{error}");
}
