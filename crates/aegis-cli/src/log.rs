//! The log of the runtimes, on standard error, for who asks for it.
//!
//! `AEGIS_LOG` names the level: `error`, `warn`, `info` or `debug`. Only TensorRT logs today; what it
//! complains about is in the error messages without this too.

#[cfg(feature = "trt")]
use anyhow::Context;
use anyhow::Result;

/// The variable that names the level.
#[cfg(feature = "trt")]
const VARIABLE: &str = "AEGIS_LOG";

/// Starts printing the log where the variable is set.
///
/// # Errors
/// A level that there is not.
#[cfg(feature = "trt")]
pub(crate) fn start() -> Result<()> {
    use tracing_subscriber::filter::LevelFilter;
    let Some(level) = std::env::var_os(VARIABLE).filter(|level| !level.is_empty()) else {
        return Ok(());
    };
    let level = level.to_string_lossy();
    let known: LevelFilter = level.parse().with_context(|| {
        format!("{VARIABLE} is `{level}`; write one of error, warn, info or debug")
    })?;
    let log = tracing_subscriber::fmt().with_max_level(known).with_writer(std::io::stderr);
    log.without_time().init();
    Ok(())
}

/// Nothing of what is built in logs.
#[cfg(not(feature = "trt"))]
#[expect(clippy::unnecessary_wraps, reason = "as where something logs")]
pub(crate) fn start() -> Result<()> {
    Ok(())
}
