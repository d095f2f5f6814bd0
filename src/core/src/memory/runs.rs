//! Runs: parts of neighbours that the plan wants in one copy.
//!
//! A run is tied to the layout that the plan gave its members. A member that
//! was laid out anew off the plan, freed, or never written to is none any more,
//! and what is left of the run on either side of it comes by itself.

use std::ops::Range;

use super::chunk::PartExt;
use super::{ChunkId, MemoryOps, Shortage, Streamer};
use crate::plan::{Part, Place, Plan};

/// A part, by chunk and index.
type PartOf = (ChunkId, u32);

impl Streamer {
    /// Whether the host memory and the shared frames of each run of `plan` are
    /// in one piece, as far as we know.
    pub(super) fn runs_apply(&self, plan: &Plan) -> bool {
        let mut named = std::collections::BTreeSet::new();
        let piece = |&(chunk, part): &(u32, u32)| {
            let layout = plan.layouts.get(chunk as usize)?;
            let part = *layout.parts.get(part as usize)?;
            let place = self.chunk(layout.id).place?;
            (part.frames <= part.wrap - part.at)
                .then_some((part, Place { at: place.at + part.first, ..place }))
        };
        plan.runs.iter().all(|run| {
            let pieces: Option<Vec<(Part, Place)>> = run.iter().map(piece).collect();
            let beside = |pair: &[(Part, Place)]| {
                let [(part, place), (next, after)] = [pair[0], pair[1]];
                next.at == part.at + part.frames && after.follows(place, part.frames)
            };
            pieces.is_some_and(|pieces| pieces.windows(2).all(beside))
                && run.iter().all(|member| named.insert(*member))
        })
    }

    /// Tells every part which run of `plan` it is in.
    pub(super) fn set_runs(&mut self, plan: &Plan) {
        let all = self.chunks.iter_mut().flatten().flat_map(|chunk| &mut chunk.parts);
        all.for_each(|streamed| streamed.run = None);
        for (number, run) in plan.runs.iter().enumerate() {
            for (index, &(chunk, part)) in run.iter().enumerate() {
                let layout = &plan.layouts[chunk as usize];
                let chunk = self.chunk_mut(layout.id);
                if chunk.laid_out_as(&layout.parts, layout.host_frames) {
                    chunk.parts[part as usize].run = Some((number as u32, index as u32));
                }
            }
        }
    }

    /// The absent part `index` of `id`, and what one copy could bring with it.
    pub(super) fn together(&self, id: ChunkId, index: usize) -> Vec<PartOf> {
        let alone = vec![(id, index as u32)];
        let (Some((number, at)), Some(plan)) = (self.chunk(id).parts[index].run, &self.plan) else {
            return alone;
        };
        let run = &plan.runs[number as usize];
        let absent = |member: usize| -> Option<PartOf> {
            let (chunk, part) = run[member];
            let id = plan.layouts[chunk as usize].id;
            let chunk = self.chunks.get(id as usize)?.as_ref()?;
            let streamed = chunk.parts.get(part as usize)?;
            let is_member = streamed.run == Some((number, member as u32));
            (is_member && !streamed.present && !chunk.undefined).then_some((id, part))
        };
        let at = at as usize;
        if absent(at).is_none() {
            return alone;
        }
        let mut found: Vec<PartOf> = (0..at).rev().map_while(absent).collect();
        found.reverse();
        found.extend((at..run.len()).map_while(absent));
        found
    }

    /// Brings the content of `parts`, which are absent and of one run, in one copy.
    pub(super) fn fetch_together(
        &mut self,
        parts: &[PartOf],
        demanded: bool,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let part_of = |(id, index): PartOf| self.chunk(id).parts[index as usize].part;
        let slot = part_of(parts[0]).at;
        let pieces: Vec<(ChunkId, Range<u32>)> =
            parts.iter().map(|&part| (part.0, part_of(part).range())).collect();
        let mut there: Vec<PartOf> = Vec::new();
        for slot in parts.iter().flat_map(|&part| part_of(part).slots()) {
            let occupant = self.occupants[slot as usize];
            there.extend(occupant.filter(|occupant| !there.contains(occupant)));
        }
        if there.iter().any(|&(id, _)| self.chunk(id).holds > 0) {
            return Err(Shortage::Busy);
        }
        self.save_together(&there, ops)?;
        for (id, index) in there {
            self.clear_part(id, index as usize, ops)?;
        }
        ops.fetch_run(&pieces, slot, demanded);
        self.count_fetch(demanded);
        self.counters.merged += 1;
        for &(id, index) in parts {
            for slot in self.chunk(id).parts[index as usize].part.slots() {
                self.occupants[slot as usize] = Some((id, index));
            }
            self.chunk_mut(id).parts[index as usize].present = true;
        }
        Ok(())
    }

    /// Queues the copies to the host of what is unsaved of `parts`, which are
    /// present and in the order of their slots: neighbours in one.
    fn save_together(
        &mut self,
        parts: &[PartOf],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let mut next = 0;
        while next < parts.len() {
            let first = next;
            next += 1;
            while next < parts.len() && self.leaves_with(parts[next - 1], parts[next]) {
                next += 1;
            }
            if next - first > 1 {
                let part = |&(id, index): &PartOf| (id, self.chunk(id).parts[index as usize].part);
                let leaving: Vec<(ChunkId, Part)> = parts[first..next].iter().map(part).collect();
                for (id, part) in &leaving {
                    self.reserve_host(*id, part.range(), ops)?;
                }
                let pieces: Vec<_> = leaving.iter().map(|(id, part)| (*id, part.range())).collect();
                ops.write_back_run(&pieces, leaving[0].1.at);
                self.counters.write_backs += 1;
                for (id, range) in pieces {
                    let range = range.start as usize..range.end as usize;
                    self.chunk_mut(id).saved[range].fill(true);
                }
            } else {
                let (id, index) = parts[first];
                let range = self.chunk(id).parts[index as usize].part.range();
                self.save(id, range, ops)?;
            }
        }
        Ok(())
    }

    /// Whether one copy can take both parts to the host: wholly unsaved, one
    /// behind the other on their slots and in a slab.
    fn leaves_with(&self, one: PartOf, other: PartOf) -> bool {
        let piece = |(id, index): PartOf| {
            let chunk = self.chunk(id);
            let part = chunk.parts[index as usize].part;
            let place = chunk.place?;
            let whole = chunk.unsaved(part.range()) == [part.range()];
            let straight = part.frames <= part.wrap - part.at;
            (whole && straight).then_some((part, Place { at: place.at + part.first, ..place }))
        };
        let both = piece(one).zip(piece(other));
        both.is_some_and(|((part, place), (next, after))| {
            next.at == part.at + part.frames && after.follows(place, part.frames)
        })
    }
}
