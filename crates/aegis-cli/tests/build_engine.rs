//! `aegis build-engine` as a user meets it, with the real library where it is built in.

use std::path::Path;
use std::process::{Command, Output};

fn build(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
    command.arg("build-engine").args(arguments).current_dir(folder);
    command.output().expect("aegis starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[cfg(not(feature = "trt"))]
fn without_the_feature_it_says_which_one_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for arguments in [["a.onnx"].as_slice(), &["--inspect", "a.engine"]] {
        let output = build(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2));
        let words = "error: TensorRT is not in this build; enable the feature `trt`";
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

#[cfg(feature = "trt")]
mod with_the_library {
    use std::path::PathBuf;

    use super::*;

    /// A folder with a link to what is fetched, and a network of a set.
    fn folder_with(set: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = std::path::absolute(root).expect("there is a working directory");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::os::unix::fs::symlink(root.join(".aegis"), folder.path().join(".aegis"))
            .expect("a link");
        let file = folder.path().join(".aegis/models").join(set).join(name);
        assert!(file.is_file(), "{name} is missing: run `cargo xtask models --set {set}`");
        let network = folder.path().join("model.onnx");
        std::fs::copy(file, &network).expect("a copy");
        (folder, network)
    }

    #[test]
    fn a_network_becomes_a_file_beside_it() {
        let (folder, _) = folder_with("golden", "mlp.onnx");
        let output = build(folder.path(), &["model.onnx"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for words in [
            "built by   TensorRT-RTX 1.7.1.",
            "input      state: f32[1, 16]",
            "output     command: f32[1, 4]",
            "Total Weights Memory",
            "engine     model.engine: ",
        ] {
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
        let plan = std::fs::read(folder.path().join("model.engine")).expect("it was written");
        assert_eq!(&plan[..4], b"vtrt");
    }

    #[test]
    fn the_log_of_the_library_is_shown_to_who_asks() {
        let (folder, _) = folder_with("golden", "mlp.onnx");
        let quiet = build(folder.path(), &["model.onnx", "--out", "a.engine"]);
        assert_eq!(said(&quiet), "");
        let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
        let command = command.args(["build-engine", "model.onnx", "--log", "info"]);
        let loud = command.current_dir(folder.path()).output().expect("aegis starts");
        assert!(said(&loud).contains("Engine generation completed"), "{}", said(&loud));
    }

    #[test]
    fn bad_input_is_refused_and_nothing_is_written() {
        for (name, words) in [
            ("dynamic_batch.onnx", "dimension 0 of `x` is dynamic"),
            ("truncated.onnx", "Failed to parse the ONNX model"),
            ("unknown_operator.onnx", "Plugin not found"),
            ("not_onnx.onnx", "Network must have at least one output"),
        ] {
            let (folder, _) = folder_with("faulty", name);
            let output = build(folder.path(), &["model.onnx"]);
            assert_eq!(output.status.code(), Some(2), "{name}");
            assert!(said(&output).contains(words), "{name}: {}", said(&output));
            assert!(!folder.path().join("model.engine").exists(), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_and_one_that_would_be_overwritten_are_named() {
        let (folder, network) = folder_with("golden", "mlp.onnx");
        let output = build(folder.path(), &["none.onnx"]);
        assert!(
            said(&output).contains("none.onnx could not be read: No such file"),
            "{}",
            said(&output)
        );
        let before = std::fs::read(&network).expect("it is there");
        let output = build(folder.path(), &["model.onnx", "--out", "model.onnx"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("would overwrite model.onnx"), "{}", said(&output));
        assert_eq!(std::fs::read(&network).expect("it is there"), before);
        let output = build(folder.path(), &["--inspect", "model.onnx"]);
        assert!(said(&output).contains("magicTag"), "{}", said(&output));
    }
}
