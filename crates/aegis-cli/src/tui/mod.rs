//! `aegis run --tui`: the run on the terminal while it goes on.
//!
//! [`screen`] draws a copy of the state that the pump keeps; here is the terminal, and the keys.
//!
//! # Invariants
//! 1. The terminal is given back as it was, also after a panic.
//! 2. A terminal that fails ends the view, and with it the run, never without its report.

mod screen;

use std::io;
use std::time::{Duration, Instant};

use aegis::Nanos;
use aegis::live::LiveView;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::output::say;

pub(crate) use screen::Head;

/// How often the picture is renewed.
const FRAME: Duration = Duration::from_millis(200);

/// Shows the run until its `length` is over, it `ends` for another reason or somebody pressed q; how
/// long it ran, and what ended the view if that was the terminal. What `ends` adds to the warnings is
/// shown, and printed once the terminal is given back.
pub(crate) fn watch(
    view: &LiveView,
    workload: &str,
    length: Option<Nanos>,
    mut ends: impl FnMut(&mut Vec<String>) -> bool,
) -> (Duration, io::Result<()>) {
    let start = Instant::now();
    let end = length.map(|length| start + Duration::from(length));
    let mut watch = Watch { view, workload, start, length, scroll: 0, warnings: Vec::new() };
    let shown = ratatui::try_init().and_then(|mut terminal| {
        let shown = watch.run(&mut terminal, end, &mut ends);
        ratatui::try_restore().and(shown)
    });
    watch.warnings.iter().for_each(say);
    (start.elapsed(), shown)
}

struct Watch<'a> {
    view: &'a LiveView,
    workload: &'a str,
    start: Instant,
    length: Option<Nanos>,
    /// The first model that is shown.
    scroll: usize,
    warnings: Vec<String>,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    End,
    Up(usize),
    Down(usize),
    Nothing,
}

impl Watch<'_> {
    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        end: Option<Instant>,
        ends: &mut impl FnMut(&mut Vec<String>) -> bool,
    ) -> io::Result<()> {
        loop {
            let is_over = ends(&mut self.warnings);
            let state = self.view.snapshot();
            let ran = Nanos::from(self.start.elapsed());
            let warning = self.warnings.last().map(String::as_str);
            let head = Head { workload: self.workload, ran, length: self.length, warning };
            self.scroll = self.scroll.min(state.models.len().saturating_sub(1));
            terminal.draw(|frame| screen::draw(frame, &state, &head, self.scroll))?;
            let now = Instant::now();
            if is_over || end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            if event::poll(end.map_or(FRAME, |end| FRAME.min(end - now)))? {
                match wish(&event::read()?) {
                    Wish::End => return Ok(()),
                    Wish::Up(by) => self.scroll = self.scroll.saturating_sub(by),
                    Wish::Down(by) => self.scroll = self.scroll.saturating_add(by),
                    Wish::Nothing => {}
                }
            }
        }
    }
}

fn wish(event: &Event) -> Wish {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return Wish::Nothing;
    };
    match code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Wish::End,
        // The terminal sends no signal while it is ours.
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Wish::End,
        KeyCode::Up | KeyCode::Char('k') => Wish::Up(1),
        KeyCode::Down | KeyCode::Char('j') => Wish::Down(1),
        KeyCode::PageUp => Wish::Up(10),
        KeyCode::PageDown => Wish::Down(10),
        KeyCode::Home => Wish::Up(usize::MAX),
        _ => Wish::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(code: KeyCode, modifiers: KeyModifiers) -> Wish {
        wish(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn q_and_ctrl_c_end_the_run_and_c_alone_does_not() {
        assert_eq!(pressed(KeyCode::Char('q'), KeyModifiers::NONE), Wish::End);
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Wish::End);
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::NONE), Wish::Nothing);
        assert_eq!(pressed(KeyCode::PageDown, KeyModifiers::NONE), Wish::Down(10));
    }
}
