//! Metrics for who asks: text as Prometheus reads it, over HTTP, on a Unix socket
//! or an address of this machine. Off unless asked for.
//!
//! One thread, one caller at a time, and no call to CUDA: the figures are those
//! of the account. What cannot be served is said, and the program goes on.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::{config, engine};

/// A caller that says nothing, or takes nothing, is left alone after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a request more is not read.
const REQUEST_BYTES: usize = 4096;

/// Name, whether it only grows, where it is in the account, and what it is.
const METRICS: &[(&str, bool, &str, &str)] = &[
    ("budget_bytes", false, "/device/budget_bytes", "Device memory that this process may hold."),
    ("managed_bytes", false, "/managed/bytes", "Device memory that the program holds through us."),
    ("frames_bytes", false, "/device/frames_bytes", "Of that, on the device now."),
    ("resident_bytes", false, "/device/resident_bytes", "Of that, in frames of its own."),
    ("ring_bytes", false, "/device/ring_bytes", "Device memory that weights stream through."),
    ("host_bytes", false, "/host/bytes", "Host memory that holds copies."),
    ("host_pinned_bytes", false, "/host/pinned_bytes", "Of that, page-locked."),
    (
        "host_in_place_bytes",
        false,
        "/host/in_place_bytes",
        "Host memory that kernels read in place.",
    ),
    ("link_bytes_per_second", false, "/streaming/link_bytes_per_s", "Rate of the link, measured."),
    ("streamed_bytes_total", true, "/streaming/streamed_bytes", "Copied to the device."),
    ("written_back_bytes_total", true, "/streaming/written_back_bytes", "Copied to the host."),
    ("compared_bytes_total", true, "/streaming/compared_bytes", "Looked at for writes."),
    ("fetches_total", true, "/streaming/fetches", "Copies to the device."),
    ("demand_fetches_total", true, "/streaming/demand_fetches", "Of these, late."),
    ("uses_total", true, "/streaming/touches", "Uses of streamed memory."),
    ("hits_total", true, "/streaming/hits", "Of these, present when launched."),
    (
        "stall_nanoseconds_total",
        true,
        "/streaming/stall_ns_estimated",
        "Launches waited, estimated.",
    ),
    ("plans_total", true, "/plan/plans", "Plans carried out."),
    ("slips_total", true, "/plan/slips", "The order was not as foretold."),
    ("refused_total", true, "/refused", "Requests answered with out of memory."),
    ("launches_total", true, "/hooked/launches", "Kernel launches of the program."),
];

/// The socket that is listened at; -1: none.
static LISTENER: AtomicI32 = AtomicI32::new(-1);

/// In a forked child: the socket is the parent's, and goes with it.
pub fn leave_to_parent() {
    let socket = LISTENER.swap(-1, Ordering::Relaxed);
    if socket >= 0 {
        // SAFETY: this process's copy of a descriptor that only the serving thread
        // used, which the child does not have.
        unsafe { libc::close(socket) };
    }
}

/// Starts serving the `account`, if it was asked for, for as long as this process
/// `is_active`.
pub fn start(account: fn() -> Value, is_active: fn() -> bool) {
    let Some(endpoint) = config::get().and_then(|c| c.metrics_endpoint(std::process::id())) else {
        return;
    };
    let begun = match endpoint.strip_prefix("unix:") {
        Some(path) => listen_at(Path::new(path)).and_then(|listener| {
            LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
            serve(account, is_active, move || {
                let (stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(stream)
            })
        }),
        None => TcpListener::bind(&endpoint).and_then(|listener| {
            LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
            serve(account, is_active, move || {
                let (stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(stream)
            })
        }),
    };
    if let Err(why) = begun {
        LISTENER.store(-1, Ordering::Relaxed);
        config::say(&format!(
            "warning: AUTOOFFLOAD_METRICS={endpoint}: {why}: no metrics are served"
        ));
    }
}

/// A socket with mode 0600. One that nobody serves any more is replaced if it is ours.
fn listen_at(path: &Path) -> Result<UnixListener> {
    if let Ok(known) = std::fs::symlink_metadata(path) {
        // SAFETY: asks for a number.
        let ours = known.uid() == unsafe { libc::geteuid() };
        if !known.file_type().is_socket() || !ours {
            let why = "something is there that is no socket of this user";
            return Err(Error::new(ErrorKind::AlreadyExists, why));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(Error::new(ErrorKind::AddrInUse, "another process serves there"));
        }
        std::fs::remove_file(path)?;
    }
    // SAFETY: plain system calls; the descriptor is ours from here on. The mode
    // of the socket becomes that of its name, before anybody can connect.
    unsafe {
        let raw = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(raw);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() >= address.sun_path.len() {
            return Err(Error::new(ErrorKind::InvalidInput, "the path is too long for a socket"));
        }
        for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
            *to = from as libc::c_char;
        }
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        if libc::fchmod(socket.as_raw_fd(), 0o600) != 0
            || libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) != 0
            || libc::listen(socket.as_raw_fd(), 16) != 0
        {
            return Err(Error::last_os_error());
        }
        Ok(UnixListener::from(socket))
    }
}

fn serve<S: Read + Write>(
    account: fn() -> Value,
    is_active: fn() -> bool,
    accept: impl Fn() -> Result<S> + Send + 'static,
) -> Result<()> {
    let body = move || {
        while is_active() {
            match accept() {
                // A caller that went away is its own affair.
                Ok(stream) => drop(answer(stream, account)),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    engine::spawn("autooffload-metrics", body)
}

fn answer(mut stream: impl Read + Write, account: fn() -> Value) -> Result<()> {
    let mut request = [0; REQUEST_BYTES];
    let mut length = 0;
    while length < REQUEST_BYTES && !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut request[length..])? {
            0 => break,
            count => length += count,
        }
    }
    let (status, body) = match request.starts_with(b"GET ") {
        true => ("200 OK", text(&account())),
        false => ("405 Method Not Allowed", String::new()),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
    )?;
    stream.flush()
}

fn text(account: &Value) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "# HELP autooffload_info Which build this is.\n# TYPE autooffload_info gauge\n\
         autooffload_info{{version=\"{version}\"}} 1\n"
    );
    let mut metric = |name: &str, grows: bool, help: &str, rows: &[(String, u64)]| {
        let kind = if grows { "counter" } else { "gauge" };
        text += &format!("# HELP autooffload_{name} {help}\n# TYPE autooffload_{name} {kind}\n");
        for (labels, value) in rows {
            text += &format!("autooffload_{name}{labels} {value}\n");
        }
    };
    for (name, grows, place, help) in METRICS {
        // What is not known yet has no row.
        if let Some(value) = account.pointer(place).and_then(Value::as_u64) {
            metric(name, *grows, help, &[(String::new(), value)]);
        }
    }
    if let Some(waits) = account["waits"].as_object() {
        let rows = |field: &str| -> Vec<(String, u64)> {
            let row = |(reason, wait): (&String, &Value)| {
                Some((format!("{{reason=\"{reason}\"}}"), wait[field].as_u64()?))
            };
            waits.iter().filter_map(row).collect()
        };
        metric("host_waits_total", true, "The program's thread waited for us.", &rows("count"));
        metric("host_wait_nanoseconds_total", true, "For so long.", &rows("ns"));
    }
    text
}
