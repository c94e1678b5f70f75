//! What leaves a run while it goes on: metrics, the log, the live view.
//!
//! Each is asked for before anything is loaded, so that a port in use or a terminal that is none is an
//! error of the first second. All of them are fed by the trace pump.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;

use aegis::live::LiveView;
use aegis::log::EventLog;
use aegis::{Runtime, TraceObserver};
use anyhow::{Result, anyhow, ensure};
use clap::Args;

use crate::logging;
#[cfg(feature = "metrics")]
use crate::output::say;

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Serve metrics to Prometheus at this address, for example 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// Serve them to other machines too: no password, no encryption.
    #[arg(long, requires = "metrics")]
    metrics_public: bool,
    /// Show the run on the terminal while it goes on; q ends it.
    #[arg(long, conflicts_with = "json")]
    tui: bool,
}

fn address(text: &str) -> Result<SocketAddr> {
    let wrong = || anyhow!("write an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464");
    text.parse().map_err(|_| wrong())
}

/// What was asked for and can be had; nothing is served yet.
pub(crate) struct Exports {
    #[cfg(feature = "metrics")]
    metrics: Option<aegis::metrics::MetricsServer>,
    is_shown: bool,
}

/// What runs beside the run.
pub(crate) struct Running {
    /// Served until this is dropped.
    #[cfg(feature = "metrics")]
    _metrics: Option<aegis::metrics::Serving>,
    /// What the live view shows; `None` where it was not asked for.
    pub(crate) view: Option<LiveView>,
}

impl ExportArgs {
    /// Takes what was asked for, or says why that cannot be had.
    pub(crate) fn prepare(&self) -> Result<Exports> {
        self.is_built()?;
        if self.tui {
            is_shown_on_a_terminal()?;
        }
        Ok(Exports {
            #[cfg(feature = "metrics")]
            metrics: self.bind()?,
            is_shown: self.tui,
        })
    }

    #[cfg(feature = "metrics")]
    fn bind(&self) -> Result<Option<aegis::metrics::MetricsServer>> {
        use aegis::metrics::{Exposure, MetricsServer};
        let exposure = if self.metrics_public { Exposure::Public } else { Exposure::Loopback };
        let bound = self.metrics.map(|address| MetricsServer::bind(address, exposure));
        let bound = bound.transpose().map_err(|error| match error {
            refused @ aegis::metrics::MetricsError::NotLoopback { .. } => {
                anyhow!("{refused} with --metrics-public")
            }
            error => error.into(),
        })?;
        if let Some(server) = &bound {
            say(format!("metrics: http://{}/metrics", server.address()));
        }
        Ok(bound)
    }

    /// Refuses what a smaller build leaves out.
    fn is_built(&self) -> Result<()> {
        let built = |asked: bool, feature: &str, has: bool| {
            ensure!(!asked || has, "this build is without the feature `{feature}` of aegis-cli");
            Ok(())
        };
        built(self.metrics.is_some(), "metrics", cfg!(feature = "metrics"))?;
        built(self.tui, "tui", cfg!(feature = "tui"))
    }
}

fn is_shown_on_a_terminal() -> Result<()> {
    for (is_one, name) in
        [(io::stdin().is_terminal(), "input"), (io::stdout().is_terminal(), "output")]
    {
        ensure!(is_one, "--tui needs a terminal, and standard {name} is none");
    }
    let is_disturbed = logging::is_on() && io::stderr().is_terminal();
    ensure!(!is_disturbed, "-v and --log write over what --tui draws; send them away with 2> FILE");
    Ok(())
}

impl Exports {
    /// Begins to serve, and makes what the pump feeds.
    pub(crate) fn start(self, runtime: &Runtime) -> Result<(Running, Vec<Box<dyn TraceObserver>>)> {
        let mut observers: Vec<Box<dyn TraceObserver>> = Vec::new();
        if logging::is_on() {
            observers.push(Box::new(EventLog::default()));
        }
        let view = self.is_shown.then(|| {
            let (view, feed) = LiveView::new(Arc::clone(runtime.clock()));
            observers.push(Box::new(feed));
            view
        });
        #[cfg(feature = "metrics")]
        let served = self.metrics.map(|server| server.serve(runtime.report().memory.limit));
        #[cfg(feature = "metrics")]
        let served = served.transpose()?.map(|(serving, feed)| {
            observers.push(Box::new(feed));
            serving
        });
        #[cfg(not(feature = "metrics"))]
        let _ = runtime;
        let running = Running {
            #[cfg(feature = "metrics")]
            _metrics: served,
            view,
        };
        Ok((running, observers))
    }
}
