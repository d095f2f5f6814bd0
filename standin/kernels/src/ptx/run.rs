//! Runs a grid: block after block, warp after warp. The threads of a warp run
//! one after the other until each waits for the others' values.

use super::Entry;
use super::parse::{Binary, Comparison, Operand, Operation, Place, Special};
use crate::{Fault, Launch, Memory};

const WARP: usize = 32;

pub fn grid(entry: &Entry, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let [blocks, by, bz] = launch.grid;
    let [threads, ty, tz] = launch.block;
    if [by, bz, ty, tz] != [1; 4] {
        return Err(Fault::Unsupported(format!("{}: a grid of more than one axis", launch.name)));
    }
    for block in 0..blocks {
        for first in (0..threads).step_by(WARP) {
            let count = (threads - first).min(WARP as u32);
            let thread = |thread| Thread {
                entry,
                launch,
                memory,
                place: [first + thread, block, blocks, threads],
                registers: vec![0; entry.registers],
                next: 0,
            };
            warp(&mut (0..count).map(thread).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// A value that another thread wants.
struct Offer {
    to: usize,
    value: u64,
    mask: usize,
}

fn warp(threads: &mut [Thread]) -> Result<(), Fault> {
    loop {
        let offers = threads.iter_mut().map(Thread::run).collect::<Result<Vec<_>, Fault>>()?;
        if offers.iter().all(Option::is_none) {
            return Ok(());
        }
        for (number, thread) in threads.iter_mut().enumerate() {
            let mine = offers[number].as_ref();
            let other = mine.and_then(|mine| offers.get(number ^ mine.mask)?.as_ref());
            let (Some(mine), Some(other)) = (mine, other) else {
                let name = thread.launch.name;
                return Err(Fault::Unsupported(format!(
                    "{name}: threads that do not all exchange"
                )));
            };
            thread.registers[mine.to] = other.value;
        }
    }
}

struct Thread<'a> {
    entry: &'a Entry,
    launch: &'a Launch<'a>,
    memory: &'a dyn Memory,
    /// As [`Special`] orders them.
    place: [u32; 4],
    registers: Vec<u64>,
    next: usize,
}

fn cut(value: u64, bits: u32) -> u64 {
    if bits == 64 { value } else { value & ((1 << bits) - 1) }
}

impl Thread<'_> {
    /// Up to the next exchange, or (`None`) the end.
    fn run(&mut self) -> Result<Option<Offer>, Fault> {
        let entry = self.entry;
        while let Some(instruction) = entry.code.get(self.next) {
            self.next += 1;
            if let Some((by, wanted)) = instruction.when
                && (self.registers[by] != 0) != wanted
            {
                continue;
            }
            match &instruction.operation {
                &Operation::LoadParameter { to, offset, bytes } => {
                    let range = offset as usize..(offset + bytes) as usize;
                    let found = self.launch.params.get(range).ok_or_else(|| {
                        Fault::Unsupported(format!("{}: too few parameters", self.launch.name))
                    })?;
                    let mut word = [0; 8];
                    word[..found.len()].copy_from_slice(found);
                    self.registers[to] = u64::from_le_bytes(word);
                }
                Operation::Load { to, from, bytes } => {
                    let address = self.address(*from);
                    let total = u64::from(*bytes) * to.len() as u64;
                    let at = self.memory.read(address, total)?;
                    for (index, &to) in to.iter().enumerate() {
                        let mut word = [0u8; 8];
                        // SAFETY: `read` vouches for `total` bytes; a word has room for `bytes`.
                        unsafe {
                            let from = at.add(index * *bytes as usize);
                            std::ptr::copy_nonoverlapping(from, word.as_mut_ptr(), *bytes as usize);
                        }
                        self.registers[to] = u64::from_le_bytes(word);
                    }
                }
                Operation::Store { to, from, bytes } => {
                    let address = self.address(*to);
                    let total = u64::from(*bytes) * from.len() as u64;
                    let at = self.memory.write(address, total)?;
                    for (index, &from) in from.iter().enumerate() {
                        let word = self.registers[from].to_le_bytes();
                        // SAFETY: `write` vouches for `total` bytes.
                        unsafe {
                            let to = at.add(index * *bytes as usize);
                            std::ptr::copy_nonoverlapping(word.as_ptr(), to, *bytes as usize);
                        }
                    }
                }
                &Operation::Move { to, from, bits } => {
                    self.registers[to] = cut(self.value(from), bits);
                }
                &Operation::Pack { to, from: [low, high] } => {
                    self.registers[to] = cut(self.registers[low], 32) | self.registers[high] << 32;
                }
                &Operation::Unpack { to: [low, high], from } => {
                    let word = self.registers[from];
                    (self.registers[low], self.registers[high]) = (cut(word, 32), word >> 32);
                }
                &Operation::Compute { what, to, a, b, bits } => {
                    // The number of places to shift by is 32 bits wide.
                    let (a, b) = (cut(self.value(a), bits), self.value(b));
                    self.registers[to] = cut(compute(what, a, b, bits), bits);
                }
                &Operation::MultiplyAdd { to, a, b, c, bits } => {
                    let product = self.value(a).wrapping_mul(self.value(b));
                    self.registers[to] = cut(product.wrapping_add(self.value(c)), bits);
                }
                &Operation::Compare { what, to, a, b, bits } => {
                    let (a, b) = (cut(self.value(a), bits), cut(self.value(b), bits));
                    self.registers[to] = u64::from(match what {
                        Comparison::Equal => a == b,
                        Comparison::NotEqual => a != b,
                        Comparison::Less => a < b,
                        Comparison::LessOrEqual => a <= b,
                        Comparison::Greater => a > b,
                        Comparison::GreaterOrEqual => a >= b,
                    });
                }
                &Operation::Select { to, yes, no, by } => {
                    self.registers[to] = self.value(if self.registers[by] != 0 { yes } else { no });
                }
                &Operation::Exchange { to, from, mask } => {
                    let (value, mask) = (self.registers[from], self.value(mask) as usize);
                    return Ok(Some(Offer { to, value, mask }));
                }
                &Operation::Branch { to } => self.next = to,
                Operation::Return => self.next = entry.code.len(),
            }
        }
        Ok(None)
    }

    fn address(&self, place: Place) -> u64 {
        self.registers[place.register].wrapping_add(place.offset)
    }

    fn value(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.registers[register],
            Operand::Immediate(value) => value,
            Operand::Special(special) => u64::from(match special {
                Special::Thread => self.place[0],
                Special::Block => self.place[1],
                Special::Blocks => self.place[2],
                Special::BlockThreads => self.place[3],
            }),
        }
    }
}

fn compute(what: Binary, a: u64, b: u64, bits: u32) -> u64 {
    match what {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::ShiftLeft if b as u32 >= bits => 0,
        Binary::ShiftLeft => a << b as u32,
        Binary::ShiftRight if b as u32 >= bits => 0,
        Binary::ShiftRight => a >> b as u32,
        Binary::Min => a.min(cut(b, bits)),
    }
}
