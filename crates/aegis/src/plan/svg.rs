//! The picture of a plan: time across, address up, a rectangle for each buffer.
//!
//! Coordinates are floats, since they only display.

use std::fmt::Write;

use aegis_memory::place::Buffer;
use aegis_trace::Bytes;

use crate::plan::report::PlanReport;
use crate::plan::table::LifetimeTable;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 720.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;
/// Ticks of an axis, about.
const TICKS: f64 = 8.0;
/// A rectangle must be as large as this to have its id written into it.
const LABEL_HEIGHT: f64 = 11.0;
const LABEL_WIDTH_PER_CHARACTER: f64 = 6.2;

/// Draws the plan of `table` as an SVG document. O(n).
///
/// # Panics
/// When `report` is that of another table.
#[must_use]
pub fn svg(table: &LifetimeTable, report: &PlanReport) -> String {
    assert_eq!(report.offsets().len(), table.len(), "one offset for each row");
    let frame = Frame::around(table, report);
    let mut out = String::new();
    head(&mut out, table, report);
    axes(&mut out, &frame);
    let rows = table.problem().buffers().iter().zip(report.offsets()).enumerate();
    for (index, (buffer, offset)) in rows.filter(|(_, (buffer, _))| buffer.size > 0) {
        rectangle(&mut out, &frame, table.id(index), buffer, *offset);
    }
    // The two may be close: their names stand at different ends.
    level(&mut out, &frame, report.peak, "#333");
    text(&mut out, (WIDTH - RIGHT, frame.y(report.peak.0 as f64) - 5.0), "end", "peak");
    if let Some(capacity) = report.capacity {
        level(&mut out, &frame, capacity, "#c00");
        let words = format!("capacity {capacity}");
        text(&mut out, (LEFT + 2.0, frame.y(capacity.0 as f64) - 5.0), "start", &words);
    }
    out.push_str("</svg>\n");
    out
}

/// What part of time and addresses is shown.
struct Frame {
    from: f64,
    until: f64,
    height: f64,
}

impl Frame {
    fn around(table: &LifetimeTable, report: &PlanReport) -> Self {
        let buffers = table.problem().buffers();
        let from = buffers.iter().map(|buffer| buffer.lower).min().unwrap_or(0);
        let until = buffers.iter().map(|buffer| buffer.upper).max().unwrap_or(1);
        let height = report.capacity.unwrap_or(report.peak).max(report.peak).0.max(1);
        Self { from: from as f64, until: until as f64, height: height as f64 }
    }

    fn x(&self, time: f64) -> f64 {
        LEFT + (time - self.from) / (self.until - self.from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, address: f64) -> f64 {
        HEIGHT - BOTTOM - address / self.height * (HEIGHT - TOP - BOTTOM)
    }
}

fn head(out: &mut String, table: &LifetimeTable, report: &PlanReport) {
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{} buffers, peak {}, lower bound {}, by \
         {}</text>\n",
        table.len(),
        report.peak,
        report.bound,
        report.method
    )
    .expect("a string takes what is written");
}

fn axes(out: &mut String, frame: &Frame) {
    for time in ticks(frame.from, frame.until) {
        let (x, bottom) = (frame.x(time), HEIGHT - BOTTOM);
        line(out, (x, TOP), (x, bottom), "#ddd");
        text(out, (x, bottom + 16.0), "middle", &format!("{time:.0}"));
    }
    for address in binary_ticks(frame.height) {
        let y = frame.y(address);
        line(out, (LEFT, y), (WIDTH - RIGHT, y), "#ddd");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a label")]
        let bytes = Bytes(address as u64);
        text(out, (LEFT - 6.0, y + 4.0), "end", &bytes.to_string());
    }
    text(out, (WIDTH / 2.0, HEIGHT - 12.0), "middle", "time");
}

/// Values a decimal step apart, about [`TICKS`] of them.
fn ticks(from: f64, until: f64) -> Vec<f64> {
    let step = 10f64.powf(((until - from) / TICKS).log10().ceil()).max(1.0);
    let finer = [step / 5.0, step / 2.0, step].into_iter();
    let step = finer.filter(|step| step.fract() == 0.0);
    let step = step.fold(f64::MAX, |best, step| {
        let few = (until - from) / step <= TICKS * 1.5;
        if few { best.min(step) } else { best }
    });
    every(step, from, until)
}

/// Addresses a power of two apart, at most [`TICKS`] of them.
fn binary_ticks(until: f64) -> Vec<f64> {
    every(2f64.powf((until / TICKS).log2().ceil()).max(1.0), 0.0, until)
}

fn every(step: f64, from: f64, until: f64) -> Vec<f64> {
    let mut value = (from / step).ceil() * step;
    let mut values = Vec::new();
    while value <= until {
        values.push(value);
        value += step;
    }
    values
}

fn rectangle(out: &mut String, frame: &Frame, id: &str, buffer: &Buffer, offset: u64) {
    let (left, right) = (frame.x(buffer.lower as f64), frame.x(buffer.upper as f64));
    let (low, high) = (frame.y(offset as f64), frame.y((offset + buffer.size) as f64));
    let (width, height) = (right - left, low - high);
    let id = escaped(id);
    writeln!(
        out,
        "<rect x=\"{left:.2}\" y=\"{high:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
         fill=\"hsl({},60%,78%)\" stroke=\"#555\" stroke-width=\"0.4\"><title>{id}: {} bytes at \
         {offset}, lives [{}, {})</title></rect>",
        hue(&id),
        buffer.size,
        buffer.lower,
        buffer.upper
    )
    .expect("a string takes what is written");
    let needed = id.chars().count() as f64 * LABEL_WIDTH_PER_CHARACTER + 4.0;
    if height >= LABEL_HEIGHT && width >= needed {
        let centre = (f64::midpoint(left, right), f64::midpoint(low, high) + 4.0);
        text(out, centre, "middle", &id);
    }
}

/// A colour of its own for most ids, and the same in every picture.
fn hue(id: &str) -> u32 {
    let hash = id.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(131) ^ u32::from(byte));
    hash.wrapping_mul(2_654_435_761) % 360
}

fn level(out: &mut String, frame: &Frame, at: Bytes, colour: &str) {
    let y = frame.y(at.0 as f64);
    writeln!(
        out,
        "<line x1=\"{LEFT}\" y1=\"{y:.2}\" x2=\"{}\" y2=\"{y:.2}\" stroke=\"{colour}\" \
         stroke-width=\"1.5\" stroke-dasharray=\"6 3\"/>",
        WIDTH - RIGHT
    )
    .expect("a string takes what is written");
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    writeln!(
        out,
        "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" stroke=\"{colour}\"/>"
    )
    .expect("a string takes what is written");
}

/// `words` are escaped already.
fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    writeln!(out, "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\">{words}</text>")
        .expect("a string takes what is written");
}

/// `id` without what XML would read as its own, or refuse.
fn escaped(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for character in id.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PlanLimit, PlanOptions, plan};

    fn planned(table: &LifetimeTable) -> PlanReport {
        plan(table, &PlanOptions { capacity: None, limit: PlanLimit::usual(table, None) })
    }

    #[test]
    fn every_buffer_with_bytes_has_a_rectangle_and_its_id() {
        let text = b"id,lower,upper,size\na<b,0,10,64\n\"c\",0,5,0\nd,3,9,32\n";
        let table = LifetimeTable::parse(text).expect("sound");
        let drawn = svg(&table, &planned(&table));
        assert_eq!(drawn.matches("<title>").count(), 2);
        assert!(drawn.contains("a&lt;b: 64 bytes at"), "{drawn}");
        assert!(!drawn.contains("a<b"), "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn nothing_to_plan_is_an_empty_picture() {
        let table = LifetimeTable::parse(b"id,lower,upper,size\n").expect("sound");
        let drawn = svg(&table, &planned(&table));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        assert_eq!(drawn.matches("<title>").count(), 0);
    }
}
