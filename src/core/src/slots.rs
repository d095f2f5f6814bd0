//! Which slots of PyTorch's by-value structs a launch reads.
//!
//! Kernels that work on many tensors at once (`torch.cat`, `_foreach_*`, the
//! fused optimisers) take a struct with a slot for every tensor there could be.
//! A launch fills some; the others keep what lay on the stack before: often
//! addresses of former launches. Such a word is no reason to make memory
//! present, but leaving one out that *is* read would be a wrong byte. So a slot
//! counts as unused only on proof: the kernel's name says which struct it is,
//! the sizes of all that it takes agree with that struct, this release of
//! PyTorch is one whose kernels were read, and what decides which slots are
//! read (the grid, or the struct's own table of blocks) is within its bounds.
//! Whatever is in doubt answers `None`: then every word counts.
//!
//! Pure. Not here: how names, sizes and the release are asked for.

use crate::params::ADDRESS_MASK;

/// Releases whose kernels were read: (major, minor).
const MAJOR: u32 = 2;
const MINORS: [u32; 3] = [10, 11, 15];

const WORD: usize = 8;

/// Whether slots can be told apart in PyTorch `version` ("2.11.0+cu130").
pub fn knows_release(version: &str) -> bool {
    let mut numbers = version.split(['.', '+']).map(str::parse);
    numbers.next() == Some(Ok(MAJOR))
        && numbers.next().is_some_and(|minor| minor.is_ok_and(|minor| MINORS.contains(&minor)))
}

/// Whether the kernel `name` (mangled) may take such a struct: worth asking
/// which release of PyTorch runs.
pub fn may_have_slots(name: &str) -> bool {
    name.contains(CAT) || name.contains(MULTI_TENSOR)
}

/// A kernel's struct with slots, and how a launch says which it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Which parameter the struct is.
    pub param: usize,
    bytes: usize,
    /// Arrays of addresses, one after the other from the struct's start.
    lists: usize,
    /// Slots of each.
    slots: usize,
    used: Used,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    /// The first ones: as many as the grid has rows.
    Rows,
    /// Those that the table of blocks names for a block of the grid.
    Blocks {
        /// First byte of the table, its entries, and the bytes of each.
        table: usize,
        entries: usize,
        entry_bytes: usize,
        /// One more array of addresses, with a slot for each tensor as well:
        /// its first byte, and how many slots it has.
        steps: Option<(usize, usize)>,
    },
}

/// How large the structs of `multi_tensor_apply` are made.
struct Form {
    /// Slots, by the number of lists less one; and of those with a scalar each.
    slots: [usize; 5],
    slots_with_scalars: [usize; 5],
    /// Blocks of a launch at the most, and so entries of the table; the bytes
    /// of an entry.
    blocks: usize,
    entry_bytes: usize,
}

/// For 4 KiB of parameters, and (from 2.12 on, where built for CUDA 13) for 32.
const FORMS: [Form; 2] = [
    Form {
        slots: [110, 64, 48, 36, 30],
        slots_with_scalars: [96, 64, 48, 36, 30],
        blocks: 320,
        entry_bytes: 1,
    },
    Form {
        slots: [770, 448, 336, 252, 210],
        slots_with_scalars: [672, 448, 336, 252, 210],
        blocks: 2240,
        entry_bytes: 2,
    },
];

const NAMESPACE: &str = "_ZN2at6native";
const CAT: &str = "CatArrayBatchedCopy";
const MULTI_TENSOR: &str = "25multi_tensor_apply_kernelI";

impl Slots {
    /// Of the kernel `name` (mangled), whose parameters have `sizes`, of a
    /// release that [`knows_release`]; `None`: it has no struct with slots, or
    /// not one that is known.
    pub fn of(name: &str, sizes: &[usize]) -> Option<Slots> {
        // Not somebody's own of the same name.
        let name = name.strip_prefix(NAMESPACE)?;
        if let Some(at) = name.find(MULTI_TENSOR) {
            let name = &name[at + MULTI_TENSOR.len()..];
            return FORMS.iter().find_map(|form| Self::multi_tensor(name, sizes, form));
        }
        Self::cat(&name[name.find(CAT)? + CAT.len()..], sizes)
    }

    /// `cat(out, inputs, shape, dimension, stride)`, with the arguments
    /// `<T, unsigned, dims, slots, shapes, ...>`: each row of the grid copies
    /// the tensor of its slot.
    fn cat(name: &str, sizes: &[usize]) -> Option<Slots> {
        const SUFFIXES: [&str; 4] = ["I", "_contigI", "_vectorizedI", "_alignedK_contigI"];
        const SHAPE: usize = 4 * 4 * 2;
        let arguments = SUFFIXES.iter().find_map(|suffix| name.strip_prefix(suffix))?;
        // The element's type ends where the index's begins.
        let numbers = arguments.split_once("jLi")?.1;
        let (_dimensions, rest) = literal(numbers)?;
        let (slots, rest) = literal(rest.strip_prefix("Li")?)?;
        let (shapes, _) = literal(rest.strip_prefix("Li")?)?;
        let flags_end = slots.checked_mul(WORD + 3 * 4 + 1)?;
        let bytes =
            (flags_end.next_multiple_of(4) + shapes.checked_mul(SHAPE)?).next_multiple_of(WORD);
        let expected = [WORD, bytes, SHAPE, 4, 4];
        (slots > 0 && sizes == expected).then_some(Slots {
            param: 1,
            bytes,
            lists: 1,
            slots,
            used: Used::Rows,
        })
    }

    /// `multi_tensor_apply_kernel(struct, functor, ...)`: each block works on
    /// the tensor that the struct's table says.
    fn multi_tensor(name: &str, sizes: &[usize], form: &Form) -> Option<Slots> {
        const PLAIN: &str = "NS1_18TensorListMetadataILi";
        const SCALARS: &str = "NS1_28TensorListScalarListMetadataI";
        const OPTIMIZER: &str = "NS1_32FusedOptimizerTensorListMetadataILi";
        /// Somebody's own functor may read what it likes.
        const FUNCTORS: [&str; 2] = ["EENS0_", "EENS1_"];
        let of = |table: [usize; 5], lists: usize| table.get(lists.checked_sub(1)?).copied();
        let lists_of = |rest: &str| {
            let (lists, rest) = literal(rest)?;
            FUNCTORS.iter().any(|functor| rest.starts_with(functor)).then_some(lists)
        };
        // What lies between the addresses and the table, and behind it.
        let (lists, slots, between, steps, tail) = if let Some(rest) = name.strip_prefix(PLAIN) {
            let lists = lists_of(rest)?;
            let slots = of(form.slots, lists)?;
            (lists, slots, slots * WORD, None, 4)
        } else if let Some(rest) = name.strip_prefix(SCALARS) {
            let scalar = match rest.as_bytes().first()? {
                b'f' | b'i' => 4,
                b'd' | b'l' => 8,
                _ => return None,
            };
            let lists = lists_of(rest[1..].strip_prefix("Li")?)?;
            let slots = of(form.slots_with_scalars, lists)?;
            (lists, slots, slots * (WORD + scalar), None, 0)
        } else {
            let lists = lists_of(name.strip_prefix(OPTIMIZER)?)?;
            let slots = of(form.slots, lists)?;
            let step_slots = of(form.slots_with_scalars, lists)?;
            let steps = ((lists + 1) * slots * WORD, step_slots);
            (lists, slots, slots * WORD + step_slots * WORD, Some(steps), 4)
        };
        let table = lists * slots * WORD + between;
        let bytes = (table + form.blocks * (form.entry_bytes + 4) + tail).next_multiple_of(WORD);
        (sizes.first() == Some(&bytes)).then_some(Slots {
            param: 0,
            bytes,
            lists,
            slots,
            used: Used::Blocks {
                table,
                entries: form.blocks,
                entry_bytes: form.entry_bytes,
                steps,
            },
        })
    }

    /// Calls `hit` with every word of the struct that a launch on a grid of
    /// `columns` by `rows` reads as an address. `false`: it cannot be told, and
    /// nothing was called.
    pub fn read(
        &self,
        param: &[u8],
        (columns, rows): (u32, u32),
        mut hit: impl FnMut(u64),
    ) -> bool {
        if param.len() != self.bytes {
            return false;
        }
        let mut word = |at: usize| {
            let bytes = param[at..at + WORD].try_into().expect("a word");
            hit(u64::from_le_bytes(bytes) & ADDRESS_MASK);
        };
        match self.used {
            Used::Rows => {
                let rows = rows as usize;
                if rows > self.slots {
                    return false;
                }
                (0..rows).for_each(|slot| word(slot * WORD));
            }
            Used::Blocks { table, entries, entry_bytes, steps } => {
                let columns = columns as usize;
                if columns > entries {
                    return false;
                }
                let blocks = &param[table..table + columns * entry_bytes];
                let slot_of = |entry: &[u8]| {
                    entry.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
                };
                let most = steps.map_or(self.slots, |(_, slots)| slots.min(self.slots));
                if blocks.chunks(entry_bytes).any(|entry| slot_of(entry) >= most) {
                    return false;
                }
                // Blocks of one tensor follow each other.
                let mut last = usize::MAX;
                for slot in blocks.chunks(entry_bytes).map(slot_of) {
                    if std::mem::replace(&mut last, slot) == slot {
                        continue;
                    }
                    (0..self.lists).for_each(|list| word((list * self.slots + slot) * WORD));
                    if let Some((first, _)) = steps {
                        word(first + slot * WORD);
                    }
                }
            }
        }
        true
    }
}

/// A number up to its `E`, and what follows.
fn literal(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('E')?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "_ZN2at6native55_GLOBAL__N__00000000_8_Shape_cu_49f7391c";
    const HERE: u64 = 0x7000_0000_0000;

    fn cat_name(variant: &str, slots: usize, shapes: usize) -> String {
        format!(
            "{HEAD}_{}CatArrayBatchedCopy{variant}INS1_10OpaqueTypeILj4EEEjLi2ELi{slots}ELi{shapes}EEEvPT_NS1_25CatArrInputTensorMetadataIS5_T0_XT2_EXT3_EEE",
            19 + variant.len()
        )
    }

    fn apply_name(argument: &str) -> String {
        format!(
            "_ZN2at6native12_GLOBAL__N_125multi_tensor_apply_kernelI{argument}NS1_11CopyFunctorIffEEJEEEvT_T0_DpT1_"
        )
    }

    /// A struct in which every word names an address of its own.
    fn stale(bytes: usize) -> Vec<u8> {
        (0..bytes / WORD).flat_map(|i| (HERE + i as u64).to_le_bytes()).collect()
    }

    fn read(slots: &Slots, param: &[u8], grid: (u32, u32)) -> Option<Vec<u64>> {
        let mut found = Vec::new();
        slots.read(param, grid, |address| found.push(address - HERE)).then_some(found)
    }

    #[test]
    fn a_concatenation_reads_as_many_slots_as_its_grid_has_rows() {
        for (variant, slots, shapes, bytes) in [
            ("", 128, 1, 2720),
            ("_contig", 128, 1, 2720),
            ("_vectorized", 128, 1, 2720),
            ("_alignedK_contig", 128, 1, 2720),
            ("", 64, 64, 3392),
        ] {
            let known = Slots::of(&cat_name(variant, slots, shapes), &[8, bytes, 32, 4, 4]);
            let known = known.unwrap_or_else(|| panic!("{variant} of {slots}"));
            assert_eq!(known.param, 1);
            let param = stale(bytes);
            for rows in [0, 1, 2, slots as u32 - 1, slots as u32] {
                let expected = (0..u64::from(rows)).collect::<Vec<_>>();
                assert_eq!(read(&known, &param, (17, rows)), Some(expected));
            }
            assert_eq!(read(&known, &param, (1, slots as u32 + 1)), None);
            assert_eq!(read(&known, &param[..bytes - 8], (1, 1)), None);
        }
    }

    #[test]
    fn a_concatenation_of_another_shape_is_not_known() {
        let name = cat_name("_contig", 128, 1);
        for sizes in [&[8, 2728, 32, 4, 4][..], &[8, 2720, 32, 4], &[8, 2720, 40, 4, 4], &[]] {
            assert_eq!(Slots::of(&name, sizes), None);
        }
        let sizes = [8, 2720, 32, 4, 4];
        assert_eq!(Slots::of(&cat_name("_new", 128, 1), &sizes), None);
        assert_eq!(Slots::of(&name.replace("jLi", "lLi"), &sizes), None);
        assert_eq!(Slots::of(&name.replace("2at6native", "3lib4mine"), &sizes), None);
        assert_eq!(Slots::of("_Z4copyPfS_", &sizes), None);
    }

    #[test]
    fn a_multi_tensor_launch_reads_the_tensors_of_its_blocks() {
        for (argument, lists, slots, steps, bytes) in [
            ("NS1_18TensorListMetadataILi1EEE", 1, 110, None, 3368),
            ("NS1_18TensorListMetadataILi2EEE", 2, 64, None, 3144),
            ("NS1_18TensorListMetadataILi5EEE", 5, 30, None, 3048),
            ("NS1_28TensorListScalarListMetadataIfLi1EEE", 1, 96, None, 3520),
            ("NS1_28TensorListScalarListMetadataIdLi3EEE", 3, 48, None, 3520),
            ("NS1_32FusedOptimizerTensorListMetadataILi4EEE", 4, 36, Some(5 * 36), 3336),
            ("NS1_32FusedOptimizerTensorListMetadataILi5EEE", 5, 30, Some(6 * 30), 3288),
            ("NS1_18TensorListMetadataILi1EEE", 1, 770, None, 25768),
            ("NS1_18TensorListMetadataILi5EEE", 5, 210, None, 23528),
            ("NS1_28TensorListScalarListMetadataIfLi2EEE", 2, 448, None, 25984),
            ("NS1_32FusedOptimizerTensorListMetadataILi4EEE", 4, 252, Some(5 * 252), 25544),
        ] {
            let known = Slots::of(&apply_name(argument), &[bytes, 1, 8, 4]);
            let known = known.unwrap_or_else(|| panic!("{argument} of {bytes} bytes"));
            let Used::Blocks { table, entries, entry_bytes, .. } = known.used else {
                panic!("{argument}")
            };
            let mut param = stale(bytes);
            let entry = |slot: u64| slot.to_le_bytes()[..entry_bytes].to_vec();
            // Three blocks: two of tensor 0, one of the last. What follows is stale.
            let blocks = [entry(0), entry(0), entry(slots - 1)].concat();
            param[table..table + blocks.len()].copy_from_slice(&blocks);
            let of = |slot: u64| {
                let lists = (0..lists).map(move |list| list * slots + slot);
                lists.chain(steps.map(|first| first + slot))
            };
            let expected: Vec<u64> = of(0).chain(of(slots - 1)).collect();
            assert_eq!(read(&known, &param, (3, 1)), Some(expected), "{argument}");
            assert_eq!(read(&known, &param, (0, 1)), Some(Vec::new()));
            param[table + 2 * entry_bytes..table + 3 * entry_bytes].copy_from_slice(&entry(slots));
            assert_eq!(read(&known, &param, (3, 1)), None, "a tensor that is none");
            assert_eq!(read(&known, &param, (entries as u32 + 1, 1)), None);
            assert_eq!(Slots::of(&apply_name(argument), &[bytes + 8, 1]), None);
            assert_eq!(Slots::of(&apply_name(argument), &[]), None);
        }
        assert_eq!(Slots::of(&apply_name("NS1_18TensorListMetadataILi6EEE"), &[3000]), None);
        assert_eq!(Slots::of(&apply_name("NS1_18TensorListMetadataILi0EEE"), &[1608]), None);
        let own = apply_name("NS1_18TensorListMetadataILi1EEE").replace("NS1_11", "11");
        assert_eq!(Slots::of(&own, &[3368]), None, "a functor of somebody else's");
        let complex = "NS1_28TensorListScalarListMetadataIN3c107complexIdEELi1EEE";
        assert_eq!(Slots::of(&apply_name(complex), &[3904]), None);
    }

    #[test]
    fn only_releases_that_were_read_are_known() {
        assert!(knows_release("2.11.0+cu130") && knows_release("2.15.1"));
        for other in ["2.5.1", "2.99.0", "3.11.0", "1.11.0", "2", "", "2.x.0", "nightly"] {
            assert!(!knows_release(other), "{other}");
        }
    }
}
