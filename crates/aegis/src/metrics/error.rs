//! Why metrics are not served.

use std::io;
use std::net::SocketAddr;

use aegis_trace::Category;

/// The endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Others than this machine could read the metrics, and nobody said that they may.
    #[error(
        "metrics at {address} could be read from other machines; take a loopback address such as \
         127.0.0.1:{}, or say that they are public", address.port()
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("metrics cannot be served at {address}{}", if_in_use(.cause))]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The operating system gave no thread.
    #[error("the operating system gave no thread for the metrics")]
    Thread(#[source] io::Error),
}

fn if_in_use(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => ", where another program listens; take another port",
        _ => "",
    }
}

impl MetricsError {
    /// Transient where another program holds the port, which may end; else Permanent.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Bind { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse => {
                Category::Transient
            }
            Self::NotLoopback { .. } | Self::Bind { .. } | Self::Thread(_) => Category::Permanent,
        }
    }
}
