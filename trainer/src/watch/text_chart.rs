//! A curve as text, for a terminal: dots of Braille letters.

use super::axis::Frame;
use super::chart::smoothed;
use super::metric::Metric;

const COLUMNS: usize = 64;
const ROWS: usize = 14;
/// Dots of a Braille letter, by row and column (Unicode 2800).
const DOTS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// The smoothed values over the steps, with the ends of both axes.
pub fn text_chart(counter: &str, steps: &[f64], values: &[f64], metric: &Metric) -> String {
    let frame = Frame::fit([(steps, values)].into_iter(), metric);
    draw(counter, steps, &smoothed(values, frame.log), metric, &frame)
}

/// Every value as it is, none cut off.
pub fn exact_text_chart(counter: &str, steps: &[f64], values: &[f64], title: &str) -> String {
    let metric = Metric { title: title.into(), ..Metric::of("value") };
    draw(counter, steps, values, &metric, &Frame::whole([(steps, values)].into_iter()))
}

fn draw(counter: &str, steps: &[f64], values: &[f64], metric: &Metric, frame: &Frame) -> String {
    let mut letters = [[0u32; COLUMNS]; ROWS];
    let there: Vec<[f64; 2]> = steps.iter().zip(values).filter(|(_, y)| y.is_finite()).map(|(&x, &y)| [x, y]).collect();
    let mut dot = |x: f64, y: f64| {
        let column = ((x * (2 * COLUMNS) as f64) as usize).min(2 * COLUMNS - 1);
        let row = (((1.0 - y) * (4 * ROWS) as f64) as usize).min(4 * ROWS - 1);
        letters[row / 4][column / 2] |= DOTS[row % 4][column % 2];
    };
    for (i, &[x, y]) in there.iter().enumerate() {
        let (x, y) = (frame.along(x), frame.height(y));
        dot(x, y);
        // Dots in between join this point to the next.
        if let Some(&[x1, y1]) = there.get(i + 1) {
            let (dx, dy) = (frame.along(x1) - x, frame.height(y1) - y);
            let parts = (dx.abs() * (2 * COLUMNS) as f64).max(dy.abs() * (4 * ROWS) as f64).ceil().max(1.0);
            (1..parts as usize).map(|k| k as f64 / parts).for_each(|t| dot(x + t * dx, y + t * dy));
        }
    }
    let value_at = |height: f64| {
        let v = frame.y[0] + height * (frame.y[1] - frame.y[0]);
        metric.text(if frame.log { 10f64.powf(v) } else { v })
    };
    let labels = [value_at(1.0), value_at(0.0)];
    let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}\n", metric.title);
    for (row, line) in letters.iter().enumerate() {
        let label = match row {
            0 => &labels[0],
            r if r == ROWS - 1 => &labels[1],
            _ => "",
        };
        let line: String = line.iter().filter_map(|dots| char::from_u32(0x2800 + dots)).collect();
        text += &format!("{label:>width$} │{line}\n");
    }
    let (first, last) = (format!("{}", frame.x[0]), format!("{counter} {}", frame.x[1]));
    text += &format!("{:width$} └{}\n", "", "─".repeat(COLUMNS));
    text + &format!("{:width$}  {first}{last:>rest$}", "", rest = COLUMNS - first.chars().count().min(COLUMNS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rising_line_goes_from_the_lower_left_to_the_upper_right() {
        let steps: Vec<f64> = (0..10).map(f64::from).collect();
        let text = text_chart("epoch", &steps, &steps, &Metric::of("x"));
        let rows: Vec<Vec<char>> =
            text.lines().skip(1).take(ROWS).map(|l| l.split_once('│').unwrap().1.chars().collect()).collect();
        let blank = '\u{2800}';
        assert!(rows[ROWS - 1][0] != blank && rows[0][0] == blank);
        assert!(rows[0][COLUMNS - 1] != blank && rows[ROWS - 1][COLUMNS - 1] == blank);
        assert!(text.ends_with("epoch 9"), "{text}");
    }

    #[test]
    fn no_value_is_an_empty_chart() {
        assert_eq!(text_chart("epoch", &[], &[], &Metric::of("x")).lines().count(), ROWS + 3);
    }
}
