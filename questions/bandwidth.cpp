// Question 2: how fast copies are, into what, from what, beside what; and what
// a small copy of somebody else waits behind a backlog of ours.
//
// Not here: what submission costs the host (submission.cpp), pinning (pinning.cpp).
#include "copies.h"
#include <memory>

namespace {

// One target of each kind, all of the same size.
struct Targets {
    const size_t bytes = copy_bytes();
    Frames frames{bytes / FRAME};
    Handles one{1, bytes};
    Range range{bytes};
    DeviceMemory plain{bytes};
    Targets()
    {
        range.map(0, one[0], bytes);
        range.allow(0, bytes);
    }
};

// Queues copies of `piece` bytes that fill `bytes` of the target.
void fill_from(const char *host, CUdeviceptr target, size_t bytes, size_t piece, CUstream stream)
{
    for (size_t at = 0; at < bytes; at += piece)
        CU(cuMemcpyHtoDAsync, target + at, host + at, std::min(piece, bytes - at), stream);
}

void by_target_and_size()
{
    Targets targets;
    HostMemory host(targets.bytes);
    Stream stream;
    struct Kind {
        const char *name;
        CUdeviceptr at;
    };
    const Kind kinds[] = {{"range of 2 MiB mappings", targets.frames.range.at},
                          {"one big handle", targets.range.at},
                          {"cuMemAlloc", targets.plain.at}};
    for (const Kind &kind : kinds)
        for (size_t piece : {64 * KIB, 256 * KIB, MIB, 2 * MIB, 8 * MIB, 16 * MIB, 128 * MIB, GIB}) {
            if (piece > targets.bytes)
                continue;
            // Small pieces need less to show their rate.
            size_t bytes = std::min(targets.bytes, piece * 512);
            Samples rate = rate_gbps(stream, bytes, 7, 0.4, [&] {
                fill_from(host.as<char>(), kind.at, bytes, piece, stream);
            });
            answer(std::string("to ") + kind.name + ", copies of " + size_text(piece), "", rate, "GB/s");
        }
    Samples back = rate_gbps(stream, targets.bytes, 7, 0.4, [&] {
        CU(cuMemcpyDtoHAsync, host.as<char>(), targets.frames.range.at, targets.bytes, stream);
    });
    answer("device to host, one copy", "", back, "GB/s");
}

// Two copy streams in one direction, and one each way.
void two_streams()
{
    size_t bytes = copy_bytes();
    Frames there(bytes / FRAME), here(bytes / FRAME);
    HostMemory from(bytes), to(bytes);
    Stream first, second;
    Event forked, joined;
    auto both = [&](auto &&queue_second) {
        forked.record(first);
        CU(cuStreamWaitEvent, second, forked, 0);
        fill_from(from.as<char>(), there.range.at, bytes / 2, 8 * MIB, first);
        queue_second();
        joined.record(second);
        CU(cuStreamWaitEvent, first, joined, 0);
    };
    Samples pair = rate_gbps(first, bytes, 7, 1, [&] {
        both([&] { fill_from(from.as<char>() + bytes / 2, there.range.at + bytes / 2, bytes / 2, 8 * MIB, second); });
    });
    answer("two streams to the device, both together", "", pair, "GB/s");

    // The way back is given so much to do that it outlasts the way there.
    Samples there_rate, back_rate;
    uint64_t until = at_most(1);
    while (now_ns() < until) {
        Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT), back_began(CU_EVENT_DEFAULT), back_ended(CU_EVENT_DEFAULT);
        back_began.record(second);
        for (int i = 0; i < 2; i++)
            CU(cuMemcpyDtoHAsync, to.as<char>(), here.range.at, bytes, second);
        back_ended.record(second);
        began.record(first);
        fill_from(from.as<char>(), there.range.at, bytes, 8 * MIB, first);
        ended.record(first);
        there_rate.add(double(bytes) / 1e6 / std::max(elapsed_ms(began, ended), 1e-6));
        back_rate.add(double(2 * bytes) / 1e6 / std::max(elapsed_ms(back_began, back_ended), 1e-6));
    }
    answer("to the device, with copies to the host running", "", there_rate, "GB/s");
    answer("to the host, with copies to the device running part of the time", "", back_rate, "GB/s");
}

// A kernel on all SMs that outlasts the copies, alone and beside them; and the copies beside it.
void beside_kernels()
{
    size_t bytes = copy_bytes();
    Frames target(bytes / FRAME);
    HostMemory host(bytes);
    DeviceMemory data(bytes), sink(64);
    Stream copies, kernels;
    unsigned blocks = unsigned(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)) * 4;
    CUfunction read = kernel("read_all"), arithmetic = kernel("compute");
    uint32_t times = 200, rounds = 2000000;

    Samples alone_rate = rate_gbps(copies, bytes, 3, 1, [&] {
        fill_from(host.as<char>(), target.range.at, bytes, 8 * MIB, copies);
    });
    double wanted_ms = 2.5 * double(bytes) / 1e6 / std::max(alone_rate.p50(), 1e-3);

    for (bool by_memory : {true, false}) {
        std::string kind = by_memory ? "memory-bound kernel" : "compute-bound kernel";
        auto queue_kernel = [&] {
            if (by_memory)
                launch(read, blocks, 512, kernels, data.at, uint64_t(bytes / 16), times, sink.at);
            else
                launch(arithmetic, blocks, 512, kernels, rounds, sink.at);
        };
        Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT), copies_began(CU_EVENT_DEFAULT), copies_ended(CU_EVENT_DEFAULT);
        auto alone_ms = [&] {
            began.record(kernels);
            queue_kernel();
            ended.record(kernels);
            return elapsed_ms(began, ended);
        };
        alone_ms();
        double ms = std::max(alone_ms(), 0.01);
        uint32_t &amount = by_memory ? times : rounds;
        amount = uint32_t(std::min(1e8, std::max(1.0, amount * wanted_ms / ms)));
        if (run_state.rehearsal)
            amount = 1;
        Samples alone, beside, rate;
        uint64_t until = at_most(1.5);
        while (now_ns() < until || !rate.count()) {
            alone.add(alone_ms());
            began.record(kernels);
            queue_kernel();
            ended.record(kernels);
            copies_began.record(copies);
            fill_from(host.as<char>(), target.range.at, bytes, 8 * MIB, copies);
            copies_ended.record(copies);
            // Copies that end before the kernel are what is measured; more keep it company.
            double copy_ms = elapsed_ms(copies_began, copies_ended);
            while (cu.cuEventQuery(ended) == CUDA_ERROR_NOT_READY) {
                fill_from(host.as<char>(), target.range.at, bytes / 8, 8 * MIB, copies);
                copies.wait();
            }
            rate.add(double(bytes) / 1e6 / std::max(copy_ms, 1e-6));
            beside.add(elapsed_ms(began, ended));
        }
        answer("copies beside a " + kind, "", rate, "GB/s");
        answer(kind + ", alone", "", alone, "ms");
        answer(kind + ", beside copies", "", beside, "ms");
        answer(kind + ", slowdown by copies", "", 100 * (beside.p50() / std::max(alone.p50(), 1e-9) - 1), "%");
    }
}

void host_buffers()
{
    size_t bytes = copy_bytes();
    Frames target(bytes / FRAME);
    Stream stream;
    auto measure = [&](const std::string &name, const char *host, const std::string &text) {
        for (size_t piece : {2 * MIB, 8 * MIB, bytes})
            answer("from " + name + ", copies of " + size_text(piece), text,
                   rate_gbps(stream, bytes, 7, 0.4, [&] { fill_from(host, target.range.at, bytes, piece, stream); }),
                   "GB/s");
    };
    {
        HostMemory host(bytes);
        measure("cuMemHostAlloc", host.as<char>(), "");
    }
    for (Pages pages : {Pages::Huge, Pages::Small}) {
        Pageable host(bytes, pages);
        host.lock();
        measure(pages == Pages::Huge ? "registered huge pages" : "registered 4 KiB pages", host.address,
                host.advice_taken ? "" : "the machine does not let one choose the page size");
    }
    Pageable host(bytes, Pages::Huge);
    measure("memory that is not page-locked", host.address, "");
}

// The same copies in one call, where the driver has it.
void batched()
{
#if CUDA_VERSION >= 13000
    constexpr size_t PIECES = 32;
    for (size_t piece : {256 * KIB, 2 * MIB}) {
        Frames target(PIECES * 2 * MIB / FRAME);
        HostMemory host(PIECES * piece);
        Stream stream;
        CUdeviceptr to[PIECES], from[PIECES];
        size_t sizes[PIECES], first = 0;
        for (size_t i = 0; i < PIECES; i++) {
            to[i] = target.range.at + i * piece;
            from[i] = CUdeviceptr(host.as<char>() + i * piece);
            sizes[i] = piece;
        }
        CUmemcpyAttributes attributes = {};
        attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
        Samples host_batched, host_single;
        auto batch = [&] {
            time_us(host_batched, [&] {
                CU(cuMemcpyBatchAsync, to, from, sizes, PIECES, &attributes, &first, 1, stream);
            });
        };
        Samples batched = rate_gbps(stream, PIECES * piece, 50, 0.3, batch);
        Samples single = rate_gbps(stream, PIECES * piece, 50, 0.3, [&] {
            time_us(host_single, [&] {
                fill_from(host.as<char>(), target.range.at, PIECES * piece, piece, stream);
            });
        });
        std::string what = "32 copies of " + size_text(piece);
        answer(what + ", one call", "", batched, "GB/s");
        answer(what + ", 32 calls", "", single, "GB/s");
        answer(what + ", one call, host time", "", host_batched, "us");
        answer(what + ", 32 calls, host time", "", host_single, "us");
    }
#else
    not_measured("batched copies", "built with a CUDA before 13.0");
#endif
}

// From the call of a 64 KiB copy on its own stream to its end, seen by the host.
Samples small_copy_us(size_t backlog, size_t piece, CUfunction between, bool to_host, const char *host,
                      const Range &target, double seconds)
{
    Stream ours, theirs;
    HostMemory small(64 * KIB);
    DeviceMemory small_target(64 * KIB);
    Event done;
    Samples samples;
    uint64_t until = at_most(seconds);
    for (int i = 0; i < 40 && (i < 3 || now_ns() < until); i++) {
        for (size_t at = 0; at < backlog; at += piece) {
            CU(cuMemcpyHtoDAsync, target.at + at, host + at, std::min(piece, backlog - at), ours);
            if (between)
                launch(between, 1, 32, ours);
        }
        uint64_t began = now_ns();
        if (to_host)
            CU(cuMemcpyDtoHAsync, small.as<char>(), small_target.at, 64 * KIB, theirs);
        else
            CU(cuMemcpyHtoDAsync, small_target.at, small.as<char>(), 64 * KIB, theirs);
        done.record(theirs);
        CU(cuEventSynchronize, done);
        if (i > 0)
            samples.add(double(now_ns() - began) / 1e3);
        ours.wait();
    }
    return samples;
}

void behind_a_backlog()
{
    size_t most = run_state.on_standin ? 32 * MIB : 200 * MIB;
    HostMemory host(most);
    Frames target(most / FRAME);
    CUfunction empty = module ? kernel("empty") : nullptr;
    for (bool to_host : {false, true}) {
        std::string which = to_host ? "64 KiB to the host" : "64 KiB to the device";
        answer(which + ", no backlog", "", small_copy_us(0, 1, nullptr, to_host, host.as<char>(), target.range, 0.2), "us");
        for (size_t backlog : {8 * MIB, 32 * MIB, 200 * MIB}) {
            if (backlog > most)
                continue;
            std::string behind = which + ", behind " + size_text(backlog);
            answer(behind + " in one copy", "",
                   small_copy_us(backlog, backlog, nullptr, to_host, host.as<char>(), target.range, 0.3), "us");
            answer(behind + " in 2 MiB copies", "",
                   small_copy_us(backlog, 2 * MIB, nullptr, to_host, host.as<char>(), target.range, 0.3), "us");
            if (empty)
                answer(behind + " in 2 MiB copies, a kernel after each", "",
                       small_copy_us(backlog, 2 * MIB, empty, to_host, host.as<char>(), target.range, 0.3), "us");
        }
    }
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("2 Bandwidth", argc, argv,
                        {{"by target and size", Needs::Driver, by_target_and_size},
                         {"two streams", Needs::Driver, two_streams},
                         {"beside kernels", Needs::Card, beside_kernels},
                         {"host buffers", Needs::Driver, host_buffers},
                         {"batched copies", Needs::Driver, batched},
                         {"behind a backlog", Needs::Driver, behind_a_backlog}});
}
