// Question 7: a captured graph is cloned and copies are added to the clone: do
// replays and updates read the right bytes? And which calls are refused while
// something captures, by mode and by thread?
//
// Not here: coherence outside graphs (coherence.cpp).
#include "driver.h"
#include "pattern.h"

namespace {

// Two weights that share one frame, each with an address of its own, a host
// copy, and a kernel that checks it.
struct Weights {
    static constexpr uint32_t SEEDS[2] = {11, 22};
    Handles handles{1};
    Range range{2 * FRAME};
    HostMemory host{2 * BLOCK_BYTES};
    DeviceMemory wrong{sizeof(Wrong)};
    CUfunction check = kernel("check_cached");

    Weights()
    {
        for (size_t i = 0; i < 2; i++) {
            range.map(i * FRAME, handles[0]);
            for (uint32_t w = 0; w < BLOCK_WORDS; w++)
                host.as<uint32_t>()[i * BLOCK_WORDS + w] = pattern(SEEDS[i], w);
        }
        range.allow(0, 2 * FRAME);
        CU(cuMemsetD8, wrong.at, 0, sizeof(Wrong));
        CU(cuCtxSynchronize);
    }
    CUdeviceptr at(size_t i) const { return range.at + i * FRAME; }

    // One iteration of the program: two kernels, nothing of ours.
    void program(CUstream stream) const
    {
        for (size_t i = 0; i < 2; i++)
            launch(check, 8, 256, stream, at(i), SEEDS[i], uint32_t(i), wrong.at);
    }
    CUDA_MEMCPY3D copy_of(size_t i) const
    {
        CUDA_MEMCPY3D copy = {};
        copy.srcMemoryType = CU_MEMORYTYPE_HOST;
        copy.srcHost = host.as<char>() + i * BLOCK_BYTES;
        copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
        copy.dstDevice = at(i);
        copy.WidthInBytes = BLOCK_BYTES;
        copy.Height = copy.Depth = 1;
        return copy;
    }
    unsigned long long wrong_words() const
    {
        Wrong found;
        CU(cuMemcpyDtoH, &found, wrong.at, sizeof found);
        CU(cuMemsetD8, wrong.at, 0, sizeof(Wrong));
        CU(cuCtxSynchronize);
        return found.words;
    }
};

class Graph {
public:
    Graph() = default;
    ~Graph()
    {
        if (handle)
            TRY(cuGraphDestroy, handle);
    }
    Graph(const Graph &) = delete;
    CUgraph handle = nullptr;
};

class Executable {
public:
    explicit Executable(CUgraph graph) { CU(cuGraphInstantiate, &handle, graph, 0); }
    ~Executable() { TRY(cuGraphExecDestroy, handle); }
    Executable(const Executable &) = delete;
    CUgraphExec handle = nullptr;
};

void capture(const Weights &weights, Graph &graph)
{
    Stream stream;
    CU(cuStreamBeginCapture, stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    weights.program(stream);
    CU(cuStreamEndCapture, stream, &graph.handle);
}

// A clone of `graph` with, before each of its two kernels, the copy of its weight:
// copy 0 -> kernel 0 -> copy 1 -> kernel 1, since both weights lie in one frame.
void clone_with_copies(const Weights &weights, const Graph &graph, Graph &clone, CUgraphNode copies[2])
{
    CUgraphNode kernels[2], cloned[2];
    size_t count = 2;
    CU(cuGraphGetNodes, graph.handle, kernels, &count);
    // The order of the list is not promised: the root is the first kernel.
    CUgraphNode root[1];
    size_t roots = 1;
    CU(cuGraphGetRootNodes, graph.handle, root, &roots);
    if (root[0] != kernels[0])
        std::swap(kernels[0], kernels[1]);
    CU(cuGraphClone, &clone.handle, graph.handle);
    for (size_t i = 0; i < 2; i++)
        CU(cuGraphNodeFindInClone, &cloned[i], kernels[i], clone.handle);
    for (size_t i = 0; i < 2; i++) {
        CUDA_MEMCPY3D copy = weights.copy_of(i);
        CU(cuGraphAddMemcpyNode, &copies[i], clone.handle, i ? &cloned[0] : nullptr, i, &copy, context);
#if CUDA_VERSION >= 13000
        CU(cuGraphAddDependencies, clone.handle, &copies[i], &cloned[i], nullptr, 1);
#else
        CU(cuGraphAddDependencies, clone.handle, &copies[i], &cloned[i], 1);
#endif
    }
}

void replay(const std::string &item, const Weights &weights, const Executable &executable, int times)
{
    Stream stream;
    for (int i = 0; i < times; i++) {
        CU(cuGraphLaunch, executable.handle, stream);
        if (i % 256 == 255)
            stream.wait();
    }
    stream.wait();
    unsigned long long wrong = weights.wrong_words();
    answer(item, wrong ? "WRONG WORDS in " + std::to_string(times) + " replays"
                       : "every word right in " + std::to_string(times) + " replays",
           double(wrong), "wrong words");
}

void copies_in_a_clone()
{
    Weights weights;
    Graph graph, clone, second, second_clone;
    CUgraphNode copies[2], more_copies[2];
    capture(weights, graph);
    {
        // Without copies the two weights cannot both be right: the check must say so.
        Executable plain(graph.handle);
        Stream stream;
        CU(cuGraphLaunch, plain.handle, stream);
        stream.wait();
        if (!weights.wrong_words() && !run_state.rehearsal) {
            not_measured("copies added to a cloned graph", "the check does not notice a wrong word");
            return;
        }
    }
    clone_with_copies(weights, graph, clone, copies);
    Executable executable(clone.handle);
    replay("copies added to a cloned graph", weights, executable, run_state.rehearsal ? 300 : 10000);

    // The program captures again and updates: so do we, with a clone of the new graph.
    capture(weights, second);
    clone_with_copies(weights, second, second_clone, more_copies);
    Samples update;
    CUresult code = CUDA_SUCCESS;
    for (int i = 0; i < 20 && code == CUDA_SUCCESS; i++) {
        CUgraphExecUpdateResultInfo result = {};
        time_us(update, [&] { code = cu.cuGraphExecUpdate(executable.handle, second_clone.handle, &result); });
    }
    answer("cuGraphExecUpdate with a clone of a new capture",
           code == CUDA_SUCCESS ? "accepted" : "refused: " + name_of(code), update, "us");
    replay("replays after the update", weights, executable, 1000);

    // The host copy moves: only the nodes' parameters change.
    HostMemory elsewhere(BLOCK_BYTES);
    memcpy(elsewhere.as<char>(), weights.host.as<char>(), BLOCK_BYTES);
    memset(weights.host.as<char>(), 0, BLOCK_BYTES);
    CUDA_MEMCPY3D moved = weights.copy_of(0);
    moved.srcHost = elsewhere.as<char>();
    // Which graph's node names it after an update is not written anywhere.
    const char *whose = "by the node of the first graph";
    code = cu.cuGraphExecMemcpyNodeSetParams(executable.handle, copies[0], &moved, context);
    if (code != CUDA_SUCCESS) {
        whose = "by the node of the graph it was updated with";
        code = cu.cuGraphExecMemcpyNodeSetParams(executable.handle, more_copies[0], &moved, context);
    }
    answer("changing one copy's source in the executable, after an update",
           code == CUDA_SUCCESS ? std::string("accepted, ") + whose : "refused: " + name_of(code));
    if (code == CUDA_SUCCESS)
        replay("replays after that change", weights, executable, 1000);
}

// What a replay costs with and without the copies' nodes.
void replay_costs()
{
    Weights weights;
    Graph graph, clone;
    CUgraphNode copies[2];
    capture(weights, graph);
    clone_with_copies(weights, graph, clone, copies);
    for (bool with : {false, true}) {
        Samples instantiate, host;
        for (int i = 0; i < 10; i++)
            time_us(instantiate, [&] { Executable made(with ? clone.handle : graph.handle); });
        Executable executable(with ? clone.handle : graph.handle);
        Stream stream;
        Event began(CU_EVENT_DEFAULT), ended(CU_EVENT_DEFAULT);
        Samples per_replay;
        for (int i = 0; i < 20; i++) {
            began.record(stream);
            for (int k = 0; k < 32; k++)
                time_us(host, [&] { CU(cuGraphLaunch, executable.handle, stream); });
            ended.record(stream);
            per_replay.add(elapsed_ms(began, ended) * 1e3 / 32);
        }
        std::string which = with ? "two kernels and two copies of 16 KiB" : "two kernels";
        answer("instantiate, " + which, "and destroy", instantiate, "us");
        answer("replay submission, " + which, "", host, "us");
        answer("replay, " + which, "", per_replay, "us");
    }
    weights.wrong_words();
}

// --- what is refused while something captures ------------------------------

struct Bystanders {
    Stream stream;
    Event event, recorded;
    Handles handles{2};
    Range range{4 * FRAME};
    HostMemory host{64 * KIB};
    DeviceMemory memory{64 * KIB};
    std::vector<char> pageable = std::vector<char>(MIB);
    char *page() { return reinterpret_cast<char *>((uintptr_t(pageable.data()) + 4095) / 4096 * 4096); }
    Bystanders()
    {
        range.map(0, handles[0]);
        range.allow(0, FRAME);
        recorded.record(stream);
        stream.wait();
    }
};

struct Call {
    const char *name;
    CUresult (*body)(Bystanders &);
};

const Call CALLS[] = {
    {"cuMemAddressReserve, cuMemAddressFree",
     [](Bystanders &) {
         CUdeviceptr at = 0;
         CUresult code = cu.cuMemAddressReserve(&at, FRAME, 0, 0, 0);
         return code ? code : cu.cuMemAddressFree(at, FRAME);
     }},
    {"cuMemCreate, cuMemRelease",
     [](Bystanders &) {
         CUmemGenericAllocationHandle handle;
         CUmemAllocationProp prop = on_the_device();
         CUresult code = cu.cuMemCreate(&handle, FRAME, &prop, 0);
         return code ? code : cu.cuMemRelease(handle);
     }},
    {"cuMemMap, cuMemUnmap",
     [](Bystanders &b) {
         CUresult code = cu.cuMemMap(b.range.at + FRAME, FRAME, 0, b.handles[1], 0);
         return code ? code : cu.cuMemUnmap(b.range.at + FRAME, FRAME);
     }},
    {"cuMemSetAccess",
     [](Bystanders &b) {
         CUmemAccessDesc access = access_of(CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
         return cu.cuMemSetAccess(b.range.at, FRAME, &access, 1);
     }},
    {"cuMemHostRegister, cuMemHostUnregister",
     [](Bystanders &b) {
         CUresult code = cu.cuMemHostRegister(b.page(), 64 * KIB, 0);
         return code ? code : cu.cuMemHostUnregister(b.page());
     }},
    {"cuMemHostAlloc, cuMemFreeHost",
     [](Bystanders &) {
         void *at = nullptr;
         CUresult code = cu.cuMemHostAlloc(&at, 64 * KIB, 0);
         return code ? code : cu.cuMemFreeHost(at);
     }},
    {"cuMemAlloc, cuMemFree",
     [](Bystanders &) {
         CUdeviceptr at = 0;
         CUresult code = cu.cuMemAlloc(&at, FRAME);
         return code ? code : cu.cuMemFree(at);
     }},
    {"cuMemAllocAsync, cuMemFreeAsync on another stream",
     [](Bystanders &b) {
         CUdeviceptr at = 0;
         CUresult code = cu.cuMemAllocAsync(&at, FRAME, b.stream);
         return code ? code : cu.cuMemFreeAsync(at, b.stream);
     }},
    {"cuMemGetInfo",
     [](Bystanders &) {
         size_t left, total;
         return cu.cuMemGetInfo(&left, &total);
     }},
    {"cuEventCreate, cuEventDestroy",
     [](Bystanders &) {
         CUevent event;
         CUresult code = cu.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
         return code ? code : cu.cuEventDestroy(event);
     }},
    {"cuEventRecord on another stream", [](Bystanders &b) { return cu.cuEventRecord(b.event, b.stream); }},
    {"cuStreamWaitEvent on another stream", [](Bystanders &b) { return cu.cuStreamWaitEvent(b.stream, b.recorded, 0); }},
    {"cuEventQuery", [](Bystanders &b) { return cu.cuEventQuery(b.recorded); }},
    {"cuEventSynchronize", [](Bystanders &b) { return cu.cuEventSynchronize(b.recorded); }},
    {"cuStreamQuery of another stream", [](Bystanders &b) { return cu.cuStreamQuery(b.stream); }},
    {"cuStreamSynchronize of another stream", [](Bystanders &b) { return cu.cuStreamSynchronize(b.stream); }},
    {"cuMemcpyHtoDAsync on another stream",
     [](Bystanders &b) { return cu.cuMemcpyHtoDAsync(b.memory.at, b.host.as<void>(), 4096, b.stream); }},
    {"cuMemcpyHtoD", [](Bystanders &b) { return cu.cuMemcpyHtoD(b.memory.at, b.host.as<void>(), 4096); }},
};

std::string verdict(CUresult code, bool broke_the_capture)
{
    std::string text = code == CUDA_SUCCESS || code == CUDA_ERROR_NOT_READY ? "allowed" : "refused (" + std::to_string(code) + ")";
    return broke_the_capture ? text + " and the capture is lost" : text;
}

// Makes one call while `mode` captures: from the capturing thread, from another,
// or from another that has set itself to relaxed.
std::string while_capturing(const Call &call, CUstreamCaptureMode mode, bool other_thread, bool relaxed)
{
    Bystanders bystanders;
    Stream stream;
    CU(cuStreamBeginCapture, stream, mode);
    CUresult code = CUDA_SUCCESS;
    auto make = [&] {
        cu.cuCtxSetCurrent(context);
        CUstreamCaptureMode own = CU_STREAM_CAPTURE_MODE_RELAXED;
        if (relaxed)
            cu.cuThreadExchangeStreamCaptureMode(&own);
        code = call.body(bystanders);
    };
    if (other_thread)
        std::thread(make).join();
    else
        make();
    Graph graph;
    CUresult end = cu.cuStreamEndCapture(stream, &graph.handle);
    return verdict(code, end != CUDA_SUCCESS);
}

void refused_while_capturing()
{
    for (const Call &call : CALLS) {
        struct Case {
            const char *name;
            CUstreamCaptureMode mode;
            bool other, relaxed;
        };
        const Case cases[] = {{"global", CU_STREAM_CAPTURE_MODE_GLOBAL, false, false},
                              {"thread-local", CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, false, false},
                              {"relaxed", CU_STREAM_CAPTURE_MODE_RELAXED, false, false},
                              {"global, another thread", CU_STREAM_CAPTURE_MODE_GLOBAL, true, false},
                              {"global, a relaxed thread", CU_STREAM_CAPTURE_MODE_GLOBAL, true, true}};
        std::string text, first;
        bool same = true;
        for (const Case &c : cases) {
            std::string outcome;
            try {
                outcome = while_capturing(call, c.mode, c.other, c.relaxed);
            } catch (const Refused &refused) {
                outcome = "not measured: " + refused.sentence();
            }
            if (first.empty())
                first = outcome;
            same &= outcome == first;
            text += (text.empty() ? "" : "; ") + std::string(c.name) + ": " + outcome;
        }
        answer(std::string("during capture, ") + call.name, same ? first + " in every mode" : text);
    }
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("7 Graphs", argc, argv,
                        {{"copies in a clone", Needs::Card, copies_in_a_clone},
                         {"replay costs", Needs::Card, replay_costs},
                         {"refused while capturing", Needs::Driver, refused_while_capturing}});
}
