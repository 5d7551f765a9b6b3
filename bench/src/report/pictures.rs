//! The charts of stored runs as files of their own, SVG that needs nothing else: for docs, whose pages cannot hold a report.

use std::fs;
use std::path::{Path, PathBuf};

use maud::{PreEscaped, html};

use super::{Stored, charts, comparison, write_whole};
use crate::disk;
use crate::error::Error;
use crate::results::Outcome;

/// The caption and the legend above a chart.
const HEAD_PX: u32 = 46;
/// Around it.
const MARGIN_PX: u32 = 12;

/// Writes a file for each chart over whole runs into `directory`, which is made; returns their paths.
///
/// # Errors
/// There is no such chart, or a file cannot be written.
pub(super) fn write(runs: &[Stored], directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut written = Vec::new();
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let mut keep = |name: String, svg: &str| {
        let path = directory.join(name);
        write_whole(&path, svg)?;
        written.push(path);
        Ok::<(), Error>(())
    };
    for stored in runs {
        let stem = stored.name.trim_end_matches(".json");
        match &stored.run.outcome {
            Outcome::Disk(grid) => {
                let svg = disk::chart(grid, &stored.run.machine).map_err(Error::Failed)?;
                if !svg.is_empty() {
                    keep(format!("{stem}.svg"), &svg)?;
                }
            }
            Outcome::Compare(compare) => {
                let names: Vec<&str> = compare.brokers.iter().map(|broker| broker.name.as_str()).collect();
                for (name, caption, rows) in comparison::overviews(compare) {
                    let chart = charts::bars(&rows);
                    let chart = chart.map_err(|error| Error::Failed(format!("a chart cannot be drawn: {error}")))?;
                    let Some(size) = charts::size_of(&chart) else { continue };
                    keep(format!("{stem}-{name}.svg"), &alone(caption, &names, &chart, size))?;
                }
            }
            Outcome::Engine(_) | Outcome::Load(_) | Outcome::Groups(_) | Outcome::Machine => {}
        }
    }
    if written.is_empty() {
        return Err(Error::Usage("no run of these has a chart: runs of disk and compare do".to_owned()));
    }
    Ok(written)
}

/// A chart on white ground under its caption and the names of its colours.
fn alone(caption: &str, names: &[&str], chart: &str, (width, height): (u32, u32)) -> String {
    let (all_width, all_height) = (width + 2 * MARGIN_PX, height + HEAD_PX + 2 * MARGIN_PX);
    // Names stand side by side; a letter takes about so much.
    let mut at = MARGIN_PX;
    let keys: Vec<(u32, &str, String)> = names
        .iter()
        .enumerate()
        .map(|(series, name)| {
            let x = at;
            at += 34 + 9 * name.chars().count() as u32;
            (x, *name, charts::colour_text(series))
        })
        .collect();
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(all_width) height=(all_height) viewBox={ "0 0 " (all_width) " " (all_height) }
            font-family="system-ui, 'DejaVu Sans', sans-serif" {
            rect width="100%" height="100%" fill="#ffffff" {}
            text x=(MARGIN_PX) y="24" font-size="16" font-weight="bold" { (caption) }
            @for (x, name, colour) in &keys {
                rect x=(x) y="36" width="14" height="14" fill=(colour) {}
                text x=(x + 20) y="48" font-size="15" { (name) }
            }
            g transform={ "translate(" (MARGIN_PX) " " (HEAD_PX + MARGIN_PX) ")" } { (PreEscaped(chart)) }
        }
    };
    svg.into_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_have_their_colours() {
        let svg = alone("a & b", &["<one>", "two"], "<svg></svg>", (100, 50));
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;one&gt;") && !svg.contains("<one>"), "{svg}");
        assert!(svg.contains(&charts::colour_text(0)) && svg.contains(&charts::colour_text(1)), "{svg}");
        assert!(svg.contains("width=\"124\" height=\"120\""), "{svg}");
    }
}
