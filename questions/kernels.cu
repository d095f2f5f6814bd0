// The kernels of all questions, built once into kernels.fatbin and launched
// through the driver by name. Each checks, reads, writes, computes or waits;
// none runs without an end: what waits for the host also watches the clock.
//
// Not here: who launches them and what their times mean (one .cpp a topic).
#include "pattern.h"
#include <cuda.h>

typedef unsigned long long u64;

__device__ static u64 device_ns()
{
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

__device__ static void note(Wrong *wrong, uint32_t round, uint32_t position, uint32_t found, uint32_t wanted)
{
    if (found == wanted)
        return;
    if (atomicAdd(&wrong->words, 1ull) == 0) {
        wrong->round = round;
        wrong->position = position;
        wrong->found = found;
        wrong->wanted = wanted;
    }
}

extern "C" __global__ void empty() {}

// For the driver's questions about parameters: a by-value struct among pointers.
struct Bundle {
    u64 words[16];
};
extern "C" __global__ void many_parameters(void *, void *, void *, u64, float, Bundle, void *, int) {}

extern "C" __global__ void fill(uint32_t *data, u64 words, uint32_t seed)
{
    for (u64 i = blockIdx.x * u64(blockDim.x) + threadIdx.x; i < words; i += u64(gridDim.x) * blockDim.x)
        data[i] = pattern(seed, uint32_t(i));
}

extern "C" __global__ void store_word(uint32_t *at, uint32_t value) { *at = value; }

// --- time ------------------------------------------------------------------

extern "C" __global__ void spin(u64 ns)
{
    for (u64 began = device_ns(); device_ns() - began < ns;) {}
}

// Runs until the host stores 1 to `flag`, or `longest_ns` have passed.
extern "C" __global__ void wait_for_host(const volatile uint32_t *flag, u64 longest_ns)
{
    for (u64 began = device_ns(); *flag == 0 && device_ns() - began < longest_ns;) {}
}

// Looks at the clock for `ns` and keeps the longest time between two looks:
// the longest time this kernel did not run. out: [0] the longest gap, [1] looks.
extern "C" __global__ void gap_probe(u64 ns, u64 *out)
{
    u64 began = device_ns(), last = began, longest = 0, looks = 0;
    while (last - began < ns) {
        u64 t = device_ns();
        longest = t - last > longest ? t - last : longest;
        last = t;
        looks++;
    }
    out[0] = longest;
    out[1] = looks;
}

// --- load ------------------------------------------------------------------

// Bound by memory: every word of `data`, `times` times over.
extern "C" __global__ void read_all(const uint4 *data, u64 vectors, uint32_t times, uint32_t *sink)
{
    uint32_t sum = 0;
    for (uint32_t t = 0; t < times; t++)
        for (u64 i = blockIdx.x * u64(blockDim.x) + threadIdx.x; i < vectors; i += u64(gridDim.x) * blockDim.x) {
            uint4 v = __ldcg(data + i);
            sum += v.x ^ v.y ^ v.z ^ v.w;
        }
    if (sum == 0x12345678)
        *sink = sum;
}

// One 128-byte line in `stride_lines`: what a lookup in a big table reads.
extern "C" __global__ void read_sparse(const uint4 *data, u64 lines, uint32_t stride_lines, uint32_t *sink)
{
    uint32_t sum = 0;
    u64 thread = blockIdx.x * u64(blockDim.x) + threadIdx.x;
    for (u64 i = thread / 8; i < lines / stride_lines; i += u64(gridDim.x) * blockDim.x / 8) {
        // An odd multiplier visits the lines out of order.
        u64 line = (i * 2654435761u % (lines / stride_lines)) * stride_lines;
        uint4 v = __ldcg(data + line * 8 + thread % 8);
        sum += v.x ^ v.y ^ v.z ^ v.w;
    }
    if (sum == 0x12345678)
        *sink = sum;
}

// Bound by arithmetic: no memory at all.
extern "C" __global__ void compute(uint32_t rounds, float *sink)
{
    float a = threadIdx.x, b = blockIdx.x, c = 1.0f, d = 2.0f;
    for (uint32_t i = 0; i < rounds; i++) {
        a = a * 1.0001f + b;
        b = b * 0.9999f + c;
        c = c * 1.0002f + d;
        d = d * 0.9998f + a;
    }
    if (a + b + c + d == 0.123f)
        *sink = a;
}

// Stores from the SMs, to device memory or to mapped host memory.
extern "C" __global__ void write_all(uint4 *data, u64 vectors, uint32_t value)
{
    for (u64 i = blockIdx.x * u64(blockDim.x) + threadIdx.x; i < vectors; i += u64(gridDim.x) * blockDim.x)
        data[i] = make_uint4(value, value, value, value);
}

// --- checks: does every word of one block carry the pattern of `seed`? -----
// Every block of the grid checks the whole of it, so that every SM's caches are asked.

extern "C" __global__ void check_plain(const uint32_t *data, uint32_t seed, uint32_t round, Wrong *wrong)
{
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x)
        note(wrong, round, i, data[i], pattern(seed, i));
}

// Ordinary loads that may stay in L1.
extern "C" __global__ void check_cached(const uint32_t *data, uint32_t seed, uint32_t round, Wrong *wrong)
{
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x) {
        uint32_t v;
        asm volatile("ld.global.ca.u32 %0, [%1];" : "=r"(v) : "l"(data + i));
        note(wrong, round, i, v, pattern(seed, i));
    }
}

// The read-only path.
extern "C" __global__ void check_read_only(const uint32_t *__restrict__ data, uint32_t seed, uint32_t round,
                                           Wrong *wrong)
{
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x)
        note(wrong, round, i, __ldg(data + i), pattern(seed, i));
}

// The read-only path, 16 bytes at a time.
extern "C" __global__ void check_vector(const uint4 *data, uint32_t seed, uint32_t round, Wrong *wrong)
{
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS / 4; i += blockDim.x) {
        uint4 v;
        asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(data + i));
        note(wrong, round, 4 * i, v.x, pattern(seed, 4 * i));
        note(wrong, round, 4 * i + 1, v.y, pattern(seed, 4 * i + 1));
        note(wrong, round, 4 * i + 2, v.z, pattern(seed, 4 * i + 2));
        note(wrong, round, 4 * i + 3, v.w, pattern(seed, 4 * i + 3));
    }
}

// A bulk tensor copy into shared memory, then the check.
extern "C" __global__ void check_tma(const __grid_constant__ CUtensorMap map, uint32_t seed, uint32_t round,
                                     Wrong *wrong)
{
#if __CUDA_ARCH__ >= 900
    __shared__ alignas(128) uint32_t tile[BLOCK_WORDS];
    __shared__ alignas(8) u64 arrived;
    uint32_t barrier = uint32_t(__cvta_generic_to_shared(&arrived));
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier));
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(BLOCK_BYTES)
                     : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1, {%2, %2}], [%3];" ::"r"(uint32_t(__cvta_generic_to_shared(tile))),
                     "l"(&map), "r"(0), "r"(barrier)
                     : "memory");
    }
    __syncthreads();
    uint32_t done = 0;
    while (!done)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier)
                     : "memory");
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x)
        note(wrong, round, i, tile[i], pattern(seed, i));
#endif
}

// What a GEMM with the identity made of one block of floats.
extern "C" __global__ void check_float(const float *data, uint32_t seed, uint32_t round, Wrong *wrong)
{
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x)
        note(wrong, round, i, __float_as_uint(data[i]), __float_as_uint(pattern_float(seed, i)));
}

// Allows the next kernel to start, then runs on for a while.
extern "C" __global__ void early_primary(u64 ns)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
    for (u64 began = device_ns(); device_ns() - began < ns;) {}
}

// A dependent kernel that waits for its primary before it reads.
extern "C" __global__ void check_after_primary(const uint32_t *data, uint32_t seed, uint32_t round, Wrong *wrong)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x)
        note(wrong, round, i, data[i], pattern(seed, i));
}

// A kernel that was there before the writes: it reads the same blocks through
// its caches until the host says stop. `seen` counts the times a word differed from
// the one it read before, so that nobody takes its reads away.
extern "C" __global__ void resident_reader(const uint32_t *data, uint32_t blocks, const volatile uint32_t *stop,
                                           u64 longest_ns, u64 *seen)
{
    u64 changes = 0;
    uint32_t last = 0;
    for (u64 began = device_ns(); *stop == 0 && device_ns() - began < longest_ns;)
        for (uint32_t b = 0; b < blocks; b++)
            for (uint32_t i = threadIdx.x; i < BLOCK_WORDS; i += blockDim.x) {
                uint32_t v;
                asm volatile("ld.global.ca.u32 %0, [%1];" : "=r"(v) : "l"(data + b * BLOCK_WORDS + i));
                changes += v != last;
                last = v;
            }
    atomicAdd(seen, changes);
}
