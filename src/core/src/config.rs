//! The settings: one table of names, defaults, units and meanings, from which
//! parsing, the start-up echo, the README's table and `autooffload_set` come.
//!
//! Pure: values arrive through a lookup function, warnings go out as text.
//! A bad value gives a warning and the default, never an abort.
//! Not here: reading the environment, printing (see the preload crate's
//! `config.rs`).

use crate::units::{Size, format_size, parse_size};

/// All settings, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub enabled: bool,
    pub vram: Limit,
    /// Bytes left free for others; `None`: see [`Config::headroom_bytes`].
    pub headroom: Option<u64>,
    pub window: Window,
    /// Host copies are page-locked.
    pub pin: bool,
    /// Cap on all host copies.
    pub ram: Limit,
    pub report: Report,
    /// An env_logger filter.
    pub log: String,
    pub plans: Plans,
    /// Where the JSON goes at exit; `%p` is the process id. `None`: nowhere.
    pub stats: Option<String>,
    /// Every launch is watched and waited for.
    pub verify: bool,
    /// Where the trace goes, likewise. `None`: nothing is recorded.
    pub trace: Option<String>,
    /// Where metrics are served: `unix:PATH` or a loopback address and port.
    pub metrics: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Auto,
    Given(Size),
}

/// How far ahead of the launch weights are copied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    Auto,
    Chunks(u32),
    Bytes(u64),
}

/// Where the order of a program is kept for its next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plans {
    /// In the user's cache directory.
    Auto,
    Off,
    In(String),
}

/// What the program is told about the card's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Total = budget; weights weigh nothing in "free".
    Budget,
    /// For programs that place by free memory: as much as host and device hold.
    Enlarged,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            enabled: true,
            vram: Limit::Auto,
            headroom: None,
            window: Window::Auto,
            pin: true,
            ram: Limit::Auto,
            report: Report::Budget,
            log: "warn".to_string(),
            plans: Plans::Off,
            stats: None,
            verify: false,
            trace: None,
            metrics: None,
        }
    }
}

/// One row of the table.
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    pub default: &'static str,
    pub unit: &'static str,
    pub doc: &'static str,
    /// Whether `autooffload_set` may change it in a running program.
    pub live: bool,
    apply: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
}

/// THE table.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "AUTOOFFLOAD",
        default: "1",
        unit: "1 or 0",
        doc: "0 switches the library off: every call goes straight to the driver.",
        live: false,
        apply: |config, text| parse_switch(text).map(|on| config.enabled = on),
        show: |config| show_switch(config.enabled),
    },
    Setting {
        name: "AUTOOFFLOAD_VRAM",
        default: "auto",
        unit: "auto, bytes or % of the card's total",
        doc: "The budget: everything this process holds on the card, context included.",
        live: true,
        apply: |config, text| parse_limit(text).map(|limit| config.vram = limit),
        show: |config| show_limit(config.vram),
    },
    Setting {
        name: "AUTOOFFLOAD_HEADROOM",
        default: "auto",
        unit: "auto or bytes",
        doc: "Left free on the card for others; auto is 5 % of the card, at most 512M.",
        live: true,
        apply: |config, text| parse_headroom(text).map(|bytes| config.headroom = bytes),
        show: |config| config.headroom.map_or("auto".to_string(), format_size),
    },
    Setting {
        name: "AUTOOFFLOAD_WINDOW",
        default: "auto",
        unit: "auto, a count of chunks, or bytes (8M)",
        doc: "How far ahead of the launch that needs it a weight is copied in.",
        live: true,
        apply: |config, text| parse_window(text).map(|window| config.window = window),
        show: |config| match config.window {
            Window::Auto => "auto".to_string(),
            Window::Chunks(count) => count.to_string(),
            Window::Bytes(bytes) => format_size(bytes),
        },
    },
    Setting {
        name: "AUTOOFFLOAD_PIN",
        default: "1",
        unit: "1 or 0",
        doc: "Page-lock the host copies; 0 copies from pageable memory, slower.",
        live: false,
        apply: |config, text| parse_switch(text).map(|on| config.pin = on),
        show: |config| show_switch(config.pin),
    },
    Setting {
        name: "AUTOOFFLOAD_RAM",
        default: "auto",
        unit: "auto, bytes or % of the machine's RAM",
        doc: "Cap on all host copies, pinned or not; auto respects MemAvailable and the cgroup.",
        live: false,
        apply: |config, text| parse_limit(text).map(|limit| config.ram = limit),
        show: |config| show_limit(config.ram),
    },
    Setting {
        name: "AUTOOFFLOAD_REPORT",
        default: "budget",
        unit: "budget or enlarged",
        doc: "What the program is told the card holds; enlarged is for programs that place by free memory.",
        live: false,
        apply: |config, text| {
            config.report = match text.to_ascii_lowercase().as_str() {
                "budget" | "auto" => Report::Budget,
                "enlarged" => Report::Enlarged,
                _ => return Err("neither budget nor enlarged".to_string()),
            };
            Ok(())
        },
        show: |config| match config.report {
            Report::Budget => "budget".to_string(),
            Report::Enlarged => "enlarged".to_string(),
        },
    },
    Setting {
        name: "AUTOOFFLOAD_LOG",
        default: "warn",
        unit: "an env_logger filter",
        doc: "What is said on standard error: off, error, warn, info, debug, trace.",
        live: false,
        apply: |config, text| {
            config.log = text.to_string();
            Ok(())
        },
        show: |config| config.log.clone(),
    },
    Setting {
        name: "AUTOOFFLOAD_PLANS",
        default: "off",
        unit: "off, auto or a folder",
        doc: "Where a program's order is kept for its next start; auto is ~/.cache/autooffload/orders.",
        live: false,
        apply: |config, text| {
            config.plans = match text.to_ascii_lowercase().as_str() {
                "auto" => Plans::Auto,
                "" | "off" | "0" => Plans::Off,
                _ if text.starts_with('/') => Plans::In(text.to_string()),
                _ => return Err("neither auto, off nor the full path of a folder".to_string()),
            };
            Ok(())
        },
        show: |config| match &config.plans {
            Plans::Auto => "auto".to_string(),
            Plans::Off => "off".to_string(),
            Plans::In(folder) => folder.clone(),
        },
    },
    Setting {
        name: "AUTOOFFLOAD_VERIFY",
        default: "0",
        unit: "1 or 0",
        doc: "For finding faults, slow: memory that is absent cannot be touched, every launch is waited for, and a kernel that touches what it does not name is told.",
        live: false,
        apply: |config, text| parse_switch(text).map(|on| config.verify = on),
        show: |config| show_switch(config.verify),
    },
    Setting {
        name: "AUTOOFFLOAD_STATS",
        default: "",
        unit: "a path",
        doc: "A JSON account is written there at exit; %p becomes the process id.",
        live: false,
        apply: |config, text| {
            config.stats = (!text.is_empty()).then(|| text.to_string());
            Ok(())
        },
        show: |config| config.stats.clone().unwrap_or_default(),
    },
    Setting {
        name: "AUTOOFFLOAD_TRACE",
        default: "",
        unit: "a path",
        doc: "A trace of copies, waits and memory is written there (Chrome's JSON, for Perfetto and `autooffload report`); %p becomes the process id.",
        live: false,
        apply: |config, text| {
            config.trace = (!text.is_empty()).then(|| text.to_string());
            Ok(())
        },
        show: |config| config.trace.clone().unwrap_or_default(),
    },
    Setting {
        name: "AUTOOFFLOAD_METRICS",
        default: "",
        unit: "unix:PATH or 127.0.0.1:PORT",
        doc: "Metrics are served there as text for Prometheus, to this machine only; %p becomes the process id.",
        live: false,
        apply: |config, text| {
            config.metrics = parse_endpoint(text)?;
            Ok(())
        },
        show: |config| config.metrics.clone().unwrap_or_default(),
    },
];

impl Config {
    /// Reads every setting through `lookup` (name → value, if set). Second: one
    /// sentence for each value that was not understood.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> (Config, Vec<String>) {
        let mut config = Config::default();
        let mut warnings = Vec::new();
        for setting in SETTINGS {
            let Some(text) = lookup(setting.name) else {
                continue;
            };
            if let Err(why) = (setting.apply)(&mut config, text.trim()) {
                warnings.push(format!(
                    "{}={text}: {why}; using the default, {}",
                    setting.name,
                    if setting.default.is_empty() { "none" } else { setting.default }
                ));
            }
        }
        (config, warnings)
    }

    /// Changes one live setting. `key` is the variable's name, or its part
    /// after `AUTOOFFLOAD_`, in any case. On an error nothing has changed.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let key = key.to_ascii_uppercase();
        let setting = SETTINGS
            .iter()
            .find(|s| s.name == key || s.name.strip_prefix("AUTOOFFLOAD_") == Some(&key))
            .ok_or_else(|| format!("no setting is called {key}"))?;
        if !setting.live {
            return Err(format!("{} is fixed when the program starts", setting.name));
        }
        (setting.apply)(self, text.trim())
    }

    /// Every setting with its effective value, those that differ from the
    /// default marked, on one line: the start-up echo.
    pub fn echo(&self) -> String {
        SETTINGS
            .iter()
            .map(|s| {
                let value = (s.show)(self);
                let value = if value.is_empty() { "-".to_string() } else { value };
                format!("{}={value}", s.name)
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The headroom on a card of `total` bytes.
    pub fn headroom_bytes(&self, total: u64) -> u64 {
        const CAP: u64 = 512 << 20;
        self.headroom.unwrap_or((total / 20).min(CAP))
    }

    /// The budget on a card of `total` bytes of which `free` are free and
    /// `ours` are this process's already.
    ///
    /// A given budget is taken as it is, up to the card; `auto` is what the
    /// process could hold while the headroom stays free.
    pub fn budget_bytes(&self, total: u64, free: u64, ours: u64) -> u64 {
        match self.vram {
            Limit::Given(Size::Bytes(bytes)) => bytes.min(total),
            Limit::Given(Size::Percent(percent)) => (total as f64 * percent / 100.0) as u64,
            Limit::Auto => (free + ours).min(total).saturating_sub(self.headroom_bytes(total)),
        }
    }

    /// `stats` with `%p` replaced.
    pub fn stats_path(&self, pid: u32) -> Option<String> {
        of_process(&self.stats, pid)
    }

    pub fn trace_path(&self, pid: u32) -> Option<String> {
        of_process(&self.trace, pid)
    }

    pub fn metrics_endpoint(&self, pid: u32) -> Option<String> {
        of_process(&self.metrics, pid)
    }
}

/// The README's settings table, in Markdown.
pub fn settings_markdown() -> String {
    let mut table = String::from("| setting | default | value | meaning |\n|---|---|---|---|\n");
    for s in SETTINGS {
        let default = if s.default.is_empty() { String::new() } else { format!("`{}`", s.default) };
        table.push_str(&format!("| `{}` | {default} | {} | {} |\n", s.name, s.unit, s.doc));
    }
    table
}

/// With `%p` replaced.
fn of_process(setting: &Option<String>, pid: u32) -> Option<String> {
    setting.as_ref().map(|text| text.replace("%p", &pid.to_string()))
}

/// Where metrics may be served: nowhere but on this machine.
fn parse_endpoint(text: &str) -> Result<Option<String>, String> {
    const WANTED: &str = "neither unix:PATH nor an address of this machine, as 127.0.0.1:9400";
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() { Err(WANTED.to_string()) } else { Ok(Some(text.to_string())) };
    }
    let number = text.replace("localhost:", "127.0.0.1:");
    match number.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(number)),
        Ok(_) => Err("only addresses of this machine are served, as 127.0.0.1:9400".to_string()),
        Err(_) => Err(WANTED.to_string()),
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "true" | "yes" | "" => Ok(true),
        "0" | "off" | "false" | "no" => Ok(false),
        _ => Err("neither 1 nor 0".to_string()),
    }
}

fn show_switch(on: bool) -> String {
    if on { "1" } else { "0" }.to_string()
}

fn is_auto(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("auto")
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    if is_auto(text) {
        return Ok(Limit::Auto);
    }
    match parse_size(text)? {
        Size::Bytes(0) => Err("zero bytes".to_string()),
        size => Ok(Limit::Given(size)),
    }
}

fn show_limit(limit: Limit) -> String {
    match limit {
        Limit::Auto => "auto".to_string(),
        Limit::Given(Size::Bytes(bytes)) => format_size(bytes),
        Limit::Given(Size::Percent(percent)) => format!("{percent}%"),
    }
}

fn parse_headroom(text: &str) -> Result<Option<u64>, String> {
    if is_auto(text) {
        return Ok(None);
    }
    match parse_size(text)? {
        Size::Bytes(bytes) => Ok(Some(bytes)),
        Size::Percent(_) => Err("bytes are wanted here, not a percentage".to_string()),
    }
}

/// A bare number counts chunks; with a unit it is bytes.
fn parse_window(text: &str) -> Result<Window, String> {
    if is_auto(text) {
        return Ok(Window::Auto);
    }
    if let Ok(count) = text.parse::<u32>() {
        return if count > 0 { Ok(Window::Chunks(count)) } else { Err("zero chunks".to_string()) };
    }
    match parse_size(text)? {
        Size::Bytes(bytes) if bytes > 0 => Ok(Window::Bytes(bytes)),
        _ => Err("not a count of chunks or a size such as 64M".to_string()),
    }
}

#[cfg(test)]
mod tests;
