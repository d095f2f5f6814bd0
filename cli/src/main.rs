//! The `autooffload` program: the launcher under a shorter name, what a card
//! would give before there is one, what a run did, how good the planner is, and
//! what processes do now. Forecasts and benches happen on a model clock; nothing
//! here touches a device.
//!
//! ```text
//!   arguments  what the words on the command line mean
//!   scene      a trace on a card over a link: its bounds, a policy's run
//!   forecast   `autooffload forecast`
//!   forecast_recorded   the same for what the library has recorded
//!   checkpoint a trace from a checkpoint's header
//!   pace       how long a recorded program's steps took
//!   recording  what AUTOOFFLOAD_TRACE has written
//!   report     `autooffload report`; charts: its charts
//!   bench      `autooffload bench-plan`
//!   launch     `autooffload run`, `doctor`, `demo`: passed on to the launcher
//!   top        `autooffload top`: the processes that stream now
//!   papers     completions and manual pages
//! ```

mod arguments;
mod bench;
mod charts;
mod checkpoint;
mod forecast;
mod forecast_recorded;
mod launch;
mod pace;
mod papers;
mod recording;
mod report;
mod scene;
mod top;

use arguments::{Source, source};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs PyTorch programs whose weights exceed the card's memory, unchanged.
#[derive(Parser)]
#[command(name = "autooffload", version, max_term_width = arguments::WIDTH)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Forecast how long a step takes on a card that is too small
    Forecast(forecast::Options),
    /// Make a page for the browser of what `run --trace` has recorded
    Report(report::Options),
    /// List the traces that come with this program
    Traces,
    /// List the cards and links that are known by name
    Cards,
    /// Write a trace that comes with this program to a file
    Trace {
        /// As `autooffload traces` lists it
        #[arg(value_parser = source)]
        trace: Source,
        /// The file; - is standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Iterations (or whole cycles, or tokens) that it shall hold
        #[arg(long, default_value_t = 8)]
        iterations: u32,
    },
    /// Show this user's processes that stream: memory, link, iterations, waits
    Top(top::Options),
    /// Print completions for a shell: autooffload completions bash >>~/.bashrc
    Completions { shell: papers::Completions },
    /// Write the manual pages into a folder
    Manual { folder: PathBuf },
    /// Run every trace on every card beside other policies (scripts/bench plan)
    BenchPlan(bench::Options),
}

/// What is parsed here, and what the launcher parses.
fn commands() -> clap::Command {
    Arguments::command()
        .subcommand(launch::run_command())
        .subcommand(launch::doctor_command())
        .subcommand(launch::demo_command())
}

/// The words after `autooffload run`; after `autooffload doctor`, with the option that it is.
fn for_the_launcher() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os().skip(1);
    match words.next()?.to_str()? {
        "run" => Some(words.collect()),
        option @ ("doctor" | "demo") => {
            // Their help is short, and here.
            if matches!(std::env::args().nth(2).as_deref(), Some("-h" | "--help")) {
                return None;
            }
            Some(std::iter::once(format!("--{option}").into()).chain(words).collect())
        }
        _ => None,
    }
}

fn main() -> ExitCode {
    let done = match for_the_launcher() {
        Some(words) => launch::pass_on(words.into_iter()).map(|never| match never {}),
        None => run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            arguments::say(&why);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let parsed = commands().try_get_matches().and_then(|found| Arguments::from_arg_matches(&found));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(wrong) if wrong.use_stderr() => wrong.exit(),
        // Help and version; `exit` hides that they could not be written.
        Err(help) => return help.print().map_err(arguments::not_written),
    };
    match parsed.command {
        Command::Forecast(options) => forecast::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Traces => arguments::list_traces(),
        Command::Cards => arguments::list_cards(),
        Command::Trace { trace, output, iterations } => {
            arguments::write_trace(&trace, &output, iterations)
        }
        Command::Top(options) => top::run(&options),
        Command::Completions { shell } => {
            papers::complete(shell, commands(), launch::run_command())
        }
        Command::Manual { folder } => papers::manual(commands(), &folder),
        Command::BenchPlan(options) => bench::run(&options),
    }
}
