//! Why the library refused a plan, told from its own words.
//!
//! TensorRT-RTX tells the cause of most refusals as flags of the plan's header; every TensorRT says it
//! in its log. The words are those of TensorRT-RTX 1.7 and TensorRT 11: a cause whose words changed
//! is still an error with its text, of the kind [`BackendError::Runtime`].
//!
//! # Invariants
//! 1. The text of an error is the library's own, whole.

use aegis_context::BackendError;

use crate::log::Heard;

/// The kinds of cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The plan is of another version of the library.
    OtherVersion,
    /// The plan does not run on this GPU, or the library on none of this kind.
    OtherDevice,
    /// It is no plan, or not a whole one.
    Malformed,
    /// There is too little memory.
    OutOfMemory,
    /// Something else.
    Unknown,
}

/// The words that tell a cause, the most telling first: a plan without the mark of a plan is also
/// said to be of another version.
const WORDS: [(&str, Cause); 17] = [
    ("cannot run on this GPU", Cause::OtherDevice),
    ("does not support this compute capability", Cause::OtherDevice),
    ("generated on an incompatible device", Cause::OtherDevice),
    ("device is not compatible with this hardware-compatible engine", Cause::OtherDevice),
    ("magicTag", Cause::Malformed),
    ("engine has been created with TensorRT", Cause::OtherVersion),
    ("not compatible with this version of TensorRT", Cause::OtherVersion),
    ("old deserialization call on a newer plan", Cause::OtherVersion),
    ("incompatible serialization version", Cause::OtherVersion),
    ("Serialization assertion", Cause::Malformed),
    ("does not conform to the expected format", Cause::Malformed),
    ("bufferSize >= minBufferSize", Cause::Malformed),
    ("empty memory buffer", Cause::Malformed),
    ("out of memory", Cause::OutOfMemory),
    ("OutOfMemory", Cause::OutOfMemory),
    ("cudaErrorMemoryAllocation", Cause::OutOfMemory),
    ("Requested amount of GPU memory", Cause::OutOfMemory),
];

impl Cause {
    /// What `text` says.
    pub(crate) fn of(text: &str) -> Self {
        let found = WORDS.iter().find(|(words, _)| text.contains(words));
        found.map_or(Self::Unknown, |(_, cause)| *cause)
    }

    fn into_error(self, path: &str, reason: String) -> BackendError {
        let path = path.to_owned();
        match self {
            Self::OtherVersion => BackendError::OtherVersion { path, reason },
            Self::OtherDevice => BackendError::OtherDevice { path, reason },
            Self::Malformed => BackendError::BadModel { path, reason },
            Self::OutOfMemory => BackendError::OutOfMemory { reason },
            Self::Unknown => BackendError::Runtime { reason },
        }
    }
}

/// The error of a plan that was refused: `flagged` is what its header says, if the library tells, and
/// `header` what was said about that.
pub(crate) fn refused(
    path: &str,
    flagged: Option<Cause>,
    header: &Heard,
    loading: &Heard,
) -> BackendError {
    let (about_header, about_loading) = (header.all(), loading.reason());
    // The header is judged before anything of the GPU is asked for, so its verdict comes first.
    let causes =
        [flagged.unwrap_or(Cause::Unknown), Cause::of(&about_header), Cause::of(&about_loading)];
    let cause = causes.into_iter().find(|cause| *cause != Cause::Unknown);
    let both = [about_header, about_loading].into_iter().filter(|text| !text.is_empty());
    let text = both.collect::<Vec<_>>().join("; ");
    let text = if text.is_empty() { "the library does not say why".to_owned() } else { text };
    cause.unwrap_or(Cause::Unknown).into_error(path, text)
}

/// The error of a call other than that: out of memory, or what was said.
pub(crate) fn failed(what: &str, heard: &Heard) -> BackendError {
    let said = heard.reason();
    let reason = if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") };
    match Cause::of(&reason) {
        Cause::OutOfMemory => BackendError::OutOfMemory { reason },
        Cause::OtherVersion | Cause::OtherDevice | Cause::Malformed | Cause::Unknown => {
            BackendError::Runtime { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use trtx::Severity;

    use super::*;

    fn refused_with(flagged: Option<Cause>, header: &str, loading: &str) -> BackendError {
        let header = Heard::of(&[(Severity::Info, header)]);
        let loading =
            Heard::of(&[(Severity::Info, "Loaded engine size"), (Severity::Error, loading)]);
        refused("a.engine", flagged, &header, &loading)
    }

    #[test]
    fn each_cause_is_an_error_of_its_own_with_the_librarys_words() {
        let gpu = "The engine cannot run on this GPU, which has compute capability 9.0.";
        let version = "The engine has been created with TensorRT-RTX version 1.6.0, but the current \
                       runtime is TensorRT-RTX version 1.7.1.";
        let foreign = "Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.Trying to \
                       load an engine created with incompatible serialization version (1 != 2)";
        let error = refused_with(None, "", gpu);
        assert!(matches!(error, BackendError::OtherDevice { .. }), "{error:?}");
        assert!(error.to_string().contains(gpu), "{error}");
        let error = refused_with(None, version, "Error Code 1: Cuda Runtime");
        assert!(
            matches!(&error, BackendError::OtherVersion { reason, .. }
            if reason.contains(version) && reason.contains("Cuda Runtime")),
            "{error:?}"
        );
        let error = refused_with(None, "", foreign);
        assert!(matches!(error, BackendError::BadModel { .. }), "{error:?}");
        let error = refused_with(None, "", "cuda failure: out of memory");
        assert!(matches!(error, BackendError::OutOfMemory { .. }), "{error:?}");
        let error = refused_with(None, "", "something new");
        assert!(matches!(error, BackendError::Runtime { .. }), "{error:?}");
    }

    #[test]
    fn what_the_header_flags_is_believed_before_any_words() {
        let error = refused_with(Some(Cause::OtherDevice), "", "out of memory");
        assert!(matches!(error, BackendError::OtherDevice { .. }), "{error:?}");
    }

    #[test]
    fn a_refusal_without_words_says_so() {
        let none = Heard::default();
        let error = refused("a.engine", None, &none, &none);
        assert_eq!(error.to_string(), "the runtime failed: the library does not say why");
    }
}
