//! What the words on the command line mean, and the lists of what is known.

use crate::checkpoint::{self, Assumed};
use crate::scene::{self, Kind};
use autooffload_core::units::{self, Size, format_bytes};
use autooffload_lab::workload::cards::{self, CARDS, Card, LINKS};
use autooffload_lab::workload::models::{self, Model};
use autooffload_lab::workload::{Trace, format};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where a trace comes from.
#[derive(Clone)]
pub enum Source {
    Catalogue(&'static Model),
    File(PathBuf),
}

/// A name of the catalogue, else a file.
pub fn source(text: &str) -> Result<Source, String> {
    if let Some(model) = model(text) {
        return Ok(Source::Catalogue(model));
    }
    let path = PathBuf::from(text);
    if path.is_file() {
        return Ok(Source::File(path));
    }
    Err(format!(
        "neither a file nor a known trace; the known ones are {}",
        names(models::catalogue().iter().map(|model| model.name))
    ))
}

fn model(name: &str) -> Option<&'static Model> {
    models::catalogue().iter().find(|model| model.name == name)
}

pub fn card(name: &str) -> Result<&'static Card, String> {
    cards::card(name).ok_or_else(|| {
        format!(
            "not a known card; the known ones are {}",
            names(CARDS.iter().map(|card| card.name))
        )
    })
}

/// Decimal GB/s, or the name of a link.
pub fn link(text: &str) -> Result<f64, String> {
    if let Some(link) = cards::link(text) {
        return Ok(link.bytes_per_s / 1e9);
    }
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=10_000.0).contains(&rate) => Ok(rate),
        Ok(_) => Err("a link has 0.1 to 10000 GB/s".into()),
        Err(_) => Err(format!(
            "not a number of GB/s, nor one of {}",
            names(LINKS.iter().map(|link| link.name))
        )),
    }
}

pub fn size(text: &str) -> Result<Size, String> {
    units::parse_size(text)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

impl Source {
    /// Its trace; one of the catalogue with so many iterations.
    pub fn trace(&self, iterations: u32) -> Result<Trace, String> {
        match self {
            Source::Catalogue(model) => Ok(model.trace(iterations)),
            Source::File(path) => {
                let bytes = std::fs::read(path)
                    .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
                format::read(&bytes).map_err(|error| {
                    format!(
                        "{}: {error}\nAn example of the format: autooffload trace {} -o -",
                        path.display(),
                        models::catalogue()[0].name
                    )
                })
            }
        }
    }
}

impl Source {
    /// Its trace, long enough for a steady state, and what kind of order it has;
    /// of a checkpoint, with what is `assumed`.
    pub fn steady(&self, assumed: Assumed) -> Result<(Kind, Trace), String> {
        if let Source::Catalogue(model) = self {
            return Ok((Kind::of(model), scene::steady_trace(model)));
        }
        if let Source::File(path) = self
            && checkpoint::is_one(path)
        {
            return Ok((Kind::Periodic, checkpoint::trace(path, assumed)?));
        }
        let trace = self.trace(0)?;
        match Kind::shown_by(&trace) {
            Some(kind) => Ok((kind, trace)),
            None => Err(format!(
                "{}: it has no mark of an iteration; put a line `iteration 0` where each begins",
                trace.name
            )),
        }
    }
}

pub fn list_traces() -> Result<(), String> {
    let mut text = String::from("name                       weights  activations  what it is\n");
    for model in models::catalogue() {
        let trace = model.trace(1);
        let line = format!(
            "{:<22}  {:>10}  {:>11}  {}",
            model.name,
            format_bytes(trace.weight_bytes()),
            format_bytes(trace.activation_bytes),
            model.title,
        );
        text += &wrapped(&line, 49);
    }
    print(&text)
}

pub fn list_cards() -> Result<(), String> {
    let mut text = String::new();
    for card in CARDS {
        text += &format!(
            "{:<20} {:>11}  {:>6.1} TFLOP/s  {:>5.0} GB/s  usually on {}\n",
            card.name,
            format_bytes(card.vram_bytes),
            card.flops_per_s / 1e12,
            card.memory_bytes_per_s / 1e9,
            card.link
        );
    }
    for link in LINKS {
        text += &format!("{:<20} {:>8.1} GB/s\n", link.name, link.bytes_per_s / 1e9);
    }
    print(&text)
}

pub fn write_trace(source: &Source, output: &Path, iterations: u32) -> Result<(), String> {
    let text = format::write(&source.trace(iterations)?);
    if output == Path::new("-") {
        return print(&text);
    }
    std::fs::write(output, text)
        .map_err(|error| format!("{}: cannot be written: {error}", output.display()))
}

/// Of a line of text.
pub const WIDTH: usize = 80;

/// `line` in lines of [`WIDTH`], broken at spaces; all but the first begin with
/// `indent` spaces. With the end of the last.
pub fn wrapped(line: &str, indent: usize) -> String {
    let (mut done, mut rest) = (String::new(), line.to_owned());
    while let Some((end, _)) = rest.char_indices().nth(WIDTH) {
        // The last space that is not too far; else the first that is.
        let breaks = |&(at, letter): &(usize, char)| letter == ' ' && at > indent;
        let near = rest.char_indices().take(WIDTH + 1).filter(breaks).last();
        let far = || rest[end..].find(' ').map(|at| (end + at, ' '));
        let Some((at, _)) = near.or_else(far) else { break };
        done += rest[..at].trim_end();
        done.push('\n');
        rest = format!("{:indent$}{}", "", rest[at..].trim_start());
    }
    done + &rest + "\n"
}

/// To standard error. If nobody can hear it, that is no failure.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "autooffload: {line}");
}

/// To standard output: what was asked for.
pub fn print(text: &str) -> Result<(), String> {
    let mut to = std::io::stdout().lock();
    to.write_all(text.as_bytes()).and_then(|()| to.flush()).map_err(not_written)
}

pub fn not_written(error: std::io::Error) -> String {
    format!(
        "standard output cannot be written: {error}; give it a file or a terminal that takes all \
         of it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_and_no_word_is_lost() {
        assert_eq!(wrapped("short", 4), "short\n");
        let words = (0..40).map(|number| format!("wörd{number}ö")).collect::<Vec<_>>().join(" ");
        let text = wrapped(&words, 12);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("            w")), "{text}");
        let back: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(back.join(" "), words);
        // Nowhere to break.
        let long = "x".repeat(200);
        assert_eq!(wrapped(&long, 12), format!("{long}\n"));
        let broken = wrapped(&format!("a {long} b {long}"), 12);
        assert_eq!(broken, format!("a {long}\n{:12}b\n{:12}{long}\n", "", ""));
    }
}
