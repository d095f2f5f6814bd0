// Question 10: how fast host memory is page-locked, by method; what that does
// to a copy beside it; what unlocking costs; and what a fork costs with much of it.
//
// Not here: how fast copies from such memory are (bandwidth.cpp).
#include "copies.h"
#include <cerrno>
#include <sys/wait.h>

namespace {

size_t test_bytes() { return run_state.on_standin ? 64 * MIB : 2 * GIB; }

double gbps(size_t bytes, uint64_t ns) { return double(bytes) / double(std::max<uint64_t>(ns, 1)); }

void by_allocation()
{
    Samples allocate, release;
    for (int i = 0; i < 3; i++) {
        void *at = nullptr;
        uint64_t began = now_ns();
        CU(cuMemHostAlloc, &at, test_bytes(), 0);
        uint64_t made = now_ns();
        CU(cuMemFreeHost, at);
        allocate.add(gbps(test_bytes(), made - began));
        release.add(gbps(test_bytes(), now_ns() - made));
    }
    answer("cuMemHostAlloc, " + size_text(test_bytes()), "", allocate, "GB/s");
    answer("cuMemFreeHost", "", release, "GB/s");
}

// Mapping, touching and locking, together and apart.
void by_registration()
{
    struct Method {
        const char *name;
        Pages pages;
        unsigned threads;
        size_t piece; // 0: all at once
    };
    const Method methods[] = {
        {"untouched 4 KiB pages, register", Pages::Small, 0, 0},
        {"4 KiB pages, 1 thread touches, register", Pages::Small, 1, 0},
        {"4 KiB pages, 4 threads touch, register", Pages::Small, 4, 0},
        {"4 KiB pages, 8 threads touch, register", Pages::Small, 8, 0},
        {"untouched huge pages, register", Pages::Huge, 0, 0},
        {"huge pages, 1 thread touches, register", Pages::Huge, 1, 0},
        {"huge pages, 4 threads touch, register", Pages::Huge, 4, 0},
        {"huge pages, 8 threads touch, register", Pages::Huge, 8, 0},
        {"huge pages, 4 threads touch, register in pieces of 64 MiB", Pages::Huge, 4, 64 * MIB},
        {"huge pages, 4 threads touch, register in pieces of 256 MiB", Pages::Huge, 4, 256 * MIB},
    };
    for (const Method &method : methods) {
        size_t piece = method.piece ? std::min(method.piece, test_bytes()) : test_bytes();
        Samples whole, locking, unlocking, one;
        for (int i = 0; i < 2 && (i == 0 || seconds_left() > 10); i++) {
            uint64_t began = now_ns();
            Pageable memory(test_bytes(), method.pages, method.threads);
            uint64_t touched = now_ns();
            size_t locked = 0;
            try {
                for (; locked < test_bytes(); locked += piece)
                    time_us(one, [&] {
                        CU(cuMemHostRegister, memory.address + locked, piece, CU_MEMHOSTREGISTER_DEVICEMAP);
                    });
            } catch (const Refused &refused) {
                not_measured(method.name, refused.sentence());
                for (size_t at = 0; at < locked; at += piece)
                    TRY(cuMemHostUnregister, memory.address + at);
                break;
            }
            uint64_t done = now_ns();
            for (size_t at = 0; at < locked; at += piece)
                CU(cuMemHostUnregister, memory.address + at);
            whole.add(gbps(test_bytes(), done - began));
            locking.add(gbps(test_bytes(), done - touched));
            unlocking.add(gbps(test_bytes(), now_ns() - done));
        }
        if (!whole.count())
            continue;
        answer(method.name, "mapping, touching and locking; locking alone " + text_of("%.3g GB/s", locking.p50()), whole, "GB/s");
        answer(std::string(method.name) + ", unlocking", "", unlocking, "GB/s");
        if (method.piece)
            answer(std::string(method.name) + ", one piece", "", one, "us");
    }
}

// The rate of copies of 8 MiB while another thread locks memory, and without.
void beside_a_copy()
{
    constexpr size_t PIECE = 8 * MIB;
    HostMemory host(PIECE);
    DeviceMemory target(PIECE);
    for (const char *method : {"nothing", "registration at once", "registration in pieces of 64 MiB", "cuMemHostAlloc"}) {
        std::atomic<bool> stop{false}, started{false};
        std::string trouble;
        std::string what = method;
        std::thread locker([&] {
            try {
                CU(cuCtxSetCurrent, context);
                if (what == "nothing")
                    started = true;
                while (!stop && what != "nothing") {
                    if (what == "cuMemHostAlloc") {
                        void *at = nullptr;
                        started = true;
                        CU(cuMemHostAlloc, &at, test_bytes() / 4, 0);
                        CU(cuMemFreeHost, at);
                        continue;
                    }
                    Pageable memory(test_bytes() / 4, Pages::Huge, 1);
                    size_t piece = what == "registration at once" ? memory.bytes : std::min(64 * MIB, memory.bytes);
                    started = true;
                    for (size_t at = 0; at < memory.bytes; at += piece)
                        CU(cuMemHostRegister, memory.address + at, piece, 0);
                    for (size_t at = 0; at < memory.bytes; at += piece)
                        CU(cuMemHostUnregister, memory.address + at);
                }
            } catch (const Refused &refused) {
                trouble = refused.sentence();
                started = true;
            }
        });
        while (!started)
            usleep(100);
        Stream stream;
        Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
        Samples rate, submission;
        uint64_t until = at_most(1.2);
        try {
            while (now_ns() < until || !rate.count()) {
                began.record(stream);
                time_us(submission, [&] {
                    CU(cuMemcpyHtoDAsync, target.at, host.as<char>(), PIECE, stream);
                });
                ended.record(stream);
                rate.add(double(PIECE) / 1e6 / std::max(elapsed_ms(began, ended), 1e-6));
            }
        } catch (...) {
            stop = true;
            locker.join();
            throw;
        }
        stop = true;
        locker.join();
        answer("copies of 8 MiB beside " + what, trouble, rate, "GB/s");
        answer("copies of 8 MiB beside " + what + ", host time of a copy", "", submission, "us");
        answer("copies of 8 MiB beside " + what + ", longest host time of a copy", "", submission.max(), "us");
    }
}

size_t available_bytes()
{
    size_t kib = 0;
    if (FILE *file = fopen("/proc/meminfo", "r")) {
        char line[256];
        while (fgets(line, sizeof line, file))
            if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1)
                break;
        fclose(file);
    }
    return kib * KIB;
}

// What fork() takes with much registered memory, and the parent's first writes after it.
void fork_with_much_locked()
{
    size_t wanted = run_state.on_standin ? 64 * MIB : 10 * GIB;
    while (wanted > GIB && available_bytes() < 2 * wanted)
        wanted /= 2;
    for (bool spared : {false, true}) {
        Pageable memory(wanted, Pages::Huge, 8);
        uint64_t began = now_ns();
        memory.lock();
        double lock_rate = gbps(wanted, now_ns() - began);
        if (spared && madvise(memory.address, memory.bytes, MADV_DONTFORK) != 0) {
            not_measured("fork, with MADV_DONTFORK", "madvise refused it");
            return;
        }
        Samples fork_ms, writes_ms;
        for (int i = 0; i < 3; i++) {
            uint64_t before = now_ns();
            pid_t child = fork();
            if (child == 0) {
                usleep(50000);
                _exit(0);
            }
            if (child < 0) {
                not_measured("fork with registered memory", strerror(errno));
                return;
            }
            fork_ms.add(double(now_ns() - before) / 1e6);
            before = now_ns();
            for (size_t at = 0; at < std::min(wanted, GIB); at += 4096)
                memory.address[at] = char(at >> 12);
            writes_ms.add(double(now_ns() - before) / 1e6);
            waitpid(child, nullptr, 0);
        }
        std::string which = "fork with " + size_text(wanted) + " registered, " + (spared ? "MADV_DONTFORK" : "as it is");
        answer(which, "locked at " + text_of("%.3g GB/s", lock_rate), fork_ms, "ms");
        answer(which + ", parent's first write to each page of 1 GiB", "", writes_ms, "ms");
        if (spared)
            madvise(memory.address, memory.bytes, MADV_DOFORK);
    }
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("10 Pinning", argc, argv,
                        {{"by allocation", Needs::Driver, by_allocation},
                         {"by registration", Needs::Driver, by_registration},
                         {"beside a copy", Needs::Driver, beside_a_copy},
                         {"fork", Needs::Driver, fork_with_much_locked}});
}
