//! PyTorch's grouped matrix product on sm_90: one small kernel writes a table of
//! addresses, strides and sizes for each group, and a product of CUTLASS reads
//! through these tables. It is given nothing else: no parameter names a matrix.
//!
//! Of its cases: rows in groups times one matrix a group (`offs` of `a`), both
//! row-major, in bf16. Not here: the same in the stand-in's own form (`tables`).

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::{Cursor, unsupported};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy)]
enum Grouped {
    Tables,
    Product,
}

/// Row-major `a`, row-major `b`, as the types of their strides say it.
const MATRICES: &str = "cutlass::bfloat16_t, cute::tuple<long, cute::C<1>, cute::C<0> >*, \
                        cutlass::bfloat16_t, cute::tuple<cute::C<1>, long, cute::C<0> >*";

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let first = name.args.first().map_or("", String::as_str);
    let found = match name.base.as_str() {
        "prepare_grouped_gemm_data" if first == "cutlass::bfloat16_t" => Grouped::Tables,
        "device_kernel" if first.contains("GroupProblemShape") && first.contains(MATRICES) => {
            Grouped::Product
        }
        _ => return None,
    };
    Some(Box::new(found))
}

impl Kernel for Grouped {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        match self {
            Grouped::Tables => tables(launch, memory),
            Grouped::Product => product(launch, memory),
        }
    }

    /// How much it reads stands in the tables, which are not known yet.
    fn cost(&self, _launch: &Launch) -> Cost {
        Cost { bytes: 4096.0, flops: 0.0 }
    }
}

const BF16_BYTES: u64 = 2;

fn word(launch: &Launch, index: usize) -> Result<u64, Fault> {
    Cursor::parameter(launch, index)?.u64()
}

/// `(a, b, out, scales ×2, a_ptrs, b_ptrs, out_ptrs, scale_ptrs ×2, sizes,
/// a_strides, b_strides, out_strides, offs, M, N, K, strides and shapes …, a and
/// b row-major)`: a thread for each group. A size that the groups divide is -1.
fn tables(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let size = |index| Cursor::parameter(launch, index)?.i32();
    let (m, n, k) = (size(15)?, size(16)?, size(17)?);
    let row_major =
        Cursor::parameter(launch, 25)?.u8()? != 0 && Cursor::parameter(launch, 26)?.u8()? != 0;
    let scaled = word(launch, 3)? != 0 || word(launch, 4)? != 0;
    if m >= 0 || n < 0 || k < 0 || !row_major || scaled {
        return Err(unsupported(launch, "another grouped product than rows times matrices"));
    }
    let groups = u64::from(launch.block[0]);
    let strides = |index| -> Result<[u64; 3], Fault> {
        let mut cursor = Cursor::parameter(launch, index)?;
        Ok([cursor.u64()?, cursor.u64()?, cursor.u64()?])
    };
    let (a_strides, b_strides, out_strides) = (strides(18)?, strides(19)?, strides(20)?);
    let ends = Source::new(memory, word(launch, 14)?, DType::I32, groups)?;
    let table = |index| Target::new(memory, word(launch, index)?, DType::I64, groups);
    let sizes = Target::new(memory, word(launch, 10)?, DType::I32, 3 * groups)?;
    let (a, b, out) = (word(launch, 0)?, word(launch, 1)?, word(launch, 2)?);
    let (a_ptrs, b_ptrs, out_ptrs) = (table(5)?, table(6)?, table(7)?);
    let (a_lds, b_lds, out_lds) = (table(11)?, table(12)?, table(13)?);
    let mut start = 0;
    for group in 0..groups {
        let end = ends.get::<i64>(group) as u64;
        let at = |base: u64, elements: u64| (base + BF16_BYTES * elements) as i64;
        a_ptrs.store(group, &[at(a, start * a_strides[0])]);
        b_ptrs.store(group, &[at(b, group * b_strides[0])]);
        out_ptrs.store(group, &[at(out, start * out_strides[0])]);
        a_lds.store(group, &[a_strides[0] as i64]);
        b_lds.store(group, &[b_strides[1] as i64]);
        out_lds.store(group, &[out_strides[0] as i64]);
        let rows = end.checked_sub(start);
        let rows = rows.ok_or_else(|| unsupported(launch, "groups that end before they begin"))?;
        sizes.store(3 * group, &[rows as i64, i64::from(n), i64::from(k)]);
        start = end;
    }
    Ok(())
}

/// Where the fields are in the one parameter: found by its own launches.
mod field {
    pub const GROUPS: usize = 8;
    pub const SIZES: usize = 16;
    pub const A_PTRS: usize = 656;
    pub const A_LDS: usize = 664;
    pub const B_PTRS: usize = 672;
    pub const B_LDS: usize = 680;
    pub const OUT_PTRS: usize = 1432;
    pub const OUT_LDS: usize = 1440;
    pub const BYTES: usize = 1792;
}

fn product(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let at = |field: usize| {
        let mut cursor = Cursor::parameter(launch, 0)?;
        cursor.skip(field);
        cursor.u64()
    };
    if Cursor::parameter(launch, 0)?.size() != field::BYTES {
        return Err(unsupported(launch, "a grouped product with other fields"));
    }
    let groups = at(field::GROUPS)? & u64::from(u32::MAX);
    let table = |field| Source::new(memory, at(field)?, DType::I64, groups);
    let sizes = Source::new(memory, at(field::SIZES)?, DType::I32, 3 * groups)?;
    let (a_ptrs, b_ptrs, out_ptrs) =
        (table(field::A_PTRS)?, table(field::B_PTRS)?, table(field::OUT_PTRS)?);
    let (a_lds, b_lds, out_lds) =
        (table(field::A_LDS)?, table(field::B_LDS)?, table(field::OUT_LDS)?);
    for group in 0..groups {
        let [rows, n, k] = [0, 1, 2].map(|size| sizes.get::<i64>(3 * group + size) as u64);
        let [lda, ldb, ldo] = [&a_lds, &b_lds, &out_lds].map(|lds| lds.get::<i64>(group) as u64);
        if rows == 0 {
            continue;
        }
        let [a, b, out] = [&a_ptrs, &b_ptrs, &out_ptrs].map(|ptrs| ptrs.get::<i64>(group) as u64);
        let a = Source::new(memory, a, DType::BF16, (rows - 1) * lda + k)?;
        let b = Source::new(memory, b, DType::BF16, (k - 1) * ldb + n)?;
        let out = Target::new(memory, out, DType::BF16, (rows - 1) * ldo + n)?;
        let mut left = [0f32];
        let mut weights = vec![0f32; n as usize];
        let mut sums = vec![0f32; (rows * n) as usize];
        for j in 0..k {
            b.load(j * ldb, &mut weights);
            for row in 0..rows {
                a.load(row * lda + j, &mut left);
                let sums = &mut sums[(row * n) as usize..][..n as usize];
                for (sum, weight) in sums.iter_mut().zip(&weights) {
                    *sum += left[0] * weight;
                }
            }
        }
        for row in 0..rows {
            out.store(row * ldo, &sums[(row * n) as usize..][..n as usize]);
        }
    }
    Ok(())
}
