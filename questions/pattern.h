// The words that copies carry and kernels look for: seed and position say what
// each must be, on the host and on the device.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define ON_BOTH __host__ __device__
#else
#define ON_BOTH
#endif

// Two seeds below 2^16 differ in every word.
ON_BOTH inline uint32_t pattern(uint32_t seed, uint32_t position)
{
    return (seed * 65537u) ^ (position * 2654435761u);
}

// As pattern, as a small whole number that a GEMM with the identity keeps exactly.
ON_BOTH inline float pattern_float(uint32_t seed, uint32_t position)
{
    return float((pattern(seed, position) >> 8) & 0xffff) + float(seed & 0xff) * 0.0078125f;
}

// What the checking kernels write: how many words were wrong, and the first of them.
struct Wrong {
    unsigned long long words;
    uint32_t round, position, found, wanted;
};

// One block of data that a round writes and checks: 64 rows of 64 words, 16 KiB.
constexpr uint32_t BLOCK_ROWS = 64, BLOCK_WORDS = 64 * BLOCK_ROWS, BLOCK_BYTES = 4 * BLOCK_WORDS;
