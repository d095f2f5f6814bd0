//! `autooffload run`, `doctor` and `demo`: the launcher, under this program's name.
//!
//! The launcher is a program of its own (`autooffload-launch`), because it must
//! start where nothing has been built. Here stand only its options, for help,
//! completions and manual pages; the words themselves are passed on unread.
//! That both know the same options is tested in tests/launcher.

use autooffload_core::config::SETTINGS;
use clap::{Arg, ArgAction, Command, ValueHint};
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

const LAUNCHER: &str = "autooffload-launch";

/// Settings for which the launcher has a switch instead of an option with a value.
const SWITCHES: &[(&str, &str, &str)] = &[
    ("AUTOOFFLOAD", "off", "Preload, but pass every call through untouched"),
    ("AUTOOFFLOAD_PIN", "no-pin", "Do not page-lock host memory (slower copies)"),
    (
        "AUTOOFFLOAD_VERIFY",
        "verify",
        "Find faults, slowly: name kernels that touch memory they do not name",
    ),
];

/// `autooffload run`: one option for each setting, and the launcher's own.
pub fn run_command() -> Command {
    let mut command = Command::new("run")
        .about("Run a program with autooffload: autooffload run [options] program")
        .disable_help_flag(true);
    for setting in SETTINGS {
        let argument = match SWITCHES.iter().find(|(name, ..)| *name == setting.name) {
            Some((_, long, help)) => {
                Arg::new(*long).long(*long).help(*help).action(ArgAction::SetTrue)
            }
            None => {
                let long =
                    setting.name["AUTOOFFLOAD_".len()..].to_ascii_lowercase().replace('_', "-");
                Arg::new(long.clone()).long(long).help(setting.doc).value_name("VALUE")
            }
        };
        command = command.arg(argument);
    }
    command
        .arg(
            Arg::new("allocator")
                .long("allocator")
                .value_parser(["keep", "native", "async"])
                .help("PyTorch's allocator: keep the program's choice, native, or async"),
        )
        .arg(
            Arg::new("comfyui")
                .long("comfyui")
                .value_parser(["auto", "off"])
                .help("Whether a ComfyUI gets the switches that keep its models on the card"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Say what would be started, and how, and start nothing"),
        )
        .arg(
            Arg::new("program")
                .value_name("PROGRAM")
                .value_hint(ValueHint::CommandWithArguments)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("The program to run, and its arguments"),
        )
}

/// `autooffload doctor`.
pub fn doctor_command() -> Command {
    Command::new("doctor")
        .about("Look at this machine: what autooffload needs, line by line, and what to do")
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print it as JSON"))
}

/// `autooffload demo`.
pub fn demo_command() -> Command {
    Command::new("demo").about("Run a model on this card with and without autooffload, and compare")
}

/// Replaces this process by the launcher; comes back only with a reason.
pub fn pass_on(words: impl Iterator<Item = OsString>) -> Result<Infallible, String> {
    let launcher = launcher()?;
    let error = std::process::Command::new(&launcher).args(words).exec();
    Err(format!("{}: cannot be run: {error}", launcher.display()))
}

/// Beside this program where it is installed; in `scripts/` where it was built.
fn launcher() -> Result<PathBuf, String> {
    let program = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .map_err(|error| format!("this program cannot find itself: {error}"))?;
    let beside = program.with_file_name(LAUNCHER);
    let built = program.ancestors().skip(1).map(|folder| folder.join("scripts").join(LAUNCHER));
    std::iter::once(beside).chain(built).find(|path| path.is_file()).ok_or_else(|| {
        format!("{LAUNCHER} is not beside {}: install the package again", program.display())
    })
}
