//! ONNX Runtime for CUDA, and what its CUDA provider needs of CUDA.
//!
//! The wheel `onnxruntime-gpu` brings no library of CUDA. What its provider names as needed, or
//! opens by itself, is [`NEEDS`]. What the system has is used; the rest is fetched from the wheels of
//! CUDA's maker, in the releases of CUDA 13.0, the oldest that this ONNX Runtime runs on, so that any
//! driver that runs it will do. The driver's own library cannot be fetched.
//!
//! One file is left beside the packages: `cuda.env`, which a shell sources, and which sets
//! `ORT_DYLIB_PATH` and `LD_LIBRARY_PATH`.
//!
//! # Invariants
//! 1. A need is taken from one place: all of its libraries from the system, or none.

use std::fs;
use std::path::{Path, PathBuf};

use super::package::{Item, Origin, Package, RuntimesError, at};
use super::system::{Found, Loader, System};
use super::{LIBRARY, VERSION, verb};

/// The library of the driver, which comes with the driver.
const DRIVER: &str = "libcuda.so.1";
/// The file that a shell sources.
const ENVIRONMENT: &str = "cuda.env";

/// ONNX Runtime with its CUDA provider.
pub(super) const RUNTIME: Package<'static> = Package {
    name: "onnxruntime-gpu",
    version: VERSION,
    python: "3.12",
    platforms: &["manylinux_2_28_x86_64"],
    wheel: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    items: &[
        Item::library(
            "onnxruntime/capi",
            LIBRARY,
            "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
        ),
        Item::library(
            "onnxruntime/capi",
            "libonnxruntime_providers_cuda.so",
            "8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52",
        ),
        Item::library(
            "onnxruntime/capi",
            "libonnxruntime_providers_shared.so",
            "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
        ),
        Item::text("onnxruntime", "LICENSE"),
        Item::text("onnxruntime", "ThirdPartyNotices.txt"),
    ],
};

/// A library of CUDA that the provider needs.
struct Need {
    /// What it is for, for people.
    what: &'static str,
    /// The wheel that brings it.
    package: Package<'static>,
}

/// Where CUDA's wheels keep their libraries.
const CUDA: &str = "nvidia/cu13/lib";
const CUDNN: &str = "nvidia/cudnn/lib";

const fn need(
    what: &'static str,
    [name, version]: [&'static str; 2],
    platforms: &'static [&'static str],
    wheel: &'static str,
    items: &'static [Item<'static>],
) -> Need {
    Need { what, package: Package { name, version, python: "3.12", platforms, wheel, items } }
}

/// What the provider needs: the first three by name, the others are opened when they are wanted.
const NEEDS: [Need; 6] = [
    need(
        "CUDA runtime",
        ["nvidia-cuda-runtime", "13.0.96"],
        &["manylinux2014_x86_64"],
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        &[
            Item::library(
                CUDA,
                "libcudart.so.13",
                "96c42e418cec19054186b9429c321603cc190bf26a18104e19408117a2a817b0",
            ),
            Item::text("nvidia_cuda_runtime-13.0.96.dist-info/licenses", "License.txt"),
        ],
    ),
    need(
        "cuBLAS",
        ["nvidia-cublas", "13.0.2.14"],
        &["manylinux_2_27_x86_64"],
        "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
        &[
            Item::library(
                CUDA,
                "libcublas.so.13",
                "1d5f1452af53a0b1cf36bc7d8116d2a22a5f2cffbaa8fca25a1b70360a2e8d7a",
            ),
            Item::library(
                CUDA,
                "libcublasLt.so.13",
                "4c15f403ac2a8040a3291d07f6c351b5c1f730b45f2ea41f302e415e9600655b",
            ),
            Item::text("nvidia_cublas-13.0.2.14.dist-info/licenses", "License.txt"),
        ],
    ),
    need(
        "cuRAND",
        ["nvidia-curand", "10.4.0.35"],
        &["manylinux_2_27_x86_64"],
        "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        &[
            Item::library(
                CUDA,
                "libcurand.so.10",
                "b53732a66b302b11926e00f762e2c2ba67058347ff93cf4ae709de45e93e06da",
            ),
            Item::text("nvidia_curand-10.4.0.35.dist-info/licenses", "License.txt"),
        ],
    ),
    need(
        "cuDNN",
        ["nvidia-cudnn-cu13", "9.13.1.26"],
        &["manylinux_2_27_x86_64"],
        "a0f434a881ce8b35afe3a328634db1da4a3852fc6dfbe89577f3e78400ee10d0",
        &CUDNN_ITEMS,
    ),
    need(
        "cuFFT",
        ["nvidia-cufft", "12.0.0.61"],
        &["manylinux2014_x86_64"],
        "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
        &[
            Item::library(
                CUDA,
                "libcufft.so.12",
                "0933f68bb7e3bf90f86d70bc87cd2f69027f7757e89e5de5e19ec33a53fd8d3a",
            ),
            Item::text("nvidia_cufft-12.0.0.61.dist-info/licenses", "License.txt"),
        ],
    ),
    need(
        "NVRTC",
        ["nvidia-cuda-nvrtc", "13.0.88"],
        &["manylinux2010_x86_64"],
        "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        &[
            Item::library(
                CUDA,
                "libnvrtc.so.13",
                "a49e67e8e74590f1e98de55c39c6287efd3f59e3c3797464d7bbe0fe01349b11",
            ),
            Item::library(
                CUDA,
                "libnvrtc-builtins.so.13.0",
                "91dcd944d01da9c0f08fff5d779db136a47f6d62bdb63bae900d2f481e92c3a2",
            ),
            Item::text("nvidia_cuda_nvrtc-13.0.88.dist-info/licenses", "License.txt"),
        ],
    ),
];

/// cuDNN is one front and seven libraries that it opens by name.
const CUDNN_ITEMS: [Item<'static>; 9] = [
    Item::library(
        CUDNN,
        "libcudnn.so.9",
        "887dd4ecf23e0e465062770f5a95acd81bbd146092d6b043cf89e40a392f4119",
    ),
    Item::library(
        CUDNN,
        "libcudnn_adv.so.9",
        "2b96525111a77c2eb58dacdcc627c0c8f54eee99fa93e32d8855c8fc284a0a91",
    ),
    Item::library(
        CUDNN,
        "libcudnn_cnn.so.9",
        "802a0255beb3906c4bfb13282bafb8bf7144f5780fd9f373931adf903ade1d72",
    ),
    Item::library(
        CUDNN,
        "libcudnn_engines_precompiled.so.9",
        "74f41fdb0ced94927e5def16bfdc20f2c961f6321241a7460699d11f5c607f18",
    ),
    Item::library(
        CUDNN,
        "libcudnn_engines_runtime_compiled.so.9",
        "a8929b30c9b4538457a7af31791398b60f987e1bf690b9f7e552db8806252a0d",
    ),
    Item::library(
        CUDNN,
        "libcudnn_graph.so.9",
        "77aca4de44266cb73b9228450609669de9c1ae10819921b69d59a3dfde3b370c",
    ),
    Item::library(
        CUDNN,
        "libcudnn_heuristic.so.9",
        "c2887cade942bf81ed589fb757a345ee9098681b011990f1c6659bc5ab83585a",
    ),
    Item::library(
        CUDNN,
        "libcudnn_ops.so.9",
        "3d28c5b301f278c9ab916bda886eaced578724f1e721fb013576f1097d58ac9a",
    ),
    Item::text("nvidia_cudnn_cu13-9.13.1.26.dist-info/licenses", "License.txt"),
];

/// Puts ONNX Runtime for CUDA below `into`, and of CUDA what the system lacks.
///
/// # Errors
/// As [`RuntimesError`].
pub(super) fn run(into: &Path, origin: &Origin<'_>) -> Result<(), RuntimesError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        let what = "ONNX Runtime 1.31.1 for CUDA";
        return Err(RuntimesError::Platform { what, pinned: "x86_64", os, arch });
    }
    let home = into.join(RUNTIME.folder());
    let outcome = RUNTIME.provide(&home, origin)?;
    println!("{} {}: {}", RUNTIME.title(), verb(&outcome), home.display());
    let system = System::ask();
    let mut folders = vec![absolute(&home)?];
    for need in &NEEDS {
        let folder = need.provide(&system, into)?;
        folders.extend(folder.map(|folder| absolute(&folder)).transpose()?);
    }
    say_driver(&system);
    folders.dedup();
    let text = environment(&folders[0].join(LIBRARY), &folders);
    let path = into.join(ENVIRONMENT);
    fs::write(&path, &text).map_err(at(&path))?;
    print!("\n{text}");
    println!("(these lines are in {})", path.display());
    Ok(())
}

impl Need {
    /// Finds or fetches it. The folder that must be named to the loader, if any.
    fn provide(&self, system: &System, into: &Path) -> Result<Option<PathBuf>, RuntimesError> {
        if let Some(found) = self.on(system) {
            println!("{}: the system has {}", self.what, found.path.display());
            let folder = found.path.parent().map(Path::to_path_buf);
            return Ok(match found.loader {
                Loader::FindsIt => None,
                Loader::MustBeTold => folder,
            });
        }
        let home = into.join(self.package.folder());
        let outcome = self.package.provide(&home, &Origin::Pip)?;
        let title = self.package.title();
        println!("{}: the system lacks it; {title} {}", self.what, verb(&outcome));
        Ok(Some(home))
    }

    /// Its first library on the system, if all are there.
    fn on(&self, system: &System) -> Option<Found> {
        let libraries =
            self.package.items.iter().map(|item| item.name).filter(|n| n.contains(".so."));
        let found: Option<Vec<Found>> = libraries.map(|name| system.find(name)).collect();
        found?.into_iter().next()
    }
}

/// Says whether there is a driver: nothing runs without, and it cannot be fetched.
fn say_driver(system: &System) {
    match system.find(DRIVER) {
        Some(found) => println!("driver: the system has {}", found.path.display()),
        None => println!("driver: the system has no {DRIVER}; it comes with the GPU's driver"),
    }
}

/// The lines that a shell sources.
fn environment(library: &Path, folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    format!(
        "export ORT_DYLIB_PATH=\"{}\"\nexport LD_LIBRARY_PATH=\"{}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n",
        library.display(),
        folders.join(":")
    )
}

fn absolute(path: &Path) -> Result<PathBuf, RuntimesError> {
    std::path::absolute(path).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_for_the_shell_keep_what_was_named_before() {
        let folders = [PathBuf::from("/opt/runtime"), PathBuf::from("/opt/cudnn")];
        let text = environment(Path::new("/opt/runtime/lib.so"), &folders);
        let expected = "export ORT_DYLIB_PATH=\"/opt/runtime/lib.so\"\n\
                        export LD_LIBRARY_PATH=\"/opt/runtime:/opt/cudnn${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_pinned_library_has_a_hash_of_the_right_length() {
        let packages = NEEDS.iter().map(|need| &need.package).chain([&RUNTIME]);
        for package in packages {
            let hashes = package.items.iter().filter_map(|item| match item.check {
                super::super::package::Check::Hash(hash) => Some(hash),
                super::super::package::Check::Wheel => None,
            });
            let hashes: Vec<_> = hashes.chain([package.wheel]).collect();
            assert!(hashes.len() > 1, "{} has no library", package.name);
            let right =
                |hash: &&str| hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
            assert!(hashes.iter().all(right), "{}", package.name);
        }
    }
}
