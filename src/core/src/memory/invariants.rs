//! The room's invariants, checked.

use super::Streamer;
use super::chunk::{ChunkState, PartExt, Streamed};

impl Streamer {
    /// Panics unless the module's invariants hold. For tests and debug builds.
    pub fn check(&self) {
        let owned: u32 = self.chunks.iter().flatten().map(ChunkState::own_frames).sum();
        assert_eq!(self.live_frames, self.free.len() as u32 + owned + self.ring.len() as u32);
        assert_eq!(self.ring.len(), self.occupants.len());
        let streamed = self.chunks.iter().flatten().filter(|chunk| !chunk.resident()).count();
        assert_eq!(self.streamed_chunks as usize, streamed);
        let host: u32 = self.chunks.iter().flatten().map(|chunk| chunk.on_host).sum();
        assert_eq!(self.host_frames, host);
        let mut occupied = 0;
        for id in self.ids() {
            let chunk = self.chunk(id);
            assert!(chunk.mapped || chunk.parts.is_empty());
            assert!(chunk.own[chunk.device_end() as usize..].iter().all(Option::is_some));
            assert!(chunk.on_host == 0 || !chunk.pinned, "chunk {id}");
            let blanks = chunk.blank.iter().filter(|&&blank| blank).count() as u32;
            assert_eq!(chunk.blanks, blanks, "chunk {id}");
            let mut homes: Vec<u32> =
                chunk.own.iter().map(|own| u32::from(own.is_some())).collect();
            for (number, Streamed { part, present, .. }) in chunk.parts.iter().enumerate() {
                part.range().for_each(|index| homes[index as usize] += 1);
                for slot in part.slots() {
                    let held = self.occupants[slot as usize] == Some((id, number as u32));
                    assert_eq!(held, *present, "chunk {id}, part {number}");
                    occupied += u32::from(held);
                }
            }
            assert!(!chunk.mapped || homes.iter().all(|&count| count == 1), "chunk {id}");
            for index in 0..chunk.frames {
                assert!(
                    chunk.undefined || chunk.saved[index as usize] || chunk.holds_content(index),
                    "chunk {id} lost frame {index}"
                );
            }
        }
        let occupants = self.occupants.iter().flatten().count() as u32;
        assert_eq!(occupants, occupied);
    }
}
