//! `report`: one self-contained HTML page, or Markdown or charts for docs, from the runs that are stored in a directory. Reads results and
//! judges none; whatever stands in them is text to the page, never markup.

pub mod charts;
mod comparison;
mod load;
mod markdown;
mod page;
mod pictures;
mod tables;
mod time;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Error;
use crate::results::Run;
use crate::store;

/// The arguments of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportCommand {
    /// Directory that holds stored runs (what --out was for them).
    pub directory: PathBuf,
    /// Where the report goes [default: report.html in the directory; Markdown: the terminal].
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Markdown tables instead of a page.
    #[arg(long)]
    pub markdown: bool,
    /// Only the charts of whole runs, each as an SVG file in this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["to", "markdown"])]
    pub charts: Option<PathBuf>,
}

/// A stored run as a report sees it.
struct Stored {
    /// The link to its file.
    href: String,
    /// What leads to the files beside the run's.
    links: Links,
    /// Its file's name.
    name: String,
    run: Run,
}

/// What leads from the page to files in the directory of results.
#[derive(Clone)]
struct Links {
    /// The beginning of a link; empty or ending with a slash.
    base: String,
    directory: PathBuf,
}

impl Links {
    /// A file's name, with a link where it is there: runs are handed on without all that lay beside them.
    fn to(&self, name: &str) -> maud::Markup {
        let is_inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        maud::html! {
            @if is_inside && self.directory.join(name).is_file() { a href={ (self.base) (encoded(name)) } { (name) } } @else { (name) }
        }
    }
}

/// Writes the report, whole or not at all.
///
/// # Errors
/// The directory holds no run, or something else; the report cannot be written.
pub fn run(command: &ReportCommand) -> Result<(), Error> {
    let runs = store::load_all(&command.directory)?;
    if runs.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds no run: --out of other commands says where they are kept",
            command.directory.display()
        )));
    }
    let default = command.directory.join("report.html");
    let to = command.to.as_deref().or((!command.markdown).then_some(default.as_path()));
    let base = base_of(&command.directory, to)?;
    let links = Links { base: base.clone(), directory: command.directory.clone() };
    let runs: Vec<Stored> = runs
        .into_iter()
        .map(|(path, run)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Stored { href: format!("{base}{}", encoded(&name)), links: links.clone(), name, run }
        })
        .collect();
    if let Some(directory) = &command.charts {
        for path in pictures::write(&runs, directory)? {
            eprintln!("chart in {}", path.display());
        }
        return Ok(());
    }
    let text = if command.markdown { markdown::render(&runs) } else { page::render(&runs)? };
    match to {
        Some(path) => {
            write_whole(path, &text)?;
            eprintln!("{} runs are in {}", runs.len(), path.display());
        }
        None => {
            let written = std::io::stdout().write_all(text.as_bytes());
            written.map_err(|error| Error::Failed(format!("the report cannot be printed: {error}")))?;
        }
    }
    Ok(())
}

/// What leads from the report's own place to the directory of results, as the beginning of a link.
fn base_of(directory: &Path, to: Option<&Path>) -> Result<String, Error> {
    let parent = to.map(|to| match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    });
    let directory = fs::canonicalize(directory).map_err(Error::io(directory))?;
    let Some(parent) = parent else { return Ok(String::new()) };
    let parent = fs::canonicalize(parent).map_err(Error::io(parent))?;
    let shared = directory.components().zip(parent.components()).take_while(|(ours, theirs)| ours == theirs).count();
    let mut base = "../".repeat(parent.components().count() - shared);
    for component in directory.components().skip(shared) {
        base.push_str(&encoded(&component.as_os_str().to_string_lossy()));
        base.push('/');
    }
    Ok(base)
}

/// A path for a link: what means something in an address is written as its number.
fn encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&partial);
        Error::Io { path: path.into(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_report_to_the_results() {
        let directory = tempfile::tempdir().unwrap();
        let results = directory.path().join("a b/results");
        let docs = directory.path().join("docs");
        fs::create_dir_all(&results).unwrap();
        fs::create_dir_all(&docs).unwrap();
        let base = |to: &Path| base_of(&results, Some(to)).unwrap();
        assert_eq!(base(&results.join("report.html")), "");
        assert_eq!(base(&docs.join("report.html")), "../a%20b/results/");
        assert_eq!(base(&directory.path().join("report.html")), "a%20b/results/");
        assert!(base_of(&results, Some(&directory.path().join("none/report.html"))).is_err());
    }

    #[test]
    fn addresses_hold_nothing_that_means_something() {
        assert_eq!(encoded("a\"b<c>#?%é"), "a%22b%3Cc%3E%23%3F%25%C3%A9");
        assert_eq!(encoded("1-load.json"), "1-load.json");
    }
}
