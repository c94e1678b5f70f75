//! What is wrong with a module is refused when it is loaded, and said in words that help.

use std::fs;
use std::path::{Path, PathBuf};

use aegis_backend_tvm::{LoadOptions, TvmBackend};
use aegis_context::{BackendError, RuntimeBackend};
use aegis_trace::{Bytes, Category};
use sha2::{Digest, Sha256};

/// A copy of a compiled network of the golden set, to be damaged.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn of(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is below");
        let from = root.join(".aegis/models/golden-tvm");
        let folder = tempfile::tempdir().expect("a folder");
        for end in ["so", "json", "weights"] {
            let file = format!("{name}.llvm.{end}");
            fs::copy(from.join(&file), folder.path().join(&file))
                .expect("run `cargo xtask models --set golden --tvm llvm`");
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the manifest of `mlp`.
    fn rewrite(&self, from: &str, to: &str) {
        let file = self.file("mlp.llvm.json");
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(file, text.replace(from, to)).expect("it can be written");
    }
}

fn load(files: Vec<PathBuf>) -> Result<TvmBackend, BackendError> {
    TvmBackend::load(&LoadOptions { files, memory_limit: Bytes::from_mib(16), gpu: None })
}

fn refusal(copy: &Copy) -> String {
    let Err(error) = load(vec![copy.file("mlp.llvm.so")]) else { panic!("it was accepted") };
    assert_eq!(error.category(), Category::Permanent);
    error.to_string()
}

fn hash_of(file: &Path) -> String {
    let contents = fs::read(file).expect("it is there");
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_whole_copy_loads_and_needs_its_files_no_more() {
    let copy = Copy::of("mlp");
    let backend = load(vec![copy.file("mlp.llvm.so")]).expect("nothing is wrong with it");
    assert_eq!(backend.description().stages, 1);
    assert!(backend.runtime_name().starts_with("TVM 0.27.0 (CPU"), "{}", backend.runtime_name());
}

#[test]
fn what_does_not_have_its_hash_is_not_loaded() {
    for (file, what) in [("mlp.llvm.so", "module"), ("mlp.llvm.weights", "weights")] {
        let copy = Copy::of("mlp");
        let path = copy.file(file);
        let mut contents = fs::read(&path).expect("it is there");
        let middle = contents.len() / 2;
        contents[middle] ^= 1;
        fs::write(&path, contents).expect("it can be written");
        let error = refusal(&copy);
        assert!(error.contains(file) && error.contains("SHA-256"), "{what}: {error}");
    }
}

#[test]
fn a_file_that_is_no_library_is_refused_in_the_loaders_words() {
    let copy = Copy::of("mlp");
    let module = copy.file("mlp.llvm.so");
    let before = hash_of(&module);
    fs::write(&module, "this is no library").expect("it can be written");
    copy.rewrite(&before, &hash_of(&module));
    let error = refusal(&copy);
    assert!(error.contains("mlp.llvm.so") && error.contains("file too short"), "{error}");
}

#[test]
fn a_manifest_that_lies_about_shapes_is_refused() {
    let copy = Copy::of("mlp");
    copy.rewrite("\n    16\n", "\n    17\n");
    let error = refusal(&copy);
    assert!(error.contains("the runtime failed"), "{error}");
    let copy = Copy::of("mlp");
    copy.rewrite("\n    4\n", "\n    5\n");
    let error = refusal(&copy);
    assert!(error.contains("output 0 of `main` has 16 bytes, and the manifest says 20"), "{error}");
}

#[test]
fn a_module_for_a_gpu_is_refused_on_the_processor() {
    let copy = Copy::of("mlp");
    copy.rewrite("\"name\": \"llvm\"", "\"name\": \"sm_90\"");
    let error = refusal(&copy);
    assert!(error.contains("compiled for sm_90, and the device is a processor"), "{error}");
}

#[test]
fn stages_in_the_wrong_order_do_not_link() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is below");
    let file = |stage| root.join(format!(".aegis/models/golden-tvm/unet.stage{stage}.llvm.so"));
    let Err(error) = load(vec![file(1), file(0)]) else { panic!("they were linked") };
    assert!(matches!(error, BackendError::BrokenChain { .. }), "{error}");
    let Err(error) = load(vec![]) else { panic!("a model of nothing was loaded") };
    assert!(error.to_string().contains("no stage"), "{error}");
}
