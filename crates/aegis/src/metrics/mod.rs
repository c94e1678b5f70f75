//! What a run has done and promised, for Prometheus to fetch.
//!
//! ```text
//!   rings --pump--> MetricsFeed --atomics--> registry <--encode-- MetricsServer <--GET /metrics--
//! ```
//!
//! [`MetricsServer::bind`] takes the address before anything runs, so that a port in use is an error
//! of the start and not of the run. The feed is one of the pump's
//! [observers](crate::observer::TraceObserver): no job, and no thread that decides, ever touches a
//! metric. `docs/metrics.md` lists every metric with its unit and labels, and a test holds it to
//! `families`.
//!
//! # Invariants
//! 1. Nothing but a loopback address is served unless that is asked for by name
//!    ([`Exposure::Public`]).
//! 2. A series of a model exists, at zero, from the model's admission on: the first miss is an
//!    increase, not a new series.
//! 3. A client that stalls costs the server a bounded time, and the run nothing.

mod error;
mod families;
mod feed;
mod labels;
mod server;

pub use error::MetricsError;
pub use feed::MetricsFeed;
pub use server::{Exposure, MetricsServer, Serving};
