//! Leaves out of all that is done token by token, which is everything but attention, the pads of a batch, and all but one of the tokens that
//! a causal network gives the same states: those that rows begin with alike.

use super::indices::indices_on;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor};
use std::collections::BTreeMap;

/// What stands at a place of a batch: a token, behind what stands before it in its row. `None` at pads.
pub(super) type Place = Option<(u32, Option<usize>)>;

/// The tokens of a batch that go through the layers, each standing at one place of `[rows · tokens]` or several.
#[derive(Debug, Clone)]
pub(super) struct DistinctTokens {
    /// The first place of each.
    places: Tensor<1, Int>,
    /// For every place, which of them stands there; at pads the first, which nobody looks at.
    indices: Tensor<1, Int>,
    /// The further places, and which of them stands at each.
    repeated: Option<[Tensor<1, Int>; 2]>,
}

impl DistinctTokens {
    /// Tokens repeated in fewer than one in so many are left where they are, unless there are pads: taking rows apart and together again
    /// costs more than they do.
    const WORTHWHILE: usize = 32;

    /// The real tokens at some places, alike ones once where they `may_coincide`; `None` where nothing can be left out.
    ///
    /// Tokens are alike where they and all before them in their rows are.
    pub(super) fn new(at: &[Place], may_coincide: bool, device: &Device) -> Option<Self> {
        let (mut places, mut repeated) = (Vec::new(), Vec::new());
        let mut indices = vec![0; at.len()];
        let mut met = BTreeMap::new();
        for (place, token) in at.iter().enumerate() {
            let Some((id, before)) = token else { continue };
            let fresh = places.len();
            let index = match may_coincide {
                true => *met.entry((before.map(|before| indices[before]), *id)).or_insert(fresh),
                false => fresh,
            };
            indices[place] = index;
            if index == fresh { places.push(place) } else { repeated.push(place) }
        }
        let n_real = places.len() + repeated.len();
        if n_real == at.len() && repeated.len() * Self::WORTHWHILE < n_real {
            return None;
        }
        let on_device = |indices: Vec<usize>| indices_on(device, indices.into_iter().map(|i| i as i64).collect());
        let repeated = (!repeated.is_empty()).then(|| {
            let indices = repeated.iter().map(|place| indices[*place]).collect();
            [on_device(repeated), on_device(indices)]
        });
        Some(Self { places: on_device(places), indices: on_device(indices), repeated })
    }

    /// Number of them.
    pub(super) fn count(&self) -> usize {
        self.places.dims()[0]
    }

    /// Which of them stand at `places` of `[rows · tokens]`.
    pub(super) fn indices_of(&self, places: Tensor<1, Int>) -> Tensor<1, Int> {
        self.indices.clone().select(0, places)
    }

    /// One of each from `[rows · tokens, width]`.
    pub(super) fn pick(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.places.clone())
    }

    /// What [`DistinctTokens::pick`] pulls a cotangent back by.
    pub(super) fn pull_back_pick(&self, g: Tensor<2>) -> Tensor<2> {
        let zeros = Tensor::zeros([self.indices.dims()[0], g.dims()[1]], (&g.device(), g.dtype()));
        zeros.select_assign(0, self.places.clone(), g, IndexingUpdateOp::Add)
    }

    /// Back to `[rows · tokens, width]`, to all places of each.
    pub(super) fn spread(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.indices.clone())
    }

    /// What [`DistinctTokens::spread`] pulls a cotangent back by: the sum over the places of each. No gradient reaches a pad.
    pub(super) fn pull_back_spread(&self, g: Tensor<2>) -> Tensor<2> {
        let first = self.pick(g.clone());
        match &self.repeated {
            Some([places, indices]) => {
                first.select_assign(0, indices.clone(), g.select(0, places.clone()), IndexingUpdateOp::Add)
            }
            None => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::to_array;
    use burn::tensor::{DType, Distribution};

    const PAD: Place = None;

    /// Rows that begin alike with pads on either side, and a row of which one has all: 14 places, 6 distinct tokens.
    fn places() -> Vec<Place> {
        let mut at = vec![Some((5, None)), Some((6, Some(0))), Some((7, Some(1))), PAD];
        at.extend([PAD, Some((5, None)), Some((6, Some(5))), Some((8, Some(6)))]);
        at.extend([Some((5, None)), Some((6, Some(8))), PAD]);
        // the same token behind another is another
        at.extend([Some((6, None)), Some((7, Some(11))), PAD]);
        at
    }

    fn on_host(indices: &Tensor<1, Int>) -> Vec<i64> {
        indices.clone().into_data().convert::<i64>().try_into_vec().unwrap()
    }

    #[test]
    fn tokens_coincide_where_their_rows_are_the_same_up_to_them() {
        let device = Device::default();
        let distinct = DistinctTokens::new(&places(), true, &device).unwrap();
        assert_eq!(on_host(&distinct.places), [0, 1, 2, 7, 11, 12]);
        assert_eq!(on_host(&distinct.indices), [0, 1, 2, 0, 0, 0, 1, 3, 0, 1, 0, 4, 5, 0]);
        let apart = DistinctTokens::new(&places(), false, &device).unwrap();
        assert_eq!((distinct.count(), apart.count()), (6, 10));
        // neither pads nor anything worthwhile
        let whole: Vec<Place> = (0..70).map(|i| Some((u32::from(i % 35 != 0), (i % 35 > 0).then(|| i - 1)))).collect();
        assert_eq!(DistinctTokens::new(&whole, true, &device).unwrap().count(), 35);
        assert!(DistinctTokens::new(&whole, false, &device).is_none());
        assert!(DistinctTokens::new(&whole[..36], true, &device).is_none());
    }

    #[test]
    fn cotangents_are_pulled_back_by_the_transposes() {
        let device = Device::default();
        let random = |n| Tensor::<2>::random([n, 3], Distribution::Normal(0.0, 1.0), (&device, DType::F32));
        let dot = |a: Tensor<2>, b: Tensor<2>| to_array((a * b).sum().reshape([1, 1])).unwrap()[[0, 0]];
        for may_coincide in [true, false] {
            let at = places();
            let distinct = DistinctTokens::new(&at, may_coincide, &device).unwrap();
            let real: Vec<f32> = at.iter().map(|place| f32::from(u8::from(place.is_some()))).collect();
            let real = Tensor::<1>::from_data(&real[..], &device).unsqueeze_dim::<2>(1);
            let (x, g) = (random(distinct.count()), random(at.len()) * real);
            let there = dot(distinct.spread(x.clone()), g.clone());
            assert!((there - dot(x.clone(), distinct.pull_back_spread(g.clone()))).abs() < 1e-5);
            let there = dot(distinct.pick(g.clone()), x.clone());
            assert!((there - dot(g, distinct.pull_back_pick(x))).abs() < 1e-5);
        }
    }
}
