//! What a bundle holds, and what the machine that it goes to must have.
//!
//! Said twice, in the same words: when the bundle is made, and in its README.

/// What of the flags decides what a machine needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    /// For a GPU.
    pub(super) cuda: bool,
    /// With ONNX Runtime.
    pub(super) runtime: bool,
    /// The architecture that TVM's modules are compiled for.
    pub(super) tvm: Option<&'a str>,
    pub(super) trt: bool,
    /// The target of rustc, where it is not the machine that bundles.
    pub(super) target: Option<&'a str>,
    /// The version of ONNX Runtime.
    pub(super) version: &'a str,
}

/// What the machine needs and what the bundle cannot do, one sentence each.
pub(super) fn sentences(parts: &Parts<'_>) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(target) = parts.target {
        all.push(format!("The programs are for `{target}`."));
    }
    all.push(runtime(parts));
    all.push(
        "For models on a GPU: an NVIDIA driver for CUDA 13, and CUDA 13's libraries with cuDNN 9, of the \
         system or as the Python packages `nvidia-*`; they are in no bundle."
            .to_owned(),
    );
    all.push(match parts.tvm {
        Some(architecture) => format!(
            "TVM is built in and its libraries are here, with modules for the processor and {architecture}; \
             on a GPU NVRTC compiles their kernels, which is one of CUDA's libraries."
        ),
        None => "TVM is not built in: workloads with `backend = \"tvm\"`, and so the step `runtimes`, are \
                 refused (`cargo xtask bundle --tvm sm_90` builds it in)."
            .to_owned(),
    });
    all.push(if parts.trt {
        "TensorRT-RTX is built in and its libraries are here.".to_owned()
    } else {
        "TensorRT is not built in: workloads with `backend = \"trt\"` are refused (`--trt` builds it in)."
            .to_owned()
    });
    all
}

fn runtime(parts: &Parts<'_>) -> String {
    let version = parts.version;
    let give = "name its `libonnxruntime.so` in `ORT_DYLIB_PATH`, or put it into `lib/` with what lies \
                beside it";
    match (parts.runtime, parts.cuda) {
        (true, true) => format!(
            "ONNX Runtime {version} for CUDA is in `lib/`; it runs models on the processor too."
        ),
        (true, false) => format!(
            "ONNX Runtime {version} for the processor is in `lib/`. It cannot run models on a GPU, as \
             `edge24.toml` asks for: use `WORKLOAD=benches/workloads/edge24-host.toml ./run.sh ...`, or \
             get ONNX Runtime {version} built for CUDA and {give}."
        ),
        (false, true) => format!(
            "ONNX Runtime {version} built for CUDA is needed and not in the bundle (`--cuda` says which \
             one, `--with-runtime` bundles it): {give}."
        ),
        (false, false) => format!(
            "ONNX Runtime {version} is needed and not in the bundle (`--with-runtime` bundles it), and for \
             models on a GPU the one built for CUDA: {give}."
        ),
    }
}

/// The README of the bundle with these sentences at its end.
pub(super) fn readme(general: &str, sentences: &[String]) -> String {
    let list: String = sentences.iter().map(|sentence| format!("- {sentence}\n")).collect();
    format!("{general}\n## What this bundle needs\n\n{list}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts<'static> {
        let (cuda, runtime, trt, version) = (false, false, false, "1.2.3");
        Parts { cuda, runtime, tvm: None, trt, target: None, version }
    }

    #[test]
    fn a_runtime_that_is_not_bundled_is_asked_for_by_what_it_must_be() {
        let said = |parts: Parts<'_>| sentences(&parts).join("\n");
        let cuda = said(Parts { cuda: true, ..parts() });
        assert!(cuda.contains("1.2.3 built for CUDA is needed") && cuda.contains("ORT_DYLIB_PATH"));
        let bare = said(parts());
        assert!(bare.contains("1.2.3 is needed and not in the bundle"), "{bare}");
        let processor = said(Parts { runtime: true, ..parts() });
        assert!(processor.contains("cannot run models on a GPU"), "{processor}");
        let both = said(Parts { cuda: true, runtime: true, ..parts() });
        assert!(both.contains("for CUDA is in `lib/`") && !both.contains("is needed"), "{both}");
    }

    #[test]
    fn what_is_not_built_in_is_said_and_what_is_is_not_asked_for() {
        let none = sentences(&parts());
        assert_eq!(none.iter().filter(|it| it.contains("not built in")).count(), 2, "{none:?}");
        let tvm = Some("sm_90");
        let all = sentences(&Parts { tvm, trt: true, target: Some("a-b-c"), ..parts() });
        assert!(!all.iter().any(|it| it.contains("not built in")), "{all:?}");
        assert!(all.iter().any(|it| it.contains("sm_90")) && all[0].contains("`a-b-c`"), "{all:?}");
    }

    #[test]
    fn the_readme_ends_with_the_sentences() {
        let readme = readme("# A\n", &["One.".to_owned(), "Two.".to_owned()]);
        assert_eq!(readme, "# A\n\n## What this bundle needs\n\n- One.\n- Two.\n");
    }
}
