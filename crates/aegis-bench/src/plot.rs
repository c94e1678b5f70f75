//! Pictures of the figures: one row for each model, one mark for each way of running it.

use plotters::coord::Shift;
use plotters::prelude::*;

/// Height of a row and of what is above and below the rows, in pixels.
const ROW: i32 = 22;
const HEAD: i32 = 56;
const FOOT: i32 = 40;
/// Where the names end and the scale begins, and where the scale ends.
const LEFT: i32 = 230;
const RIGHT: i32 = 860;
const WIDTH: u32 = 900;

/// Told apart in print and by those who do not see red and green apart.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(204, 121, 167), RGBColor(0, 158, 115)];

/// One way of running the models.
pub(crate) struct Series {
    /// Its name.
    pub name: String,
    /// A value in millionths for each row; `None` where there is none.
    pub values: Vec<Option<u64>>,
}

/// Draws `series` over `rows` on a logarithmic scale of shares, with a line at the whole.
///
/// # Errors
/// The drawing failed, in the words of the library.
pub(crate) fn shares(title: &str, rows: &[String], series: &[Series]) -> anyhow::Result<String> {
    let height = HEAD + FOOT + ROW * i32::try_from(rows.len())?;
    let mut text = String::new();
    {
        let size = (WIDTH, u32::try_from(height)?);
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&root, title, rows, series).map_err(|error| anyhow::anyhow!("{error}"))?;
        root.present().map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, title: &str, rows: &[String], series: &[Series]) -> Drawn {
    let font = ("sans-serif", 13).into_font();
    let scale = Scale::of(series);
    let bottom = HEAD + ROW * i32::try_from(rows.len())?;
    root.fill(&WHITE)?;
    root.draw(&Text::new(title.to_owned(), (10, 8), ("sans-serif", 16).into_font()))?;
    let mut left = 10;
    for (series, colour) in series.iter().zip(COLOURS) {
        root.draw(&Circle::new((left + 5, 40), 4, colour.filled()))?;
        root.draw(&Text::new(series.name.clone(), (left + 14, 33), font.clone()))?;
        left += 40 + 8 * i32::try_from(series.name.len())?;
    }
    for decade in scale.low..=scale.high {
        let x = scale.place(10_f64.powi(decade));
        let style =
            if decade == 6 { BLACK.stroke_width(2) } else { BLACK.mix(0.2).stroke_width(1) };
        root.draw(&PathElement::new(vec![(x, HEAD - 4), (x, bottom)], style))?;
        let percent = format!("{} %", 10_f64.powi(decade - 4));
        root.draw(&Text::new(percent, (x - 14, bottom + 8), font.clone()))?;
    }
    for (row, name) in rows.iter().enumerate() {
        let y = HEAD + ROW * i32::try_from(row)? + ROW / 2;
        root.draw(&Text::new(name.clone(), (10, y - 7), font.clone()))?;
        for (series, colour) in series.iter().zip(COLOURS) {
            if let Some(value) = series.values.get(row).copied().flatten() {
                root.draw(&Circle::new((scale.place(value as f64), y), 4, colour.filled()))?;
            }
        }
    }
    Ok(())
}

/// Powers of ten, of millionths, between which all values lie.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(series: &[Series]) -> Self {
        let values = || series.iter().flat_map(|series| series.values.iter().flatten());
        let power = |value: u64| i32::try_from(value.max(1).ilog10()).unwrap_or(0);
        let low = values().map(|value| power(*value)).min().unwrap_or(4).min(5);
        let high = values().map(|value| power(*value) + 1).max().unwrap_or(6).max(6);
        Self { low, high }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a place in a picture")]
    fn place(&self, value: f64) -> i32 {
        let share =
            (value.max(1.0).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT + (f64::from(RIGHT - LEFT) * share.clamp(0.0, 1.0)).round() as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_drawn_within_the_scale() {
        let series = [
            Series { name: "aegis".into(), values: vec![Some(200_000), Some(900_000)] },
            Series { name: "threads".into(), values: vec![Some(35_000_000), None] },
        ];
        let picture = shares("t", &["a".into(), "b".into()], &series).expect("it is drawn");
        // Two in the legend, three values.
        assert_eq!(picture.matches("<circle").count(), 5);
        let scale = Scale::of(&series);
        assert_eq!((scale.low, scale.high), (5, 8));
        assert_eq!((scale.place(1e5), scale.place(1e8)), (LEFT, RIGHT));
    }
}
