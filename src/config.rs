//! The settings of this process: read from the environment, echoed, kept.
//!
//! The table itself is `autooffload_core::config`.

use std::ffi::CStr;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use autooffload_core::config::{Config, SETTINGS};
use autooffload_shared::private::has_foreign_rights;

static CONFIG: OnceLock<Config> = OnceLock::new();

/// Whether `AUTOOFFLOAD` says off, or the program runs with rights that its
/// starter has not: then nothing that the starter chose may count. Asked in ELF
/// constructors, long before the rest is read: no allocation, and asked once.
pub fn switched_off() -> bool {
    const UNKNOWN: u8 = 0;
    const ON: u8 = 1;
    const OFF: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);
    match ANSWER.load(Ordering::Relaxed) {
        UNKNOWN => {
            // SAFETY: the name is NUL-terminated; the value is read at once.
            let value = unsafe { libc::getenv(c"AUTOOFFLOAD".as_ptr()) };
            let off = has_foreign_rights()
                || !value.is_null() && {
                    // SAFETY: getenv answers null or a NUL-terminated string.
                    let value = unsafe { CStr::from_ptr(value) }.to_bytes().trim_ascii();
                    [&b"0"[..], b"off", b"false", b"no"]
                        .iter()
                        .any(|no| value.eq_ignore_ascii_case(no))
                };
            ANSWER.store(if off { OFF } else { ON }, Ordering::Relaxed);
            off
        }
        answer => answer == OFF,
    }
}

/// Reads all settings, starts logging, says the settings to who wants to know
/// (`info`), and what was not understood to all. Once per process, after `cuInit`.
pub fn initialise() -> &'static Config {
    CONFIG.get_or_init(|| {
        let (config, warnings) = Config::read(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        });
        start_logging(&config.log);
        if config.enabled && !config.log.eq_ignore_ascii_case("off") {
            log::info!("version {}: {}", env!("CARGO_PKG_VERSION"), config.echo());
            for warning in warnings.into_iter().chain(unknown()) {
                say(&format!("warning: {warning}"));
            }
        }
        config
    })
}

/// A sentence for each variable that is named like a setting and is none: a slip of
/// the pen would pass for a setting that does nothing.
fn unknown() -> impl Iterator<Item = String> {
    /// The launcher's.
    const OTHERS: [&str; 2] = ["AUTOOFFLOAD_LIB", "AUTOOFFLOAD_LAUNCH_DIR"];
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let known = |name: &str| SETTINGS.iter().any(|setting| setting.name == name);
    names
        .filter(move |name| name.starts_with("AUTOOFFLOAD_") && !known(name))
        .filter(|name| !OTHERS.contains(&name.as_str()))
        .map(|name| format!("{name} is not a setting; see `autooffload-launch --help`"))
}

/// The settings, if `cuInit` has succeeded.
pub fn get() -> Option<&'static Config> {
    CONFIG.get()
}

/// One line on standard error. A closed standard error is not our business.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "autooffload: {line}");
}

fn start_logging(filter: &str) {
    // A program of Rust may have its own logger; then ours stays silent.
    let _ = env_logger::Builder::new()
        .parse_filters(filter)
        .format(|out, record| {
            // What is told, not warned of.
            if record.target() == "autooffload::told" {
                return writeln!(out, "autooffload: {}", record.args());
            }
            writeln!(
                out,
                "autooffload: {}: {}",
                record.level().as_str().to_ascii_lowercase(),
                record.args()
            )
        })
        .try_init();
}
