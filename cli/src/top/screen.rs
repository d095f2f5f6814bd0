//! The picture on a terminal: drawn anew a few times a second, and the terminal
//! given back as it was, whatever ends it: a key, a signal, a panic.

use super::words::{self, NOTHING};
use super::{Seen, look};
use autooffload_shared::live::now_ns;
use autooffload_shared::page::Device;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(250);

/// A signal asked for the end.
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_signal: libc::c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

/// What is shown, and which of it is chosen.
struct Picture {
    pid: Option<u32>,
    seen: Vec<Seen>,
    said: Vec<String>,
    chosen: usize,
}

pub fn run(pid: Option<u32>) -> Result<(), String> {
    let (seen, said) = look(pid)?;
    // Not the hang-up: then there is no terminal to give back.
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(libc::c_int) = end;
        // SAFETY: the handler stores one atomic, and nothing else.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    let mut picture = Picture { pid, seen, said, chosen: 0 };
    // Puts the terminal back in a panic, too.
    let mut terminal =
        ratatui::try_init().map_err(|error| format!("this terminal cannot be used: {error}"))?;
    let mut over = Ok(false);
    while matches!(over, Ok(false)) && !ENDED.load(Ordering::Relaxed) {
        terminal_has_input(Duration::ZERO);
        over = terminal
            .draw(|frame| draw(frame, &picture, now_ns()))
            .map_err(|error| error.to_string())
            .and_then(|_| picture.follow());
    }
    // What was not drawn, because the terminal went away meanwhile, ends here.
    terminal_has_input(Duration::ZERO);
    over.and(give_back(terminal))
}

/// The terminal as it was. What fails is returned: ratatui would print it where
/// it just failed, and panic over that.
fn give_back(mut terminal: DefaultTerminal) -> Result<(), String> {
    let given = ratatui::try_restore().and_then(|()| terminal.show_cursor());
    std::mem::forget(terminal);
    given.map_err(|error| format!("this terminal cannot be given back: {error}"))
}

impl Picture {
    /// Waits for a key, or a while, and looks again. `true`: it is over.
    fn follow(&mut self) -> Result<bool, String> {
        let pressed = terminal_has_input(TICK);
        while pressed && event::poll(Duration::ZERO).map_err(|error| error.to_string())? {
            let Event::Key(key) = event::read().map_err(|error| error.to_string())? else {
                continue;
            };
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if key.kind != KeyEventKind::Press => {}
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                KeyCode::Char('c') if control => return Ok(true),
                KeyCode::Up => self.chosen = self.chosen.saturating_sub(1),
                KeyCode::Down => self.chosen += 1,
                _ => {}
            }
        }
        (self.seen, self.said) = look(self.pid)?;
        self.chosen = self.chosen.min(self.seen.len().saturating_sub(1));
        Ok(false)
    }
}

/// Whether a key was pressed within `patience`; a signal ends the wait. Asked of
/// the system, which also tells when the terminal is gone.
fn terminal_has_input(patience: Duration) -> bool {
    let mut terminal = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, alive during the call.
    let ready = unsafe { libc::poll(&mut terminal, 1, patience.as_millis() as libc::c_int) };
    if ready > 0 && terminal.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
        // Nothing to give back, and nobody to tell.
        std::process::exit(0);
    }
    ready > 0
}

fn draw(frame: &mut Frame, picture: &Picture, now_ns: u64) {
    let [body, foot] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    let mut lines: Vec<Line> = Vec::new();
    for (index, seen) in picture.seen.iter().enumerate() {
        let chosen = index == picture.chosen;
        let mark = if chosen { "> " } else { "  " };
        lines.push(Line::from(format!("{mark}{} {}", seen.pid, seen.command)).bold());
        if chosen {
            add_process(&mut lines, seen, now_ns, body.width);
        }
    }
    if picture.seen.is_empty() {
        lines.push(Line::from(NOTHING));
    }
    lines.extend(picture.said.iter().map(|said| Line::from(words::plain(said))));
    frame.render_widget(Paragraph::new(lines), body);
    frame.render_widget(Line::from(" q quits, up and down choose a process").dim(), foot);
}

fn add_process(lines: &mut Vec<Line>, seen: &Seen, now_ns: u64, width: u16) {
    let devices = seen.view.as_ref().map_or(&[][..], |view| &view.devices);
    for (device, _) in devices {
        lines.push(bar(device, width));
    }
    for (name, text) in words::lines(seen, now_ns).into_iter().skip(1) {
        lines.push(Line::from(vec![Span::from(format!("  {name:<12}")).dim(), Span::from(text)]));
    }
}

/// A card's memory in one line: a letter for each part, as wide as its share.
fn bar(device: &Device, width: u16) -> Line<'static> {
    const COLOURS: [Color; 6] =
        [Color::Green, Color::Cyan, Color::Yellow, Color::DarkGray, Color::Magenta, Color::Gray];
    let columns = u64::from(width.saturating_sub(4)).max(1);
    let total = device.total_bytes.max(1);
    let (mut spans, mut end, mut drawn) = (vec![Span::from("  [")], 0u64, 0u64);
    for ((letter, _, bytes), colour) in words::parts(device).into_iter().zip(COLOURS) {
        end = end.saturating_add(bytes).min(total);
        let until = (u128::from(end) * u128::from(columns) / u128::from(total)) as u64;
        let part = letter.to_string().repeat((until - drawn) as usize);
        spans.push(Span::styled(part, Style::new().fg(colour)));
        drawn = until;
    }
    spans.push(Span::from(" ".repeat((columns - drawn) as usize)));
    spans.push(Span::from("]"));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use autooffload_shared::page::View;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(width: u16, height: u16, seen: Vec<Seen>) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let picture = Picture { pid: None, seen, said: Vec::new(), chosen: 0 };
        terminal.draw(|frame| draw(frame, &picture, 0)).expect("drawn");
        terminal.backend().to_string()
    }

    fn seen(device: Device) -> Seen {
        let view = View { devices: vec![(device, Vec::new())], ..View::default() };
        Seen { pid: 42, command: "python".into(), view: Ok(view) }
    }

    #[test]
    fn a_bar_is_as_wide_as_the_shares() {
        let device =
            Device { total_bytes: 100, weights_bytes: 50, ring_bytes: 25, ..Device::default() };
        let text = drawn(44, 20, vec![seen(device)]);
        let bar = format!("[{}{}{}]", "W".repeat(20), "R".repeat(10), " ".repeat(10));
        assert!(text.contains(&bar), "{text}");
        assert!(text.contains("> 42 python") && text.contains("q quits"), "{text}");
    }

    #[test]
    fn nothing_and_any_numbers_and_sizes_are_drawn() {
        assert!(drawn(120, 5, Vec::new()).contains("No process of yours"));
        for number in [0, 1, u64::MAX] {
            let device = Device {
                total_bytes: number / 2,
                weights_bytes: number,
                ring_bytes: number,
                ..Device::default()
            };
            for (width, height) in [(1, 1), (5, 3), (200, 60)] {
                drawn(width, height, vec![seen(device)]);
            }
        }
    }
}
