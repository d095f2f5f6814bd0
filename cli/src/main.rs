//! The `autooffload` program: what a card would give, before there is one, and
//! how good the planner is. Everything happens on the model clock of
//! `autooffload-core`; nothing here touches a device.
//!
//! ```text
//!   arguments  what the words on the command line mean
//!   scene      a trace on a card over a link: its bounds, a policy's run
//!   forecast   `autooffload forecast`
//!   bench      `autooffload bench-plan`
//! ```

mod arguments;
mod bench;
mod forecast;
mod scene;

use arguments::{Source, source};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a card would give a program whose weights exceed its memory.
#[derive(Parser)]
#[command(name = "autooffload", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Forecast the time per iteration of a program on a card with less memory than it needs
    Forecast(forecast::Options),
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
    /// Run every trace on every card, link and budget, beside other policies (scripts/bench plan)
    BenchPlan(bench::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Forecast(options) => forecast::run(&options),
        Command::Traces => arguments::list_traces(),
        Command::Cards => arguments::list_cards(),
        Command::Trace { trace, output, iterations } => {
            arguments::write_trace(&trace, &output, iterations)
        }
        Command::BenchPlan(options) => bench::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("autooffload: {why}");
            ExitCode::FAILURE
        }
    }
}
