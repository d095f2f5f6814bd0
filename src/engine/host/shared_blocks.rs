//! SharedBlocks: host memory in one piece for small chunks that were born one after
//! the other, so that one copy can bring several of them.
//!
//! The streamer says which chunk belongs where; here a slab is made when the
//! first of its chunks needs host memory, page-locked as a whole (the driver
//! refuses a copy across two registrations), and freed with the last. It takes
//! memory for chunks that may never need it, so there are slabs only while host
//! memory is ample: a chunk that gets none has memory of its own, and its
//! copies are its own, too.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use autooffload_core::plan::{Place, SLAB_FRAMES};

use super::store::{HostBuffer, HostStore};
use crate::engine::FRAME_BYTES;

/// The slabs of one device, by number.
#[derive(Default)]
pub struct SharedBlocks {
    living: HashMap<u32, Weak<HostBuffer>>,
}

impl SharedBlocks {
    /// Memory for `frames` of the chunk whose first frame belongs at `place`.
    /// `unsaved_bytes`: what may come to need host memory, slabs or not. `None`:
    /// there is no slab to be had.
    pub fn take(
        &mut self,
        store: &HostStore,
        place: Place,
        frames: &Range<u32>,
        unsaved_bytes: u64,
    ) -> Option<HostBuffer> {
        debug_assert!(place.at + frames.end <= SLAB_FRAMES);
        let slab = match self.living.get(&place.slab).and_then(Weak::upgrade) {
            Some(slab) => slab,
            None => self.make(store, place.slab, unsaved_bytes)?,
        };
        let start = (place.at + frames.start) as usize * FRAME_BYTES;
        Some(HostBuffer::within(&slab, start, frames.len() * FRAME_BYTES))
    }

    fn make(
        &mut self,
        store: &HostStore,
        number: u32,
        unsaved_bytes: u64,
    ) -> Option<Arc<HostBuffer>> {
        let bytes = SLAB_FRAMES as usize * FRAME_BYTES;
        if store.available() < bytes as u64 + unsaved_bytes {
            return None;
        }
        #[allow(clippy::arc_with_non_send_sync, reason = "it is moved with its device, as a whole")]
        let slab = Arc::new(store.allocate(bytes)?);
        self.living.retain(|_, slab| slab.strong_count() > 0);
        self.living.insert(number, Arc::downgrade(&slab));
        Some(slab)
    }
}

#[cfg(test)]
mod tests {
    use autooffload_core::config::Limit;
    use autooffload_core::units::Size;

    use super::*;

    const SLAB_BYTES: u64 = SLAB_FRAMES as u64 * FRAME_BYTES as u64;

    /// The driver is never called: nothing is page-locked.
    fn store(cap_bytes: u64) -> HostStore {
        HostStore::new(crate::driver::driver(), false, Limit::Given(Size::Bytes(cap_bytes)))
    }

    fn place(slab: u32, at: u32) -> Place {
        Place { slab, at }
    }

    #[test]
    fn neighbours_are_side_by_side_and_the_last_takes_the_slab_along() {
        let (store, mut slabs) = (store(4 * SLAB_BYTES), SharedBlocks::default());
        let first = slabs.take(&store, place(3, 0), &(0..2), 0).unwrap();
        let second = slabs.take(&store, place(3, 2), &(0..1), 0).unwrap();
        let tail = slabs.take(&store, place(3, 3), &(4..5), 0).unwrap();
        assert_eq!(store.usage().0, SLAB_BYTES);
        assert_eq!(second.address as usize, first.address as usize + 2 * FRAME_BYTES);
        assert_eq!(tail.address as usize, first.address as usize + 7 * FRAME_BYTES);
        assert!(first.slab().is_some() && first.slab() == second.slab());

        let other = slabs.take(&store, place(4, 0), &(0..1), 0).unwrap();
        assert_ne!(other.slab(), first.slab());
        store.free(other);
        store.free(first);
        store.free(second);
        assert_eq!(store.usage().0, SLAB_BYTES);
        store.free(tail);
        assert_eq!(store.usage().0, 0);

        // The number comes back for another slab.
        let again = slabs.take(&store, place(3, 15), &(0..1), 0).unwrap();
        assert_eq!(store.usage().0, SLAB_BYTES);
        store.free(again);
        assert_eq!(store.usage().0, 0);
    }

    #[test]
    fn no_slab_where_host_memory_is_short() {
        let (store, mut slabs) = (store(2 * SLAB_BYTES), SharedBlocks::default());
        assert!(slabs.take(&store, place(0, 0), &(0..1), 2 * SLAB_BYTES).is_none());
        assert_eq!(store.usage().0, 0);
        let had = slabs.take(&store, place(0, 0), &(0..1), SLAB_BYTES).unwrap();
        // What there is already costs nothing more.
        let more = slabs.take(&store, place(0, 1), &(0..1), 2 * SLAB_BYTES).unwrap();
        assert!(slabs.take(&store, place(1, 0), &(0..1), SLAB_BYTES).is_none());
        let own = store.allocate(FRAME_BYTES).unwrap();
        assert_eq!(own.slab(), None);
        [had, more, own].into_iter().for_each(|buffer| store.free(buffer));
        assert_eq!(store.usage().0, 0);
    }
}
