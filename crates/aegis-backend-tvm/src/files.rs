//! The files of a model: their manifests together, and the modules beside them.

use std::path::PathBuf;

use aegis_context::BackendError;
use aegis_context::chain::{Chain, StageFace};

use crate::ffi::Module;
use crate::manifest::{Machine, Manifest};

/// What the files of a model promise together.
pub(crate) struct Files {
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) chain: Chain,
}

impl Files {
    /// Reads the manifests of `files`, a stage each.
    ///
    /// # Errors
    /// There is none, one cannot be read or is for another machine than `machine`, or they do not fit
    /// together.
    pub(crate) fn read(files: &[PathBuf], machine: Machine) -> Result<Self, BackendError> {
        if files.is_empty() {
            let (path, reason) = ("a model of no files".into(), "it has no stage".into());
            return Err(BackendError::BadModel { path, reason });
        }
        let read = |file: &PathBuf| {
            let manifest = Manifest::of(file)?;
            manifest.check_machine(machine)?;
            Ok(manifest)
        };
        let manifests: Vec<Manifest> =
            files.iter().map(read).collect::<Result<_, BackendError>>()?;
        let faces: Vec<StageFace<'_>> = manifests
            .iter()
            .map(|manifest| StageFace { inputs: &manifest.inputs, outputs: &manifest.outputs })
            .collect();
        let chain = Chain::link(&faces)?;
        Ok(Self { manifests, chain })
    }
}

/// Loads the module of `manifest` for the processor, or for GPU `gpu`.
pub(crate) fn load_module(manifest: &Manifest, gpu: Option<u16>) -> Result<Module, BackendError> {
    let contents = manifest.read_module()?;
    let path = manifest.module_path().display().to_string();
    Module::load(&contents, gpu).map_err(|reason| BackendError::BadModel { path, reason })
}
