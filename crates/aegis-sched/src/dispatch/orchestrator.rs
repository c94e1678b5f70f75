//! The orchestration thread: the only place where the dispatcher meets a clock.
//!
//! ```text
//!   submitters --SubmissionQueue--> +--------------+ --launch--> device
//!   main thread ----commands------> | orchestrator | <--signal-- device
//!                                   +--------------+
//! ```
//! The thread sleeps on one [`Signal`] that submissions, commands and completed events all raise.
//! On a simulated device it moves virtual time instead of sleeping.
//!
//! # Invariants
//! 1. The dispatcher belongs to this thread alone while it runs.
//! 2. After [`Orchestrator::stop`] returned, every job that was ever accepted has ended, and every
//!    later submission is refused.
//! 3. A panic here is a defect that would leave callers waiting for ever, so it ends the process.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};

use aegis_context::ExecutionContext;
use aegis_cuda::{DeviceContext, RealtimePriority, Signal, ThreadRequest, ThreadSetup};
use aegis_trace::{Clock, ModelId, MonotonicClock, Nanos, Timestamp, TraceEvent};

use super::{Dispatcher, Lane, Turn};
use crate::queue::SubmissionQueue;

/// How time passes.
#[derive(Clone, Debug)]
pub enum Pace {
    /// On the machine's clock.
    Real {
        /// The clock of the device and the trace.
        clock: MonotonicClock,
        /// How long to poll before sleeping.
        spin: Nanos,
        /// Whether to ask for real-time priority and locked memory for the thread.
        realtime: bool,
        /// The core to ask for.
        core: Option<u16>,
    },
    /// As far as the simulated device has events.
    Virtual,
}

impl Pace {
    /// Prepares the calling thread to be the orchestrator.
    fn set_up_thread(&self) -> ThreadSetup {
        match *self {
            Self::Real { realtime, core, .. } => {
                let priority = realtime.then_some(RealtimePriority::ORCHESTRATOR);
                ThreadRequest { priority, lock_memory: realtime, core }.apply()
            }
            Self::Virtual => ThreadSetup::NONE,
        }
    }
}

enum Command {
    Install { lane: Box<Lane>, bounds: Vec<(ModelId, Nanos)>, done: SyncSender<()> },
    Bounds { bounds: Vec<(ModelId, Nanos)> },
    Evict { model: ModelId, context: SyncSender<ExecutionContext> },
    Stop,
}

/// The running thread, seen from outside.
#[derive(Debug)]
pub struct Orchestrator {
    /// Ends with the thread, and with it every command that still waits and its caller's wait.
    commands: Sender<Command>,
    signal: Arc<Signal>,
    setup: ThreadSetup,
    thread: JoinHandle<Dispatcher>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Install { .. } => "Install",
            Self::Bounds { .. } => "Bounds",
            Self::Evict { .. } => "Evict",
            Self::Stop => "Stop",
        })
    }
}

impl Orchestrator {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the operating system says when it gives no thread.
    pub fn start(
        dispatcher: Dispatcher,
        submissions: Arc<SubmissionQueue>,
        device: DeviceContext,
        pace: Pace,
    ) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let signal = Arc::clone(device.signal());
        let (asked, answer) = mpsc::sync_channel(1);
        let work = move || {
            let guard = AbortOnPanic;
            // Whoever started the thread waits for this answer.
            let _ = asked.send(pace.set_up_thread());
            let mut orchestration = Orchestration {
                dispatcher,
                submissions,
                commands: inbox,
                evictions: Vec::new(),
                unclaimed: Vec::new(),
                clock: device.clock(),
                device,
                pace,
            };
            orchestration.run();
            std::mem::forget(guard);
            orchestration.dispatcher
        };
        let thread = thread::Builder::new().name("aegis-orchestrator".into()).spawn(work)?;
        let setup = answer.recv().unwrap_or(ThreadSetup::NONE);
        Ok(Self { commands, signal, setup, thread })
    }

    /// Hands over an admitted model and the changed bounds of the others; blocks until they hold.
    pub fn install(&self, lane: Lane, bounds: Vec<(ModelId, Nanos)>) {
        let (done, installed) = mpsc::sync_channel(1);
        self.send(Command::Install { lane: Box::new(lane), bounds, done });
        // An error means that the thread has ended, and then the lane is dropped with it.
        let _ = installed.recv();
    }

    /// Hands over the bounds of a changed set.
    pub fn set_bounds(&self, bounds: Vec<(ModelId, Nanos)>) {
        self.send(Command::Bounds { bounds });
    }

    /// Closes a model and blocks until its jobs have ended and the device was idle after them.
    /// `None` when the model is not there, when a stage hangs on the device, or when the runtime
    /// stopped first.
    #[must_use]
    pub fn evict(&self, model: ModelId) -> Option<ExecutionContext> {
        let (context, departed): (_, Receiver<ExecutionContext>) = mpsc::sync_channel(1);
        self.send(Command::Evict { model, context });
        departed.recv().ok()
    }

    /// What the operating system granted the thread.
    #[must_use]
    pub fn setup(&self) -> &ThreadSetup {
        &self.setup
    }

    /// Whether the thread still runs; it ends by itself when the device is lost.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Asks the thread to stop without waiting for it, so that several can stop at once.
    pub fn ask_to_stop(&self) {
        self.send(Command::Stop);
    }

    /// Stops: jobs that have begun finish, the others are dropped. Blocks until that is done and
    /// gives the dispatcher back; a stage that hangs is left on the device (see
    /// [`Dispatcher::hanging`]).
    ///
    /// # Panics
    /// Never: the thread cannot panic without ending the process.
    #[must_use]
    pub fn stop(self) -> Dispatcher {
        self.send(Command::Stop);
        self.thread.join().expect("a panic of the orchestrator ends the process")
    }

    /// Sends a command; after the thread's end it is dropped, and its caller sees that.
    fn send(&self, command: Command) {
        drop(self.commands.send(command));
        self.signal.notify();
    }
}

/// Ends the process when dropped, which only an unwinding panic does.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        let told = "the orchestrator panicked; no job could end any more, so the process ends";
        drop(writeln!(std::io::stderr(), "{told}")); // `eprintln!` would panic where nobody listens.
        std::process::abort();
    }
}

/// What the thread owns.
struct Orchestration {
    dispatcher: Dispatcher,
    submissions: Arc<SubmissionQueue>,
    commands: Receiver<Command>,
    evictions: Vec<(ModelId, SyncSender<ExecutionContext>)>,
    /// Models that are gone and whose callers gave up waiting; the next eviction takes them.
    unclaimed: Vec<ExecutionContext>,
    device: DeviceContext,
    clock: Arc<dyn Clock>,
    pace: Pace,
}

impl Orchestration {
    fn run(&mut self) {
        self.dispatcher.record(self.clock.now(), TraceEvent::Started);
        let mut stopping = false;
        loop {
            stopping |= self.take_commands();
            let turn = self.step();
            let lost = self.dispatcher.fatal().is_some();
            if lost && !stopping {
                self.dispatcher.stop(self.clock.now());
                stopping = true;
            }
            let hangs = self.dispatcher.hanging().is_some();
            if hangs {
                // No idle point will come; whoever waits for one is told.
                self.evictions.clear();
            }
            if stopping && (lost || hangs) {
                self.dispatcher.drop_all(self.clock.now());
                break;
            }
            if stopping && self.dispatcher.is_drained() {
                break;
            }
            self.pass_time(turn);
        }
        self.submissions.close();
        self.dispatcher.record(self.clock.now(), TraceEvent::Stopped);
    }

    /// Takes what was submitted and runs one turn.
    fn step(&mut self) -> Turn {
        let observed = self.dispatcher.observe();
        let turn = self.dispatcher.step(observed, self.clock.now(), &self.submissions);
        while let Some(context) = self.dispatcher.take_departed() {
            self.hand_out(context);
        }
        turn
    }

    fn hand_out(&mut self, context: ExecutionContext) {
        let waiting = self.evictions.iter().position(|(model, _)| *model == context.model());
        let Some(index) = waiting else { return self.unclaimed.push(context) };
        let (_, caller) = self.evictions.swap_remove(index);
        if let Err(mpsc::SendError(context)) = caller.send(context) {
            self.unclaimed.push(context);
        }
    }

    fn evict(&mut self, now: Timestamp, model: ModelId, caller: SyncSender<ExecutionContext>) {
        let gone = self.unclaimed.iter().position(|context| context.model() == model);
        if let Some(index) = gone {
            // The caller waits for this very answer.
            let _ = caller.send(self.unclaimed.swap_remove(index));
        } else if self.dispatcher.evict(now, model) {
            self.evictions.push((model, caller));
        }
    }

    /// Carries out all commands; whether one of them was to stop.
    fn take_commands(&mut self) -> bool {
        let mut stop = false;
        while let Ok(command) = self.commands.try_recv() {
            let now = self.clock.now();
            match command {
                Command::Install { lane, bounds, done } => {
                    self.dispatcher.install(*lane);
                    self.dispatcher.set_bounds(now, &bounds);
                    let _ = done.send(());
                }
                Command::Bounds { bounds } => self.dispatcher.set_bounds(now, &bounds),
                Command::Evict { model, context } => self.evict(now, model, context),
                Command::Stop => {
                    // What was submitted before the stop is dropped as such, not refused as if it had
                    // come after.
                    self.step();
                    self.dispatcher.stop(self.clock.now());
                    stop = true;
                }
            }
        }
        stop
    }

    fn pass_time(&self, turn: Turn) {
        match &self.pace {
            Pace::Real { clock, spin, .. } => {
                let until = turn.next.map(|at| clock.instant_of(at));
                self.device.wait(until, *spin);
            }
            Pace::Virtual => self.advance(turn),
        }
    }

    /// Moves a simulated device to its next event, or sleeps when it has none.
    fn advance(&self, turn: Turn) {
        let simulator = self.device.simulator().expect("virtual time needs a simulated device");
        let next: Option<Timestamp> =
            [simulator.next_event(), turn.next].into_iter().flatten().min();
        match next {
            Some(at) => simulator.advance_to(at),
            None => self.device.wait(None, Nanos::ZERO),
        }
    }
}
