// Question 5: what it costs to find out on the device whether a weight was
// written: the rate of a hash, whom it slows, what holds it up, and how fast
// kernels store to host memory when something must be told.
//
// Not here: the hash the library will use; `fingerprint` in kernels.cu has its shape.
#include "blas.h"
#include "copies.h"

namespace {

constexpr size_t CHUNK = 20 * MIB;
constexpr size_t CHUNKS = 16; // together larger than any L2

unsigned multiprocessors() { return unsigned(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)); }

struct Chunks {
    DeviceMemory data{CHUNK * CHUNKS}, hashes{CHUNKS * 8};
    CUfunction hash = kernel("fingerprint");
    Chunks()
    {
        Stream stream;
        launch(kernel("fill"), multiprocessors() * 4, 256, stream, data.at, uint64_t(CHUNK * CHUNKS / 4), uint32_t(7));
        CU(cuMemsetD32Async, hashes.at, 0, CHUNKS * 2, stream);
        stream.wait();
    }
    void queue(size_t chunk, unsigned blocks, CUstream stream) const
    {
        launch(hash, blocks, 256, stream, data.at + chunk * CHUNK, uint64_t(CHUNK / 16), hashes.at + chunk * 8);
    }
};

uint64_t hash_of(const Chunks &chunks, unsigned blocks)
{
    Stream stream;
    CU(cuMemsetD32Async, chunks.hashes.at, 0, 2, stream);
    chunks.queue(0, blocks, stream);
    stream.wait();
    uint64_t value = 0;
    CU(cuMemcpyDtoH, &value, chunks.hashes.at, 8);
    return value;
}

void rates()
{
    Chunks chunks;
    Stream stream;
    uint64_t before = hash_of(chunks, 64);
    bool repeats = before == hash_of(chunks, 64);
    launch(kernel("store_word"), 1, 1, stream, chunks.data.at + CHUNK - 4, uint32_t(1));
    stream.wait();
    answer("is one changed word of 20 MiB noticed",
           !repeats ? "NO: the hash does not repeat" : before != hash_of(chunks, 64) ? "yes" : "NO");
    for (unsigned blocks : {4u, 8u, 16u, 32u, 64u, multiprocessors(), 4 * multiprocessors()}) {
        size_t next = 0;
        Samples rate = rate_gbps(stream, CHUNK, 100, 0.2, [&] { chunks.queue(next++ % CHUNKS, blocks, stream); });
        answer("hash of 20 MiB with " + std::to_string(blocks) + " blocks", "", rate, "GB/s");
    }
}

void beside_a_gemm()
{
    constexpr int N = 4096;
    Blas blas;
    if (!blas.usable()) {
        not_measured("GEMM beside a hash", "cuBLAS cannot be opened (" + Blas::name() + ")");
        return;
    }
    int n = run_state.rehearsal ? 256 : N;
    size_t bytes = size_t(n) * n * 2;
    DeviceMemory a(bytes), b(bytes), product(bytes);
    Stream gemms, hashes;
    // Any finite numbers: bf16 words of a fill below 2 in magnitude.
    CU(cuMemsetD32Async, a.at, 0x3f0a3e91, bytes / 4, gemms);
    CU(cuMemsetD32Async, b.at, 0x3e11bf05, bytes / 4, gemms);
    gemms.wait();
    Chunks chunks;
    blas.use(gemms);
    Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
    int status = blas.multiply_bf16(n, a.at, b.at, product.at); // loads cuBLAS's kernel
    gemms.wait();
    auto gemm_us = [&](unsigned blocks) {
        constexpr int GEMMS = 40;
        Gate gate(gemms, 1000);
        began.record(gemms);
        CU(cuStreamWaitEvent, hashes, began, 0);
        for (int i = 0; i < GEMMS; i++) {
            status |= blas.multiply_bf16(n, a.at, b.at, product.at);
            if (blocks)
                for (size_t h = 0; h < 2; h++)
                    chunks.queue((2 * i + h) % CHUNKS, blocks, hashes);
        }
        ended.record(gemms);
        gate.open();
        double us = elapsed_ms(began, ended) * 1e3 / GEMMS;
        hashes.wait();
        return us;
    };
    Samples alone;
    for (int i = 0; i < 10; i++)
        alone.add(gemm_us(0));
    answer("bf16 GEMM 4096, alone", status ? "cuBLAS FAILED" : "", alone, "us");
    for (unsigned blocks : {8u, 16u, 32u, 64u}) {
        Samples beside;
        for (int i = 0; i < 10; i++)
            beside.add(gemm_us(blocks));
        answer("bf16 GEMM 4096, two hashes of 20 MiB beside each, " + std::to_string(blocks) + " blocks",
               "+" + text_of("%.3g", 100 * (beside.p50() / std::max(alone.p50(), 1e-9) - 1)) + " %", beside, "us");
    }
}

// A hash queued while a kernel holds all SMs for 20 ms.
void behind_a_persistent_kernel()
{
    constexpr uint64_t HELD_NS = 20000000;
    Chunks chunks;
    Stream holder, hashes;
    CUfunction spin = kernel("spin");
    unsigned threads = unsigned(attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR));
    auto delay_us = [&](unsigned blocks) {
        if (blocks) {
            launch(spin, blocks, 1024, holder, HELD_NS);
            // Until the kernel is certainly on the card.
            usleep(2000);
        }
        uint64_t began = now_ns();
        chunks.queue(0, 16, hashes);
        hashes.wait();
        double us = double(now_ns() - began) / 1e3;
        holder.wait();
        return us;
    };
    unsigned full = multiprocessors() * (threads / 1024);
    struct Case {
        const char *item;
        unsigned blocks;
    };
    for (const Case &c : {Case{"hash of 20 MiB, card idle", 0}, Case{"hash of 20 MiB, half of the card held", full / 2},
                          Case{"hash of 20 MiB, all threads of the card held for 20 ms", full}}) {
        Samples delays;
        for (int i = 0; i < 12; i++)
            delays.add(delay_us(c.blocks));
        answer(c.item, "from launch to end, seen by the host", delays, "us");
    }
}

void stores_to_the_host()
{
    size_t bytes = copy_bytes() / 4;
    HostMemory host(bytes);
    Stream stream;
    CUfunction write = kernel("write_all");
    for (unsigned blocks : {1u, 4u, 16u, multiprocessors()}) {
        size_t part = std::min(bytes, blocks * 16 * MIB);
        answer("stores to mapped host memory, " + std::to_string(blocks) + " blocks", "",
               rate_gbps(stream, part, 10, 0.4, [&] {
                   launch(write, blocks, 512, stream, host.on_device(), uint64_t(part / 16), uint32_t(3));
               }), "GB/s");
    }
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("5 Fingerprint", argc, argv,
                        {{"rates", Needs::Card, rates},
                         {"beside a GEMM", Needs::Card, beside_a_gemm},
                         {"behind a persistent kernel", Needs::Card, behind_a_persistent_kernel},
                         {"stores to the host", Needs::Card, stores_to_the_host}});
}
