//! What a process leaves for those who come after it, should it end without
//! its exit handlers (Ctrl-C, SIGTERM, abort): the statistics file and, for
//! the launcher, the summary's lines, written now and then; and the trace.
//!
//! A thread of its own writes, so that no signal handler of the program's is
//! touched. It runs only if somebody asked for either file. A file is written
//! beside and renamed: a reader never sees half of one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::private_file::replace;
use crate::{config, engine, trace_file};

/// Until the first time, and between two: short beside a user's patience, long
/// beside what writing takes.
const FIRST: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(500);

/// Whoever writes holds it. `true`: the process has said it all by itself.
static SAID: Mutex<bool> = Mutex::new(false);

/// Starts the thread, if there is anything to leave: `statistics`, for as long
/// as this process `is_active`. `account`: what goes into the trace as well.
pub fn start(statistics: fn() -> String, account: fn() -> Value, is_active: fn() -> bool) {
    if stats_file().is_none() && summary_file().is_none() && !trace_file::is_open() {
        return;
    }
    let body = move || {
        let mut last = String::new();
        std::thread::sleep(FIRST);
        // A forked child has no such thread.
        while is_active() && leave(&mut last, statistics, account) {
            std::thread::sleep(PAUSE);
        }
    };
    if let Err(why) = engine::spawn("autooffload-account", body) {
        log::debug!("no thread to leave the account with: {why}");
    }
}

/// The process says it all now: the statistics, and nothing for the launcher.
pub fn finish(statistics: &str) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    *said = true;
    if let Some(path) = summary_file() {
        let _ = std::fs::remove_file(path);
    }
    if let Some(path) = stats_file()
        && let Err(why) = replace(&path, statistics)
    {
        config::say(&format!("warning: AUTOOFFLOAD_STATS={}: {why}", path.display()));
    }
}

/// Writes both if anything has changed. `false`: it is over.
fn leave(last: &mut String, statistics: fn() -> String, account: fn() -> Value) -> bool {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if *said {
        return false;
    }
    trace_file::write(account, false);
    let lines = engine::summary();
    let text: String = lines.iter().map(|line| format!("autooffload: {line}\n")).collect();
    if text != *last {
        if let Some(path) = summary_file() {
            let _ = replace(&path, &text);
        }
        if let Some(path) = stats_file() {
            let _ = replace(&path, &statistics());
        }
        *last = text;
    }
    true
}

fn stats_file() -> Option<PathBuf> {
    config::get()?.stats_path(std::process::id()).map(PathBuf::from)
}

fn summary_file() -> Option<PathBuf> {
    let dir = std::env::var_os("AUTOOFFLOAD_LAUNCH_DIR")?;
    Some(Path::new(&dir).join(format!("{}.summary", std::process::id())))
}
