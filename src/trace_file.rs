//! The trace on disk: JSON as Chrome and Perfetto read it, complete after every
//! write, so that a process may end however it likes.
//!
//! ```text
//!   {"traceEvents":[
//!   {…},                       one event a line
//!   {…}
//!   ],"otherData":{…}}         written anew behind the last event each time
//! ```
//!
//! Here: the file, and how large it may be. Not here: what is recorded
//! (`engine`), and when it is written (`left_behind`).

use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::{config, engine, private_file};

/// What is recorded after that is counted, not written. Half a million events.
const LIMIT_BYTES: u64 = 64 << 20;
/// Raised when a reader of the present form could not read the next.
const FORMAT: u32 = 1;

const HEAD: &str = "{\"traceEvents\":[";

struct TraceFile {
    file: File,
    /// Behind the last event.
    end: u64,
    events: u64,
    /// Events that no longer fit.
    left_out: u64,
    failed: bool,
    limit_bytes: u64,
}

static FILE: Mutex<Option<TraceFile>> = Mutex::new(None);

/// Opens the file that the settings name. `true`: there is one to write to.
pub fn open() -> bool {
    let Some(path) = config::get().and_then(|config| config.trace_path(std::process::id())) else {
        return false;
    };
    match private_file::create(Path::new(&path)).and_then(TraceFile::new) {
        Ok(file) => {
            *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
            true
        }
        Err(why) => {
            config::say(&format!("warning: AUTOOFFLOAD_TRACE={path}: {why}: no trace is written"));
            false
        }
    }
}

/// Whether there is a trace.
pub fn is_open() -> bool {
    FILE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Appends what was recorded since the last time. `all`: the program ends, and
/// what the device has not timed yet is written without its duration.
pub fn write(account: fn() -> Value, all: bool) {
    let mut guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(file) = guard.as_mut().filter(|file| !file.failed) else { return };
    let Some(recorded) = engine::recorded(all) else { return };
    if recorded.events.is_empty() && file.events > 0 && !all {
        return;
    }
    if let Err(why) = file.append(recorded, account()) {
        file.failed = true;
        config::say(&format!("warning: AUTOOFFLOAD_TRACE: {why}: the trace ends here"));
    }
}

impl TraceFile {
    fn new(file: File) -> Result<Self> {
        let mut new =
            Self { file, end: 0, events: 0, left_out: 0, failed: false, limit_bytes: LIMIT_BYTES };
        new.file.write_all_at(HEAD.as_bytes(), 0)?;
        new.end = HEAD.len() as u64;
        Ok(new)
    }

    fn append(&mut self, recorded: engine::Recorded, account: Value) -> Result<()> {
        let mut text = String::new();
        for event in &recorded.events {
            if self.end + text.len() as u64 + event.len() as u64 > self.limit_bytes {
                self.left_out += 1;
                continue;
            }
            text.push_str(if self.events == 0 { "\n" } else { ",\n" });
            text.push_str(event);
            self.events += 1;
        }
        let end = self.end + text.len() as u64;
        let other = json!({
            "autooffload": env!("CARGO_PKG_VERSION"),
            "format": FORMAT,
            "left_out": self.left_out + recorded.lost,
            "devices": recorded.devices,
            "account": account,
        });
        text.push_str(&format!("\n],\"otherData\":{other}}}\n"));
        self.file.write_all_at(text.as_bytes(), self.end)?;
        self.file.set_len(self.end + text.len() as u64)?;
        self.end = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(count: usize) -> engine::Recorded {
        let event = "{\"name\":\"twenty bytes\"}".to_string();
        engine::Recorded { events: vec![event; count], lost: 0, devices: Vec::new() }
    }

    #[test]
    fn it_is_whole_after_each_write_and_bounded() {
        let path = std::env::temp_dir().join(format!("autooffload-trace-{}", std::process::id()));
        let mut file = TraceFile::new(private_file::create(&path).unwrap()).unwrap();
        file.limit_bytes = 1000;
        // The end that is written over is longer than what replaces it.
        let account = |length: usize| json!("x".repeat(length));
        let mut events = 0;
        for (count, length) in [(0, 500), (1, 200), (3, 0), (200, 10), (5, 0)] {
            file.append(recorded(count), account(length)).unwrap();
            events += count as u64;
            let text = std::fs::read_to_string(&path).unwrap();
            let found: Value = serde_json::from_str(&text).unwrap();
            let held = found["traceEvents"].as_array().unwrap().len() as u64;
            assert_eq!(held + found["otherData"]["left_out"].as_u64().unwrap(), events);
            assert!(held == events || held > 20);
            assert!(text.len() < 1000 + length + 200);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
