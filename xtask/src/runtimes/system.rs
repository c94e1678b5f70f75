//! Where the system has a shared library.
//!
//! Asked are, in this order: the folders of `LD_LIBRARY_PATH`, the cache of the dynamic loader, the
//! usual folder of a CUDA toolkit, and the folders in which Python packages keep CUDA's libraries.
//! The loader itself finds what is in the first two; the other folders must be named to it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// Where a CUDA toolkit puts its libraries.
const TOOLKIT: &str = "/usr/local/cuda/lib64";

/// Prints the folders in which this Python looks for packages, one on each line.
const SITES: &str = "import sys; print(*filter(None, sys.path), sep='\\n')";

/// What is known of this system's libraries.
pub(super) struct System {
    /// Folders that the loader looks into.
    named: Vec<PathBuf>,
    /// The loader's cache: names and paths.
    cached: Vec<(String, PathBuf)>,
    /// Other folders, in which the loader does not look by itself.
    others: Vec<PathBuf>,
}

/// A library that is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub path: PathBuf,
    pub loader: Loader,
}

/// Whether the dynamic loader finds a library by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loader {
    FindsIt,
    /// Its folder must be named in `LD_LIBRARY_PATH`.
    MustBeTold,
}

impl System {
    /// Asks this system. What cannot be asked, for want of a program, has nothing.
    pub(super) fn ask() -> Self {
        let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let cache = process::capture(Command::new("ldconfig").arg("-p")).unwrap_or_default();
        let sites = process::capture(Command::new("python3").args(["-c", SITES]));
        let sites = sites.unwrap_or_default();
        let packages = sites.lines().flat_map(|site| package_folders(Path::new(site)));
        Self {
            named: env::split_paths(&path)
                .filter(|folder| !folder.as_os_str().is_empty())
                .collect(),
            cached: parse_cache(&cache),
            others: [PathBuf::from(TOOLKIT)].into_iter().chain(packages).collect(),
        }
    }

    /// The first place of the library called `name`.
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let in_folders = |folders: &[PathBuf]| {
            folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
        };
        let cached = || self.cached.iter().find(|(cached, _)| cached == name);
        let by_loader = in_folders(&self.named).or_else(|| cached().map(|(_, path)| path.clone()));
        let found = by_loader.map(|path| Found { path, loader: Loader::FindsIt });
        found.or_else(|| {
            let path = in_folders(&self.others)?;
            Some(Found { path, loader: Loader::MustBeTold })
        })
    }
}

/// The lines `NAME (KIND) => PATH` of `ldconfig -p` that are of this machine's word size.
fn parse_cache(text: &str) -> Vec<(String, PathBuf)> {
    let parse = |line: &str| {
        let (name, rest) = line.trim().split_once(" (")?;
        let (kind, path) = rest.split_once(") => ")?;
        let is_native = kind.contains("x86-64") || kind.contains("AArch64");
        is_native.then(|| (name.to_owned(), PathBuf::from(path)))
    };
    text.lines().filter_map(parse).collect()
}

/// The folders `nvidia/PACKAGE/lib` below `site`, in the order of their names.
fn package_folders(site: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.join("nvidia")).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path().join("lib")).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_the_loader_is_understood() {
        let text = "2 libs found in cache `/etc/ld.so.cache'\n\
                    \tlibcudart.so.13 (libc6,x86-64) => /opt/cuda/libcudart.so.13\n\
                    \tlibcudart.so.13 (libc6) => /opt/cuda32/libcudart.so.13\n";
        let expected = [("libcudart.so.13".to_owned(), "/opt/cuda/libcudart.so.13".into())];
        assert_eq!(parse_cache(text), expected);
    }

    #[test]
    fn named_folders_come_before_those_the_loader_does_not_know() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).expect("a new folder");
            fs::write(folder.join("libx.so.1"), "").expect("a new file");
            folder
        };
        let (named, other) = (make("named"), make("other"));
        let mut system =
            System { named: vec![named.clone()], cached: Vec::new(), others: vec![other.clone()] };
        let found = |path: PathBuf, loader| Some(Found { path: path.join("libx.so.1"), loader });
        assert_eq!(system.find("libx.so.1"), found(named, Loader::FindsIt));
        system.named.clear();
        assert_eq!(system.find("libx.so.1"), found(other, Loader::MustBeTold));
        assert_eq!(system.find("liby.so.1"), None);
    }
}
