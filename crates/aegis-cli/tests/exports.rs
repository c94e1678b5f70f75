//! What leaves a run while it goes on, as a user asks for it: metrics, log, live view.
#![cfg(all(feature = "metrics", feature = "tui"))]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};

use rustix::pty;
use rustix::termios::{self, Winsize};

/// Two models of declared costs on the processor, with so much room that a machine under load still
/// keeps every deadline, and one that is refused.
const WORKLOAD: &str = r#"
    device = { driver = "host", memory = "64MiB" }
    scheduler = { policy = "edf", queue_depth = 8 }
    overheads = { dispatch = "1ms", wake = "2ms" }
    [[model]]
    name = "camera"
    backend = "sim"
    period = "100ms"
    sim = { stages = ["1ms"], persistent = "1MiB", scratch = "2MiB" }
    [[model]]
    name = "lidar"
    backend = "sim"
    period = "2s"
    sim = { stages = ["5ms", "5ms"] }
    [[model]]
    name = "mapper"
    backend = "sim"
    period = "10ms"
    sim = { stages = ["11ms"] }
"#;

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("pipeline.toml"), WORKLOAD).expect("a file");
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut aegis = Command::new(env!("CARGO_BIN_EXE_aegis"));
        aegis.args(["run", "pipeline.toml", "--admitted-only"]).args(arguments);
        aegis.current_dir(self.folder.path());
        aegis
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("aegis starts")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn interrupt(child: &Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
}

fn scrape(address: &str) -> Option<String> {
    let mut client = TcpStream::connect(address).ok()?;
    client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn metrics_are_served_from_a_run_and_end_with_it() {
    let case = Case::new();
    let mut command = case.command(&["--metrics", "127.0.0.1:0"]);
    let mut child =
        command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("aegis starts");
    let mut said = String::new();
    let mut errors = BufReader::new(child.stderr.take().expect("it was piped"));
    errors.read_line(&mut said).expect("it says where");
    let address = said.strip_prefix("metrics: http://").and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address: {said}")).to_owned();
    let is_counted = |answer: &String| {
        let jobs = "aegis_jobs_completed_total{model=\"camera\"} ";
        let line = answer.lines().find_map(|line| line.strip_prefix(jobs));
        line.is_some_and(|count| count != "0")
    };
    let answer = loop {
        assert_eq!(child.try_wait().expect("a child"), None, "it ended by itself");
        if let Some(answer) = scrape(&address).filter(is_counted) {
            break answer;
        }
        std::thread::yield_now();
    };
    for expected in [
        "aegis_models_refused_total{reason=\"cost_exceeds_deadline\"}",
        "aegis_memory_bytes{model=\"camera\",kind=\"resident\"} 1048576",
        "aegis_memory_limit_bytes 67108864",
        "aegis_deadline_seconds{model=\"camera\"} 0.1",
        "aegis_response_seconds_count{model=\"camera\"}",
        "aegis_trace_events_dropped_total 0",
    ] {
        assert!(answer.contains(expected), "{expected} is not in\n{answer}");
    }
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "a model was refused");
    assert!(text(&output.stdout).contains("| camera "), "{}", text(&output.stdout));
    assert!(scrape(&address).is_none(), "nobody answers any more");
}

#[test]
fn an_address_that_cannot_be_served_is_an_error_before_anything_runs() {
    let case = Case::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("it is bound").to_string();
    for (arguments, expected) in [
        (vec!["--metrics", &taken], "where another program listens; take another port"),
        (vec!["--metrics", "0.0.0.0:0"], "could be read from other machines; take a loopback"),
        (
            vec!["--metrics", "192.0.2.7:9464", "--metrics-public"],
            "cannot be served at 192.0.2.7:9464",
        ),
        (vec!["--metrics", "localhost"], "write an IP address and a port"),
        (vec!["--metrics-public"], "--metrics <ADDRESS>"),
    ] {
        let output =
            case.run(&[&["--for", "100ms", "--trace", "out.jsonl"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert!(!case.folder.path().join("out.jsonl").exists(), "nothing was begun");
    }
}

#[test]
fn decisions_are_logged_when_asked_for_and_only_then() {
    let case = Case::new();
    let silent = text(&case.run(&["--for", "300ms"]).stderr);
    assert!(!silent.contains("aegis::trace"), "{silent}");
    let decisions = text(&case.run(&["--for", "300ms", "-v"]).stderr);
    for expected in [
        "DEBUG aegis::trace: camera admitted: bound",
        "DEBUG aegis::trace: mapper refused: mapper: jitter + cost",
        "DEBUG aegis::trace: camera#0 stage 0 on s0: ",
        "kind=Dispatched",
    ] {
        assert!(decisions.contains(expected), "{expected} is not in\n{decisions}");
    }
    assert!(!decisions.contains("TRACE"), "{decisions}");
    let all = text(&case.run(&["--for", "300ms", "--log", "aegis::trace=trace"]).stderr);
    assert!(all.contains("TRACE aegis::trace: camera#0 submitted"), "{all}");
    let wrong = case.run(&["--for", "300ms", "--log", "aegis=loud"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("--log <FILTER>"), "{}", text(&wrong.stderr));
}

#[test]
fn an_error_is_logged_with_its_causes() {
    let case = Case::new();
    let output = case.run(&["--for", "100ms", "--trace", "no/such/out.jsonl", "-v"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    let line = said.lines().find(|line| line.contains("ERROR aegis: the command failed"));
    let line = line.unwrap_or_else(|| panic!("no such line in\n{said}"));
    assert!(line.contains("error=the trace no/such/out.jsonl could not be written"), "{line}");
    assert!(line.contains("causes=No such file"), "{line}");
}

/// The size of a terminal.
const ROWS: NonZero<u16> = NonZero::new(30).expect("not zero");
const COLUMNS: NonZero<u16> = NonZero::new(100).expect("not zero");

/// A terminal of that size, and the program in it.
struct Terminal {
    child: Child,
    keys: File,
    screen: vt100::Parser,
    output: File,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a pty");
        pty::grantpt(&master).and_then(|()| pty::unlockpt(&master)).expect("it is ours");
        let name = pty::ptsname(&master, Vec::new()).expect("it has a name");
        let path = name.to_str().expect("a path");
        let slave: OwnedFd =
            File::options().read(true).write(true).open(path).expect("its other end").into();
        let size =
            Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        termios::tcsetwinsize(&master, size).expect("it has a size");
        let end = || Stdio::from(slave.try_clone().expect("another handle"));
        command.stdin(end()).stdout(end()).stderr(Stdio::null());
        let child = command.spawn().expect("aegis starts");
        // The command holds the slave as long as it lives, and the end of the child would not show.
        drop((command, slave));
        let output = File::from(master);
        let screen = vt100::Parser::new(ROWS, COLUMNS, 0);
        let keys = output.try_clone().expect("another handle");
        Self { child, keys, screen, output }
    }

    /// Reads on until the screen is as wanted.
    fn wait_for(&mut self, is_there: impl Fn(&str) -> bool) -> String {
        let mut bytes = [0; 4096];
        loop {
            let shown = self.screen.screen().contents();
            if is_there(&shown) {
                return shown;
            }
            let length = self.output.read(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("{error} after\n{shown}"));
            self.screen.process(&bytes[..length]);
        }
    }

    /// Reads what is left; the terminal reports an error once nobody writes to it any more.
    fn read_to_end(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = self.output.read(&mut bytes) {
            self.screen.process(&bytes[..length]);
        }
    }
}

#[test]
fn the_live_view_shows_the_run_and_q_ends_it_with_its_report() {
    let case = Case::new();
    let mut terminal = Terminal::start(case.command(&["--tui", "--trace", "out.jsonl"]));
    let shown = terminal.wait_for(|screen| screen.contains("stage 0 on s0"));
    assert!(terminal.screen.screen().alternate_screen());
    for expected in ["AegisRT pipeline.toml", "q ends the run", "camera", "lidar", "refused 1"] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
    terminal.keys.write_all(b"q").expect("it is a terminal");
    terminal.read_to_end();
    let status = terminal.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(1), "a model was refused");
    let screen = terminal.screen.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the terminal is as it was");
    let after = screen.contents();
    assert!(after.contains("no: not everything was admitted"), "{after}");
    let trace = std::fs::read_to_string(case.folder.path().join("out.jsonl")).expect("the trace");
    assert!(trace.lines().last().is_some_and(|line| line.contains("\"dropped\":0")), "{trace}");
}

#[test]
fn the_live_view_ends_with_the_time_and_gives_the_terminal_back() {
    let case = Case::new();
    let mut terminal = Terminal::start(case.command(&["--tui", "--for", "500ms"]));
    terminal.read_to_end();
    assert_eq!(terminal.child.wait().expect("it ends").code(), Some(1));
    assert!(!terminal.screen.screen().alternate_screen());
}

#[test]
fn without_a_terminal_the_live_view_is_refused() {
    let case = Case::new();
    let output = case.run(&["--tui", "--for", "100ms"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("--tui needs a terminal, and standard "), "{said}");
    let output = case.run(&["--tui", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot be used with"), "{}", text(&output.stderr));
}
