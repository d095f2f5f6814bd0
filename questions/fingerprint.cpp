// Question 5: what it costs to find out on the device whether a weight was
// written, by the kernel that the library ships (shim/fingerprint.ptx): what
// loading it takes, whether it computes what it should, its rate, whom it
// slows, what holds it up, and how fast it stores what was written.
//
// Not here: what of it a program sees, under the library (programs.py).
#include "blas.h"
#include "copies.h"

namespace {

constexpr size_t CHUNK = 20 * MIB;
constexpr size_t CHUNKS = 16; // together larger than any L2
constexpr size_t PIECE = 64 << 10; // has a fingerprint
constexpr size_t PIECES = CHUNK / PIECE;
constexpr unsigned BLOCKS = 32; // as many as the library starts
constexpr uint64_t GAMMA = 0x9E3779B97F4A7C15;

unsigned multiprocessors() { return unsigned(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)); }

// The library's kernel, loaded once more.
CUfunction shipped()
{
    std::vector<char> text = contents_of(run_state.shim);
    text.push_back(0);
    CUmodule loaded = nullptr;
    CUfunction function = nullptr;
    CU(cuModuleLoadData, &loaded, text.data());
    CU(cuModuleGetFunction, &function, loaded, "fingerprint_pieces");
    return function;
}

uint64_t mix(uint64_t word)
{
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9;
    word = (word ^ word >> 27) * 0x94D049BB133111EB;
    return word ^ word >> 31;
}

// Of a piece that holds `word` everywhere.
uint64_t expected(uint64_t word)
{
    uint64_t sum = PIECE;
    for (uint64_t i = 1; i <= PIECE / 8; i++)
        sum += mix(i * GAMMA ^ word);
    return mix(sum);
}

// Weights, and what the library keeps of each in mapped host memory: a copy,
// the fingerprints, how often each piece was stored.
struct Chunks {
    CUfunction look = shipped();
    DeviceMemory data{CHUNK * CHUNKS};
    HostMemory copy{CHUNK}, table{CHUNKS * PIECES * 8}, stored{CHUNKS * PIECES * 4};
    static constexpr uint32_t WORD = 0x3c5a0f96;
    Chunks()
    {
        Stream stream;
        CU(cuMemsetD32Async, data.at, WORD, CHUNK * CHUNKS / 4, stream);
        CU(cuMemsetD32Async, stored.on_device(), 0, CHUNKS * PIECES, stream);
        for (size_t chunk = 0; chunk < CHUNKS; chunk++)
            queue(chunk, BLOCKS, stream, false);
        stream.wait();
    }
    // Takes fingerprints; `compares`: stores what has others.
    void queue(size_t chunk, unsigned blocks, CUstream stream, bool compares = true) const
    {
        CUdeviceptr host = compares ? copy.on_device() : 0;
        launch(look, blocks, 128, stream, data.at + chunk * CHUNK, uint64_t(CHUNK),
               table.on_device() + chunk * PIECES * 8, host, stored.on_device() + chunk * PIECES * 4);
    }
};

void loading()
{
    for (const char *item : {"loading our kernel from its text, the first time", "the same again"}) {
        Samples times;
        time_us(times, [] { shipped(); });
        answer(item, "", times, "us");
    }
}

void right()
{
    Chunks chunks;
    Stream stream;
    auto words = chunks.table.as<const uint64_t>();
    auto counts = chunks.stored.as<const uint32_t>();
    uint64_t word = uint64_t(Chunks::WORD) << 32 | Chunks::WORD;
    bool equal = std::all_of(words, words + CHUNKS * PIECES, [&](uint64_t w) { return w == expected(word); });
    answer("does our kernel compute what the library expects", equal ? "yes" : "NO");
    chunks.queue(0, BLOCKS, stream);
    stream.wait();
    bool quiet = std::all_of(counts, counts + PIECES, [](uint32_t count) { return count == 0; });
    size_t at = CHUNK - PIECE / 2;
    CU(cuMemsetD32Async, chunks.data.at + at, 1, 1, stream);
    chunks.queue(0, BLOCKS, stream);
    stream.wait();
    bool one = counts[PIECES - 1] == 1 && std::all_of(counts, counts + PIECES - 1, [](uint32_t c) { return c == 0; });
    bool stored = chunks.copy.as<const char>()[at] == 1;
    answer("one changed word of 20 MiB",
           !quiet ? "NO: what nobody wrote was stored" : one && stored ? "its 64 KiB are stored, nothing else" : "NO");
}

void rates()
{
    Chunks chunks;
    Stream stream;
    for (unsigned blocks : {8u, 16u, BLOCKS, 64u, multiprocessors()}) {
        size_t next = 0;
        Samples rate = rate_gbps(stream, CHUNK, 100, 0.2, [&] { chunks.queue(next++ % CHUNKS, blocks, stream); });
        answer("our kernel looks at 20 MiB, " + std::to_string(blocks) + " blocks", "", rate, "GB/s");
    }
}

void beside_a_gemm()
{
    constexpr int N = 4096;
    Blas blas;
    if (!blas.usable()) {
        not_measured("GEMM beside our kernel", "cuBLAS cannot be opened (" + Blas::name() + ")");
        return;
    }
    // The stand-in runs our kernel on one core.
    int n = run_state.rehearsal ? 256 : N, GEMMS = run_state.rehearsal ? 2 : 40, repeats = run_state.rehearsal ? 1 : 10;
    size_t bytes = size_t(n) * n * 2;
    DeviceMemory a(bytes), b(bytes), product(bytes);
    Stream gemms, looks;
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
        Gate gate(gemms, 1000);
        began.record(gemms);
        CU(cuStreamWaitEvent, looks, began, 0);
        for (int i = 0; i < GEMMS; i++) {
            status |= blas.multiply_bf16(n, a.at, b.at, product.at);
            if (blocks)
                for (int k = 0; k < 2; k++)
                    chunks.queue(size_t(2 * i + k) % CHUNKS, blocks, looks);
        }
        ended.record(gemms);
        gate.open();
        double us = elapsed_ms(began, ended) * 1e3 / GEMMS;
        looks.wait();
        return us;
    };
    Samples alone;
    for (int i = 0; i < repeats; i++)
        alone.add(gemm_us(0));
    answer("bf16 GEMM 4096, alone", status ? "cuBLAS FAILED" : "", alone, "us");
    for (unsigned blocks : {8u, 16u, 32u, 64u}) {
        Samples beside;
        for (int i = 0; i < repeats; i++)
            beside.add(gemm_us(blocks));
        answer("bf16 GEMM 4096, two looks at 20 MiB beside each, " + std::to_string(blocks) + " blocks",
               "+" + text_of("%.3g", 100 * (beside.p50() / std::max(alone.p50(), 1e-9) - 1)) + " %", beside, "us");
    }
}

// A look queued while a kernel holds all SMs for 20 ms.
void behind_a_persistent_kernel()
{
    constexpr uint64_t HELD_NS = 20000000;
    Chunks chunks;
    Stream holder, looks;
    CUfunction spin = kernel("spin");
    unsigned threads = unsigned(attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR));
    auto delay_us = [&](unsigned blocks) {
        if (blocks) {
            launch(spin, blocks, 1024, holder, HELD_NS);
            // Until the kernel is certainly on the card.
            usleep(2000);
        }
        uint64_t began = now_ns();
        chunks.queue(0, BLOCKS, looks);
        looks.wait();
        double us = double(now_ns() - began) / 1e3;
        holder.wait();
        return us;
    };
    unsigned full = multiprocessors() * (threads / 1024);
    struct Case {
        const char *item;
        unsigned blocks;
    };
    for (const Case &c : {Case{"look at 20 MiB, card idle", 0}, Case{"look at 20 MiB, half of the card held", full / 2},
                          Case{"look at 20 MiB, all threads of the card held for 20 ms", full}}) {
        Samples delays;
        for (int i = 0; i < 12; i++)
            delays.add(delay_us(c.blocks));
        answer(c.item, "from launch to end, seen by the host", delays, "us");
    }
}

// Every look finds another content than the one before.
void stores_to_the_host()
{
    Chunks chunks;
    Stream stream;
    uint32_t next = 0;
    Samples rate;
    Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
    for (uint64_t until = at_most(1); rate.count() < 10 && (next == 0 || now_ns() < until);) {
        CU(cuMemsetD32Async, chunks.data.at, ++next, CHUNK / 4, stream);
        began.record(stream);
        chunks.queue(0, BLOCKS, stream);
        ended.record(stream);
        rate.add(double(CHUNK) / 1e6 / std::max(elapsed_ms(began, ended), 1e-6));
    }
    answer("our kernel stores 20 MiB that were written to mapped host memory", "", rate, "GB/s");
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("5 Fingerprint", argc, argv,
                        {{"loading", Needs::Card, loading},
                         {"right", Needs::Card, right},
                         {"rates", Needs::Card, rates},
                         {"beside a GEMM", Needs::Card, beside_a_gemm},
                         {"behind a persistent kernel", Needs::Card, behind_a_persistent_kernel},
                         {"stores to the host", Needs::Card, stores_to_the_host}});
}
