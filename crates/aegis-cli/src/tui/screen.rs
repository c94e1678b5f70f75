//! One picture of a run: a head, a row for each model, the last decisions.
//!
//! A pure function of the state, so that tests see the whole screen. What the colours say is said in
//! words or figures as well.

use std::cmp::Reverse;
use std::collections::VecDeque;

use aegis::Nanos;
use aegis::live::{LiveLine, LiveModel, LiveState};
use aegis::narrate::Weight;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use crate::table::{ms, ms_down};

/// Rows that the last decisions keep, borders included, however many models there are.
const DECISIONS_MIN: u16 = 6;
/// The most findings that are shown beside the decisions.
const FINDINGS_MAX: u16 = 4;
/// Cells of the bar of the worst response against the bound.
const BAR: usize = 10;
/// From this share of the bound on, in thousandths, the worst response is close to it.
const CLOSE_PERMILLE: u128 = 900;

/// What the first line says beside the state.
pub(crate) struct Head<'a> {
    pub(crate) workload: &'a str,
    pub(crate) ran: Nanos,
    pub(crate) length: Option<Nanos>,
    /// What the user must know beside the run, such as a trace that is not written any more.
    pub(crate) warning: Option<&'a str>,
}

/// One column of the models.
struct Column {
    title: &'static str,
    width: u16,
    /// What goes last where the terminal is narrow.
    rank: u8,
    cell: fn(&LiveModel) -> Cell<'static>,
}

const COLUMNS: [Column; 10] = [
    Column { title: "model", width: 20, rank: 9, cell: |model| Cell::from(name(model)) },
    Column { title: "jobs", width: 8, rank: 6, cell: |model| right(model.completed.to_string()) },
    Column {
        title: "load %",
        width: 7,
        rank: 5,
        cell: |model| right(percent(model.load_permille)),
    },
    Column { title: "D ms", width: 10, rank: 2, cell: |model| time(model.deadline()) },
    Column { title: "bound ms", width: 10, rank: 4, cell: |model| time(model.bound) },
    Column { title: "slack ms", width: 10, rank: 3, cell: |model| room(model.slack()) },
    Column { title: "worst ms", width: 10, rank: 8, cell: worst },
    Column { title: "of bound", width: 15, rank: 7, cell: bar },
    Column { title: "missed", width: 7, rank: 10, cell: |model| count(model.missed) },
    Column { title: "broken", width: 7, rank: 1, cell: |model| count(model.broken) },
];

/// Draws everything; `scroll` models are passed over.
pub(super) fn draw(frame: &mut Frame<'_>, state: &LiveState, head: &Head<'_>, scroll: usize) {
    let rows = u16::try_from(state.models.len()).unwrap_or(u16::MAX).saturating_add(3);
    let area = frame.area();
    let models = rows.min(area.height.saturating_sub(2 + DECISIONS_MIN)).max(4);
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(models), Constraint::Min(0)])
            .areas(area);
    frame.render_widget(first_lines(state, head, top.width), top);
    draw_models(frame, state, scroll, middle);
    draw_decisions(frame, state, bottom);
}

fn first_lines(state: &LiveState, head: &Head<'_>, width: u16) -> Paragraph<'static> {
    let whole = |time: Nanos| time.as_nanos() / 1_000_000_000;
    let of = head.length.map_or_else(String::new, |length| format!(" of {}", whole(length)));
    let title = format!("AegisRT {}: {}{of} s", head.workload, whole(head.ran));
    let sum = |of: fn(&LiveModel) -> u64| state.models.iter().map(of).sum::<u64>();
    let figure = |words: &str, count: u64| {
        let style = if count > 0 { Style::new().red().bold() } else { Style::new() };
        Span::styled(format!("{words} {count}  "), style)
    };
    let mut figures = vec![
        Span::raw(format!("load {} %  ", percent(state.load_permille()))),
        figure("missed", sum(|model| model.missed)),
        figure("broken", sum(|model| model.broken)),
        figure("lost", sum(|model| model.lost)),
        figure("refused", state.refused),
    ];
    figures.extend((state.dropped > 0).then(|| figure("events lost", state.dropped)));
    figures
        .extend(head.warning.map(|warning| Span::styled(warning.to_owned(), Style::new().red())));
    let keys = "q ends the run";
    let fill = usize::from(width).saturating_sub(title.chars().count() + keys.len());
    let title = Line::from(vec![title.bold(), " ".repeat(fill.max(1)).into(), keys.dim()]);
    Paragraph::new(vec![title, Line::from(figures)])
}

fn draw_models(frame: &mut Frame<'_>, state: &LiveState, scroll: usize, area: Rect) {
    let room = usize::from(area.height.saturating_sub(3));
    let columns = fitting(area.width.saturating_sub(2));
    let header = Row::new(columns.iter().map(|column| match column.title {
        "model" | "of bound" => Cell::from(column.title),
        title => right(title.to_owned()),
    }))
    .style(Style::new().add_modifier(Modifier::BOLD));
    let last = (scroll + room).min(state.models.len());
    let shown = state.models.get(scroll..last).unwrap_or_default();
    let rows =
        shown.iter().map(|model| Row::new(columns.iter().map(|column| (column.cell)(model))));
    let title = if state.models.len() > room {
        format!(" models {}-{last} of {}, arrows scroll ", scroll + 1, state.models.len())
    } else {
        " models ".to_owned()
    };
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    let table = Table::new(rows, widths).header(header).block(framed(title));
    frame.render_widget(table, area);
}

/// The columns that fit into `width`, those of the highest rank first, in their own order.
fn fitting(width: u16) -> Vec<&'static Column> {
    let mut ranked: Vec<&Column> = COLUMNS.iter().collect();
    ranked.sort_by_key(|column| Reverse(column.rank));
    let mut left = width;
    let mut least = u8::MAX;
    for column in ranked {
        let Some(rest) = left.checked_sub(column.width + 1) else { break };
        (left, least) = (rest, column.rank);
    }
    COLUMNS.iter().filter(|column| column.rank >= least).collect()
}

fn draw_decisions(frame: &mut Frame<'_>, state: &LiveState, area: Rect) {
    let findings = u16::try_from(state.findings.len()).unwrap_or(u16::MAX).min(FINDINGS_MAX);
    let fits = findings > 0 && area.height >= findings + 2 + DECISIONS_MIN;
    let height = if fits { findings + 2 } else { 0 };
    let [above, below] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(area);
    draw_lines(frame, &state.findings, " last findings ", above);
    draw_lines(frame, &state.decisions, " last decisions ", below);
}

/// As many of the last lines as there is room for.
fn draw_lines(frame: &mut Frame<'_>, lines: &VecDeque<LiveLine>, title: &str, area: Rect) {
    let room = usize::from(area.height.saturating_sub(2));
    let skipped = lines.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = lines.iter().skip(skipped).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(framed(title.to_owned())), area);
}

fn line(of: &LiveLine) -> Line<'static> {
    let (mark, style) = match of.weight {
        Weight::Detail | Weight::Decision => (" ", Style::new()),
        Weight::Finding => ("!", Style::new().fg(Color::Yellow)),
        Weight::Fault => ("X", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)),
    };
    let (seconds, rest) = (of.at.0 / 1_000_000_000, of.at.0 % 1_000_000_000 / 1_000);
    Line::styled(format!("{seconds:>5}.{rest:06} {mark} {}", of.words), style)
}

fn framed(title: String) -> Block<'static> {
    Block::new().borders(Borders::ALL).title(title)
}

fn name(model: &LiveModel) -> String {
    match (model.evicted, model.fenced) {
        (true, _) => format!("{} (gone)", model.name),
        (false, true) => format!("{} (fenced)", model.name),
        (false, false) => model.name.clone(),
    }
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn count(of: u64) -> Cell<'static> {
    let style = if of > 0 { Style::new().red().bold() } else { Style::new() };
    right(of.to_string()).style(style)
}

fn time(of: Option<Nanos>) -> Cell<'static> {
    right(of.map_or_else(|| "-".to_owned(), ms))
}

/// Rounded down.
fn room(of: Option<Nanos>) -> Cell<'static> {
    right(of.map_or_else(|| "-".to_owned(), ms_down))
}

fn percent(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

fn worst(model: &LiveModel) -> Cell<'static> {
    time((model.completed > 0).then_some(model.worst))
}

/// The worst response as a share of the bound, in thousandths; `None` without both.
fn share(model: &LiveModel) -> Option<u128> {
    let bound = model.bound.filter(|_| model.completed > 0)?;
    let bound = u128::from(bound.as_nanos().max(1));
    Some((u128::from(model.worst.as_nanos()) * 1_000).div_ceil(bound))
}

/// `#####     0.51`: one mark for each tenth that is begun.
fn bar(model: &LiveModel) -> Cell<'static> {
    let Some(share) = share(model) else { return Cell::from("-") };
    let full = usize::try_from(share.div_ceil(100)).unwrap_or(BAR).min(BAR);
    let colour = match share {
        over if over > 1_000 => Color::Red,
        CLOSE_PERMILLE.. => Color::Yellow,
        _ => Color::Green,
    };
    let marks = format!("{:<BAR$}", "#".repeat(full));
    let figure = format!(" {}.{:02}", share / 1_000, share % 1_000 / 10);
    Cell::from(Line::from(vec![Span::styled(marks, Style::new().fg(colour)), Span::raw(figure)]))
}

#[cfg(test)]
mod tests {
    use aegis::TraceObserver;
    use aegis::live::LiveView;
    use aegis::{JobId, ModelId, Record, Timestamp, TraceEvent};
    use expect_test::{Expect, expect};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// Records as the trace file has them, so that the test needs no constructor of its own.
    fn record(json: &str) -> Record {
        serde_json::from_str(json).expect("a record of the trace")
    }

    fn admitted(index: u16, name: &str) -> Record {
        record(&format!(
            r#"{{"at":{index},"by":1,"event":"admitted","model":"m{index}","what":{{"name":"{name}",
            "service":"guaranteed","period":20000000,"deadline":20000000,"jitter":0,"priority":0,
            "may_be_suspended":true,"compute":0,"streams":1,"slots":2,
            "stages":[1000000],"overhead":0,"bound":5000000,"persistent":0,"scratch":0}}}}"#
        ))
    }

    fn state(records: impl IntoIterator<Item = Record>) -> LiveState {
        let (view, mut feed) = LiveView::new(std::sync::Arc::new(aegis::ManualClock::new()));
        records.into_iter().for_each(|record| feed.observe(&record));
        feed.emptied(0);
        view.snapshot()
    }

    fn run() -> LiveState {
        let job = JobId { model: ModelId::first(0), sequence: 4 };
        let record =
            |millis: u64, event| Record { at: Timestamp(millis * 1_000_000), by: 0, event };
        let ms = Nanos::from_millis;
        state([
            admitted(0, "camera"),
            admitted(1, "lidar"),
            record(5, TraceEvent::Completed { job, response: ms(4), execution: ms(1) }),
            record(1_042, TraceEvent::MissedDeadline { job, late: Nanos::from_micros(70) }),
        ])
    }

    fn check(state: &LiveState, (width, height): (u16, u16), scroll: usize, expected: &Expect) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory draws");
        let length = Some(Nanos::from_secs(20));
        let head = Head {
            workload: "pipeline.toml",
            ran: Nanos::from_millis(12_500),
            length,
            warning: None,
        };
        terminal.draw(|frame| draw(frame, state, &head, scroll)).expect("memory draws");
        expected.assert_eq(&terminal.backend().to_string());
    }

    #[test]
    fn a_wide_terminal_shows_every_column() {
        check(
            &run(),
            (118, 19),
            0,
            &expect![[r#"
                "AegisRT pipeline.toml: 12 of 20 s                                                                       q ends the run"
                "load 0.0 %  missed 1  broken 0  lost 0  refused 0                                                                     "
                "┌ models ────────────────────────────────────────────────────────────────────────────────────────────────────────────┐"
                "│model                    jobs  load %       D ms   bound ms   slack ms   worst ms of bound         missed  broken   │"
                "│camera                      1     0.0     20.000      5.000     15.000      4.000 ########   0.80       1       0   │"
                "│lidar                       0     0.0     20.000      5.000     15.000          - -                     0       0   │"
                "└────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘"
                "┌ last findings ─────────────────────────────────────────────────────────────────────────────────────────────────────┐"
                "│    1.042000 ! camera#4 missed its deadline by 70 us                                                                │"
                "└────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘"
                "┌ last decisions ────────────────────────────────────────────────────────────────────────────────────────────────────┐"
                "│    0.000000   camera admitted: bound 5 ms, deadline 20 ms                                                          │"
                "│    0.000000   lidar admitted: bound 5 ms, deadline 20 ms                                                           │"
                "│    1.042000 ! camera#4 missed its deadline by 70 us                                                                │"
                "│                                                                                                                    │"
                "│                                                                                                                    │"
                "│                                                                                                                    │"
                "│                                                                                                                    │"
                "└────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘"
            "#]],
        );
    }

    #[test]
    fn a_narrow_one_keeps_what_matters_most() {
        check(
            &run(),
            (60, 12),
            0,
            &expect![[r#"
            "AegisRT pipeline.toml: 12 of 20 s             q ends the run"
            "load 0.0 %  missed 1  broken 0  lost 0  refused 0           "
            "┌ models 1-1 of 2, arrows scroll ──────────────────────────┐"
            "│model                  worst ms of bound         missed   │"
            "│camera                    4.000 ########   0.80       1   │"
            "└──────────────────────────────────────────────────────────┘"
            "┌ last decisions ──────────────────────────────────────────┐"
            "│    0.000000   camera admitted: bound 5 ms, deadline 20 ms│"
            "│    0.000000   lidar admitted: bound 5 ms, deadline 20 ms │"
            "│    1.042000 ! camera#4 missed its deadline by 70 us      │"
            "│                                                          │"
            "└──────────────────────────────────────────────────────────┘"
        "#]],
        );
    }

    #[test]
    fn more_models_than_rows_can_be_scrolled_through() {
        let many = state((0..30).map(|n| admitted(n, &format!("model{n}"))));
        check(
            &many,
            (60, 14),
            7,
            &expect![[r#"
            "AegisRT pipeline.toml: 12 of 20 s             q ends the run"
            "load 0.0 %  missed 0  broken 0  lost 0  refused 0           "
            "┌ models 8-10 of 30, arrows scroll ────────────────────────┐"
            "│model                  worst ms of bound         missed   │"
            "│model7                        - -                     0   │"
            "│model8                        - -                     0   │"
            "│model9                        - -                     0   │"
            "└──────────────────────────────────────────────────────────┘"
            "┌ last decisions ──────────────────────────────────────────┐"
            "│    0.000000   model26 admitted: bound 5 ms, deadline 20 m│"
            "│    0.000000   model27 admitted: bound 5 ms, deadline 20 m│"
            "│    0.000000   model28 admitted: bound 5 ms, deadline 20 m│"
            "│    0.000000   model29 admitted: bound 5 ms, deadline 20 m│"
            "└──────────────────────────────────────────────────────────┘"
        "#]],
        );
    }

    #[test]
    fn no_terminal_is_too_small_to_draw_on() {
        for size in [(1, 1), (3, 2), (10, 5), (300, 3)] {
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("memory");
            let head =
                Head { workload: "w", ran: Nanos::ZERO, length: None, warning: Some("disk full") };
            terminal.draw(|frame| draw(frame, &run(), &head, 9)).expect("memory draws");
        }
    }
}
