//! TensorRT-RTX, and what building its binding needs.
//!
//! The libraries come from the wheel of ONNX Runtime's provider for TensorRT-RTX, the one package that
//! carries them; nothing else of it is unpacked. The product looks for them in
//! `.aegis/runtimes/tensorrt-rtx-1.7.1`.
//!
//! The binding (`trtx`) is generated while it is built, which takes libclang older than 22: the wheel
//! `libclang` has one, for every system the same. That wheel has no headers of the language (`stddef.h`
//! and the like), and no program `clang` that would say where they are. The C++ compiler that the build
//! needs anyway answers that question in the same words, so it is called by that name: the file `clang`
//! beside the library. `.cargo/config.toml` names both.
//!
//! TensorRT itself (feature `trt-enterprise`) is not fetched: its packages are empty and download from
//! their maker, under terms that a user accepts for himself.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::package::{Item, Origin, Package, RuntimesError, at};
use super::verb;
use crate::process;

/// The folder in which the product looks for the libraries, among those of other runtimes.
const HOME: &str = "tensorrt-rtx-1.7.1";

/// The same, below the folder of a workspace or of a bundle.
pub(super) const PLACE: &str = ".aegis/runtimes/tensorrt-rtx-1.7.1";

/// TensorRT-RTX and its reader of ONNX files.
const TENSORRT: Package<'static> = Package {
    name: "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    version: "0.5.0",
    python: "3.12",
    platforms: &["manylinux_2_28_x86_64"],
    wheel: "32f575c633d171b4edf4b53d3bb22b72a6c9c0a850d2982ce9a788a5d40d3298",
    items: &[
        Item::library(
            "onnxruntime_ep_nv_tensorrt_rtx",
            "libtensorrt_rtx.so.1.7.1",
            "6980f8946580af43f06ccbd82a06c65d61638ff76329d726764a0a408747be84",
        ),
        Item::library(
            "onnxruntime_ep_nv_tensorrt_rtx",
            "libtensorrt_onnxparser_rtx.so.1.7.1",
            "8bc09093b0e460f494d0410d8a2d2739b3e4de441d016e1f8ffa74bfb99a49aa",
        ),
        Item::text("onnxruntime_ep_nv_tensorrt_rtx", "Acknowledgements.txt"),
        Item::text("onnxruntime_ep_nv_tensorrt_rtx", "README.txt"),
    ],
};

/// What reads C++ headers while the binding is built.
const LIBCLANG: Package<'static> = Package {
    name: "libclang",
    version: "18.1.1",
    python: "3.12",
    platforms: &["manylinux2010_x86_64"],
    wheel: "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b",
    items: &[
        Item::library(
            "libclang-18.1.1.data/platlib/clang/native",
            "libclang.so",
            "a8612b1c9a7125701277f63e5616f1d1eb9c91410c4bf195878067868c927f94",
        ),
        Item::text("libclang-18.1.1.dist-info", "LICENSE.TXT"),
    ],
};

/// The name under which the C++ compiler is asked where its headers are.
const CLANG: &str = "clang";
const ASK_THE_COMPILER: &str = "#!/bin/sh\n\
    # Says where the headers of the language are; called by the generator of bindings.\n\
    exec c++ \"$@\"\n";

/// Puts both below `into`. A wheel that the user has is that of TensorRT-RTX.
///
/// # Errors
/// As [`RuntimesError`].
pub(super) fn run(into: &Path, origin: &Origin<'_>) -> Result<(), RuntimesError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        return Err(RuntimesError::TensorRtPlatform { os, arch });
    }
    let home = into.join(HOME);
    let outcome = TENSORRT.provide(&home, origin)?;
    println!("TensorRT-RTX 1.7.1 {}: {}", verb(&outcome), home.display());
    let home = into.join(LIBCLANG.folder());
    let outcome = LIBCLANG.provide(&home, &Origin::Pip)?;
    println!("{} {}: {}", LIBCLANG.title(), verb(&outcome), home.display());
    name_the_compiler(&home)
}

/// Writes the file by which the C++ compiler is asked, once it is known that there is one.
fn name_the_compiler(home: &Path) -> Result<(), RuntimesError> {
    process::capture(Command::new("c++").arg("--version"))
        .map_err(|source| RuntimesError::NoCompiler { source })?;
    let file = home.join(CLANG);
    fs::write(&file, ASK_THE_COMPILER).map_err(at(&file))?;
    make_executable(&file).map_err(at(&file))
}

#[cfg(unix)]
fn make_executable(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(()) // Not reached: there are no packages for such a system.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_where_it_is_put() {
        assert!(PLACE.ends_with(&format!("/{HOME}")));
    }

    #[test]
    fn cargo_is_told_where_the_fetched_libclang_is() {
        let config = include_str!("../../../.cargo/config.toml");
        let folder = format!("\".aegis/runtimes/{}\"", LIBCLANG.folder());
        assert!(config.contains(&folder), "{folder}");
        assert!(config.contains(&format!("{}/{CLANG}\"", LIBCLANG.folder())));
    }

    #[test]
    fn the_compiler_says_where_its_headers_are_under_the_name_of_clang() {
        let home = tempfile::tempdir().expect("a folder");
        name_the_compiler(home.path()).expect("whoever builds this has a compiler");
        let mut ask = Command::new(home.path().join(CLANG));
        let answer = ask.args(["-E", "-x", "c++", "-", "-v"]).output().expect("it starts");
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(said.contains("#include <...> search starts here:"), "{said}");
    }
}
