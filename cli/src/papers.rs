//! Shell completions and manual pages, made from the tables that parse the words.

use clap::{Command, ValueEnum};
use clap_complete::Shell;
use std::path::Path;

/// Shells for which there are completions.
#[derive(Clone, Copy, ValueEnum)]
pub enum Completions {
    Bash,
    Zsh,
    Fish,
}

/// To standard output, for `autooffload` and, but for zsh, for `autooffload-launch`.
pub fn complete(shell: Completions, program: Command, run: Command) -> Result<(), String> {
    let (shell, both) = match shell {
        Completions::Bash => (Shell::Bash, true),
        Completions::Fish => (Shell::Fish, true),
        Completions::Zsh => (Shell::Zsh, false), // a file of zsh's completes one command
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program.clone(), "autooffload", &mut text);
    if both {
        let mut launcher = run.name("autooffload-launch");
        clap_complete::generate(shell, &mut launcher, "autooffload-launch", &mut text);
    }
    crate::arguments::print(&String::from_utf8_lossy(&text))
}

/// One page for the program and one for each of its commands, into a folder.
pub fn manual(program: Command, folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(program.disable_help_subcommand(true), folder))
        .map_err(|error| format!("{}: cannot be written: {error}", folder.display()))
}
