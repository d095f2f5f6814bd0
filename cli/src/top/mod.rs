//! `autooffload top`: the user's processes that stream, as their pages tell it.
//!
//! On a terminal a picture that changes, until q or Ctrl-C; elsewhere, or with
//! `--once`, the same as text. A process has a page from the moment its memory
//! begins to move; what it tells while nobody looks is less, so the first look
//! waits a moment for the rest.
//!
//! Not here: pages (`autooffload_shared`), words (`words`), the picture (`screen`).

mod screen;
mod words;

use autooffload_shared::live::{self, OtherPage, now_ns};
use autooffload_shared::page::View;
use autooffload_shared::private;
use serde_json::{Map, Value, json};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Options {
    /// Only this process
    pid: Option<u32>,
    /// Print once, as text, and end
    #[arg(long)]
    once: bool,
    /// Print once, as JSON, and end
    #[arg(long)]
    json: bool,
}

/// How long a look lasts unless it is renewed.
const WATCH_NS: u64 = 3_000_000_000;

/// What is seen of one process.
struct Seen {
    pid: u32,
    /// Its command line, without anything that a terminal would obey.
    command: String,
    view: Result<View, String>,
}

pub fn run(options: &Options) -> Result<(), String> {
    if options.once || options.json || !std::io::stdout().is_terminal() {
        let (seen, said) = first_look(options.pid)?;
        said.iter().for_each(|line| crate::arguments::say(line));
        return crate::arguments::print(&if options.json {
            as_json(&seen)
        } else {
            as_text(&seen)
        });
    }
    screen::run(options.pid)
}

/// The processes now, all of them watched from here on. Second: what is in the way.
fn look(pid: Option<u32>) -> Result<(Vec<Seen>, Vec<String>), String> {
    let directory = private::runtime()
        .map_err(|error| format!("the directory of this user's pages cannot be used: {error}"))?;
    let (pages, said) = live::pages(&directory)
        .map_err(|error| format!("{}: {error}", directory.path().display()))?;
    let wanted = |page: &&OtherPage| pid.is_none_or(|pid| page.pid == pid);
    let seen: Vec<Seen> = pages.iter().filter(wanted).map(see).collect();
    match pid {
        Some(pid) if seen.is_empty() => Err(no_page(pid)),
        _ => Ok((seen, said)),
    }
}

fn see(page: &OtherPage) -> Seen {
    page.page().watch(now_ns() + WATCH_NS);
    let view = page.read().map_err(|why| why.to_string());
    Seen { pid: page.pid, command: command_of(page.pid), view }
}

fn no_page(pid: u32) -> String {
    if std::path::Path::new(&format!("/proc/{pid}")).exists() {
        format!(
            "process {pid} has no page: it runs without autooffload, is another user's, or all of \
             its memory has fitted so far"
        )
    } else {
        format!("there is no process {pid}")
    }
}

/// Until every process has told what it tells those who watch, or does not.
fn first_look(pid: Option<u32>) -> Result<(Vec<Seen>, Vec<String>), String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let began = (Instant::now(), now_ns());
    loop {
        let found = look(pid)?;
        let told = |seen: &Seen| seen.view.as_ref().is_ok_and(|view| !view.devices.is_empty());
        if found.0.iter().all(told) || began.0.elapsed() > PATIENCE {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn command_of(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words::plain(&String::from_utf8_lossy(&words).replace('\0', " "))
}

fn as_text(seen: &[Seen]) -> String {
    if seen.is_empty() {
        return crate::arguments::wrapped(words::NOTHING, 0);
    }
    let of_one = |seen: &Seen| {
        let lines = words::lines(seen, now_ns());
        let line = |(name, text)| crate::arguments::wrapped(&format!("{name:<12}{text}"), 12);
        lines.into_iter().map(line).collect::<String>()
    };
    seen.iter().map(of_one).collect::<Vec<_>>().join("\n")
}

fn as_json(seen: &[Seen]) -> String {
    let object = |fields: &[(&str, u64)]| {
        Map::from_iter(fields.iter().map(|&(name, value)| (name.to_string(), json!(value))))
    };
    let of_one = |seen: &Seen| {
        let mut all = Map::new();
        all.insert("pid".into(), json!(seen.pid));
        all.insert("command".into(), json!(seen.command));
        match &seen.view {
            Err(why) => drop(all.insert("unreadable".into(), json!(why))),
            Ok(view) => {
                all.extend(object(&view.process.fields()));
                let device = |(device, chunks): &(_, Vec<autooffload_shared::page::Chunk>)| {
                    let device: &autooffload_shared::page::Device = device;
                    let mut one = object(&device.fields());
                    let chunks = chunks.iter().map(|chunk| Value::Object(object(&chunk.fields())));
                    one.insert("largest".into(), Value::Array(chunks.collect()));
                    Value::Object(one)
                };
                all.insert(
                    "devices".into(),
                    Value::Array(view.devices.iter().map(device).collect()),
                );
            }
        }
        Value::Object(all)
    };
    format!("{:#}\n", json!({ "processes": seen.iter().map(of_one).collect::<Vec<_>>() }))
}
