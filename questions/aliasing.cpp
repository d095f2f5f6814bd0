// Question 1, first half: what mappings of 2 MiB handles cost, how many one
// handle may have, and whom the calls hold up.
//
// Not here: whether the bytes are right (coherence.cpp).
#include "driver.h"

namespace {

constexpr size_t RANGE_FRAMES = 64; // 128 MiB, a large weight

struct Costs {
    Samples create, map, allow, unmap, release;
};

// One frame at a time: create, map, allow, unmap, release; stops early when told.
template <class Stop> void frame_by_frame(Costs &costs, size_t frames, Stop &&stop)
{
    Range range(frames * FRAME);
    Handles handles;
    size_t made = 0;
    for (; made < frames && !stop(); made++) {
        time_us(costs.create, [&] { handles.add(); });
        time_us(costs.map, [&] { range.map(made * FRAME, handles[made]); });
        time_us(costs.allow, [&] { range.allow(made * FRAME, FRAME); });
    }
    for (size_t i = 0; i < made; i++)
        time_us(costs.unmap, [&] { range.unmap(i * FRAME, FRAME); });
    while (handles.count())
        time_us(costs.release, [&] { handles.release_last(); });
}

// A range of 64 frames: 64 calls to create and to map, one to allow and one to unmap.
struct RangeCosts {
    Samples create, map, allow, unmap;
};

void whole_range(RangeCosts &costs)
{
    Range range(RANGE_FRAMES * FRAME);
    Handles handles;
    time_us(costs.create, [&] {
        for (size_t i = 0; i < RANGE_FRAMES; i++)
            handles.add();
    });
    time_us(costs.map, [&] {
        for (size_t i = 0; i < RANGE_FRAMES; i++)
            range.map(i * FRAME, handles[i]);
    });
    time_us(costs.allow, [&] { range.allow(0, RANGE_FRAMES * FRAME); });
    time_us(costs.unmap, [&] { range.unmap(0, RANGE_FRAMES * FRAME); });
}

void report(const RangeCosts &costs, const std::string &when)
{
    answer("create a range of 64 frames, " + when, "64 calls", costs.create, "us");
    answer("map a range of 64 frames, " + when, "64 calls", costs.map, "us");
    answer("set access, a range of 64 frames, " + when, "one call", costs.allow, "us");
    answer("unmap a range of 64 frames, " + when, "one call", costs.unmap, "us");
}

void report(const Costs &costs, const std::string &when)
{
    answer("create 2 MiB, " + when, "", costs.create, "us");
    answer("map 2 MiB, " + when, "", costs.map, "us");
    answer("set access 2 MiB, " + when, "", costs.allow, "us");
    answer("unmap 2 MiB, " + when, "", costs.unmap, "us");
    answer("release 2 MiB, " + when, "", costs.release, "us");
}

// How many mappings of one handle the driver makes, up to a bound of ours.
void mappings_of_one_handle()
{
    constexpr size_t MOST = 16384;
    Range range(MOST * FRAME);
    Handles handles(1);
    Samples first, last;
    size_t made = 0;
    std::string end = "no refusal up to the bound tried";
    uint64_t until = at_most(5);
    for (; made < MOST; made++) {
        if (now_ns() > until) {
            end = "no refusal in the time given";
            break;
        }
        try {
            time_us(made < 256 ? first : last, [&] {
                range.map(made * FRAME, handles[0]);
                range.allow(made * FRAME, FRAME);
            });
        } catch (const Refused &refused) {
            end = refused.sentence();
            break;
        }
    }
    answer("mappings of one handle", end, double(made), "mappings");
    answer("map and set access, the first 256 aliases", "", first, "us");
    if (last.count())
        answer("map and set access, further aliases", "", last, "us");
}

void costs_idle()
{
    Costs costs;
    for (int round = 0; round < 4 && seconds_left() > 1; round++)
        frame_by_frame(costs, 128, [] { return false; });
    report(costs, "idle");
    RangeCosts range;
    for (int round = 0; round < 8 && seconds_left() > 1; round++)
        whole_range(range);
    report(range, "idle");
}

// With a kernel on one SM that runs longer than all calls together.
void costs_with_a_kernel_running()
{
    constexpr uint64_t KERNEL_NS = 1500000000;
    Stream stream;
    CUfunction spin = kernel("spin");
    launch(spin, 1, 32, stream, uint64_t(1000));
    stream.wait();
    Costs costs;
    uint64_t began = now_ns();
    launch(spin, 1, 32, stream, KERNEL_NS);
    frame_by_frame(costs, 128, [&] { return now_ns() - began > KERNEL_NS / 4; });
    RangeCosts range;
    while (range.map.count() < 8 && now_ns() - began < KERNEL_NS / 2)
        whole_range(range);
    bool still_running = cu.cuStreamQuery(stream) == CUDA_ERROR_NOT_READY;
    stream.wait();
    report(costs, "kernel running");
    report(range, "kernel running");
    // No call costs a tenth of a second unless it waits.
    std::string waiting;
    double longest = 0;
    auto look_at = [&](const char *call, double us) {
        longest = std::max(longest, us);
        if (us > 1e5)
            waiting += std::string(waiting.empty() ? "" : ", ") + call;
    };
    look_at("create", costs.create.max());
    look_at("map", costs.map.max());
    look_at("set access", std::max(costs.allow.max(), range.allow.max()));
    look_at("unmap", std::max(costs.unmap.max(), range.unmap.max()));
    look_at("release", costs.release.max());
    answer("does a call wait for a running kernel",
           !waiting.empty() ? "yes: " + waiting
           : still_running  ? "no: all ended while it ran"
                            : "no, but the kernel ended first",
           longest, "us, the longest call");
}

// Each call once while a stream is held back, then with an event behind it.
void costs_with_a_blocked_stream()
{
    constexpr unsigned HELD_MS = 400;
    struct Call {
        const char *name;
        void (*body)(Range &, Handles &);
    };
    const Call calls[] = {
        {"create", [](Range &, Handles &handles) { handles.add(); }},
        {"map", [](Range &range, Handles &handles) { range.map(0, handles[0]); }},
        {"set access", [](Range &range, Handles &) { range.allow(0, FRAME); }},
        {"unmap", [](Range &range, Handles &) { range.unmap(0, FRAME); }},
    };
    Range range(FRAME);
    Handles handles;
    for (const Call &call : calls) {
        Stream held, waiting;
        Event event;
        Samples cost;
        Gate gate(held, HELD_MS);
        event.record(held);
        CU(cuStreamWaitEvent, waiting, event, 0);
        time_us(cost, [&] { call.body(range, handles); });
        bool waited = gate.ran_out();
        gate.open();
        waiting.wait();
        answer(std::string(call.name) + ", a stream blocked on an event",
               waited ? "waits until the stream goes on" : "does not wait", cost.p50(), "us");
    }
    Costs costs;
    Stream held;
    Gate gate(held, 1500);
    frame_by_frame(costs, 64, [&] { return gate.ran_out(); });
    RangeCosts ranges;
    while (ranges.map.count() < 8 && !gate.ran_out())
        whole_range(ranges);
    bool waited = gate.ran_out();
    gate.open();
    held.wait();
    // The time ran out only if a call waited for the stream.
    std::string when = waited ? "stream blocked (and a call waited for it)" : "stream blocked";
    report(costs, when);
    report(ranges, when);
}

// The longest pause of a kernel in flight, with and without VMM calls beside it.
void kernels_in_flight()
{
    constexpr uint64_t PROBE_NS = 400000000;
    CUfunction probe = kernel("gap_probe");
    DeviceMemory out(64);
    for (bool busy : {false, true, false, true}) {
        Stream stream;
        Costs costs;
        launch(probe, 1, 1, stream, PROBE_NS, out.at);
        uint64_t began = now_ns();
        if (busy)
            while (now_ns() - began < PROBE_NS / 2)
                frame_by_frame(costs, 32, [&] { return now_ns() - began > PROBE_NS / 2; });
        stream.wait();
        uint64_t result[2];
        CU(cuMemcpyDtoH, result, out.at, sizeof result);
        answer(busy ? "longest pause of a kernel, mapping beside it" : "longest pause of a kernel, alone",
               busy ? std::to_string(costs.map.count()) + " frames mapped meanwhile" : "",
               double(result[0]) / 1e3, "us");
    }
}

// What a launch costs its thread, with another thread mapping all the time.
void other_threads()
{
    CUfunction empty = kernel("empty");
    for (bool busy : {false, true}) {
        std::atomic<bool> stop{false};
        std::atomic<size_t> mapped{0};
        std::string trouble;
        std::thread mapper([&] {
            try {
                CU(cuCtxSetCurrent, context);
                Costs costs;
                while (busy && !stop)
                    frame_by_frame(costs, 32, [&] { return bool(stop); });
                mapped = costs.map.count();
            } catch (const Refused &refused) {
                trouble = refused.sentence();
            }
        });
        Stream stream;
        Samples cost;
        uint64_t until = at_most(1);
        while (now_ns() < until) {
            time_us(cost, [&] { launch(empty, 1, 32, stream); });
            if (cost.count() % 256 == 0)
                stream.wait();
        }
        stop = true;
        mapper.join();
        stream.wait();
        std::string item = busy ? "launch, another thread mapping" : "launch, no other thread";
        answer(item, busy ? trouble + std::to_string(size_t(mapped)) + " frames mapped meanwhile" : "", cost, "us");
        answer(item + ", the longest", "", cost.max(), "us");
    }
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("1 Aliasing", argc, argv,
                        {{"mappings of one handle", Needs::Driver, mappings_of_one_handle},
                         {"costs, idle", Needs::Driver, costs_idle},
                         {"costs, kernel running", Needs::Card, costs_with_a_kernel_running},
                         {"costs, stream blocked", Needs::Driver, costs_with_a_blocked_stream},
                         {"kernels in flight", Needs::Card, kernels_in_flight},
                         {"other threads' launches", Needs::Card, other_threads}});
}
