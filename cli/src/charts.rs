//! Charts as SVG: areas over time, told apart by pattern and by the names beside
//! them.

use std::fmt::Write;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 78.0;
const BOTTOM: f64 = 22.0;
const ROW: f64 = 18.0;

/// One area; a value for each stretch of time.
pub struct Series {
    pub name: String,
    pub values: Vec<f64>,
}

impl Series {
    pub fn new(name: &str, values: Vec<f64>) -> Self {
        Self { name: name.to_string(), values }
    }
}

/// The stretch of `count` until `end` in which `at` is.
pub fn bucket(at: f64, end: f64, count: usize) -> usize {
    ((at / end * count as f64).max(0.0) as usize).min(count - 1)
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What each area is filled with, in turn: dark, stripes, dots, stripes the other way, light.
const FILLS: [&str; 5] = [
    "<rect width=\"8\" height=\"8\" fill=\"#2b4c7e\"/>",
    "<rect width=\"8\" height=\"8\" fill=\"#f2c14e\"/><path d=\"M0 8L8 0M-2 2L2-2M6 10L10 6\" stroke=\"#333\" stroke-width=\"1.6\"/>",
    "<rect width=\"8\" height=\"8\" fill=\"#eef2f5\"/><circle cx=\"2\" cy=\"2\" r=\"1.2\" fill=\"#333\"/><circle cx=\"6\" cy=\"6\" r=\"1.2\" fill=\"#333\"/>",
    "<rect width=\"8\" height=\"8\" fill=\"#d96c4f\"/><path d=\"M0 0L8 8M-2 6L2 10M6-2L10 2\" stroke=\"#fff\" stroke-width=\"1.6\"/>",
    "<rect width=\"8\" height=\"8\" fill=\"#bfc8cf\"/><path d=\"M0 4H8\" stroke=\"#333\" stroke-width=\"1\"/>",
];

/// Areas on top of each other, the first at the bottom, until `end` µs.
pub fn stacked(title: &str, series: &[Series], end: f64, format: &dyn Fn(f64) -> String) -> String {
    let count = series.first().map_or(1, |one| one.values.len().max(1));
    let sums: Vec<f64> = (0..count).map(|i| series.iter().map(|one| one.values[i]).sum()).collect();
    let top = sums.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (right, low) = (WIDTH - 8.0, HEIGHT - BOTTOM);
    let x = |index: usize| LEFT + (right - LEFT) * index as f64 / count as f64;
    let y = |value: f64| low - (low - 10.0) * value / top;
    let all = HEIGHT + ROW * series.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {all}\" role=\"img\" aria-label=\"{0}\">\n<title>{0}</title>\n<defs>",
        escape(title)
    );
    // Names are of the page: those of two charts must differ.
    let key: String = title.chars().filter(char::is_ascii_alphanumeric).collect();
    for index in 0..series.len() {
        let _ = write!(
            svg,
            "<pattern id=\"{key}{index}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">{}</pattern>",
            FILLS[index % FILLS.len()]
        );
    }
    svg += "</defs>\n";
    let mut below = vec![0.0; count];
    for (index, one) in series.iter().enumerate() {
        let above: Vec<f64> =
            below.iter().zip(&one.values).map(|(low, value)| low + value).collect();
        let mut path = String::from("M");
        for (i, value) in above.iter().enumerate() {
            let _ = write!(path, "{:.1} {:.1}L{:.1} {:.1}L", x(i), y(*value), x(i + 1), y(*value));
        }
        for (i, value) in below.iter().enumerate().rev() {
            let _ = write!(path, "{:.1} {:.1}L{:.1} {:.1}L", x(i + 1), y(*value), x(i), y(*value));
        }
        path.pop();
        let _ = writeln!(
            svg,
            "<path d=\"{path}Z\" fill=\"url(#{key}{index})\" stroke=\"#333\" stroke-width=\"0.5\"><title>{}</title></path>",
            escape(&one.name)
        );
        below = above;
    }
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let at = y(top * share);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#888\" stroke-width=\"0.4\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            format(top * share)
        );
        let anchor = ["start", "middle", "middle", "middle", "end"][part as usize];
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{:.2} s</text>",
            LEFT + (right - LEFT) * share,
            HEIGHT - 6.0,
            end * share / 1e6
        );
    }
    for (index, one) in series.iter().enumerate() {
        let at = HEIGHT + ROW * index as f64;
        let most = one.values.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"22\" height=\"12\" fill=\"url(#{key}{index})\" stroke=\"#333\" stroke-width=\"0.5\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\">{}, {} at most</text>",
            at + 2.0,
            LEFT + 30.0,
            at + 12.0,
            escape(&one.name),
            format(most)
        );
    }
    svg + "</svg>\n"
}
