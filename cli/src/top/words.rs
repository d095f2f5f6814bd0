//! What a page says, in words: the same for text and picture.

use super::Seen;
use autooffload_core::units::format_bytes;
use autooffload_shared::page::{Chunk, Device, Process};

pub const NOTHING: &str = "No process of yours has had to move memory: where everything fits there \
                           is nothing to see.";

/// A process that has not written for so long does not run.
const SILENT_NS: u64 = 3_000_000_000;

/// Text of others, without anything that a terminal would obey.
pub fn plain(text: &str) -> String {
    const MOST: usize = 200;
    let text = text.trim().chars().take(MOST);
    text.map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// Names and what is said of them. The first names the process.
pub fn lines(seen: &Seen, now_ns: u64) -> Vec<(String, String)> {
    let mut lines = vec![(seen.pid.to_string(), seen.command.clone())];
    let mut say = |name: &str, text: String| lines.push((format!("  {name}"), text));
    let view = match &seen.view {
        Ok(view) => view,
        Err(why) => {
            say("page", format!("cannot be read: {why}"));
            return lines;
        }
    };
    let process = &view.process;
    say("state", state(process, now_ns));
    for (device, _) in &view.devices {
        say(&format!("card {}", device.ordinal), memory(device));
    }
    let host = format!(
        "{} of copies, {} of them page-locked; {} more may be taken",
        format_bytes(process.host_bytes),
        format_bytes(process.pinned_bytes),
        format_bytes(process.host_left_bytes),
    );
    say("host", host);
    say("link", link(process));
    for (device, _) in &view.devices {
        say("iteration", iteration(device));
    }
    say("waits", waits(process));
    for (device, chunks) in &view.devices {
        say(
            "chunks",
            format!("{} in all, {} of them stream", device.chunks, device.streamed_chunks),
        );
        for chunk in chunks {
            let [id, size, share, present, next] = cells(chunk);
            say("", format!("{id:<7} {size:>10}  {share:>14}  {present:<8} {next}"));
        }
    }
    lines
}

fn state(process: &Process, now_ns: u64) -> String {
    let silent = now_ns.saturating_sub(process.written_ns);
    let told = format!("{} plans, {} slips off the order", process.plans, process.slips);
    if silent > SILENT_NS {
        format!("stopped {} s ago; {told}", silent / 1_000_000_000)
    } else if process.operations_per_s == 0 {
        format!("idle; {told}")
    } else {
        format!("{} operations a second; {told}", process.operations_per_s)
    }
}

/// The parts of a card's memory: a letter, a name, bytes.
pub fn parts(device: &Device) -> [(char, &'static str, u64); 6] {
    [
        ('W', "weights that stay", device.weights_bytes),
        ('R', "ring", device.ring_bytes),
        ('A', "activations", device.activations_bytes),
        ('s', "spare", device.spare_bytes),
        ('P', "the program's own", device.unmanaged_bytes),
        ('o', "others", device.others_bytes),
    ]
}

fn memory(device: &Device) -> String {
    let parts = parts(device).map(|(_, name, bytes)| format!("{name} {}", format_bytes(bytes)));
    format!("{} in all: {}", format_bytes(device.total_bytes), parts.join(", "))
}

fn link(process: &Process) -> String {
    let rate = |bytes: u64| format!("{}/s", format_bytes(bytes));
    let measured = match process.link_bytes_per_s {
        0 => "not measured yet".to_string(),
        bytes => format!("measured at {}", rate(bytes)),
    };
    format!(
        "in {}, out {}; {measured}; {} in and {} out so far",
        rate(process.in_bytes_per_s),
        rate(process.out_bytes_per_s),
        format_bytes(process.streamed_bytes),
        format_bytes(process.written_back_bytes),
    )
}

pub fn seconds(ns: u64) -> String {
    match ns {
        0..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

fn iteration(device: &Device) -> String {
    if device.period == 0 {
        return "not known yet: the order is being learned".into();
    }
    let phase = match (device.phase, device.phases) {
        (0, known) => format!("in none of {known} known phases"),
        (phase, known) => format!("phase {phase} of {known}"),
    };
    let Device { iteration_ns, bound_ns, .. } = *device;
    let streams = format_bytes(device.bytes_per_iteration);
    if iteration_ns == 0 {
        return format!("{phase}; {streams} stream; none was timed yet");
    }
    let over = match bound_ns {
        0 => String::new(),
        bound => format!("{:.2} times that; ", iteration_ns as f64 / bound as f64),
    };
    format!(
        "{}, at best {}: {over}{streams} stream; {phase}",
        seconds(iteration_ns),
        seconds(bound_ns)
    )
}

fn waits(process: &Process) -> String {
    let host = [
        ("plan change", process.plan_change_waits, process.plan_change_ns),
        ("allocation", process.allocation_waits, process.allocation_ns),
        ("native", process.native_waits, process.native_ns),
    ];
    let host = host.map(|(name, count, ns)| format!("{count} for {name} ({})", seconds(ns)));
    let share = 100.0 * process.hits as f64 / process.streamed_uses.max(1) as f64;
    format!(
        "launches for copies {}; {share:.1} % of {} streamed uses in time, {} fetched on demand; host {}",
        seconds(process.stall_ns),
        process.streamed_uses,
        process.demand_fetches,
        host.join(", "),
    )
}

/// Of one chunk: number, size, what stays, whether it is there, its next use.
pub fn cells(chunk: &Chunk) -> [String; 5] {
    let percent = 100 * u128::from(chunk.resident_bytes) / u128::from(chunk.bytes.max(1));
    let next = match chunk.next_use {
        0 => "next use not foretold".into(),
        1 => "used now".into(),
        distance => format!("used in {} operations", distance - 1),
    };
    let present = if chunk.present == 0 { "absent" } else { "present" };
    let share = if percent >= 100 { "stays".into() } else { format!("{percent} % stay") };
    [chunk.id.to_string(), format_bytes(chunk.bytes), share, present.into(), next]
}

#[cfg(test)]
mod tests {
    use super::*;
    use autooffload_shared::page::View;

    pub fn example() -> Seen {
        let process = Process {
            written_ns: 5_000_000_000,
            operations_per_s: 120,
            in_bytes_per_s: 3 << 30,
            streamed_uses: 200,
            hits: 199,
            ..Process::default()
        };
        let device = Device {
            total_bytes: 8 << 30,
            weights_bytes: 3 << 30,
            ring_bytes: 1 << 30,
            period: 40,
            iteration_ns: 510_000_000,
            bound_ns: 500_000_000,
            phase: 1,
            phases: 2,
            ..Device::default()
        };
        let chunk =
            Chunk { id: 7, bytes: 20 << 20, resident_bytes: 10 << 20, present: 0, next_use: 6 };
        let view = View { process, devices: vec![(device, vec![chunk])] };
        Seen { pid: 42, command: "python a.py".into(), view: Ok(view) }
    }

    fn text(seen: &Seen, now_ns: u64) -> String {
        lines(seen, now_ns).iter().map(|(name, text)| format!("{name} {text}\n")).collect()
    }

    #[test]
    fn everything_that_is_asked_for_is_said() {
        let text = text(&example(), 5_000_000_000);
        for part in [
            "42 python a.py",
            "120 operations a second",
            "weights that stay 3.00 GiB, ring 1.00 GiB",
            "in 3.00 GiB/s",
            "510.0 ms, at best 500.0 ms: 1.02 times that",
            "phase 1 of 2",
            "99.5 % of 200 streamed uses in time",
            "50 % stay",
            "used in 5 operations",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_process_that_does_not_run_and_a_page_of_another_version_are_said() {
        let mut seen = example();
        assert!(text(&seen, 15_000_000_000).contains("stopped 10 s ago"));
        seen.view = Err("written by another version".into());
        assert!(text(&seen, 0).contains("cannot be read: written by another version"));
    }

    #[test]
    fn no_name_of_a_process_is_obeyed() {
        assert_eq!(plain(" a\x1b[2Jb\nc "), "a?[2Jb?c");
        assert_eq!(plain(&"x".repeat(1000)).len(), 200);
    }

    #[test]
    fn any_numbers_are_put_into_words() {
        let mut seen = example();
        for number in [0, 1, u64::MAX] {
            let view = seen.view.as_mut().expect("a view");
            let process = &mut view.process;
            process.hits = number;
            process.streamed_uses = number;
            process.written_ns = number;
            process.stall_ns = number;
            let (device, chunks) = &mut view.devices[0];
            (device.iteration_ns, device.bound_ns, device.total_bytes) = (number, number, number);
            (chunks[0].bytes, chunks[0].resident_bytes) = (number, number);
            (chunks[0].next_use, device.period) = (number, number);
            assert!(!lines(&seen, number / 2).is_empty());
        }
    }
}
