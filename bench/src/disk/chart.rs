//! The grid as a chart: published and measured bars side by side on a logarithmic scale, as SVG that needs nothing else. For
//! [`super`].

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::claims::{self, representative};
use super::table::{medium_name, pattern_name, show_rate};
use crate::machine::Machine;
use crate::results::{Direction, Grid, GridCell, Medium, Pattern, Verdict, Way};

const WIDTH: i32 = 1100;
/// Where bars begin and end.
const LEFT: i32 = 360;
const RIGHT: i32 = 1000;
const TOP: i32 = 118;
const BAR: i32 = 17;
const GAP: i32 = 5;
const GROUP_GAP: i32 = 24;

const INK: RGBColor = RGBColor(32, 36, 44);
const FAINT: RGBColor = RGBColor(110, 118, 129);
const LINE: RGBColor = RGBColor(226, 230, 235);
const PUBLISHED: RGBColor = RGBColor(160, 168, 178);
const READ: RGBColor = RGBColor(31, 111, 178);
const READ_OTHER: RGBColor = RGBColor(142, 188, 226);
const WRITE: RGBColor = RGBColor(208, 98, 24);
const WRITE_OTHER: RGBColor = RGBColor(243, 182, 137);

struct Bar {
    label: String,
    values_per_s: f64,
    color: RGBColor,
}

struct Group {
    title: String,
    bars: Vec<Bar>,
}

/// The chart's text.
///
/// # Errors
/// The drawing library refuses.
pub(super) fn svg(grid: &Grid, machine: &Machine) -> Result<String, String> {
    let groups = groups(grid);
    let bars: i32 = groups.iter().map(|group| group.bars.len() as i32).sum();
    let bottom = TOP + bars * (BAR + GAP) + groups.len() as i32 * GROUP_GAP;
    let claims = grid.claims.iter().filter(|claim| claim.direction == Direction::Read).count() as i32;
    let height = bottom + 56 + claims * 22 + 40;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH as u32, height as u32)).into_drawing_area();
        let error = |error: DrawingAreaErrorKind<_>| error.to_string();
        area.fill(&WHITE).map_err(error)?;
        let scale = Scale::over(groups.iter().flat_map(|group| &group.bars).map(|bar| bar.values_per_s));
        let write = |text: &str, x: i32, y: i32, size: i32, color: RGBColor, side: HPos| {
            let style = ("sans-serif", size).into_font().color(&color).pos(Pos::new(side, VPos::Center));
            area.draw(&Text::new(text.to_owned(), (x, y), style)).map_err(error)
        };
        let bold = |text: &str, x: i32, y: i32, size: i32| {
            let style = ("sans-serif", size, FontStyle::Bold).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(text.to_owned(), (x, y), style)).map_err(error)
        };
        bold("Random and sequential access to disk and memory", 24, 30, 22)?;
        write("values of 4 bytes per second, logarithmic scale; more is better", 24, 56, 15, FAINT, HPos::Left)?;
        write(&subtitle(machine), 24, 78, 13, FAINT, HPos::Left)?;
        let mut x = 640;
        for (color, faint, meaning) in
            [(PUBLISHED, PUBLISHED, "published"), (READ, READ_OTHER, "reads here"), (WRITE, WRITE_OTHER, "writes here")]
        {
            area.draw(&Rectangle::new([(x, 24), (x + 9, 36)], color.filled())).map_err(error)?;
            area.draw(&Rectangle::new([(x + 9, 24), (x + 18, 36)], faint.filled())).map_err(error)?;
            write(meaning, x + 26, 30, 14, INK, HPos::Left)?;
            x += 26 + 10 * meaning.len() as i32 + 14;
        }
        write("full colour: what the verdicts stand on", 640, 56, 14, FAINT, HPos::Left)?;

        for exponent in scale.least..=scale.most {
            let x = scale.x(10_f64.powi(exponent));
            area.draw(&PathElement::new(vec![(x, TOP - 4), (x, bottom - 6)], LINE)).map_err(error)?;
            write(&tick(exponent), x, TOP - 15, 14, FAINT, HPos::Center)?;
        }
        let mut y = TOP;
        for group in &groups {
            y += GROUP_GAP / 2;
            bold(&group.title, 24, y + BAR / 2, 17)?;
            for bar in &group.bars {
                let end = scale.x(bar.values_per_s).max(LEFT + 1);
                area.draw(&Rectangle::new([(LEFT, y), (end, y + BAR)], bar.color.filled())).map_err(error)?;
                write(&bar.label, LEFT - 10, y + BAR / 2, 14, INK, HPos::Right)?;
                write(&show_rate(bar.values_per_s), end + 7, y + BAR / 2, 14, INK, HPos::Left)?;
                y += BAR + GAP;
            }
            y += GROUP_GAP / 2;
        }
        let mut y = bottom + 22;
        bold("What became of the claims (by reads)", 24, y, 17)?;
        y += 26;
        for claim in grid.claims.iter().filter(|claim| claim.direction == Direction::Read) {
            let color = match claim.verdict {
                Verdict::Holds => RGBColor(26, 127, 55),
                Verdict::HoldsInPart | Verdict::Draw => RGBColor(154, 103, 0),
                Verdict::NoLonger => RGBColor(191, 40, 40),
            };
            area.draw(&Circle::new((30, y - 1), 5, color.filled())).map_err(error)?;
            write(&capital(&claim.claim), 44, y, 15, INK, HPos::Left)?;
            write(&claim.words, 480, y, 15, color, HPos::Left)?;
            y += 22;
        }
        let source = "published: A. Jacobs, The Pathologies of Big Data, ACM Queue 7(6), 2009: eight 15,000 rpm disks in RAID 5, one SATA SSD";
        write(source, 24, y + 14, 13, FAINT, HPos::Left)?;
        area.present().map_err(error)?;
    }
    Ok(text)
}

/// Powers of ten from one edge to the other.
struct Scale {
    least: i32,
    most: i32,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10);
        let (least, most) = logs.fold((2.0_f64, 9.0_f64), |(least, most), log| (least.min(log), most.max(log)));
        Self { least: least.floor() as i32, most: most.ceil() as i32 }
    }

    fn x(&self, value: f64) -> i32 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - f64::from(self.least)) / f64::from(self.most - self.least);
        LEFT + (share.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)).round() as i32
    }
}

fn tick(exponent: i32) -> String {
    let units = ["", " k", " M", " G", " T"];
    match usize::try_from(exponent).ok().and_then(|exponent| Some((exponent, units.get(exponent / 3)?))) {
        Some((exponent, unit)) => format!("{}{unit}", 10_u32.pow(exponent as u32 % 3)),
        None => format!("1e{exponent}"),
    }
}

fn subtitle(machine: &Machine) -> String {
    let fact = |name: &str| machine.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let first = |text: &str| text.split(", ").take(2).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    parts.extend(fact("cpu").map(first));
    parts.extend(fact("memory").map(|text| text.split(',').next().unwrap_or(text).to_owned() + " memory"));
    parts.extend(fact("kernel").map(str::to_owned));
    parts.extend(fact("filesystem").and_then(|text| Some(text.split(' ').next()?.to_owned())));
    parts.extend(fact("device").map(first));
    parts.join("  ·  ")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn groups(grid: &Grid) -> Vec<Group> {
    let published = |label: &str, values_per_s| Bar { label: format!("{label}, published 2009"), values_per_s, color: PUBLISHED };
    let group = |medium, pattern, mut bars: Vec<Bar>| {
        for direction in [Direction::Read, Direction::Write] {
            bars.extend(measured(grid, medium, pattern, direction));
        }
        Group { title: capital(&format!("{} {}", pattern_name(pattern), medium_name(medium))), bars }
    };
    vec![
        group(Medium::Disk, Pattern::Random, vec![published("disk", claims::RANDOM_DISK), published("SSD", claims::RANDOM_SSD)]),
        group(
            Medium::Disk,
            Pattern::Sequential,
            vec![published("disk", claims::SEQUENTIAL_DISK), published("SSD", claims::SEQUENTIAL_SSD)],
        ),
        group(Medium::Memory, Pattern::Random, vec![published("memory", claims::RANDOM_MEMORY)]),
        group(Medium::Memory, Pattern::Sequential, vec![published("memory", claims::SEQUENTIAL_MEMORY)]),
    ]
}

/// The bars of this machine: what the verdicts stand on in full colour, the rest faint.
fn measured(grid: &Grid, medium: Medium, pattern: Pattern, direction: Direction) -> Vec<Bar> {
    let chosen = representative(&grid.cells, medium, pattern, direction);
    let of = grid.cells.iter().filter(|cell| (cell.medium, cell.pattern, cell.direction) == (medium, pattern, direction));
    let bar = |cell: &GridCell| {
        let is_chosen = chosen.is_some_and(|chosen| (chosen.way, chosen.depth) == (cell.way, cell.depth));
        let color = match (direction, is_chosen) {
            (Direction::Read, true) => READ,
            (Direction::Read, false) => READ_OTHER,
            (Direction::Write, true) => WRITE,
            (Direction::Write, false) => WRITE_OTHER,
        };
        Bar { label: label(cell), values_per_s: cell.values_per_s, color }
    };
    of.map(bar).collect()
}

fn label(cell: &GridCell) -> String {
    let action = match cell.direction {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    let way = match (cell.way, cell.pattern) {
        (Way::Direct, _) => ", direct",
        (Way::PageCache, _) => ", page cache",
        (Way::Independent, Pattern::Random) => ", independent",
        (Way::Independent, Pattern::Sequential) => "",
        (Way::Dependent, _) => ", each needs the last",
    };
    match cell.depth {
        Some(1) => format!("{action}{way}, one at a time"),
        Some(depth) => format!("{action}{way}, {depth} at a time"),
        None => format!("{action}{way}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::{Measured, all};
    use super::*;

    fn grid() -> Grid {
        let cells: Vec<GridCell> = all(32)
            .into_iter()
            .enumerate()
            .map(|(at, cell)| {
                let mut measured = Measured::new(cell);
                measured.ours = vec![10_f64.powi(3 + at as i32 % 6)];
                measured.result().unwrap()
            })
            .collect();
        Grid { claims: claims::all(&cells), cells, ..Grid::default() }
    }

    #[test]
    fn every_cell_and_every_published_figure_is_drawn() {
        let machine =
            Machine { facts: vec![("cpu".to_owned(), "A <quick> & \"odd\" one, 2 processors".to_owned())], warnings: Vec::new() };
        let text = svg(&grid(), &machine).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{}", &text[..100]);
        assert!(text.contains("&lt;quick&gt; &amp;"), "what is not ours is escaped");
        assert!(!text.contains("href") && !text.contains("<script") && !text.contains("@import"), "self-contained");
        // The background, the legend, and a bar each.
        assert_eq!(text.matches("<rect").count(), 1 + 6 + 21 + 6);
        for figure in ["316", "1,924", "53.2 M", "42.2 M", "36.7 M", "358.2 M"] {
            assert!(text.contains(&format!("\n{figure}\n")), "{figure}");
        }
        assert_eq!(text.matches("<circle").count(), 3);
    }

    #[test]
    fn the_scale_is_logarithmic() {
        let scale = Scale::over([316.0, 5e10].into_iter());
        assert_eq!((scale.least, scale.most), (2, 11));
        assert_eq!(scale.x(100.0), LEFT);
        assert_eq!(scale.x(1e11), RIGHT);
        assert_eq!(scale.x(1e6) - scale.x(1e5), scale.x(1e4) - scale.x(1e3));
        assert_eq!(scale.x(0.0), LEFT);
        let slow = Scale::over([7.0, f64::INFINITY].into_iter());
        assert_eq!((slow.least, slow.most), (0, 9));
        assert_eq!((tick(2), tick(3), tick(7), tick(-1)), ("100".into(), "1 k".into(), "10 M".into(), "1e-1".into()));
    }
}
