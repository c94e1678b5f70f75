//! CUDA source compiled where it is loaded, once: NVRTC behind the callback that TVM asks.
//!
//! A module for a GPU holds CUDA source. When it is loaded, TVM calls `tvm_callback_cuda_compile` with it
//! and takes a binary. Ours compiles for the GPU at hand, and keeps the binary in a folder under the
//! hash of everything that it depends on, so that the second start only reads a file.
//!
//! The source includes two headers of CUDA's C++ library; what it uses of them is in `stand_ins`, so
//! that no toolkit need be there. Networks in half precision include `cuda_fp16.h`, which is looked for
//! in the toolkit's folder.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::io::Write as _;
use std::mem;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::loader::Opened;
use super::sys;
use super::value::{Function, blob, bytes_of, raise};

const CALLBACK: &str = "tvm_callback_cuda_compile";

/// The headers that every source includes, by the names it includes them by.
const STAND_INS: [(&CStr, &str); 2] = [
    (c"cuda/std/cstdint", include_str!("stand_ins/cstdint.h")),
    (c"cuda/std/type_traits", include_str!("stand_ins/type_traits.h")),
];

type ProgramHandle = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut ProgramHandle,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(ProgramHandle, c_int, *const *const c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut ProgramHandle) -> c_int;
type Size = unsafe extern "C" fn(ProgramHandle, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(ProgramHandle, *mut c_char) -> c_int;
type ErrorText = unsafe extern "C" fn(c_int) -> *const c_char;
type VersionOf = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

/// The functions of NVRTC.
struct Nvrtc {
    create: Create,
    compile: Compile,
    destroy: Destroy,
    binary_size: Size,
    binary: Get,
    log_size: Size,
    log: Get,
    error_text: ErrorText,
    version: (c_int, c_int),
    kernels: Kernels,
}

/// Where compiled kernels are kept, and where headers are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernels {
    /// The folder of the compiled binaries; none keeps nothing.
    pub(crate) cache: Option<PathBuf>,
    /// Folders with CUDA's headers.
    pub(crate) include: Vec<PathBuf>,
}

static NVRTC: OnceLock<Nvrtc> = OnceLock::new();

thread_local! {
    /// The architecture that this thread loads modules for; zero while it loads none.
    static ARCHITECTURE: Cell<u32> = const { Cell::new(0) };
}

/// Runs `load` with sources compiled for `architecture`: 90 for compute capability 9.0.
pub(crate) fn compiling_for<T>(architecture: u32, load: impl FnOnce() -> T) -> T {
    struct Back(u32);
    impl Drop for Back {
        fn drop(&mut self) {
            ARCHITECTURE.set(self.0);
        }
    }
    let _back = Back(ARCHITECTURE.replace(architecture));
    load()
}

/// Looks NVRTC's functions up in `library` and registers the callback.
///
/// # Errors
/// A function is missing, or TVM refuses the callback.
pub(super) fn register(library: Opened, kernels: Kernels) -> Result<(), String> {
    let nvrtc = look_up(library, kernels).map_err(|reason| format!("NVRTC: {reason}"))?;
    NVRTC.get_or_init(|| nvrtc);
    Function::register(CALLBACK, compile_callback)
}

fn look_up(library: Opened, kernels: Kernels) -> Result<Nvrtc, String> {
    macro_rules! function {
        ($type:ty, $name:literal) => {{
            let symbol = library.symbol($name)?;
            // SAFETY: In every release of NVRTC since CUDA 11.1 this symbol is a function of this type.
            unsafe { mem::transmute::<*mut c_void, $type>(symbol.as_ptr()) }
        }};
    }
    let version_of = function!(VersionOf, c"nvrtcVersion");
    let mut version = (0, 0);
    // SAFETY: Both places for the result are valid.
    unsafe { version_of(&raw mut version.0, &raw mut version.1) };
    Ok(Nvrtc {
        create: function!(Create, c"nvrtcCreateProgram"),
        compile: function!(Compile, c"nvrtcCompileProgram"),
        destroy: function!(Destroy, c"nvrtcDestroyProgram"),
        binary_size: function!(Size, c"nvrtcGetCUBINSize"),
        binary: function!(Get, c"nvrtcGetCUBIN"),
        log_size: function!(Size, c"nvrtcGetProgramLogSize"),
        log: function!(Get, c"nvrtcGetProgramLog"),
        error_text: function!(ErrorText, c"nvrtcGetErrorString"),
        version,
        kernels,
    })
}

/// `tvm_callback_cuda_compile(source)`: the binary.
///
/// # Safety
/// Called by TVM alone, with so many arguments and a place for the result.
unsafe extern "C" fn compile_callback(
    _context: *mut c_void,
    arguments: *const sys::Any,
    count: i32,
    result: *mut sys::Any,
) -> c_int {
    let source = if count >= 1 {
        // SAFETY: The library gives so many arguments, which live during the call.
        unsafe { arguments.as_ref() }.and_then(bytes_of)
    } else {
        None
    };
    let compiled = source.ok_or_else(|| "the source is no text".to_owned()).and_then(binary_of);
    match compiled.and_then(|binary| blob(&binary)) {
        Ok(binary) => {
            // SAFETY: The library gives a valid place for the result, which it takes over.
            unsafe { result.write(binary.give()) };
            0
        }
        Err(message) => {
            raise(c"RuntimeError", &message);
            -1
        }
    }
}

/// The binary of `source` for this thread's architecture: from the folder, or compiled.
fn binary_of(source: &[u8]) -> Result<Vec<u8>, String> {
    let nvrtc = NVRTC.get().ok_or("NVRTC is not loaded")?;
    let architecture = ARCHITECTURE.get();
    if architecture == 0 {
        return Err("no GPU is known that the source is to be compiled for".into());
    }
    let options = nvrtc.options(architecture);
    let file = nvrtc.kernels.cache.as_ref().map(|folder| folder.join(nvrtc.key(source, &options)));
    if let Some(binary) = file.as_ref().and_then(|file| cached(&fs::read(file).ok()?)) {
        return Ok(binary);
    }
    let binary = nvrtc.compile(source, &options)?;
    if let Some(file) = file {
        // Without it the next start compiles again, and works as well.
        let _: Option<()> = keep(&file, &binary);
    }
    Ok(binary)
}

/// A file of the folder: the hash of the binary, then the binary. `None` for a damaged one.
fn cached(contents: &[u8]) -> Option<Vec<u8>> {
    let (hash, binary) = contents.split_at_checked(32)?;
    (Sha256::digest(binary).as_slice() == hash).then(|| binary.to_vec())
}

fn keep(file: &std::path::Path, binary: &[u8]) -> Option<()> {
    let folder = file.parent()?;
    fs::create_dir_all(folder).ok()?;
    let mut whole = tempfile::NamedTempFile::new_in(folder).ok()?;
    whole.write_all(&Sha256::digest(binary)).ok()?;
    whole.write_all(binary).ok()?;
    whole.persist(file).ok().map(drop)
}

impl Nvrtc {
    fn options(&self, architecture: u32) -> Vec<String> {
        let mut options =
            vec![format!("--gpu-architecture=sm_{architecture}"), "--std=c++17".to_owned()];
        let include = self.kernels.include.iter();
        options.extend(include.map(|folder| format!("--include-path={}", folder.display())));
        options
    }

    /// The name of the file that keeps what these options make of `source`.
    fn key(&self, source: &[u8], options: &[String]) -> String {
        let mut hash = Sha256::new();
        for part in [format!("{:?}", self.version), options.join("\n")] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        STAND_INS.iter().for_each(|(_, text)| hash.update(text));
        hash.update(source);
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}.cubin")
    }

    fn compile(&self, source: &[u8], options: &[String]) -> Result<Vec<u8>, String> {
        let terminated = |bytes: &[u8]| CString::new(bytes).map_err(|error| error.to_string());
        let source = terminated(source)?;
        let headers: Vec<CString> = STAND_INS
            .iter()
            .map(|(_, text)| terminated(text.as_bytes()))
            .collect::<Result<_, _>>()?;
        let options: Vec<CString> =
            options.iter().map(|option| terminated(option.as_bytes())).collect::<Result<_, _>>()?;
        let headers: Vec<*const c_char> = headers.iter().map(|it| it.as_ptr()).collect();
        let names = STAND_INS.map(|(name, _)| name.as_ptr());
        let options: Vec<*const c_char> = options.iter().map(|it| it.as_ptr()).collect();
        let count = |length: usize| c_int::try_from(length).unwrap_or(c_int::MAX);
        let mut program = Program { nvrtc: self, handle: ptr::null_mut() };
        // SAFETY: All strings are terminated and alive, the counts are theirs, and the place for the result
        // is valid.
        self.check(unsafe {
            (self.create)(
                &raw mut program.handle,
                source.as_ptr(),
                c"module.cu".as_ptr(),
                count(headers.len()),
                headers.as_ptr(),
                names.as_ptr(),
            )
        })?;
        // SAFETY: The program is alive; the options are terminated and alive, and so many.
        let status =
            unsafe { (self.compile)(program.handle, count(options.len()), options.as_ptr()) };
        if let Err(error) = self.check(status) {
            let log = program.read(self.log_size, self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).trim_matches('\0').trim().to_owned();
            return Err(format!("{error}: {log}"));
        }
        program.read(self.binary_size, self.binary)
    }

    fn check(&self, status: c_int) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: The function takes any number.
        let text = unsafe { (self.error_text)(status) };
        // SAFETY: What it returns is a static, terminated string.
        let text = unsafe { CStr::from_ptr(text) };
        Err(format!("NVRTC: {}", text.to_string_lossy()))
    }
}

/// A program of NVRTC, destroyed when it is dropped.
struct Program<'n> {
    nvrtc: &'n Nvrtc,
    handle: ProgramHandle,
}

impl Program<'_> {
    fn read(&self, size: Size, get: Get) -> Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: The program is alive and the place for the result is valid.
        self.nvrtc.check(unsafe { size(self.handle, &raw mut length) })?;
        let mut bytes = vec![0u8; length];
        // SAFETY: The program is alive and the place has as many bytes as were asked for.
        self.nvrtc.check(unsafe { get(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: The program is ours and not used after this.
            unsafe { (self.nvrtc.destroy)(&raw mut self.handle) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_binary_comes_back_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("below/kernel.cubin");
        keep(&file, b"binary").expect("it can be written");
        let mut contents = fs::read(&file).expect("it was written");
        assert_eq!(cached(&contents).as_deref(), Some(b"binary".as_slice()));
        *contents.last_mut().expect("not empty") ^= 1;
        assert_eq!(cached(&contents), None);
        assert_eq!(cached(b"short"), None);
    }
}
