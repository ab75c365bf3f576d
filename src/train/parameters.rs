//! Takes the parameters that train out of a model, and puts them back under the same identities.

use crate::error::{Error, Result};
use crate::tensor_file::TensorFile;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The identity under which the optimiser knows a parameter, and its value. Keyed by its path in the model.
pub(super) type Parameters = BTreeMap<String, (ParamId, TensorData)>;

/// A parameter in a file's header: its tensor follows under its path.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterForm {
    pub(super) path: String,
    id: u64,
}

pub(super) fn forms(parameters: &Parameters) -> Vec<ParameterForm> {
    parameters.iter().map(|(path, (id, _))| ParameterForm { path: path.clone(), id: id.val() }).collect()
}

/// The parameters of `model` at `paths`, or those that require gradients.
///
/// # Errors
/// If a copy from the device fails.
pub(super) fn read<M: Module>(model: &M, paths: Option<&Parameters>) -> Result<Parameters> {
    let mut visitor = Collect { path: Vec::new(), paths, found: BTreeMap::new(), failure: None };
    model.visit(&mut visitor);
    match visitor.failure {
        None => Ok(visitor.found),
        Some(reason) => Err(Error::numerical("copy of a parameter to the host", reason)),
    }
}

struct Collect<'a> {
    path: Vec<String>,
    paths: Option<&'a Parameters>,
    found: Parameters,
    failure: Option<String>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let wanted = self.paths.map_or(param.is_require_grad(), |paths| paths.contains_key(&path));
        if wanted {
            match param.val().try_into_data() {
                Ok(data) => drop(self.found.insert(path, (param.id, data))),
                Err(reason) => self.failure = Some(reason.to_string()),
            }
        }
    }
}

/// `model` with the parameters of `forms` as they are in `file` under `prefix`.
///
/// # Errors
/// If the model has no such parameter, or the file's tensor is missing, damaged, of another shape or element type, or not
/// finite.
pub(super) fn restore<M: Module>(model: M, file: &mut TensorFile, prefix: &str, forms: &[ParameterForm]) -> Result<M> {
    let ids: BTreeMap<&str, u64> = forms.iter().map(|form| (form.path.as_str(), form.id)).collect();
    let mut mapper = Restore { path: Vec::new(), file, prefix, ids, failure: None };
    let model = model.map(&mut mapper);
    match (mapper.failure, mapper.ids.first_key_value()) {
        (Some(failure), _) => Err(failure),
        (None, Some((path, _))) => Err(Error::Incompatible(format!("the model has no parameter `{path}`"))),
        (None, None) => Ok(model),
    }
}

struct Restore<'a> {
    path: Vec<String>,
    file: &'a mut TensorFile,
    prefix: &'a str,
    /// Those that were not met yet.
    ids: BTreeMap<&'a str, u64>,
    failure: Option<Error>,
}

impl ModuleMapper for Restore<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(id) = self.ids.remove(path.as_str()) else { return param };
        let old = param.val();
        let device = old.device().without_autodiff();
        match self.file.read(&format!("{}{path}", self.prefix), old.dims(), old.dtype(), &device) {
            Ok(value) => Param::initialized(ParamId::from(id), value).set_require_grad(old.is_require_grad()),
            Err(failure) => {
                self.failure.get_or_insert(failure);
                param
            }
        }
    }
}
