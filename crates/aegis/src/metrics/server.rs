//! One socket that answers `GET /metrics`, and nothing else.
//!
//! A scrape is one short request every few seconds, so connections are served one after the other on
//! one thread, each within [`PATIENCE`]; the request is parsed by `httparse`. ADR 0076 says why no
//! HTTP server was taken.
//!
//! # Invariants
//! 1. A connection is done with after [`PATIENCE`] for reading and as much for writing, whatever the
//!    client does; what it sends is read up to [`HEAD_MAX`].
//! 2. Dropping the server ends its thread, whatever the system has left: the thread looks for the end
//!    itself, every [`LOOK`], and needs no connection to be told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aegis_trace::Bytes;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use super::error::MetricsError;
use super::feed::MetricsFeed;
use crate::log;

/// The longest that one client may take to send its request, and again to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest head of a request.
const HEAD_MAX: usize = 8 << 10;
/// The most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long to wait after the system gave no connection, for example for lack of descriptors.
const RESPITE: Duration = Duration::from_millis(100);
/// How often is looked for a client, and for the end.
const LOOK: Duration = Duration::from_millis(50);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Who may read the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// This machine alone.
    Loopback,
    /// Whoever reaches the address: there is no password and no encryption.
    Public,
}

/// A bound address that nobody is answered at yet.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// Serves until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the service"]
pub struct Serving {
    address: SocketAddr,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Takes `address`; port 0 is any that is free. Does not block.
    ///
    /// # Errors
    /// [`MetricsError::NotLoopback`] when others could read them and `exposure` does not say that they
    /// may; [`MetricsError::Bind`] when the address cannot be had, for example because it is in use.
    pub fn bind(address: SocketAddr, exposure: Exposure) -> Result<Self, MetricsError> {
        if exposure == Exposure::Loopback && !address.ip().to_canonical().is_loopback() {
            return Err(MetricsError::NotLoopback { address });
        }
        let failed = |cause| MetricsError::Bind { address, cause };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer, with metrics that the feed brings. `memory_limit` is that of the device.
    ///
    /// # Errors
    /// [`MetricsError::Thread`].
    pub fn serve(self, memory_limit: Bytes) -> Result<(Serving, MetricsFeed), MetricsError> {
        let (feed, registry) = MetricsFeed::new(memory_limit);
        let done = Arc::new(AtomicBool::new(false));
        let (until, Self { listener, address }) = (Arc::clone(&done), self);
        let work = move || serve_all(&listener, &registry, &until);
        let thread = thread::Builder::new().name("aegis-metrics".into()).spawn(work);
        let thread = Some(thread.map_err(MetricsError::Thread)?);
        Ok((Serving { address, done, thread }, feed))
    }
}

impl Serving {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

fn serve_all(listener: &TcpListener, registry: &Registry, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        match listener.accept() {
            // A client that went away or stalled is its own affair.
            Ok((client, _)) => drop(serve_one(client, registry)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(LOOK),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                log::error("a reader of the metrics could not be accepted", &error);
                thread::park_timeout(RESPITE);
            }
        }
    }
}

fn serve_one(mut client: TcpStream, registry: &Registry) -> io::Result<()> {
    client.set_nonblocking(false)?; // Some systems hand that on from the listener.
    let asked = read_head(&mut client, Instant::now() + PATIENCE)?;
    let answer = answer(&asked, registry);
    write_within(&mut client, answer.as_bytes(), Instant::now() + PATIENCE)?;
    client.shutdown(Shutdown::Write)
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics { body: bool },
    Index { body: bool },
    Unknown,
    WrongMethod,
    Nonsense,
}

/// Reads until the head of a request is whole, or can be none.
fn read_head(client: &mut impl Within, deadline: Instant) -> io::Result<Asked> {
    let mut head = Vec::new();
    let mut piece = [0; 1 << 10];
    loop {
        let length = client.read_within(&mut piece, deadline)?;
        head.extend_from_slice(&piece[..length]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => return Ok(asked(&request)),
            Ok(httparse::Status::Partial) if length > 0 && head.len() < HEAD_MAX => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(Asked::Nonsense),
        }
    }
}

fn asked(request: &httparse::Request<'_, '_>) -> Asked {
    let body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Asked::WrongMethod,
    };
    match request.path.map(|path| path.split('?').next().unwrap_or(path)) {
        Some("/metrics") => Asked::Metrics { body },
        Some("/") => Asked::Index { body },
        _ => Asked::Unknown,
    }
}

fn answer(asked: &Asked, registry: &Registry) -> String {
    match asked {
        Asked::Metrics { body } => {
            let mut text = String::new();
            match prometheus_text::encode(&mut text, registry) {
                Ok(()) => response("200 OK", prometheus_text::CONTENT_TYPE, &text, *body),
                Err(_) => response("500 Internal Server Error", PLAIN, "not encoded\n", *body),
            }
        }
        Asked::Index { body } => response("200 OK", PLAIN, "AegisRT: see /metrics\n", *body),
        Asked::Unknown => response("404 Not Found", PLAIN, "there is only /metrics\n", true),
        Asked::WrongMethod => {
            response("405 Method Not Allowed", PLAIN, "only GET and HEAD\n", true)
        }
        Asked::Nonsense => response("400 Bad Request", PLAIN, "no HTTP request\n", true),
    }
}

fn response(status: &str, content: &str, text: &str, body: bool) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let shown = if body { text } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {}\r\n{allow}Connection: \
         close\r\n\r\n{shown}",
        text.len()
    )
}

/// A connection whose every read and write ends by a deadline.
trait Within {
    fn read_within(&mut self, into: &mut [u8], deadline: Instant) -> io::Result<usize>;
}

impl Within for TcpStream {
    fn read_within(&mut self, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
        uninterrupted(|| {
            self.set_read_timeout(Some(left(deadline)?))?;
            self.read(into)
        })
    }
}

/// Writes all of `bytes`; a client that takes a little at a time is not waited for longer.
fn write_within(client: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = uninterrupted(|| {
            client.set_write_timeout(Some(left(deadline)?))?;
            client.write(bytes)
        })?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Does `once` again while a signal interrupts it: that is no end of the client. Its deadline ends it.
fn uninterrupted<T>(mut once: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match once() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What is left until `deadline`; an error once it has passed.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client whose bytes come one piece at a time.
    struct Pieces<'a>(Vec<&'a [u8]>);

    impl Within for Pieces<'_> {
        fn read_within(&mut self, into: &mut [u8], _: Instant) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn read(pieces: Vec<&[u8]>) -> Asked {
        read_head(&mut Pieces(pieces), Instant::now()).expect("no real connection fails here")
    }

    #[test]
    fn a_request_in_pieces_is_understood() {
        let asked = read(vec![b"GET /met", b"rics?x=1 HTTP/1.1\r\nHost: a\r", b"\n\r\n"]);
        assert_eq!(asked, Asked::Metrics { body: true });
        assert_eq!(read(vec![b"HEAD / HTTP/1.0\r\n\r\n"]), Asked::Index { body: false });
        assert_eq!(read(vec![b"GET /other HTTP/1.1\r\n\r\n"]), Asked::Unknown);
        assert_eq!(read(vec![b"POST /metrics HTTP/1.1\r\n\r\n"]), Asked::WrongMethod);
    }

    #[test]
    fn what_is_no_request_is_refused_and_so_is_one_without_end() {
        assert_eq!(read(vec![b"\x16\x03\x01 this is TLS"]), Asked::Nonsense);
        assert_eq!(read(vec![b"GET /metrics HTTP/1.1\r\n"]), Asked::Nonsense);
        let endless = vec![b"X: 123456789012345\r\n".as_slice(); 1_000];
        let first = b"GET / HTTP/1.1\r\n".as_slice();
        let asked = read([first].into_iter().chain(endless).collect());
        assert_eq!(asked, Asked::Nonsense);
    }

    #[test]
    fn a_signal_is_no_end_of_a_client() {
        let mut interrupted = 3;
        let read = uninterrupted(|| {
            if interrupted > 0 {
                interrupted -= 1;
                return Err(ErrorKind::Interrupted.into());
            }
            Ok(7)
        });
        assert_eq!(read.expect("it was done again"), 7);
        let failed = uninterrupted(|| Err::<(), _>(ErrorKind::ConnectionReset.into()));
        assert!(failed.is_err(), "any other error is one");
    }

    /// An address that nobody can connect to, as where descriptors or the network are gone.
    #[test]
    fn dropping_the_server_ends_its_thread_without_a_connection() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let server = MetricsServer::bind(any, Exposure::Loopback).expect("a free port");
        let (mut serving, feed) = server.serve(Bytes::from_mib(1)).expect("a thread");
        let address = std::mem::replace(&mut serving.address, "127.0.0.1:1".parse().expect("one"));
        drop((serving, feed));
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    #[test]
    fn only_loopback_is_served_unless_told_otherwise() {
        let everywhere = "0.0.0.0:0".parse().expect("an address");
        let refused = MetricsServer::bind(everywhere, Exposure::Loopback).expect_err("public");
        assert!(matches!(refused, MetricsError::NotLoopback { .. }), "{refused}");
        assert!(MetricsServer::bind(everywhere, Exposure::Public).is_ok());
        for loopback in ["127.0.0.1:0", "127.8.8.8:0", "[::ffff:127.0.0.1]:0"] {
            let address: SocketAddr = loopback.parse().expect("an address");
            assert!(!matches!(
                MetricsServer::bind(address, Exposure::Loopback),
                Err(MetricsError::NotLoopback { .. })
            ));
        }
    }

    #[test]
    fn a_port_in_use_says_so() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let first = MetricsServer::bind(any, Exposure::Loopback).expect("a free port");
        let second = MetricsServer::bind(first.address(), Exposure::Loopback).expect_err("taken");
        let expected = format!(
            "metrics cannot be served at {}, where another program listens; take another port",
            first.address()
        );
        assert_eq!(second.to_string(), expected);
        assert_eq!(second.category(), aegis_trace::Category::Transient);
    }
}
