//! The policies on cycles whose time is known by a formula, and all of them on
//! random small programs.

use autooffload_core::plan::{Effort, IN_PLACE_LINK_SHARE, plan};
use autooffload_lab::sim::device::Waits;
use autooffload_lab::sim::oracle::{Oracle, oracle};
use autooffload_lab::sim::policies::{Ours, PEERS, Planned, run_peer};
use autooffload_lab::sim::run::{Evict, Launching, Writes};
use autooffload_lab::sim::{Gpu, Infeasible, Outcome, Policy, Setup, run};
use autooffload_lab::workload::cards::{Costs, card};
use autooffload_lab::workload::models::{self, Options};
use autooffload_lab::workload::{Builder, Event, Launch, Trace, Use, bounds};

const MIB: u64 = 1 << 20;

fn weight(chunk: u32) -> Use {
    Use { chunk, permille: 1000, writes: false }
}

fn taking(ns: u64) -> Launch {
    Launch { first_use: 0, use_count: 0, ns, flops: 0, bytes: 0, kernels: 0 }
}

/// `count` chunks of `bytes`, one kernel of `ns` each, `iterations` times.
fn cycle(count: u32, bytes: u64, ns: u64, iterations: u32) -> Trace {
    let mut builder = Builder::new("cycle", 0);
    for _ in 0..count {
        builder.chunk(bytes);
    }
    for _ in 0..iterations {
        builder.event(Event::Iteration { phase: 0 });
        for chunk in 0..count {
            builder.launch(taking(ns), &[weight(chunk)]);
        }
    }
    builder.finish()
}

fn setup(budget_bytes: u64) -> Setup {
    Setup::new(card("rtx-4090").expect("in the table"), 26e9, budget_bytes)
}

fn planned(trace: &Trace, setup: &Setup) -> (Oracle, Outcome, f64) {
    let oracle = oracle(trace, setup);
    let plan = plan(&oracle.problem, None, Effort::Searched).expect("a plan");
    let mut policy = Planned::new(&oracle, &plan, &trace.chunks);
    let outcome = run(trace, setup, &mut policy).expect("feasible");
    let period = plan.phases[0].period_ns as f64;
    (oracle, outcome, period)
}

#[test]
fn a_plan_takes_the_time_that_the_planner_says() {
    // 64 chunks of 32 MiB: 1.29 ms each over the link.
    for (share, ns) in [(0.25, 600_000), (0.5, 645_000), (0.5, 1_000_000), (0.75, 400_000)] {
        let trace = cycle(64, 32 * MIB, ns, 8);
        let budget = (64.0 * 32.0 * share) as u64 * MIB;
        let (_, outcome, period) = planned(&trace, &setup(budget));
        assert!(!outcome.over_budget);
        let steady = outcome.steady_ns(0, 3).expect("iterations");
        println!("{share} {ns}: {:.3} ms, planned {:.3} ms", steady / 1e6, period / 1e6);
        assert!((steady / period - 1.0).abs() < 0.01, "{share} {ns}: {steady} against {period}");
    }
}

/// Of 16 chunks of 256 MiB each launch reads an eighth; of 16 of 64 MiB, all.
/// Memory holds a third.
fn partly_read(iterations: u32) -> (Trace, Setup) {
    let mut builder = Builder::new("partly read", 0);
    for _ in 0..16 {
        builder.chunk(64 * MIB);
        builder.chunk(256 * MIB);
    }
    for _ in 0..iterations {
        builder.event(Event::Iteration { phase: 0 });
        for layer in 0..16 {
            builder.launch(taking(80_000), &[weight(2 * layer)]);
            let some = Use { chunk: 2 * layer + 1, permille: 125, writes: false };
            builder.launch(taking(40_000), &[some]);
        }
    }
    (builder.finish(), setup(16 * 320 * MIB / 3))
}

#[test]
fn what_is_hardly_read_is_read_in_place_by_ours_as_fast_as_planned() {
    let (trace, setup) = partly_read(24);
    let mut ours = Ours::new(&trace, &setup);
    let outcome = run(&trace, &setup, &mut ours).expect("feasible");
    assert!(!outcome.over_budget);
    assert!(ours.streamer().host_frames() > 0);
    let steady = outcome.steady_ns(0, 3).expect("iterations");
    // An eighth of what does not fit, at the rate of kernels.
    let beyond = 16.0 * 320.0 * MIB as f64 * 2.0 / 3.0;
    let least = beyond / 8.0 / (26.0 * IN_PLACE_LINK_SHARE);
    assert!((0.99..1.1).contains(&(steady / least)), "{steady} ns, not {least}");
    let simple = run_peer("zero-copy", &trace, &setup).expect("feasible");
    assert!(steady < simple.steady_ns(0, 3).expect("iterations"));
    // What is known of reads beforehand leads to the same.
    let (_, outcome, period) = planned(&trace, &setup);
    assert!(!outcome.over_budget);
    let told = outcome.steady_ns(0, 3).expect("iterations");
    assert!(told < steady * 1.01 && (told / period - 1.0).abs() < 0.05, "{told}, {period}");
}

/// Half of 64 chunks fits; one of those that are used first is written each time,
/// more often than is looked for. Steady time, and bytes in and out, of an iteration.
fn one_is_written(writes: Writes, ns: u64) -> (f64, u64, u64) {
    let mut builder = Builder::new("one is written", 0);
    for _ in 0..64 {
        builder.chunk(32 * MIB);
    }
    for _ in 0..24 {
        builder.event(Event::Iteration { phase: 0 });
        for chunk in 0..64 {
            builder.launch(taking(ns), &[Use { writes: chunk == 5, ..weight(chunk) }]);
        }
    }
    let (trace, setup) = (builder.finish(), Setup { writes, ..setup(32 * 32 * MIB) });
    let outcome = run(&trace, &setup, &mut Ours::new(&trace, &setup)).expect("feasible");
    assert!(!outcome.over_budget);
    let last = outcome.iterations.last().expect("iterations");
    (outcome.steady_ns(0, 3).expect("iterations"), last.bytes_in, last.bytes_out)
}

/// Nobody tells ours which of what kernels receive they write.
#[test]
fn only_what_was_written_goes_back_and_to_know_it_takes_a_reading() {
    for ns in [300_000, 4_000_000] {
        let (known, ..) = one_is_written(Writes::Known, ns);
        let (looked_for, read, back) = one_is_written(Writes::LookedFor, ns);
        // That one stays, since streaming it would take twice its bytes.
        assert!(read >= 31 * 32 * MIB && back == 0, "{read} in, {back} out");
        let reading = 1.2 * read as f64 * 1e9 / setup(0).card.memory_bytes_per_s;
        assert!(looked_for <= known + reading, "{looked_for} ns, known beforehand {known}");
        if ns == 300_000 {
            // The link binds, and our kernel runs while it is at work.
            assert!(looked_for < known * 1.005, "{looked_for} ns, known beforehand {known}");
        } else {
            assert!(looked_for > known + reading / 2.0, "{looked_for} ns: it costs nothing");
        }
        let (copied_back, read, back) = one_is_written(Writes::CopiedBack, ns);
        assert_eq!(back, read, "everything that comes goes back");
        assert!(ns > 300_000 || copied_back > looked_for * 1.2, "{copied_back}, {looked_for}");
    }
}

/// The planner's clock and the simulator are two accounts of the same thing.
#[test]
fn the_planners_clock_is_the_simulators() {
    let mut ratios = Vec::new();
    for seed in 0..150 {
        let random = &mut Random(seed);
        let mut builder = Builder::new("uneven", 0);
        let count = 20 + random.below(60) as u32;
        let frames: Vec<u64> = (0..count).map(|_| 1 + random.below(30)).collect();
        frames.iter().for_each(|frames| {
            builder.chunk(frames * 2 * MIB);
        });
        // What its bytes take over the link, more or less.
        let compute = 20 + random.below(200);
        let times: Vec<u64> =
            frames.iter().map(|frames| frames * random.below(2 * 806) * compute).collect();
        for _ in 0..8 {
            builder.event(Event::Iteration { phase: 0 });
            for chunk in 0..count {
                builder.launch(taking(times[chunk as usize]), &[weight(chunk)]);
                if chunk % 7 == 3 {
                    builder.launch(taking(times[chunk as usize] / 2), &[]);
                }
            }
        }
        let trace = builder.finish();
        let share = 20 + random.below(70);
        let costs =
            Costs { launch_ns: 0, submit_ns: 0, event_ns: 0, sync_ns: 0, ..Costs::default() };
        let budget = frames.iter().sum::<u64>() * 2 * MIB * share / 100;
        let setup = Setup { costs, writes: Writes::Known, ..setup(budget) };
        let (_, outcome, period) = planned(&trace, &setup);
        assert!(!outcome.over_budget, "{seed}");
        ratios.push((outcome.steady_ns(0, 3).expect("iterations") / period, seed));
    }
    for (ratio, seed) in ratios {
        assert!((ratio - 1.0).abs() < 1e-3, "program {seed}: simulated over planned is {ratio}");
    }
}

/// A peer on 64 chunks of 32 MiB of which half fit, every cost but the link's
/// left out: ms per iteration. Compute is `ns` per chunk; the link takes 1.290 ms.
/// Many small chunks that stream: far fewer copies than chunks, and the time
/// of the bytes alone but for a few per cent, although a copy costs 8 µs.
#[test]
fn neighbours_share_the_price_of_a_copy() {
    const COUNT: u32 = 800;
    let trace = cycle(COUNT, 2 << 20, 10_000, 12);
    let setup = Setup { link_bytes_per_s: 55e9, ..setup(COUNT as u64 / 4 * (2 << 20)) };
    let mut ours = Ours::new(&trace, &setup);
    let outcome = run(&trace, &setup, &mut ours).expect("it fits");
    assert!(!outcome.over_budget && ours.counters().merged > 0);
    let last = outcome.iterations.last().expect("iterations");
    let link_ns = last.bytes_in as f64 * 1e9 / setup.link_bytes_per_s;
    assert!(last.copies_in < u64::from(COUNT) / 5, "{} copies", last.copies_in);
    assert!((last.ns as f64) < link_ns * 1.06, "{} over {link_ns} ns", last.ns);
}

fn peer_at_half(name: &str, ns: u64) -> f64 {
    let trace = cycle(64, 32 * MIB, ns, 8);
    let costs = Costs {
        copy_ns: 0,
        launch_ns: 0,
        submit_ns: 0,
        event_ns: 0,
        sync_ns: 0,
        ..Costs::default()
    };
    let setup = Setup { costs, ..setup(32 * 32 * MIB) };
    let outcome = run_peer(name, &trace, &setup).expect("feasible");
    assert!(!outcome.over_budget);
    outcome.steady_ns(0, 3).expect("iterations") / 1e6
}

#[track_caller]
fn close(ms: f64, expected: f64, share: f64) {
    assert!((ms / expected - 1.0).abs() < share, "{ms} ms, expected {expected}");
}

/// One 32 MiB chunk over a link of 26 GB/s, ms.
const COPY: f64 = 33.554432 / 26.0;

#[test]
fn a_resident_prefix_streams_only_while_the_rest_computes() {
    // 30 stay, 34 pass through two slots; aC + max((1 - a)C, X/BW).
    for ns in [300_000, 645_000, 1_290_000, 2_000_000] {
        let kernel = ns as f64 / 1e6;
        // Two copies fit beside the resident part: the slots.
        let expected = 30.0 * kernel + (34.0 * kernel).max(34.0 * COPY - 1.0 * COPY);
        close(peer_at_half("prefix", ns), expected, 0.04);
    }
}

#[test]
fn the_other_peers_take_their_known_time() {
    for ns in [300_000, 1_290_000, 4_000_000] {
        let kernel = ns as f64 / 1e6;
        // Nothing stays and one is ahead: the longer of both, each time.
        close(peer_at_half("leaf", ns), 64.0 * kernel.max(COPY), 0.01);
        // The same, at the rate of pageable memory and both ways at once.
        let pageable = COPY / Costs::default().pageable_share;
        // The copy in is slower while the copy out runs, as long as one takes.
        let both_ways = pageable * (2.0 - Costs::default().duplex_share);
        close(peer_at_half("window", ns), 64.0 * kernel.max(both_ways), 0.03);
        // On a cycle nothing is ever found.
        close(peer_at_half("lru", ns), 64.0 * kernel.max(COPY), 0.08);
        close(peer_at_half("lru-prefetch", ns), 64.0 * kernel.max(COPY), 0.03);
        // Half is read over the link.
        let read = kernel.max(COPY / Costs::default().zero_copy_share);
        close(peer_at_half("zero-copy", ns), 32.0 * kernel + 32.0 * read, 0.01);
        // What goes makes room ahead of time.
        let faults = COPY / Costs::default().fault_share;
        close(peer_at_half("demand-paging", ns), 64.0 * (kernel + faults), 0.01);
        // Blocks of two chunks; 14 of them stay, 18 take turns.
        let block = 2.0 * kernel.max(COPY);
        close(peer_at_half("block-swap", ns), 28.0 * kernel + 18.0 * block, 0.08);
        // At most what is missing, moved once, spread as far as whole chunks allow.
        let bound = (64.0 * kernel).max(32.0 * COPY);
        let clairvoyant = peer_at_half("clairvoyant", ns);
        assert!((1.0..1.35).contains(&(clairvoyant / bound)), "{clairvoyant} over {bound}");
    }
}

/// Two of eight experts a layer, as a router picks them: what is certain stays,
/// and of the rest what was used an iteration ago.
#[test]
fn with_random_experts_no_simple_policy_is_faster() {
    let model = models::model("mixtral-decode").expect("in the catalogue");
    let trace = model.generate(&Options { iterations: 24, runs: 1, ..Options::default() });
    let tail = |outcome: &Outcome| {
        let last = &outcome.iterations[12..];
        last.iter().map(|iteration| iteration.ns as f64).sum::<f64>() / last.len() as f64
    };
    for (name, link, share) in [
        ("h200", 55e9, 0.1),
        ("h200", 26e9, 0.25),
        ("rtx-4090", 26e9, 0.5),
        ("rtx-4090", 55e9, 0.9),
    ] {
        let budget = bounds::budget_for_share(&trace, share);
        let setup = Setup::new(card(name).expect("in the table"), link, budget);
        let ours = tail(&run(&trace, &setup, &mut Ours::new(&trace, &setup)).expect("feasible"));
        for peer in ["lru", "zero-copy", "prefix"] {
            let other = tail(&run_peer(peer, &trace, &setup).expect("feasible"));
            let ratio = ours / other;
            println!("{name} {link:e} {share}: {ratio:.3} x {peer}");
            assert!(ratio < 1.05, "{name} {link:e} {share}: {ratio:.3} x {peer}");
        }
    }
}

#[test]
fn everything_stays_where_it_fits() {
    let trace = cycle(16, 32 * MIB, 100_000, 4);
    let resident = run_peer("resident", &trace, &setup(16 * 32 * MIB)).expect("it fits");
    for name in PEERS.iter().filter(|name| !["leaf", "window"].contains(name)) {
        let outcome = run_peer(name, &trace, &setup(16 * 32 * MIB)).expect("it fits");
        assert_eq!(outcome.total_ns, resident.total_ns, "{name}");
        assert_eq!(outcome.totals.bytes_in, 0, "{name}");
    }
    let missing = run_peer("resident", &trace, &setup(15 * 32 * MIB));
    assert!(missing.is_err());
}

/// Numbers that depend on a seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// Programs of all sorts: cycles with detours, chunks that come and go, some
/// written to, waits of the host and copies of the program's.
fn program(seed: u64) -> Trace {
    let random = &mut Random(seed);
    let mut builder = Builder::new("random", random.below(8) * MIB);
    let weights = 3 + random.below(10) as u32;
    for _ in 0..weights {
        builder.chunk((1 + random.below(12)) * MIB);
    }
    let caches = random.below(3) as u32;
    for _ in 0..caches {
        builder.chunk((1 + random.below(3)) * MIB);
    }
    let phases = 1 + random.below(2) as u16;
    let orders: Vec<Vec<u32>> = (0..phases)
        .map(|_| (0..4 + random.below(10)).map(|_| random.below(weights.into()) as u32).collect())
        .collect();
    let mut alive = 0;
    for _ in 0..4 + random.below(6) {
        let phase = random.below(phases.into()) as u16;
        builder.event(Event::Iteration { phase });
        if alive < caches && random.below(2) == 0 {
            builder.event(Event::Allocate { chunk: weights + alive });
            alive += 1;
        }
        for &chunk in &orders[phase as usize] {
            let writes = random.below(40) == 0;
            let mut uses = vec![Use { chunk, permille: 1 + random.below(1000) as u16, writes }];
            if alive > 0 && random.below(3) == 0 {
                let chunk = weights + random.below(alive.into()) as u32;
                uses.push(Use { chunk, permille: 1000, writes: random.below(2) == 0 });
            }
            builder.launch(taking(random.below(400_000)), &uses);
            match random.below(12) {
                0 => builder.event(Event::HostSync { host_ns: random.below(100_000) }),
                1 => builder.event(Event::Copy {
                    bytes: random.below(100_000),
                    to_device: random.below(2) == 0,
                }),
                2 => builder.launch(taking(random.below(900_000)), &[]),
                _ => {}
            }
        }
    }
    if alive == caches && alive > 0 {
        builder.event(Event::Free { chunk: weights + alive - 1 });
    }
    builder.finish()
}

/// What holds whatever the policy: memory, order of time, bytes in and out.
fn check(name: &str, seed: u64, trace: &Trace, setup: &Setup, outcome: &Outcome) {
    assert!(!outcome.over_budget, "{name}, program {seed}");
    assert!(outcome.peak_bytes >= trace.activation_bytes);
    let sum = |of: &dyn Fn(&autooffload_lab::sim::run::IterationResult) -> u64| -> u64 {
        outcome.iterations.iter().map(of).sum()
    };
    // Every program here begins with a mark.
    assert_eq!(sum(&|i| i.ns), outcome.total_ns, "{name}, program {seed}: time is complete");
    for iteration in &outcome.iterations {
        let busy = iteration.kernel_ns + iteration.stall_ns;
        assert!(
            busy <= iteration.ns + 1,
            "{name}, program {seed}: {busy} busy of {}",
            iteration.ns
        );
    }
    assert_eq!(sum(&|i| i.bytes_in), outcome.totals.bytes_in);
    assert_eq!(sum(&|i| i.bytes_out), outcome.totals.bytes_out);
    assert!(setup.budget_bytes >= outcome.peak_bytes);
}

/// One slot for two chunks, and a choice of mistakes.
struct Careless {
    waits: bool,
    fetches: bool,
}

impl Policy for Careless {
    fn name(&self) -> &'static str {
        "careless"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        gpu.place(0, gpu.bytes(0), Waits::NONE);
        Ok(())
    }

    fn freed(&mut self, _: &mut Gpu, _: u32) {}

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        let wanted = launch.uses[0].chunk;
        if !gpu.is_present(wanted) && self.fetches {
            let freed = gpu.evict(1 - wanted, gpu.bytes(1 - wanted), Evict::Clean);
            gpu.fetch(wanted, gpu.bytes(wanted), if self.waits { freed } else { Waits::NONE });
        }
        Ok(())
    }
}

#[test]
fn memory_that_is_overwritten_too_early_is_noticed() {
    let trace = cycle(2, 32 * MIB, 5_000_000, 3);
    let with = |waits| {
        let mut policy = Careless { waits, fetches: true };
        run(&trace, &setup(32 * MIB), &mut policy).expect("feasible")
    };
    assert!(!with(true).over_budget);
    let outcome = with(false);
    assert!(outcome.over_budget && outcome.peak_bytes > 32 * MIB);
}

#[test]
#[should_panic = "launch 1 uses chunk 1, of which 0 of 33554432 bytes are present"]
fn a_launch_without_its_chunk_is_noticed() {
    let trace = cycle(2, 32 * MIB, 5_000_000, 3);
    let _ = run(&trace, &setup(32 * MIB), &mut Careless { waits: true, fetches: false });
}

#[test]
fn all_policies_hold_the_cap_on_random_programs_and_are_deterministic() {
    let mut ran = std::collections::BTreeMap::new();
    for seed in 0..400 {
        let trace = program(seed);
        trace.check().expect("well formed");
        let total: u64 = trace.chunks.iter().sum();
        let share = 30 + Random(seed ^ 77).below(80);
        let jitter = if seed % 3 == 0 { 0.2 } else { 0.0 };
        let setup = Setup {
            kernel_jitter: jitter,
            copy_jitter: jitter,
            seed,
            writes: [Writes::Known, Writes::CopiedBack, Writes::LookedFor][seed as usize % 3],
            ..setup(trace.activation_bytes + total * share / 100)
        };
        for name in PEERS {
            let Ok(outcome) = run_peer(name, &trace, &setup) else { continue };
            check(name, seed, &trace, &setup, &outcome);
            assert_eq!(Ok(outcome), run_peer(name, &trace, &setup), "{name}, program {seed}");
            *ran.entry(*name).or_insert(0) += 1;
        }
        let once = || run(&trace, &setup, &mut Ours::new(&trace, &setup));
        if let Ok(outcome) = once() {
            check("ours", seed, &trace, &setup, &outcome);
            assert_eq!(Ok(outcome), once(), "ours, program {seed}");
            *ran.entry("ours").or_insert(0) += 1;
        }
        let known = oracle(&trace, &setup);
        let Ok(plan) = plan(&known.problem, None, Effort::Quick) else { continue };
        let once = || run(&trace, &setup, &mut Planned::new(&known, &plan, &trace.chunks));
        let Ok(outcome) = once() else { continue };
        check("planned", seed, &trace, &setup, &outcome);
        assert_eq!(Ok(outcome), once(), "planned, program {seed}");
        *ran.entry("planned").or_insert(0) += 1;
    }
    println!("{ran:?}");
    for name in PEERS.iter().chain(&["planned", "ours"]) {
        assert!(ran.get(name).is_some_and(|&count| count >= 40), "{name} ran too rarely: {ran:?}");
    }
}

#[test]
fn what_a_later_phase_keeps_is_brought_in_while_the_link_is_idle() {
    let model = models::model("t5-flux-vae").unwrap();
    let options = models::Options { iterations: 28, runs: 3, ..Default::default() };
    let trace = model.generate(&options);
    let budget = bounds::budget_for_share(&trace, 0.9);
    let setup = Setup::new(card("rtx-4090").unwrap(), 26e9, budget);
    let mut ours = Ours::new(&trace, &setup);
    let outcome = run(&trace, &setup, &mut ours).unwrap();
    // The text encoder: the second time much of it has to come; the denoiser of
    // the second image knows that it will be needed again.
    let encoder: Vec<u64> =
        outcome.iterations.iter().filter(|i| i.phase == 0).map(|i| i.bytes_in).collect();
    assert_eq!(encoder.len(), 3);
    assert!(encoder[1] > 3 << 30, "{encoder:?}");
    assert!(encoder[2] * 3 < encoder[1], "{encoder:?}");
}
