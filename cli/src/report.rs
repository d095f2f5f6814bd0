//! `autooffload report`: a recorded trace as one page that a browser shows.
//!
//! One file, no script, nothing from the network. Areas differ by pattern and
//! carry their names, so colour is a help and never needed.
//! Not here: how the file is read (`recording`), how charts are drawn (`charts`).

use crate::arguments;
use crate::charts::{self, Series, escape};
use crate::recording::{self, Order, Recording, Span, Track};
use autooffload_core::plan::outlook::{MORE_BYTES, Outlook};
use autooffload_core::units::{format_bytes, format_ns};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Rows of the chunk table, and columns of the charts.
const CHUNKS: usize = 40;
const BUCKETS: usize = 240;
const GIB: i64 = 1 << 30;

#[derive(clap::Args)]
pub struct Options {
    /// What AUTOOFFLOAD_TRACE (autooffload run --trace FILE) has written
    file: PathBuf,
    /// The page; - is standard output [default: FILE.html]
    #[arg(short, long, value_name = "HTML")]
    output: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<(), String> {
    let recording = recording::read(&options.file)?;
    let name = options.file.file_name().unwrap_or_default().to_string_lossy();
    let page = page(&recording, &name);
    let output = options.output.clone().unwrap_or_else(|| {
        let mut path = options.file.clone().into_os_string();
        path.push(".html");
        path.into()
    });
    if output == Path::new("-") {
        return arguments::print(&page);
    }
    std::fs::write(&output, page)
        .map_err(|error| format!("{}: cannot be written: {error}", output.display()))?;
    arguments::print(&format!("{}\n", output.display()))
}

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1b;background:#fff;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .4rem;border-bottom:1px solid #ccc}
p{margin:.4rem 0}.quiet{color:#555}.verdict{font-size:1.1rem;margin:1rem 0;padding:.6rem .9rem;border-left:4px solid #1b1b1b;background:#f4f4f4}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .8rem;text-align:right;border-bottom:1px solid #e3e3e3}
th:first-child,td:first-child{text-align:left}th{border-bottom:2px solid #888}
svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:#1b1b1b}
.here{font-weight:bold}
";

fn page(recording: &Recording, name: &str) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>autooffload: {name}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>{name}</h1>\n<p class=\"quiet\">recorded by autooffload {version}{pid}; \
         page by autooffload {own}</p>\n",
        name = escape(name),
        version =
            escape(if recording.version.is_empty() { "(unknown)" } else { &recording.version }),
        pid = recording.account["pid"]
            .as_u64()
            .map_or(String::new(), |pid| format!(", process {pid}")),
        own = env!("CARGO_PKG_VERSION"),
    );
    for (is, what) in [
        (
            recording.cut_short,
            "The end of the file is missing: the process was ended while it wrote. \
                               The order of uses, and what more memory would buy, are not known."
                .to_string(),
        ),
        (
            recording.left_out > 0,
            format!("{} events are not in the file: it was full.", recording.left_out),
        ),
    ] {
        if is {
            let _ = writeln!(page, "<p><strong>{}</strong></p>", escape(&what));
        }
    }
    let mut devices: Vec<u64> = recording.memory.iter().map(|sample| sample.device).collect();
    devices.extend(recording.spans.iter().map(|span| span.device));
    devices.sort_unstable();
    devices.dedup();
    if devices.is_empty() {
        page += "<p class=\"verdict\">Nothing was recorded: everything fitted, or the program used no device memory.</p>\n";
    }
    for &device in &devices {
        if devices.len() > 1 {
            let _ = writeln!(page, "<h1>device {device}</h1>");
        }
        of_device(&mut page, recording, device);
    }
    if let Some(settings) = recording.account["settings"].as_str() {
        let _ = writeln!(page, "<h2>Settings</h2>\n<p class=\"quiet\">{}</p>", escape(settings));
    }
    page + "</body></html>\n"
}

fn of_device(page: &mut String, recording: &Recording, device: u64) {
    let spans: Vec<&Span> = recording.spans.iter().filter(|span| span.device == device).collect();
    let ends = spans.iter().map(|span| span.start + span.length);
    let samples = recording.memory.iter().filter(|sample| sample.device == device);
    let end = ends.chain(samples.map(|sample| sample.at)).fold(1.0, f64::max);
    let order = recording.orders.iter().find(|order| order.device == device);
    let tried = order.map(tried);
    verdict(page, &spans, tried.as_deref());
    memory(page, recording, device, end);
    link(page, &spans, end);
    stalls(page, &spans, end);
    if let Some(tried) = &tried {
        more_memory(page, tried);
    }
    chunks(page, &spans, order);
}

// --- what other memory would give ------------------------------------------------

struct Tried {
    more: i64,
    found: Result<Outlook, String>,
}

fn tried(order: &Order) -> Vec<Tried> {
    let frame = order.problem.machine.frame_bytes as i64;
    let all: i64 = order.problem.chunks.iter().map(|chunk| i64::from(chunk.frames)).sum();
    let missing = (all - i64::from(order.problem.machine.frames)) * frame;
    // In steps that mean something for a model of this size.
    let unit = if missing >= GIB { GIB } else { (missing / 4).max(frame) / frame * frame };
    let steps = [-unit, 0, unit, 2 * unit, 4 * unit, 8 * unit];
    let last = steps.iter().position(|&more| more >= missing).unwrap_or(steps.len() - 1);
    steps[..=last.max(1)]
        .iter()
        .map(|&more| {
            let problem = order.with(more, None);
            let found = recording::planned(&problem)
                .and_then(|plan| Outlook::of(&problem, &plan).ok_or("nothing was learned".into()));
            Tried { more, found }
        })
        .collect()
}

fn verdict(page: &mut String, spans: &[&Span], tried: Option<&[Tried]>) {
    let bytes = |track| -> u64 {
        spans.iter().filter(|span| span.track == track).map(|span| span.bytes).sum()
    };
    let at = |more: i64| {
        let row = tried?.iter().find(|row| row.more == more)?;
        row.found.as_ref().ok()
    };
    if let Some(outlook) = at(0) {
        let saved =
            at(MORE_BYTES as i64).map(|more| outlook.expected_ns.saturating_sub(more.expected_ns));
        let _ = writeln!(page, "<p class=\"verdict\">{}</p>", escape(&outlook.line(saved)));
    }
    let _ = writeln!(
        page,
        "<p>{} were copied to the card and {} to the host while this was recorded.</p>",
        format_bytes(bytes(Track::In)),
        format_bytes(bytes(Track::Out)),
    );
}

fn more_memory(page: &mut String, tried: &[Tried]) {
    *page += "<h2 id=\"more\">What more memory would buy</h2>\n<p class=\"quiet\">By the planner, for the order of \
              uses that was learned; a step is an iteration of the longest phase.</p>\n<table><tr>\
              <th>memory</th><th>stays</th><th>streams per step</th><th>at best</th><th>expected</th></tr>\n";
    for Tried { more, found } in tried {
        let sign = if *more < 0 { "−" } else { "+" };
        let name = match more {
            0 => "as it was".to_string(),
            _ => format!("{sign} {}", format_bytes(more.unsigned_abs())),
        };
        let class = if *more == 0 { " class=\"here\"" } else { "" };
        let cells = match found {
            Ok(outlook) => format!(
                "<td>{} of {}</td><td>{}</td><td>{}</td><td>{}</td>",
                format_bytes(outlook.resident_bytes),
                format_bytes(outlook.planned_bytes),
                format_bytes(outlook.streamed_bytes),
                format_ns(outlook.bound_ns as f64),
                format_ns(outlook.expected_ns as f64),
            ),
            Err(why) => format!("<td colspan=\"4\">{}</td>", escape(why)),
        };
        let _ = writeln!(page, "<tr{class}><td>{name}</td>{cells}</tr>");
    }
    *page += "</table>\n";
}

// --- charts ------------------------------------------------------------------------

fn memory(page: &mut String, recording: &Recording, device: u64, end: f64) {
    let samples: Vec<_> = recording.memory.iter().filter(|s| s.device == device).collect();
    if samples.is_empty() {
        return;
    }
    let last_in = |of: &dyn Fn(&crate::recording::Sample) -> u64| -> Vec<f64> {
        let mut values = vec![f64::NAN; BUCKETS];
        for sample in &samples {
            values[charts::bucket(sample.at, end, BUCKETS)] = of(sample) as f64;
        }
        let mut known = 0.0;
        values
            .iter()
            .map(|&value| {
                if !value.is_nan() {
                    known = value;
                }
                known
            })
            .collect()
    };
    let series = [
        Series::new("resident", last_in(&|s| s.resident)),
        Series::new("ring that weights stream through", last_in(&|s| s.ring)),
        Series::new("free", last_in(&|s| s.unused)),
    ];
    *page += "<h2 id=\"memory\">Memory on the card</h2>\n<p class=\"quiet\">What this process holds there through \
              autooffload, on the device's time.</p>\n";
    *page += &charts::stacked("memory on the card over time", &series, end, &format_value);
    let host = [Series::new("host copies", last_in(&|s| s.host))];
    if host[0].values.iter().any(|&value| value > 0.0) {
        *page += "<h2>Memory of the host</h2>\n";
        *page += &charts::stacked("host memory over time", &host, end, &format_value);
    }
}

fn format_value(value: f64) -> String {
    format_bytes(value as u64)
}

fn percent(value: f64) -> String {
    format!("{value:.0} %")
}

/// Of each bucket, the part in which `keep` spans lie, in percent.
fn busy(spans: &[&Span], end: f64, keep: impl Fn(&Span) -> bool) -> Vec<f64> {
    let mut busy = vec![0.0; BUCKETS];
    let width = end / BUCKETS as f64;
    for span in spans.iter().filter(|span| keep(span)) {
        let stop = span.start + span.length;
        let (first, last) =
            (charts::bucket(span.start, end, BUCKETS), charts::bucket(stop, end, BUCKETS));
        for (index, share) in busy.iter_mut().enumerate().take(last + 1).skip(first) {
            let (low, high) = (index as f64 * width, (index + 1) as f64 * width);
            *share += (stop.min(high) - span.start.max(low)).max(0.0) / width * 100.0;
        }
    }
    busy
}

fn link(page: &mut String, spans: &[&Span], end: f64) {
    *page += "<h2 id=\"link\">Use of the link</h2>\n<p class=\"quiet\">Share of the time in which a copy ran.</p>\n";
    for (name, track) in [("to the card", Track::In), ("to the host", Track::Out)] {
        let series = [Series::new(name, busy(spans, end, |span| span.track == track))];
        *page += &charts::stacked(&format!("use of the link, {name}"), &series, end, &percent);
    }
}

fn stalls(page: &mut String, spans: &[&Span], end: f64) {
    let cause = |span: &Span| match (span.track, span.demanded) {
        (Track::Waited, true) => Some("launches waited: fetched on demand, not foretold"),
        (Track::Waited, false) => Some("launches waited: the copy ahead was not over"),
        (Track::Host, _) => match span.name.as_str() {
            "plan_change" => Some("the host waited: a plan was carried out"),
            "allocation" => Some("the host waited: room for an allocation"),
            "look" => Some("the host waited: a table on the card was looked at"),
            _ => Some("the host waited: as the driver's call does"),
        },
        _ => None,
    };
    let mut causes: BTreeMap<&str, (u64, f64, f64)> = BTreeMap::new();
    for span in spans {
        if let Some(cause) = cause(span) {
            let row = causes.entry(cause).or_default();
            *row = (row.0 + 1, row.1 + span.length, row.2.max(span.length));
        }
    }
    *page += "<h2 id=\"stalls\">Stalls</h2>\n";
    if causes.is_empty() {
        *page += "<p>None.</p>\n";
        return;
    }
    // Of the host's waits the length is the host's own: on one axis with the
    // device's they would mislead.
    let series: Vec<Series> = causes
        .keys()
        .filter(|name| name.starts_with("launches"))
        .map(|name| Series::new(name, busy(spans, end, |span| cause(span) == Some(name))))
        .collect();
    if !series.is_empty() {
        *page += "<p class=\"quiet\">Share of the time in which launches waited; the host's waits are in the \
                  table, by its own clock.</p>\n";
        *page += &charts::stacked("stalls over time", &series, end, &percent);
    }
    *page += "<table><tr><th>cause</th><th>times</th><th>in all</th><th>longest</th></tr>\n";
    for (name, (times, all, longest)) in causes {
        let _ = writeln!(
            page,
            "<tr><td>{name}</td><td>{times}</td><td>{}</td><td>{}</td></tr>",
            format_ns(all * 1e3),
            format_ns(longest * 1e3),
        );
    }
    *page += "</table>\n";
}

fn chunks(page: &mut String, spans: &[&Span], order: Option<&Order>) {
    #[derive(Default)]
    struct Row {
        copies: u64,
        bytes: u64,
        demanded: u64,
        out: u64,
        waited: f64,
    }
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for span in spans {
        let Some(chunk) = span.chunk else { continue };
        let row = rows.entry(chunk).or_default();
        match span.track {
            Track::In => {
                row.copies += 1;
                row.bytes += span.bytes;
                row.demanded += u64::from(span.demanded);
            }
            Track::Out => row.out += span.bytes,
            Track::Waited => row.waited += span.length,
            Track::Host => {}
        }
    }
    if rows.is_empty() {
        return;
    }
    let count = rows.len();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(chunk, row)| (std::cmp::Reverse(row.bytes), *chunk));
    let _ = writeln!(
        page,
        "<h2 id=\"chunks\">Chunks</h2>\n<p class=\"quiet\">A chunk is an allocation of the program (PyTorch: a segment). \
         {} of {count}, those first that came in most; of several in one copy the first is named.</p>\n<table><tr>\
         <th>chunk</th><th>size</th><th>stays</th><th>copies in</th><th>bytes in</th>\
         <th>on demand</th><th>bytes out</th><th>launches waited</th></tr>",
        rows.len().min(CHUNKS)
    );
    for (chunk, row) in rows.iter().take(CHUNKS) {
        let known = order.and_then(|order| {
            let at = order.names.iter().position(|name| name == chunk)?;
            Some((order.problem.chunks[at].frames, order.resident[at].0))
        });
        let (size, stays) = known.map_or(("?".into(), "?".into()), |(frames, own)| {
            let share = 100.0 * f64::from(own) / f64::from(frames);
            (format_bytes(u64::from(frames) << 21), format!("{share:.0} %"))
        });
        let _ = writeln!(
            page,
            "<tr><td>{chunk}</td><td>{size}</td><td>{stays}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>",
            row.copies,
            format_bytes(row.bytes),
            row.demanded,
            format_bytes(row.out),
            format_ns(row.waited * 1e3),
        );
    }
    *page += "</table>\n";
}
