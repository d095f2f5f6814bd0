//! What a page holds: a head, a sequence number, and the words of a [`View`].
//!
//! One thread writes, any process reads, and neither waits for the other: the
//! sequence number is odd while words change, so a reader knows when it has read
//! a mixture (a seqlock). Every word is an atomic of its own; a torn view is a
//! refused one, never a fault.
//!
//! ```text
//!   0  MAGIC   1  VERSION   2  sequence   3  watched until   4…  the view
//! ```
//!
//! A reader writes one word, *watched until*: while somebody looks, the writer
//! also tells what it would not ask its own engine for otherwise.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Of the file, and of the mapping.
pub const PAGE_BYTES: usize = 4096;
pub const WORDS: usize = PAGE_BYTES / 8;

const MAGIC: u64 = u64::from_le_bytes(*b"aooPAGE\n");
/// Changes with the words of a [`View`].
pub const VERSION: u64 = 1;

const SEQUENCE: usize = 2;
const WATCHED: usize = 3;
const BODY: usize = 4;

pub const DEVICES: usize = 6;
pub const CHUNKS: usize = 8;

/// A struct of words, and the two ways between it and its words, in their order.
macro_rules! words {
    ($( #[$doc:meta] )* $name:ident { $( $( #[$note:meta] )* $field:ident ),* $(,)? }) => {
        $( #[$doc] )*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $( $( #[$note] )* pub $field: u64 ),* }

        impl $name {
            pub const WORDS: usize = [ $( stringify!($field) ),* ].len();

            fn put(&self, words: &mut impl Iterator<Item = u64>, out: &mut Vec<u64>) {
                let _ = words;
                $( out.push(self.$field); )*
            }

            fn take(words: &mut impl Iterator<Item = u64>) -> Self {
                Self { $( $field: words.next().unwrap_or(0) ),* }
            }

            /// Names and values, for those who print all of them.
            pub fn fields(&self) -> [(&'static str, u64); Self::WORDS] {
                [ $( (stringify!($field), self.$field) ),* ]
            }
        }
    };
}

words! {
    /// Of the whole process. Bytes, nanoseconds and counts; 0 where nothing is known.
    Process {
        pid,
        /// The number of its process id namespace: elsewhere the id says nothing.
        namespace,
        /// By the clock that all processes share (`CLOCK_MONOTONIC`).
        written_ns,
        began_ns,
        /// What kernels and copies use.
        operations,
        operations_per_s,
        budget_bytes,
        frames_bytes,
        host_bytes,
        pinned_bytes,
        /// Host memory that may still be taken.
        host_left_bytes,
        in_place_bytes,
        streamed_bytes,
        written_back_bytes,
        /// Of the last second.
        in_bytes_per_s,
        out_bytes_per_s,
        link_bytes_per_s,
        demand_fetches,
        streamed_uses,
        hits,
        plans,
        slips,
        /// Of launches, on the device, for copies; estimated from samples.
        stall_ns,
        /// Of the host, by cause.
        plan_change_waits,
        plan_change_ns,
        allocation_waits,
        allocation_ns,
        native_waits,
        native_ns,
        devices,
    }
}

words! {
    /// One device. Looked at only while somebody watches.
    Device {
        ordinal,
        /// What names the card in every process.
        card,
        total_bytes,
        cap_bytes,
        /// On the card, by what they are.
        weights_bytes,
        activations_bytes,
        ring_bytes,
        spare_bytes,
        /// The program's own memory that is not managed, its context included.
        unmanaged_bytes,
        others_bytes,
        chunks,
        streamed_chunks,
        /// Operations in an iteration that the plan is for; 0: there is no plan.
        period,
        iteration_ns,
        /// No iteration is faster: what the kernels take, or the link.
        bound_ns,
        planned_ns,
        bytes_per_iteration,
        /// The phase under way, counted from 1, and how many are known.
        phase,
        phases,
        listed,
    }
}

words! {
    /// One of the largest chunks.
    Chunk {
        id,
        bytes,
        /// On frames of its own.
        resident_bytes,
        present,
        /// Operations until it is used next, plus 1; 0: nothing is foretold.
        next_use,
    }
}

/// All that a page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub process: Process,
    /// At most [`DEVICES`], each with at most [`CHUNKS`].
    pub devices: Vec<(Device, Vec<Chunk>)>,
}

const VIEW_WORDS: usize = Process::WORDS + DEVICES * (Device::WORDS + CHUNKS * Chunk::WORDS);
const _: () = assert!(BODY + VIEW_WORDS <= WORDS);

/// Why a page says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    NotAPage,
    /// Of another version of this program.
    Version(u64),
    /// Its writer ended, or is held up, in the middle of a change.
    Unfinished,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAPage => write!(f, "not a page of autooffload"),
            Self::Version(version) => {
                write!(f, "written by another version of autooffload ({version}, not {VERSION})")
            }
            Self::Unfinished => write!(f, "it is being changed"),
        }
    }
}

impl View {
    fn words(&self) -> Vec<u64> {
        let mut out = Vec::with_capacity(VIEW_WORDS);
        let none = &mut std::iter::empty();
        let devices = &self.devices[..self.devices.len().min(DEVICES)];
        Process { devices: devices.len() as u64, ..self.process }.put(none, &mut out);
        for (device, chunks) in devices {
            let chunks = &chunks[..chunks.len().min(CHUNKS)];
            Device { listed: chunks.len() as u64, ..*device }.put(none, &mut out);
            chunks.iter().for_each(|chunk| chunk.put(none, &mut out));
            (chunks.len()..CHUNKS).for_each(|_| Chunk::default().put(none, &mut out));
        }
        out
    }

    fn of_words(words: &[u64]) -> Self {
        let words = &mut words.iter().copied();
        let process = Process::take(words);
        let device = |_| {
            let device = Device::take(words);
            let mut chunks: Vec<Chunk> = (0..CHUNKS).map(|_| Chunk::take(words)).collect();
            chunks.truncate(usize::try_from(device.listed).unwrap_or(usize::MAX));
            (device, chunks)
        };
        let count = usize::try_from(process.devices).unwrap_or(usize::MAX).min(DEVICES);
        Self { process, devices: (0..count).map(device).collect() }
    }
}

/// The words of a page, wherever they are.
#[derive(Clone, Copy)]
pub struct Page<'a>(&'a [AtomicU64; WORDS]);

impl<'a> Page<'a> {
    pub fn new(words: &'a [AtomicU64; WORDS]) -> Self {
        Self(words)
    }

    /// Before anything else is written.
    pub fn begin(self) {
        self.0[0].store(MAGIC, Ordering::Relaxed);
        self.0[1].store(VERSION, Ordering::Release);
    }

    /// By the one thread that writes.
    pub fn write(self, view: &View) {
        let sequence = self.0[SEQUENCE].load(Ordering::Relaxed) | 1;
        self.0[SEQUENCE].store(sequence, Ordering::Relaxed);
        // Whoever reads a word of what follows finds the odd number, too.
        fence(Ordering::Release);
        for (word, value) in self.0[BODY..].iter().zip(view.words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.0[SEQUENCE].store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// What was written last.
    pub fn read(self) -> Result<View, Unreadable> {
        /// A change takes a microsecond; a writer that is not running, longer.
        const TRIES: usize = 1000;
        if self.0[0].load(Ordering::Relaxed) != MAGIC {
            return Err(Unreadable::NotAPage);
        }
        match self.0[1].load(Ordering::Acquire) {
            VERSION => {}
            other => return Err(Unreadable::Version(other)),
        }
        for _ in 0..TRIES {
            let before = self.0[SEQUENCE].load(Ordering::Acquire);
            if before != 0 && before.is_multiple_of(2) {
                let words: Vec<u64> = self.0[BODY..][..VIEW_WORDS]
                    .iter()
                    .map(|word| word.load(Ordering::Relaxed))
                    .collect();
                fence(Ordering::Acquire);
                if self.0[SEQUENCE].load(Ordering::Relaxed) == before {
                    return Ok(View::of_words(&words));
                }
            }
            std::thread::yield_now();
        }
        Err(Unreadable::Unfinished)
    }

    /// By a reader: somebody looks until then.
    pub fn watch(self, until_ns: u64) {
        self.0[WATCHED].fetch_max(until_ns, Ordering::Relaxed);
    }

    /// By the writer. A time too far ahead is none that a reader wrote.
    pub fn is_watched(self, now_ns: u64) -> bool {
        const LONGEST_NS: u64 = 60_000_000_000;
        let until = self.0[WATCHED].load(Ordering::Relaxed);
        (now_ns..=now_ns.saturating_add(LONGEST_NS)).contains(&until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank() -> [AtomicU64; WORDS] {
        [const { AtomicU64::new(0) }; WORDS]
    }

    /// Every word is `number`, but for those that count what follows.
    fn filled(number: u64) -> View {
        let words = vec![number; VIEW_WORDS];
        let mut view = View::of_words(&words);
        view.process.devices = view.devices.len() as u64;
        view.devices.iter_mut().for_each(|(device, chunks)| device.listed = chunks.len() as u64);
        view
    }

    #[test]
    fn what_was_written_is_read() {
        let words = blank();
        let page = Page::new(&words);
        assert_eq!(page.read(), Err(Unreadable::NotAPage));
        page.begin();
        assert_eq!(page.read(), Err(Unreadable::Unfinished));
        for devices in 0..DEVICES {
            let mut view = filled(1 << 40);
            view.devices.truncate(devices);
            view.process.devices = devices as u64;
            page.write(&view);
            assert_eq!(page.read(), Ok(view));
        }
    }

    #[test]
    fn a_writer_that_ended_in_the_middle_and_another_version_are_told() {
        let words = blank();
        let page = Page::new(&words);
        page.begin();
        page.write(&filled(7));
        words[SEQUENCE].store(5, Ordering::Relaxed);
        assert_eq!(page.read(), Err(Unreadable::Unfinished));
        words[1].store(VERSION + 1, Ordering::Relaxed);
        assert_eq!(page.read(), Err(Unreadable::Version(VERSION + 1)));
    }

    #[test]
    fn any_words_are_read_without_harm() {
        let words = blank();
        let page = Page::new(&words);
        page.begin();
        for seed in [0, 1, 6, 7, 1 << 20, u64::MAX] {
            words[SEQUENCE].store(2, Ordering::Relaxed);
            words[BODY..].iter().for_each(|word| word.store(seed, Ordering::Relaxed));
            let view = page.read().expect("an even number");
            assert!(view.devices.len() <= DEVICES);
            assert!(view.devices.iter().all(|(_, chunks)| chunks.len() <= CHUNKS));
        }
    }

    #[test]
    fn nobody_reads_a_mixture() {
        let words = blank();
        let page = Page::new(&words);
        page.begin();
        page.write(&filled(8));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (9..3000).for_each(|number| page.write(&filled(number))));
            while !writer.is_finished() {
                let view = match page.read() {
                    Ok(view) => view,
                    Err(why) => {
                        assert_eq!(why, Unreadable::Unfinished);
                        continue;
                    }
                };
                assert_eq!(view, filled(view.process.pid));
            }
        });
        assert_eq!(page.read(), Ok(filled(2999)));
    }

    #[test]
    fn a_look_ends() {
        let words = blank();
        let page = Page::new(&words);
        page.watch(100);
        assert!(page.is_watched(99) && page.is_watched(100) && !page.is_watched(101));
        page.watch(u64::MAX);
        assert!(!page.is_watched(99), "no reader wrote that");
    }
}
