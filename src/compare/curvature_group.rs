//! Says which curvatures are summed together: one pass serves as many as the memory allows.

use crate::curvature::CurvatureConfig;

/// Curvatures of one pass, and the methods that ask for them.
#[derive(Debug)]
pub(super) struct CurvatureGroup {
    pub(super) configs: Vec<CurvatureConfig>,
    /// Places of the methods in the comparison.
    pub(super) methods: Vec<usize>,
    bytes: u64,
}

impl CurvatureGroup {
    /// Puts a method to the first group that has its curvature, or room for its `bytes` within the least limit of all in it.
    pub(super) fn join(groups: &mut Vec<Self>, method: usize, config: CurvatureConfig, bytes: u64) {
        if let Some(group) = groups.iter_mut().find(|group| group.configs.contains(&config)) {
            return group.methods.push(method);
        }
        let has_room = |group: &&mut Self| {
            let limit = group.configs.iter().chain([&config]).filter_map(|config| config.memory_limit).min();
            limit.is_none_or(|limit| group.bytes + bytes <= limit)
        };
        match groups.iter_mut().find(has_room) {
            Some(group) => {
                group.bytes += bytes;
                group.configs.push(config);
                group.methods.push(method);
            }
            None => groups.push(Self { configs: vec![config], methods: vec![method], bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curvature::CurvatureStructure;

    #[test]
    fn a_group_holds_what_the_least_limit_allows_and_equal_curvatures_once() {
        let config = |structure, limit: Option<u64>| {
            let config = CurvatureConfig::new(structure);
            CurvatureConfig { memory_limit: limit, ..config }
        };
        let mut groups = Vec::new();
        for (method, config, bytes) in [
            (0, config(CurvatureStructure::Kronecker, None), 60),
            (1, config(CurvatureStructure::Core, Some(100)), 50),
            (2, config(CurvatureStructure::Kronecker, None), 60),
            (3, config(CurvatureStructure::Diagonal, Some(100)), 50),
            (4, config(CurvatureStructure::FunctionSpace, Some(200)), 40),
        ] {
            CurvatureGroup::join(&mut groups, method, config, bytes);
        }
        let found: Vec<_> = groups.iter().map(|g| (g.methods.clone(), g.configs.len(), g.bytes)).collect();
        assert_eq!(found, [(vec![0, 2, 4], 2, 100), (vec![1, 3], 2, 100)]);
    }
}
