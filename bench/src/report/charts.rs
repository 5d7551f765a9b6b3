//! Charts as SVG text, to stand inside a page whose style colours text, axes and grid. Pure: figures in, text out.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::compare::metrics::show;

/// Why a chart cannot be drawn. Drawing into a string cannot fail but for our own bugs.
type Failed = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours of series, told apart by most eyes, on light and dark ground; `style.css` has them too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x2f, 0x7d, 0xe1),
    RGBColor(0xe0, 0x7b, 0x1a),
    RGBColor(0x2b, 0xa3, 0x6a),
    RGBColor(0xb0, 0x5f, 0xd0),
    RGBColor(0xd0, 0x4a, 0x4a),
    RGBColor(0x8f, 0x85, 0x2a),
];
/// Stands for the page's own colour of text: the style replaces it.
const INK: RGBColor = BLACK;
/// Stands for the page's own colour of a grid.
const GRID: RGBColor = RGBColor(0x88, 0x88, 0x88);

const WIDTH: u32 = 860;

/// The colour of a series.
fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

/// The colour of a series, as SVG names it.
#[must_use]
pub fn colour_text(series: usize) -> String {
    let RGBColor(red, green, blue) = colour(series);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Width and height that a chart of ours says in its first tag.
#[must_use]
pub fn size_of(svg: &str) -> Option<(u32, u32)> {
    let attribute = |name: &str| svg.split_once(name)?.1.split('"').next()?.parse().ok();
    Some((attribute(" width=\"")?, attribute(" height=\"")?))
}

/// The bars of one row, one for each series that has it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What is measured.
    pub label: String,
    /// Series, figure, and the least and most of its runs.
    pub bars: Vec<Bar>,
}

/// A bar with its spread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bar {
    /// Which series: its colour.
    pub series: usize,
    /// Its length.
    pub value: f64,
    /// Least of its runs.
    pub min: f64,
    /// Most of its runs.
    pub max: f64,
}

/// Figures beside each other with whiskers from the least to the most run: bars from zero, or, where they lie so far apart that the
/// small ones would vanish, dots on an axis by powers of ten.
///
/// # Errors
/// Our own bugs.
pub fn bars(rows: &[Row]) -> Result<String, Failed> {
    const BAR: i32 = 16;
    const GAP: i32 = 12;
    const LABELS: i32 = 330;
    const VALUES: i32 = 90;
    const AXIS: i32 = 26;
    let rows: Vec<Row> = rows.iter().map(|row| Row { label: row.label.clone(), bars: sane_bars(&row.bars) }).collect();
    let ends = || rows.iter().flat_map(|row| &row.bars).flat_map(|bar| [bar.value, bar.min, bar.max]);
    let most = ends().fold(0.0, f64::max);
    let decades = decades(ends()).filter(|range| range.end / range.start >= APART);
    let height = rows.iter().map(|row| row.bars.len() as i32 * BAR + GAP).sum::<i32>() + GAP;
    let whole = height + if decades.is_some() { AXIS } else { 0 };
    let across = f64::from(WIDTH as i32 - LABELS - VALUES);
    let x = |value: f64| {
        let share = match &decades {
            // Zero has no place among powers of ten: it stands at the left end.
            Some(range) if value > 0.0 => (value / range.start).log10() / (range.end / range.start).log10(),
            None if most > 0.0 => value / most,
            _ => 0.0,
        };
        LABELS + (share.clamp(0.0, 1.0) * across) as i32
    };
    drawn((WIDTH, whole.max(1) as u32), |area| {
        let label = ("sans-serif", 15).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
        let figure = ("sans-serif", 15).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        let mark = ("sans-serif", 14).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
        if let Some(range) = &decades {
            let mut at = range.start;
            while at <= range.end * 1.001 {
                area.draw(&PathElement::new([(x(at), 0), (x(at), height)], GRID.mix(0.35)))?;
                area.draw(&Text::new(tick(at), (x(at), height + AXIS / 2), &mark))?;
                at *= 10.0;
            }
        }
        area.draw(&PathElement::new([(LABELS, 0), (LABELS, height)], INK))?;
        let mut y = GAP;
        for row in &rows {
            let bottom = y + row.bars.len() as i32 * BAR;
            area.draw(&Text::new(shortened(&row.label, 46), (LABELS - 8, i32::midpoint(y, bottom)), &label))?;
            for bar in &row.bars {
                let middle = y + BAR / 2;
                let colour = colour(bar.series);
                if decades.is_none() {
                    area.draw(&Rectangle::new([(LABELS, y + 2), (x(bar.value), y + BAR - 1)], colour.filled()))?;
                }
                if bar.min < bar.max {
                    area.draw(&PathElement::new([(x(bar.min), middle), (x(bar.max), middle)], INK))?;
                    for end in [bar.min, bar.max] {
                        area.draw(&PathElement::new([(x(end), middle - 3), (x(end), middle + 3)], INK))?;
                    }
                }
                if decades.is_some() {
                    area.draw(&Circle::new((x(bar.value), middle), 5, colour.filled()))?;
                }
                area.draw(&Text::new(show(bar.value), (x(bar.value.max(bar.max)) + 10, middle), &figure))?;
                y += BAR;
            }
            y = bottom + GAP;
        }
        Ok(())
    })
}

/// From where on bars are too far apart for an axis from zero, as a ratio of whole powers of ten.
const APART: f64 = 1000.0;

fn sane_bars(bars: &[Bar]) -> Vec<Bar> {
    bars.iter().copied().filter(|bar| [bar.value, bar.min, bar.max].into_iter().all(is_sane)).collect()
}

/// A line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Which series: its colour.
    pub series: usize,
    /// In the axes' own units.
    pub points: Vec<(f64, f64)>,
}

/// Whether a figure has a place on an axis. A file may say anything, and axes of 10^300 have more marks than a page.
fn is_sane(value: f64) -> bool {
    const SIZE_MAX: f64 = 1e12;
    const SIZE_MIN: f64 = 1e-6;
    value == 0.0 || (SIZE_MIN..SIZE_MAX).contains(&value)
}

/// The lines without what has no place on an axis.
fn sane(lines: &[Line]) -> Vec<Line> {
    let of = |line: &Line| Line {
        series: line.series,
        points: line.points.iter().copied().filter(|(x, y)| is_sane(*x) && is_sane(*y)).collect(),
    };
    lines.iter().map(of).collect()
}

/// The heights of all points.
fn heights(lines: &[Line]) -> impl Iterator<Item = f64> + Clone {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1)
}

/// Latency over percentiles: across, every step towards 100 % leaves out a tenth of what the step before left out; upwards,
/// milliseconds by powers of ten. Lines hold (percentile, microseconds).
///
/// # Errors
/// Our own bugs.
pub fn percentiles(lines: &[Line]) -> Result<String, Failed> {
    let nines = |percentile: f64| -(1.0 - percentile / 100.0).log10();
    let lines: Vec<Line> = sane(lines)
        .iter()
        .map(|line| Line {
            series: line.series,
            points: line
                .points
                .iter()
                .filter(|(percentile, us)| (0.0..100.0).contains(percentile) && *us > 0.0)
                .map(|(percentile, us)| (nines(*percentile), us / 1e3))
                .collect(),
        })
        .collect();
    let right = lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max);
    let Some(range) = decades(heights(&lines)) else { return nothing() };
    drawn((WIDTH, 320), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(36)
            .x_label_area_size(42)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..right, range.log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("ms")
            .axis_style(INK)
            .bold_line_style(GRID.mix(0.35))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 15))
            .x_labels(right.ceil() as usize + 1)
            .x_label_formatter(&|x| percentile_name(*x))
            .y_label_formatter(&|ms| tick(*ms))
            .draw()?;
        for line in &lines {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), colour(line.series).mix(0.75).stroke_width(2)))?;
        }
        Ok(())
    })
}

/// `90`, `99`, `99.9` for 1, 2, 3: only whole steps have a name.
fn percentile_name(nines: f64) -> String {
    let whole = nines.round();
    if (nines - whole).abs() > 0.01 {
        return String::new();
    }
    match whole as i32 {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat((more - 2).clamp(1, 12) as usize)),
    }
}

/// How the values of a time series are laid out upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten.
    Log,
}

/// Values over the seconds of a run.
///
/// # Errors
/// Our own bugs.
pub fn seconds(lines: &[Line], unit: &str, scale: Scale) -> Result<String, Failed> {
    let lines = sane(lines);
    let right = lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max);
    let most = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
    let range = decades(heights(&lines));
    drawn((WIDTH, 210), |area| {
        let mut builder = ChartBuilder::on(area);
        builder.margin(8).margin_right(36).x_label_area_size(40).y_label_area_size(72);
        // The two scales are different types all the way down.
        macro_rules! draw {
            ($range:expr) => {{
                let mut chart = builder.build_cartesian_2d(0.0..right, $range)?;
                chart
                    .configure_mesh()
                    .x_desc("second")
                    .y_desc(unit)
                    .axis_style(INK)
                    .bold_line_style(GRID.mix(0.35))
                    .light_line_style(TRANSPARENT)
                    .label_style(("sans-serif", 15))
                    .y_labels(5)
                    .x_labels(if right < 12.0 { right as usize + 1 } else { 12 })
                    .x_label_formatter(&|second| whole(*second))
                    .y_label_formatter(&|value| tick(*value))
                    .draw()?;
                for line in &lines {
                    let style = colour(line.series).mix(0.75).stroke_width(2);
                    let points: Vec<_> =
                        line.points.iter().copied().filter(|point| scale == Scale::Linear || point.1 > 0.0).collect();
                    // A run of a second has no line; and a few points are easier to see as what they are.
                    if points.len() <= 20 {
                        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, style.filled())))?;
                    }
                    chart.draw_series(LineSeries::new(points, style))?;
                }
            }};
        }
        match (scale, range) {
            (Scale::Log, Some(range)) => draw!(range.log_scale()),
            (Scale::Log, None) => {}
            (Scale::Linear, _) => draw!(0.0..if most > 0.0 { most * 1.05 } else { 1.0 }),
        }
        Ok(())
    })
}

/// Whole powers of ten around all values above zero.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Option<std::ops::Range<f64>> {
    let values = values.filter(|value| *value > 0.0);
    let (least, most) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
    if !least.is_finite() || !most.is_finite() || most <= 0.0 {
        return None;
    }
    let (low, high) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    Some(low..if high > low { high } else { low * 10.0 })
}

/// A number at an axis, without zeros that say nothing.
fn tick(value: f64) -> String {
    let shown = show(value);
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

/// A whole number at an axis; nothing for what lies between.
fn whole(value: f64) -> String {
    if (value - value.round()).abs() < 0.01 { format!("{:.0}", value.round().abs()) } else { String::new() }
}

fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max - 1).collect();
    short.push('…');
    short
}

fn nothing() -> Result<String, Failed> {
    Ok(String::new())
}

fn drawn(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<(), Failed>) -> Result<String, Failed> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_says_how_large_it_is() {
        let row = Row { label: "x".to_owned(), bars: vec![Bar { value: 1.0, max: 1.0, ..Bar::default() }] };
        let (width, height) = size_of(&bars(&[row]).unwrap()).unwrap();
        assert!(width == WIDTH && height > 20, "{height}");
        assert_eq!(size_of("<svg>"), None);
        assert_eq!(colour_text(0), "#2f7de1");
    }

    #[test]
    fn text_from_outside_stays_text() {
        let row = Row { label: "<script>&".to_owned(), bars: vec![Bar { value: 1.0, max: 1.0, ..Bar::default() }] };
        let svg = bars(&[row]).unwrap();
        assert!(svg.contains("&lt;script&gt;&amp;") && !svg.contains("<script"), "{svg}");
    }

    #[test]
    fn figures_that_make_no_chart_make_no_panic() {
        let none: Vec<Line> = Vec::new();
        let odd = [Line {
            series: 9,
            points: vec![(f64::NAN, 1.0), (50.0, f64::INFINITY), (100.0, 5.0), (-3.0, 0.0), (1e300, 1e300), (1.0, 1e-300)],
        }];
        let flat = [Line { series: 0, points: vec![(0.0, 1000.0), (50.0, 1000.0)] }];
        for lines in [&none[..], &odd, &flat] {
            percentiles(lines).unwrap();
            seconds(lines, "MB/s", Scale::Linear).unwrap();
            seconds(lines, "ms", Scale::Log).unwrap();
        }
        bars(&[]).unwrap();
        bars(&[Row { label: "ä".repeat(100), bars: vec![Bar { value: f64::NAN, ..Bar::default() }] }]).unwrap();
    }

    #[test]
    fn percentiles_are_on_a_scale_of_nines() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0, 1.5].map(percentile_name), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", ""]);
        let line =
            Line { series: 0, points: vec![(0.0, 100.0), (90.0, 1000.0), (99.0, 10_000.0), (99.9, 90_000.0), (100.0, 99_000.0)] };
        let svg = percentiles(&[line]).unwrap();
        for name in ["90 %", "99 %", "99.9 %"] {
            assert!(svg.contains(name), "{svg}");
        }
        // Four points are left: 100 % lies infinitely far to the right.
        let line = svg.lines().find(|line| line.starts_with("<polyline") && line.contains("#2F7DE1")).unwrap();
        let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points.split_whitespace().count(), 4);
    }

    #[test]
    fn figures_far_apart_are_dots_by_powers_of_ten() {
        let bar = |value| Bar { series: 0, value, min: value, max: value };
        let near = bars(&[Row { label: "x".to_owned(), bars: vec![bar(1.0), bar(30.0)] }]).unwrap();
        assert!(near.contains("<rect") && !near.contains("<circle"));
        let far = bars(&[Row { label: "x".to_owned(), bars: vec![bar(0.5), bar(2000.0), bar(0.0)] }]).unwrap();
        assert!(!far.contains("<rect") && far.matches("<circle").count() == 3);
        for mark in ["0.1", "1", "10", "100", "1,000", "10,000"] {
            assert!(far.lines().any(|line| line == mark), "{mark}: {far}");
        }
    }

    #[test]
    fn ranges_are_whole_decades() {
        let of = |values: &[f64]| decades(values.iter().copied());
        assert_eq!(of(&[0.5, 20.0]), Some(0.1..100.0));
        assert_eq!(of(&[1.0]), Some(1.0..10.0));
        assert_eq!(of(&[0.0]), None);
    }
}
