//! The bounds over the whole catalogue.

use autooffload_lab::workload::bounds::{
    Limits, Reading, Work, b1, b2, budget_for_share, resident_bytes, sequence_bound,
};
use autooffload_lab::workload::cards::{Costs, card, link};
use autooffload_lab::workload::models::{Kind, catalogue};

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_bounds_of_every_model_are_in_order() {
    for (index, model) in catalogue().iter().enumerate() {
        let trace = model.trace(4);
        // The cards by turns.
        let name = ["rtx-4090", "h200"][index % 2];
        let card = card(name).unwrap();
        let bandwidth = link(card.link).unwrap().bytes_per_s;
        let work = Work::new(&trace, card, &Costs::default(), bandwidth, Reading::Whole);
        let read = Work::new(&trace, card, &Costs::default(), bandwidth, Reading::Touched);
        let count = work.iterations().count();
        let (iteration, all) = (work.typical(0).unwrap(), work.stretch(1..count));
        let mut before = u64::MAX;
        for share in [0.1, 0.5, 0.9] {
            let limits =
                Limits::new(resident_bytes(&trace, budget_for_share(&trace, share)), bandwidth);
            let at = format!("{} {name} {share}", model.name);
            let first = b1(&work, iteration.clone(), &limits);
            let second = b2(&work, iteration.clone(), &limits).ns;
            let stretch = sequence_bound(&work, all.clone(), &limits);
            assert!(second >= first, "{at}");
            assert!(stretch >= work.compute_ns(all.clone()), "{at}");
            assert!(stretch <= before, "{at}: more memory, more time");
            assert!(sequence_bound(&read, all.clone(), &limits) <= stretch, "{at}");
            before = stretch;
            if model.kind == Kind::Periodic {
                // Of a cycle both say the same, but for the two ends.
                let rounds = count as u64 - 1;
                assert!(stretch >= (rounds - 1) * second, "{at}");
                assert!(stretch <= rounds * second + second / 50, "{at}");
                assert!(second < first + first / 2, "{at}");
            }
        }
    }
}
