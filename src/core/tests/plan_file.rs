//! Saved plans: what is written is read, anything else is refused.

mod plan_support;

use autooffload_core::plan::file::{Refused, Saved, decode, encode, signature};
use plan_support::saved::random_saved;
use plan_support::{Random, cases};

#[test]
fn what_is_written_is_read() {
    let mut random = Random::new(1);
    for _ in 0..cases(200) {
        let (chunks, steps) = (random.within(1, 60) as u32, random.within(1, 120) as u32);
        let phases = random.within(0, 4) as u32;
        let saved = random_saved(&mut random, chunks, steps, phases);
        saved.check().expect("consistent");
        assert_eq!(decode(&encode(&saved), saved.signature), Ok(saved));
    }
    let nothing = Saved::default();
    assert_eq!(decode(&encode(&nothing), 0), Ok(nothing));
}

#[test]
fn one_changed_byte_or_a_lost_tail_is_noticed() {
    let saved = random_saved(&mut Random::new(2), 20, 40, 2);
    let file = encode(&saved);
    assert!(file.len() > 300);
    for length in 0..file.len() {
        assert!(decode(&file[..length], saved.signature).is_err(), "cut to {length}");
    }
    let mut random = Random::new(3);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= random.within(1, 255) as u8;
        let expected = match at {
            0..8 => Refused::NotAPlan,
            8..10 => Refused::Version(u16::from_le_bytes([damaged[8], damaged[9]])),
            _ => Refused::Damaged,
        };
        assert_eq!(decode(&damaged, saved.signature), Err(expected), "byte {at}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert_eq!(decode(&longer, saved.signature), Err(Refused::Damaged));
}

#[test]
fn another_program_is_refused() {
    let saved = random_saved(&mut Random::new(4), 5, 9, 1);
    let file = encode(&saved);
    assert_eq!(decode(&file, saved.signature ^ 1), Err(Refused::OtherProgram));
    assert_eq!(decode(&file, saved.signature), Ok(saved));
}

/// A valid checksum is no reason to believe the content.
#[test]
fn what_is_read_is_consistent() {
    let mut random = Random::new(5);
    let (mut accepted, mut inconsistent) = (0, 0);
    for _ in 0..cases(20_000) {
        let saved = random_saved(&mut random, 6, 8, 2);
        let mut file = encode(&saved);
        let body = 18..file.len() - 4;
        for _ in 0..random.within(1, 3) {
            let at = random.within(body.start as u64, body.end as u64 - 1) as usize;
            file[at] = random.next() as u8;
        }
        sign(&mut file);
        match decode(&file, saved.signature) {
            Ok(read) => {
                assert_eq!(read.check(), Ok(()));
                assert_eq!(decode(&encode(&read), read.signature), Ok(read));
                accepted += 1;
            }
            Err(Refused::Inconsistent(_)) => inconsistent += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    println!("{accepted} accepted, {inconsistent} refused");
    assert!(accepted > 0 && inconsistent > 0);
}

/// Each rule, broken alone.
#[test]
fn each_inconsistency_has_its_reason() {
    let saved = random_saved(&mut Random::new(7), 12, 20, 2);
    let two = saved.plan.layouts.iter().position(|layout| layout.parts.len() >= 2).unwrap();
    let remote = saved.plan.layouts.iter().position(|layout| layout.host_frames > 0).unwrap();
    let planned = saved.plan.phases.iter().position(|phase| !phase.copies.is_empty()).unwrap();
    let full =
        saved.description.phases[0].steps.iter().position(|step| step.use_count > 0).unwrap();
    let steps = saved.description.phases[0].steps.len() as u32;
    let shared = saved.plan.shared_frames;
    let needed = {
        let frames = |layout: &autooffload_core::plan::Layout| {
            let shared: u32 = layout.parts.iter().map(|part| part.frames).sum();
            layout.frames - layout.host_frames - shared
        };
        shared + saved.plan.layouts.iter().map(frames).sum::<u32>()
    };
    type Break<'a> = &'a dyn Fn(&mut Saved);
    let breaks: &[(&str, Break)] = &[
        ("a rate is not above zero", &|s| s.machine.link_bytes_per_s = 0.0),
        ("a rate is not above zero", &|s| s.machine.release_bytes_per_s = f64::NAN),
        ("a rate is not above zero", &|s| s.machine.device_bytes_per_s = -1.0),
        ("a rate is not above zero", &|s| s.machine.zero_copy_bytes_per_s = Some(f64::NAN)),
        ("frames on the host that kernels cannot read", &|s| {
            s.machine.zero_copy_bytes_per_s = None;
        }),
        ("more on the host than there is", &|s| {
            s.plan.layouts[remote].host_frames = s.plan.layouts[remote].frames + 1;
        }),
        ("a share is no share", &|s| s.machine.release_gpu_share = f64::NAN),
        ("a share is no share", &|s| s.machine.release_gpu_share = 1.01),
        ("frames have no bytes", &|s| s.machine.frame_bytes = 0),
        ("memory is too large", &|s| s.machine.frame_bytes = u64::MAX),
        ("it does not fit", &|s| s.machine.frames = needed - 1),
        ("a chunk has two layouts", &|s| s.plan.layouts[1].id = s.plan.layouts[0].id),
        ("a chunk's number", &|s| s.plan.layouts[1].id = u32::MAX),
        ("a chunk has no frames", &|s| s.plan.layouts[1].frames = 0),
        ("chunks are too large", &|s| s.plan.layouts[1].frames = 1 << 25),
        ("a part is empty", &|s| s.plan.layouts[two].parts[0].frames = 0),
        ("parts of a chunk overlap", &|s| {
            s.plan.layouts[two].parts[1].first = s.plan.layouts[two].parts[0].first;
        }),
        ("a part leaves its chunk", &|s| s.plan.layouts[two].parts[1].first = 24),
        ("a part wraps beyond the shared frames", &|s| {
            s.plan.layouts[two].parts[0].wrap = shared + 1
        }),
        ("a part leaves its frames", &|s| s.plan.layouts[two].parts[0].at = shared),
        ("a part leaves its frames", &|s| s.plan.layouts[two].parts[0].wrap = 0),
        ("parts of a chunk meet on a shared frame", &|s| {
            s.plan.layouts[two].parts[1].at = s.plan.layouts[two].parts[0].at;
        }),
        ("a part is in two runs", &|s| s.plan.runs.push(s.plan.runs[0].clone())),
        ("a run of nothing", &|s| s.plan.runs[0][0].0 = 12),
        ("a run of one part", &|s| s.plan.runs[0].truncate(1)),
        ("a run has gaps", &|s| s.plan.runs[0].reverse()),
        ("a copy joined to none", &|s| s.plan.phases[planned].copies[0].joined = true),
        ("no such phase", &|s| s.description.present = Some(2)),
        ("uses are out of order", &|s| s.description.phases[0].steps[full].first_use += 1),
        ("no such use", &|s| s.description.phases[0].steps[full].use_count = u32::MAX),
        ("uses of no step", &|s| s.description.phases[0].uses.push(1)),
        ("a step uses a chunk twice", &|s| {
            let phase = &mut s.description.phases[0];
            let first = phase.uses[0];
            phase.steps.push(autooffload_core::learn::Step {
                first_use: phase.uses.len() as u32,
                use_count: 2,
                operations: 1,
                ns: 0,
            });
            phase.uses.extend([first, first]);
        }),
        ("a chunk has no layout", &|s| s.description.phases[0].uses[0] = 4_000),
        ("steps take too long", &|s| s.description.phases[0].steps[0].ns = u64::MAX),
        ("other phases are planned than described", &|s| {
            s.plan.phases.pop();
        }),
        ("a ring leaves the shared frames", &|s| s.plan.phases[planned].ring_frames = shared + 1),
        ("a copy of nothing", &|s| s.plan.phases[planned].copies[0].chunk = 12),
        ("a copy of nothing", &|s| s.plan.phases[planned].copies[0].part = 24),
        ("a copy for no step", &|s| s.plan.phases[planned].copies[0].need = steps),
        ("a copy starts too early", &|s| s.plan.phases[planned].copies[0].lead = steps + 1),
    ];
    for (reason, destroy) in breaks {
        let mut broken = saved.clone();
        destroy(&mut broken);
        assert_eq!(broken.check(), Err(Refused::Inconsistent(reason)));
    }
}

/// A few bytes that promise much: refused before memory is taken for it.
#[test]
fn a_large_promise_is_not_believed() {
    let head = &encode(&Saved::default());
    let body_of_nothing = &head[18..head.len() - 4];
    // Wherever a count stands, a huge one.
    for at in 0..body_of_nothing.len() {
        let mut file = head[..18 + at].to_vec();
        file.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        file.extend(&body_of_nothing[at + 1..]);
        file.extend([0; 4]);
        sign(&mut file);
        // Where the number is a speed or a size, it may be so.
        if let Ok(read) = decode(&file, 0) {
            assert!(read.plan.layouts.is_empty() && read.description.phases.is_empty());
        }
    }
}

/// Files depend on it.
#[test]
fn the_signature_is_stable() {
    assert_eq!(signature([].into_iter()), 0xa8c7_f832_281a_39c5);
    let sizes = || [2 << 20, 20 << 20, 117_440_512_u64].into_iter();
    assert_eq!(signature(sizes()), 0x7233_8279_6955_52f0);
    assert_ne!(signature(sizes()), signature(sizes().rev()));
    assert_ne!(signature(sizes()), signature(sizes().chain([0])));
    assert_ne!(signature([0, 0].into_iter()), signature([0].into_iter()));
}

/// Makes the checksum right.
fn sign(file: &mut [u8]) {
    let (covered, checksum) = file.split_last_chunk_mut::<4>().unwrap();
    *checksum = crc32fast::hash(covered).to_le_bytes();
}
