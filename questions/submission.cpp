// Question 3: what queuing work costs the host, and what the orders we add
// between two kernels cost the device.
//
// Host costs are taken with room in the queue; device costs with the whole
// sequence queued behind a gate, so that the host is never what is waited for.
// Not here: how fast the work itself is (bandwidth.cpp).
#include "driver.h"

namespace {

constexpr int BATCH = 128; // calls between two synchronisations: the queue never fills

template <class Call> Samples host_cost(const Stream &stream, Call &&call)
{
    Samples samples;
    uint64_t until = at_most(0.25);
    for (int i = 0; now_ns() < until || i < 2 * BATCH; i++) {
        if (i < BATCH)
            call(); // warm-up
        else
            time_us(samples, call);
        if (i % BATCH == BATCH - 1)
            stream.wait();
    }
    stream.wait();
    return samples;
}

void host_costs()
{
    Stream stream, other;
    Event event, recorded;
    HostMemory host(8 * MIB);
    Frames target(4);
    recorded.record(other);
    answer("copy 64 KiB to the device", "", host_cost(stream, [&] {
               CU(cuMemcpyHtoDAsync, target.range.at, host.as<char>(), 64 * KIB, stream);
           }), "us");
    answer("copy 2 MiB to the device", "", host_cost(stream, [&] {
               CU(cuMemcpyHtoDAsync, target.range.at, host.as<char>(), 2 * MIB, stream);
           }), "us");
    answer("copy 8 MiB over four mappings", "", host_cost(stream, [&] {
               CU(cuMemcpyHtoDAsync, target.range.at, host.as<char>(), 8 * MIB, stream);
           }), "us");
    answer("event record", "", host_cost(stream, [&] { event.record(stream); }), "us");
    answer("wait for an event that has happened", "", host_cost(stream, [&] {
               CU(cuStreamWaitEvent, stream, recorded, 0);
           }), "us");
    answer("record on one stream and wait on another", "", host_cost(stream, [&] {
               event.record(other);
               CU(cuStreamWaitEvent, stream, event, 0);
           }), "us");
    answer("event query", "", host_cost(stream, [&] { cu.cuEventQuery(recorded); }), "us");
}

void launch_costs()
{
    Stream stream;
    CUfunction empty = kernel("empty"), many = kernel("many_parameters");
    answer("launch", "", host_cost(stream, [&] { launch(empty, 1, 32, stream); }), "us");
    struct {
        uint64_t words[16];
    } bundle = {};
    answer("launch, 8 parameters, 180 bytes", "", host_cost(stream, [&] {
               launch(many, 1, 32, stream, uint64_t(0), uint64_t(0), uint64_t(0), uint64_t(0), 0.0f, bundle,
                      uint64_t(0), int(0));
           }), "us");
    answer("launch with programmatic dependent launch", "", host_cost(stream, [&] {
               launch_dependent(empty, 1, 32, stream);
           }), "us");
}

void parameter_queries()
{
    if (!cu.cuFuncGetParamInfo) {
        not_measured("cuFuncGetParamInfo", "this driver lacks it");
        return;
    }
    Stream stream;
    CUfunction many = kernel("many_parameters");
    size_t count = 0, offset = 0, size = 0, end = 0;
    while (cu.cuFuncGetParamInfo(many, count, &offset, &size) == CUDA_SUCCESS) {
        count++;
        end = offset + size;
    }
    answer("parameters it tells of", count == 8 ? "all 8 of 8" : "NOT 8", double(end), "bytes");
    answer("cuFuncGetParamInfo, one parameter", "", host_cost(stream, [&] {
               cu.cuFuncGetParamInfo(many, 5, &offset, &size);
           }), "us");
    answer("cuFuncGetParamInfo, past the last", "", host_cost(stream, [&] {
               cu.cuFuncGetParamInfo(many, 8, &offset, &size);
           }), "us");
}

// Device time per kernel, with `between` queued before each.
template <class Between> Samples per_kernel_us(bool dependent, Between &&between)
{
    constexpr int KERNELS = 200;
    Samples samples;
    CUfunction empty = kernel("empty");
    uint64_t until = at_most(0.5);
    for (int round = 0; round < 20 && (round < 2 || now_ns() < until); round++) {
        Stream stream;
        Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
        Gate gate(stream, 1000);
        began.record(stream);
        for (int i = 0; i < KERNELS; i++) {
            between(stream);
            if (dependent)
                launch_dependent(empty, 1, 32, stream);
            else
                launch(empty, 1, 32, stream);
        }
        ended.record(stream);
        bool full = gate.ran_out(); // the queue was full and the host waited
        gate.open();
        double ms = elapsed_ms(began, ended);
        if (round > 0 && !full)
            samples.add(ms * 1e3 / KERNELS);
    }
    return samples;
}

void gaps()
{
    Stream other;
    Event happened, mark;
    happened.record(other);
    other.wait();
    std::vector<Event> marks;
    for (int i = 0; i < 200; i++)
        marks.emplace_back();

    Samples plain = per_kernel_us(false, [](CUstream) {});
    answer("kernel after kernel", "", plain, "us per kernel");
    auto compared = [&](const char *item, const Samples &samples) {
        answer(item, "+" + text_of("%.3g", samples.p50() - plain.p50()) + " us over kernel after kernel", samples,
               "us per kernel");
    };
    compared("with a wait for an event that has happened",
             per_kernel_us(false, [&](CUstream stream) { CU(cuStreamWaitEvent, stream, happened, 0); }));
    compared("with an event record", per_kernel_us(false, [&](CUstream stream) { CU(cuEventRecord, mark, stream); }));
    {
        // Pending when it is queued: the events come from a stream behind a gate of its own,
        // opened before the kernels' gate is.
        Samples waits;
        CUfunction empty = kernel("empty");
        for (int round = 0; round < 10; round++) {
            Stream kernels, source;
            Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
            Gate source_gate(source, 1000), gate(kernels, 1000);
            began.record(kernels);
            for (int next = 0; next < 200; next++) {
                marks[next].record(source);
                CU(cuStreamWaitEvent, kernels, marks[next], 0);
                launch(empty, 1, 32, kernels);
            }
            ended.record(kernels);
            bool full = gate.ran_out() || source_gate.ran_out();
            source_gate.open();
            source.wait();
            gate.open();
            double ms = elapsed_ms(began, ended);
            if (round > 0 && !full)
                waits.add(ms * 1e3 / 200);
        }
        compared("with a wait for an event of another stream, pending when queued", waits);
    }
    compared("with dependent launch", per_kernel_us(true, [](CUstream) {}));
    compared("with dependent launch and a wait",
             per_kernel_us(true, [&](CUstream stream) { CU(cuStreamWaitEvent, stream, happened, 0); }));
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("3 Submission", argc, argv,
                        {{"host costs", Needs::Driver, host_costs},
                         {"launch costs", Needs::Card, launch_costs},
                         {"parameter queries", Needs::Card, parameter_queries},
                         {"gaps", Needs::Card, gaps}});
}
