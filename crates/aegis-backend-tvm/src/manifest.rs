//! What a module's manifest says: its tensors, its weights, what it was compiled for.
//!
//! A compiled module does not say what its tensors are called or how large they are, so a file beside it
//! does: `NAME.json` for `NAME.so`, in the format of `docs/formats.md`. It also has the hashes of the
//! module and its weights, so that what is loaded is what was compiled, and evidence that names the
//! manifest names all three.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aegis_context::{BackendError, DType, TensorSpec};
use aegis_cuda::DeviceBuffer;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The format that is read.
pub const FORMAT: &str = "aegis-tvm 1";

/// What weights begin at a multiple of.
const ALIGNMENT: u64 = 256;
/// How much of a file of weights is in memory at once.
const CHUNK: usize = 1 << 20;

/// What the file says, before it is believed.
#[derive(Debug, Deserialize)]
struct Written {
    format: String,
    target: Target,
    module: HashedFile,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// Absent for a module that keeps its constants itself.
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Deserialize)]
struct HashedFile {
    file: String,
    sha256: String,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    dtype: DType,
    /// Numbers, or names of what is dynamic.
    shape: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Weights {
    #[serde(flatten)]
    file: HashedFile,
    tensors: Vec<Weight>,
}

#[derive(Debug, Deserialize)]
struct Weight {
    dtype: DType,
    shape: Vec<usize>,
    offset: u64,
}

/// What a module was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    Processor,
    Gpu,
}

/// A manifest that holds together.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The file, for messages.
    path: String,
    pub(crate) target: String,
    module: PathBuf,
    module_hash: String,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    weights: Option<(PathBuf, String)>,
    /// Each weight with its offset in the file.
    pub(crate) tensors: Vec<(TensorSpec, u64)>,
}

impl Manifest {
    /// Reads the manifest of `module`, a file `NAME.so`: the file `NAME.json` beside it.
    ///
    /// # Errors
    /// [`BackendError`]: `File`, `BadModel`, `DynamicShape`; Permanent.
    pub(crate) fn of(module: &Path) -> Result<Self, BackendError> {
        if let Err(cause) = fs::metadata(module) {
            return Err(BackendError::File { path: module.display().to_string(), cause });
        }
        let path = module.with_extension("json");
        let shown = path.display().to_string();
        let bad = |reason: String| BackendError::BadModel { path: shown.clone(), reason };
        let text = fs::read(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => BackendError::BadModel {
                path: module.display().to_string(),
                reason: format!(
                    "its manifest {shown} is missing, which says what its tensors are; compile it \
                     with `cargo xtask models --tvm`, or write one (docs/formats.md)"
                ),
            },
            _ => BackendError::File { path: shown.clone(), cause },
        })?;
        let written: Written = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("it is no manifest of a module: {error}")))?;
        if written.format != FORMAT {
            return Err(bad(format!("its format is `{}`, not `{FORMAT}`", written.format)));
        }
        let beside = |file: &HashedFile| path.with_file_name(&file.file);
        if beside(&written.module) != module {
            return Err(bad(format!("it describes {}, another file", written.module.file)));
        }
        let specs = |tensors: Vec<Tensor>| -> Result<Vec<TensorSpec>, BackendError> {
            tensors.into_iter().map(|tensor| tensor.fixed(&shown)).collect()
        };
        let (inputs, outputs) = (specs(written.inputs)?, specs(written.outputs)?);
        if outputs.is_empty() {
            return Err(bad("it has no output".into()));
        }
        let weights = written.weights;
        let tensors = weights.as_ref().map_or(&[][..], |weights| &weights.tensors);
        let tensors = tensors
            .iter()
            .enumerate()
            .map(Weight::placed)
            .collect::<Result<_, _>>()
            .map_err(bad)?;
        let weights = weights.map(|weights| (beside(&weights.file), weights.file.sha256));
        let (target, module_hash) = (written.target.name, written.module.sha256);
        let module = module.to_owned();
        Ok(Self { path: shown, target, module, module_hash, inputs, outputs, weights, tensors })
    }

    /// Refuses a module that was compiled for another kind of machine.
    pub(crate) fn check_machine(&self, machine: Machine) -> Result<(), BackendError> {
        let compiled = if self.target == "llvm" { Machine::Processor } else { Machine::Gpu };
        if compiled == machine {
            return Ok(());
        }
        let (here, wanted) = match machine {
            Machine::Processor => ("a processor", "llvm"),
            Machine::Gpu => ("a GPU", "the GPU's architecture, as sm_90"),
        };
        let path = self.module.display().to_string();
        let target = &self.target;
        let reason = format!(
            "it was compiled for {target}, and the device is {here}; compile it for {wanted}"
        );
        Err(BackendError::BadModel { path, reason })
    }

    /// The module's file.
    pub(crate) fn module_path(&self) -> &Path {
        &self.module
    }

    /// The contents of the module's file, which have the hash that the manifest says.
    pub(crate) fn read_module(&self) -> Result<Vec<u8>, BackendError> {
        let path = self.module.display().to_string();
        let contents = fs::read(&self.module)
            .map_err(|cause| BackendError::File { path: path.clone(), cause })?;
        let found = hex(&Sha256::digest(&contents));
        self.check_hash(&path, &found, &self.module_hash)?;
        Ok(contents)
    }

    /// How many bytes all weights take, each where it lies in the file.
    pub(crate) fn weights_size(&self) -> u64 {
        let end = |(spec, offset): &(TensorSpec, u64)| offset.saturating_add(spec.bytes() as u64);
        self.tensors.iter().map(end).max().unwrap_or(0)
    }

    /// Copies the file of weights into `buffer` from `offset` on; it has the hash that the manifest says.
    pub(crate) fn load_weights(
        &self,
        buffer: &mut DeviceBuffer,
        offset: u64,
    ) -> Result<(), BackendError> {
        let Some((file, hash)) = &self.weights else { return Ok(()) };
        let path = file.display().to_string();
        let failed = |cause| BackendError::File { path: path.clone(), cause };
        let mut reader = File::open(file).map_err(failed)?;
        let length = reader.metadata().map_err(failed)?.len();
        let size = self.weights_size();
        if length < size {
            let reason = format!("it has {length} bytes, and its manifest asks for {size}");
            return Err(BackendError::BadModel { path, reason });
        }
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        loop {
            let count = reader.read(&mut chunk).map_err(failed)?;
            if count == 0 {
                break;
            }
            hasher.update(&chunk[..count]);
            // What lies behind the last weight belongs to the hash alone.
            let wanted = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(count);
            if wanted > 0 {
                buffer.write(offset + at, &chunk[..wanted])?;
            }
            at += count as u64;
        }
        self.check_hash(&path, &hex(&hasher.finalize()), hash)
    }

    fn check_hash(&self, path: &str, found: &str, wanted: &str) -> Result<(), BackendError> {
        if found == wanted {
            return Ok(());
        }
        let reason =
            format!("its SHA-256 is {found}, and its manifest {} says {wanted}", self.path);
        Err(BackendError::BadModel { path: path.to_owned(), reason })
    }
}

impl Tensor {
    /// The specification, unless a dimension is not known before the run.
    fn fixed(self, path: &str) -> Result<TensorSpec, BackendError> {
        let mut shape = Vec::with_capacity(self.shape.len());
        for (axis, size) in self.shape.iter().enumerate() {
            match size.as_u64().and_then(|size| usize::try_from(size).ok()) {
                Some(size) => shape.push(size),
                None => {
                    let symbol = size.as_str().map_or(String::new(), |name| format!(" (`{name}`)"));
                    let (path, tensor) = (path.to_owned(), self.name);
                    return Err(BackendError::DynamicShape { path, tensor, axis, symbol });
                }
            }
        }
        let spec = TensorSpec { name: self.name, dtype: self.dtype, shape };
        if in_memory(&spec) {
            return Ok(spec);
        }
        let reason = format!("`{spec}` is larger than any memory");
        Err(BackendError::BadModel { path: path.to_owned(), reason })
    }
}

impl Weight {
    fn placed((index, weight): (usize, &Self)) -> Result<(TensorSpec, u64), String> {
        let (dtype, shape) = (weight.dtype, weight.shape.clone());
        let spec = TensorSpec { name: format!("weight {index}"), dtype, shape };
        if !in_memory(&spec) || !weight.offset.is_multiple_of(ALIGNMENT) {
            let offset = weight.offset;
            return Err(format!(
                "`{spec}` at {offset} is not at a multiple of {ALIGNMENT} in memory"
            ));
        }
        Ok((spec, weight.offset))
    }
}

fn in_memory(spec: &TensorSpec) -> bool {
    let elements = spec.shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
    let bytes = elements.and_then(|elements| elements.checked_mul(spec.dtype.size()));
    bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module of no use with a manifest of `text` beside it, in which HASH stands for its hash.
    fn manifest(text: &str) -> (tempfile::TempDir, Result<Manifest, BackendError>) {
        let folder = tempfile::tempdir().expect("a folder");
        let module = folder.path().join("net.llvm.so");
        fs::write(&module, "no library").expect("a file");
        let text = text.replace("HASH", &hex(&Sha256::digest("no library")));
        fs::write(folder.path().join("net.llvm.json"), text).expect("a file");
        let read = Manifest::of(&module);
        (folder, read)
    }

    const PLAIN: &str = r#"{"format": "aegis-tvm 1", "target": {"name": "llvm"},
        "module": {"file": "net.llvm.so", "sha256": "HASH"},
        "inputs": [{"name": "x", "dtype": "f32", "shape": [1, 3]}],
        "outputs": [{"name": "y", "dtype": "i64", "shape": []}]}"#;

    fn refusal(text: &str) -> String {
        manifest(text).1.expect_err("it is to be refused").to_string()
    }

    #[test]
    fn a_manifest_names_tensors_and_the_module_that_it_vouches_for() {
        let (_folder, read) = manifest(PLAIN);
        let read = read.expect("nothing is wrong with it");
        assert_eq!(read.inputs[0].to_string(), "x: f32[1, 3]");
        assert_eq!((read.outputs[0].bytes(), read.weights_size()), (8, 0));
        assert_eq!(read.read_module().expect("the hash is right"), b"no library");
        fs::write(&read.module, "another").expect("a file");
        let error = read.read_module().expect_err("another file").to_string();
        assert!(error.contains("SHA-256"), "{error}");
        let error = read.check_machine(Machine::Gpu).expect_err("for processors").to_string();
        assert!(error.contains("compiled for llvm, and the device is a GPU"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_said() {
        let dynamic = PLAIN.replace("[1, 3]", r#"["batch", 3]"#);
        assert!(refusal(&dynamic).contains("dimension 0 of `x` is dynamic (`batch`)"));
        let error = refusal(&PLAIN.replace("[1, 3]", "[1, -1]"));
        assert!(error.contains("dimension 1 of `x` is dynamic"), "{error}");
        assert!(refusal(&PLAIN.replace("tvm 1", "tvm 9")).contains("`aegis-tvm 9`"));
        assert!(refusal(&PLAIN.replace("net.llvm.so", "other.so")).contains("another file"));
        assert!(refusal("{}").contains("no manifest of a module"));
        let huge = PLAIN.replace("[1, 3]", "[4611686018427387904, 16]");
        assert!(refusal(&huge).contains("larger than any memory"));
        let none = PLAIN.replace(r#"{"name": "y", "dtype": "i64", "shape": []}"#, "");
        assert!(refusal(&none).contains("no output"));
    }

    #[test]
    fn a_module_without_a_manifest_says_how_to_get_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let module = folder.path().join("net.so");
        assert!(matches!(Manifest::of(&module), Err(BackendError::File { .. })));
        fs::write(&module, "no library").expect("a file");
        let error = Manifest::of(&module).expect_err("no manifest").to_string();
        assert!(error.contains("cargo xtask models --tvm"), "{error}");
    }
}
