// Host buffers of the kinds one can copy from, and the timing of copies:
// shared by the questions about bandwidth, graphs and pinning.
#pragma once
#include "driver.h"
#include <sys/mman.h>

enum class Pages { Small, Huge };

// Ordinary memory of the process, on pages of the size asked for if the machine
// gives them, touched by `threads` threads; page-locked on request.
class Pageable {
public:
    Pageable(size_t bytes, Pages pages, unsigned threads = 4) : bytes(bytes)
    {
        void *at = mmap(nullptr, bytes + FRAME, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED)
            throw Refused{"mmap", CUDA_ERROR_OUT_OF_MEMORY};
        mapping = at;
        address = reinterpret_cast<char *>((uintptr_t(at) + FRAME - 1) / FRAME * FRAME);
        advice_taken = madvise(address, bytes, pages == Pages::Huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0;
        touch(threads);
    }
    ~Pageable()
    {
        if (registered)
            TRY(cuMemHostUnregister, address);
        munmap(mapping, bytes + FRAME);
    }
    Pageable(const Pageable &) = delete;

    // Writes to every page, so that the kernel provides it. 0 threads: leaves it alone.
    void touch(unsigned threads)
    {
        std::vector<std::thread> workers;
        for (unsigned t = 0; t < threads; t++)
            workers.emplace_back([=, this] {
                size_t share = (bytes / threads + 4095) / 4096 * 4096;
                for (size_t i = t * share; i < std::min(bytes, (t + 1) * share); i += 4096)
                    address[i] = char(i >> 12);
            });
        for (auto &worker : workers)
            worker.join();
    }
    void lock()
    {
        CU(cuMemHostRegister, address, bytes, CU_MEMHOSTREGISTER_DEVICEMAP);
        registered = true;
    }
    void unlock()
    {
        CU(cuMemHostUnregister, address);
        registered = false;
    }

    char *address = nullptr;
    const size_t bytes;
    bool advice_taken = false;

private:
    void *mapping = nullptr;
    bool registered = false;
};

// GB/s (10^9 bytes) of `body`, which queues `bytes` of copies on `stream`; one
// warm-up, then up to `repeats` samples as long as there is time.
template <class Body>
Samples rate_gbps(const Stream &stream, size_t bytes, int repeats, double seconds, Body &&body)
{
    Samples samples;
    Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
    body();
    stream.wait();
    uint64_t until = at_most(seconds);
    for (int i = 0; i < repeats && (i == 0 || now_ns() < until); i++) {
        began.record(stream);
        body();
        ended.record(stream);
        samples.add(double(bytes) / 1e6 / std::max(elapsed_ms(began, ended), 1e-6));
    }
    return samples;
}

inline std::string size_text(size_t bytes)
{
    if (bytes >= GIB)
        return std::to_string(bytes / GIB) + " GiB";
    return bytes >= MIB ? std::to_string(bytes / MIB) + " MiB" : std::to_string(bytes / KIB) + " KiB";
}

// How much memory a test of copies takes: the stand-in's is the machine's own.
inline size_t copy_bytes() { return run_state.on_standin ? 64 * MIB : GIB; }
