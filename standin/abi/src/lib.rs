//! What the stand-in's libraries agree on: the image format of its own
//! kernels and the parameter block of its GEMM.
//!
//! Not here: anything of NVIDIA's ABI (that is cudarc's `sys`).

/// First line of an image that `cuModuleLoadData` / `cuLibraryLoadData` takes
/// in place of a cubin, for kernels that exist only on the stand-in.
///
/// The text, NUL-terminated, continues with one line per kernel:
/// `kernel NAME SIZE[,SIZE…]`, the sizes of its parameters in bytes, each
/// aligned to `min(SIZE, 8)`.
pub const IMAGE_MAGIC: &str = "standin-module v1\n";

/// Name of the matrix-multiply kernel that our cuBLAS launches. It takes one
/// parameter, a [`Gemm`] by value.
pub const GEMM_KERNEL: &str = "standin_gemm";

/// `standin_fill_u32(u32* to, u64 count, u32 value)`, for tests. Its line in
/// an image: `kernel standin_fill_u32 8,8,4`.
pub const FILL_U32_KERNEL: &str = "standin_fill_u32";

/// `standin_add_u32(u32* to, const u32* from, u64 count)`: `to[i] += from[i]`,
/// for tests. Its line in an image: `kernel standin_add_u32 8,8,8`.
pub const ADD_U32_KERNEL: &str = "standin_add_u32";

/// `standin_poll_u32(const u32* word, u32 value)`: runs until the word is
/// `value`. With 448 blocks or more it leaves no room for other kernels. Its
/// line in an image: `kernel standin_poll_u32 8,4`.
pub const POLL_U32_KERNEL: &str = "standin_poll_u32";

/// `standin_table_u64(u64* table, u64 first, u64 step, u64 count)`:
/// `table[i] = first + i · step`, so that a table of addresses comes to lie in
/// device memory. Its line in an image: `kernel standin_table_u64 8,8,8,8`.
pub const TABLE_U64_KERNEL: &str = "standin_table_u64";

/// `standin_add_through_u32(u32* to, const u64* table, u64 index, u64 count)`:
/// `to[i] += ((const u32*)table[index])[i]`; no parameter names what it reads.
/// Its line in an image: `kernel standin_add_through_u32 8,8,8,8`.
pub const ADD_THROUGH_U32_KERNEL: &str = "standin_add_through_u32";

/// `standin_add_far_u32(u32* to, const u64* tables, u64 count)`: the same, where
/// the first word of `tables` is the address of a table, and that one's first
/// word the address of what is added.
/// Its line in an image: `kernel standin_add_far_u32 8,8,8`.
pub const ADD_FAR_U32_KERNEL: &str = "standin_add_far_u32";

/// The first half of a grouped product, in the shape of PyTorch's:
/// `standin_group_tables(const float* a, const float* b, float* d, u64* tables,
/// const i32* ends, i64 n, i64 k, i32 groups)`. Rows `ends[g-1]..ends[g]` of
/// `a` and `d` are group `g`'s, and `b` has one `k × n` matrix for each, all
/// row-major. Writes for each group four words: the addresses of its parts of
/// a, b and d, and its number of rows.
/// Its line in an image: `kernel standin_group_tables 8,8,8,8,8,8,8,4`.
pub const GROUP_TABLES_KERNEL: &str = "standin_group_tables";

/// The second half: `standin_grouped_product(const u64* tables, i64 n, i64 k,
/// i32 groups)` computes each group's `d = a · b`. No parameter names a matrix.
/// Its line in an image: `kernel standin_grouped_product 8,8,8,4`.
pub const GROUPED_PRODUCT_KERNEL: &str = "standin_grouped_product";

/// `D = epilogue(alpha · op(A) · op(B) + beta · C + bias)`, column-major, as
/// cuBLAS defines it, `batch` times. The pointers lie inside a by-value
/// struct, as they do in real cuBLAS kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Device addresses. `c` may equal `d`; `bias` (one value per row of D,
    /// of type `d_type`) is 0 when absent.
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
    pub bias: u64,
    /// D2: the epilogue's auxiliary output (GELU_AUX, RELU_AUX), 0 when absent.
    pub aux: u64,
    pub alpha: f64,
    pub beta: f64,
    /// op(A) is m × k, op(B) is k × n, C and D are m × n.
    pub m: i64,
    pub n: i64,
    pub k: i64,
    /// Leading dimensions, in elements.
    pub lda: i64,
    pub ldb: i64,
    pub ldc: i64,
    pub ldd: i64,
    /// Elements between consecutive matrices of the batch.
    pub stride_a: i64,
    pub stride_b: i64,
    pub stride_c: i64,
    pub stride_d: i64,
    pub batch: i32,
    /// 0: not transposed, 1: transposed (cublasOperation_t).
    pub trans_a: i32,
    pub trans_b: i32,
    /// cudaDataType of A and B, of C and D: 0 = f32, 2 = f16, 14 = bf16, 1 = f64.
    pub ab_type: i32,
    pub d_type: i32,
    /// cublasLtEpilogue_t: 1 default, 2 ReLU, 4 bias, 6 ReLU+bias, 32 GELU, 36 GELU+bias.
    pub epilogue: i32,
}
