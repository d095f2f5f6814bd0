// The CUDA driver as these programs use it: opened by name, called by table,
// with small owners for what must be given back.
//
// `cu.cuMemMap(...)` is the bare call; `CU(cuMemMap, ...)` throws Refused unless
// it answers 0. No managed memory, no settings of the card, nowhere.
// Not here: answers and limits (question.h), kernels (kernels.cu).
#pragma once
#include "question.h"
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cuda.h>
#include <dlfcn.h>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <utility>

#define DRIVER_FUNCTIONS(X)                                                                        \
    X(cuInit) X(cuDriverGetVersion) X(cuGetErrorName) X(cuDeviceGet) X(cuDeviceGetName)            \
    X(cuDeviceGetAttribute) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease)               \
    X(cuCtxSetCurrent) X(cuCtxSynchronize) X(cuMemGetInfo)                                         \
    X(cuMemAlloc) X(cuMemFree) X(cuMemHostAlloc) X(cuMemFreeHost) X(cuMemHostRegister)             \
    X(cuMemHostUnregister) X(cuMemHostGetDevicePointer)                                            \
    X(cuMemAddressReserve) X(cuMemAddressFree) X(cuMemCreate) X(cuMemRelease) X(cuMemMap)          \
    X(cuMemUnmap) X(cuMemSetAccess) X(cuMemGetAllocationGranularity)                               \
    X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuMemcpyDtoDAsync) X(cuMemcpyHtoD)                 \
    X(cuMemcpyDtoH) X(cuMemsetD32Async) X(cuMemsetD8) X(cuMemAllocAsync) X(cuMemFreeAsync)         \
    X(cuStreamCreate) X(cuStreamDestroy) X(cuStreamSynchronize) X(cuStreamQuery)                   \
    X(cuStreamWaitEvent) X(cuStreamWaitValue32) X(cuStreamBeginCapture) X(cuStreamEndCapture)      \
    X(cuStreamIsCapturing) X(cuThreadExchangeStreamCaptureMode)                                    \
    X(cuEventCreate) X(cuEventDestroy) X(cuEventRecord) X(cuEventSynchronize) X(cuEventQuery)      \
    X(cuEventElapsedTime)                                                                          \
    X(cuModuleLoadData) X(cuModuleGetFunction) X(cuFuncLoad) X(cuFuncGetParamInfo)         \
    X(cuLaunchKernel) X(cuLaunchKernelEx) X(cuTensorMapEncodeTiled)                                \
    X(cuGraphCreate) X(cuGraphDestroy) X(cuGraphClone) X(cuGraphGetNodes) X(cuGraphNodeGetType)    \
    X(cuGraphGetRootNodes) X(cuGraphNodeFindInClone) X(cuGraphAddMemcpyNode)                       \
    X(cuGraphAddDependencies) X(cuGraphInstantiate) X(cuGraphExecUpdate) X(cuGraphExecDestroy)     \
    X(cuGraphLaunch) X(cuGraphExecMemcpyNodeSetParams) X(cuGetProcAddress)                         \
    DRIVER_FUNCTIONS_13(X)

// The batched copy has other arguments before 13.0: not used there.
#if CUDA_VERSION >= 13000
#define DRIVER_FUNCTIONS_13(X) X(cuMemcpyBatchAsync)
#else
#define DRIVER_FUNCTIONS_13(X)
#endif

// Two steps, so that cuda.h's version macros (cuMemAlloc -> cuMemAlloc_v2) apply first.
#define DRIVER_NAME_OF(f) #f
#define DRIVER_NAME(f) DRIVER_NAME_OF(f)

struct Driver {
#define DRIVER_MEMBER(f) decltype(&::f) f = nullptr;
    DRIVER_FUNCTIONS(DRIVER_MEMBER)
#undef DRIVER_MEMBER
    void *library = nullptr;

    bool open()
    {
        library = dlopen("libcuda.so.1", RTLD_NOW);
        if (!library)
            return false;
#define DRIVER_LOOKUP(f) f = reinterpret_cast<decltype(f)>(dlsym(library, DRIVER_NAME(f)));
        DRIVER_FUNCTIONS(DRIVER_LOOKUP)
#undef DRIVER_LOOKUP
        return cuInit != nullptr;
    }
};
inline Driver cu;

inline std::string name_of(CUresult code)
{
    const char *name = nullptr;
    if (cu.cuGetErrorName && cu.cuGetErrorName(code, &name) == CUDA_SUCCESS && name)
        return name;
    return "code " + std::to_string(int(code));
}

// A call the driver did not carry out; the part that made it ends "not measured".
struct Refused {
    std::string call;
    CUresult code;
    std::string sentence() const { return call + " answered " + name_of(code); }
};

inline void demand(CUresult code, const char *call)
{
    if (code != CUDA_SUCCESS)
        throw Refused{call, code};
}

// A missing symbol counts as an answer of its own: older drivers lack some.
#define TRY(f, ...) (cu.f ? cu.f(__VA_ARGS__) : CUDA_ERROR_NOT_FOUND)
#define CU(f, ...) demand(TRY(f, __VA_ARGS__), #f)

constexpr size_t KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB;
constexpr size_t FRAME = 2 * MIB; // the granularity of every card so far; checked at the start

inline CUdevice device;
inline CUcontext context;
inline CUmodule module;       // kernels.cu, null on the stand-in
inline std::string cublas_path; // --cublas, empty if not given

inline int attribute(int which)
{
    int value = 0;
    CU(cuDeviceGetAttribute, &value, CUdevice_attribute(which), device);
    return value;
}

class Stream {
public:
    Stream() { CU(cuStreamCreate, &handle, CU_STREAM_NON_BLOCKING); }
    ~Stream() { TRY(cuStreamDestroy, handle); }
    Stream(const Stream &) = delete;
    operator CUstream() const { return handle; }
    void wait() const { CU(cuStreamSynchronize, handle); }

private:
    CUstream handle = nullptr;
};

class Event {
public:
    explicit Event(unsigned flags = CU_EVENT_DISABLE_TIMING) { CU(cuEventCreate, &handle, flags); }
    ~Event() { TRY(cuEventDestroy, handle); }
    Event(const Event &) = delete;
    Event(Event &&other) : handle(std::exchange(other.handle, nullptr)) {}
    operator CUevent() const { return handle; }
    void record(CUstream stream) const { CU(cuEventRecord, handle, stream); }

private:
    CUevent handle = nullptr;
};

// Milliseconds between two events with timing, both of which have been recorded.
inline double elapsed_ms(CUevent from, CUevent to)
{
    CU(cuEventSynchronize, to);
    float ms = 0;
    CU(cuEventElapsedTime, &ms, from, to);
    return ms;
}

// Pinned memory, mapped into the device.
class HostMemory {
public:
    explicit HostMemory(size_t bytes, unsigned flags = CU_MEMHOSTALLOC_DEVICEMAP)
    {
        CU(cuMemHostAlloc, &address, bytes, flags);
    }
    ~HostMemory() { TRY(cuMemFreeHost, address); }
    HostMemory(const HostMemory &) = delete;
    template <class T> T *as() const { return static_cast<T *>(address); }
    CUdeviceptr on_device() const
    {
        CUdeviceptr at = 0;
        CU(cuMemHostGetDevicePointer, &at, address, 0);
        return at;
    }

private:
    void *address = nullptr;
};

class DeviceMemory {
public:
    explicit DeviceMemory(size_t bytes) { CU(cuMemAlloc, &at, bytes); }
    ~DeviceMemory() { TRY(cuMemFree, at); }
    DeviceMemory(const DeviceMemory &) = delete;
    CUdeviceptr at = 0;
};

inline CUmemAllocationProp on_the_device()
{
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = device;
    return prop;
}

inline CUmemAccessDesc access_of(CUmemAccess_flags flags)
{
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device;
    access.flags = flags;
    return access;
}

// A reserved address range; what is mapped into it is unmapped at its end.
class Range {
public:
    explicit Range(size_t bytes) : bytes(bytes) { CU(cuMemAddressReserve, &at, bytes, 0, 0, 0); }
    ~Range()
    {
        for (auto &[offset, length] : maps)
            TRY(cuMemUnmap, at + offset, length);
        TRY(cuMemAddressFree, at, bytes);
    }
    Range(const Range &) = delete;
    void map(size_t offset, CUmemGenericAllocationHandle handle, size_t length = FRAME)
    {
        CU(cuMemMap, at + offset, length, 0, handle, 0);
        maps.push_back({offset, length});
    }
    // One call for `length` bytes from `offset`, whatever lies behind them.
    void unmap(size_t offset, size_t length)
    {
        CU(cuMemUnmap, at + offset, length);
        maps.erase(std::remove_if(maps.begin(), maps.end(),
                                  [&](auto &m) { return m.first >= offset && m.first < offset + length; }),
                   maps.end());
    }
    void allow(size_t offset, size_t length,
               CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
    {
        CUmemAccessDesc access = access_of(flags);
        CU(cuMemSetAccess, at + offset, length, &access, 1);
    }
    CUdeviceptr at = 0;
    const size_t bytes;

private:
    std::vector<std::pair<size_t, size_t>> maps;
};

// Physical memory handles, released at the end.
class Handles {
public:
    Handles() = default;
    explicit Handles(size_t count, size_t length = FRAME)
    {
        for (size_t i = 0; i < count; i++)
            add(length);
    }
    ~Handles()
    {
        for (auto handle : all)
            TRY(cuMemRelease, handle);
    }
    Handles(const Handles &) = delete;
    void add(size_t length = FRAME, CUmemAllocationProp prop = on_the_device())
    {
        CUmemGenericAllocationHandle handle;
        CU(cuMemCreate, &handle, length, &prop, 0);
        all.push_back(handle);
    }
    void release_last()
    {
        CU(cuMemRelease, all.back());
        all.pop_back();
    }
    CUmemGenericAllocationHandle operator[](size_t i) const { return all[i]; }
    size_t count() const { return all.size(); }

private:
    std::vector<CUmemGenericAllocationHandle> all;
};

// `count` frames in one range, each behind its own handle, ready for use.
class Frames {
public:
    explicit Frames(size_t count) : handles(count), range(count * FRAME)
    {
        for (size_t i = 0; i < count; i++)
            range.map(i * FRAME, handles[i]);
        range.allow(0, count * FRAME);
    }
    Handles handles; // before `range`: released after it is unmapped
    Range range;
};

// Holds a stream back from the host: the stream goes on when `open` is called,
// or after `longest_ms`, so that a driver call that waits for the stream ends,
// and shows itself by how long it took.
//
// The words gates wait for are allocated once, for a host allocation may itself
// wait for a stream that a gate holds.
inline volatile uint32_t *gate_words;
inline CUdeviceptr gate_words_on_device;
constexpr size_t GATE_WORDS = 16; // more than gates at a time

class Gate {
public:
    Gate(CUstream stream, unsigned longest_ms)
    {
        static std::atomic<size_t> next{0};
        size_t index = next++ % GATE_WORDS;
        word = gate_words + index;
        *word = 0;
        CU(cuStreamWaitValue32, stream, gate_words_on_device + index * sizeof *word, 1, CU_STREAM_WAIT_VALUE_EQ);
        watchdog = std::thread([this, longest_ms] {
            std::unique_lock<std::mutex> lock(mutex);
            if (!opened.wait_for(lock, std::chrono::milliseconds(longest_ms), [this] { return released; }))
                expired = true;
            *word = 1;
        });
    }
    ~Gate() { open(); }
    Gate(const Gate &) = delete;
    void open()
    {
        {
            std::lock_guard<std::mutex> lock(mutex);
            released = true;
        }
        opened.notify_all();
        if (watchdog.joinable())
            watchdog.join();
    }
    // Whether the time ran out before `open`.
    bool ran_out() const { return expired; }

private:
    volatile uint32_t *word;
    std::mutex mutex;
    std::condition_variable opened;
    bool released = false;
    std::atomic<bool> expired{false};
    std::thread watchdog;
};

// Loaded at once: loading at the first launch may wait for a stream that a gate holds.
inline CUfunction kernel(const char *name)
{
    CUfunction function = nullptr;
    demand(cu.cuModuleGetFunction(&function, module, name), name);
    TRY(cuFuncLoad, function);
    return function;
}

// Launches with exactly the parameter types given: pass uint64_t, not size_t-like literals.
template <class... Arguments>
void launch(CUfunction function, unsigned blocks, unsigned threads, CUstream stream, Arguments... arguments)
{
    void *parameters[] = {static_cast<void *>(&arguments)..., nullptr};
    CU(cuLaunchKernel, function, blocks, 1, 1, threads, 1, 1, 0, stream, parameters, nullptr);
}

// As launch, with programmatic dependent launch on the kernel before it in the stream.
template <class... Arguments>
void launch_dependent(CUfunction function, unsigned blocks, unsigned threads, CUstream stream,
                      Arguments... arguments)
{
    void *parameters[] = {static_cast<void *>(&arguments)..., nullptr};
    CUlaunchAttribute overlap = {};
    overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    overlap.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig config = {};
    config.gridDimX = blocks;
    config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = threads;
    config.blockDimY = config.blockDimZ = 1;
    config.hStream = stream;
    config.attrs = &overlap;
    config.numAttrs = 1;
    CU(cuLaunchKernelEx, &config, function, parameters, nullptr);
}

inline std::vector<char> contents_of(const std::string &path)
{
    std::vector<char> bytes;
    if (FILE *file = fopen(path.c_str(), "rb")) {
        char block[65536];
        for (size_t n; (n = fread(block, 1, sizeof block, file));)
            bytes.insert(bytes.end(), block, block + n);
        fclose(file);
    }
    return bytes;
}

// Empty, or why no device can be used.
inline std::string open_device()
{
    if (!cu.open())
        return "no CUDA driver (libcuda.so.1)";
    run_state.on_standin = dlsym(cu.library, "standin_account_json") != nullptr;
    try {
        CU(cuInit, 0);
        CU(cuDeviceGet, &device, 0);
        CU(cuDevicePrimaryCtxRetain, &context, device);
        CU(cuCtxSetCurrent, context);
        size_t granularity = 0;
        CUmemAllocationProp prop = on_the_device();
        CU(cuMemGetAllocationGranularity, &granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
        if (granularity != FRAME)
            return "the granularity of this card is " + std::to_string(granularity) + " bytes, not 2 MiB";
        void *words = nullptr;
        CU(cuMemHostAlloc, &words, GATE_WORDS * sizeof *gate_words, CU_MEMHOSTALLOC_DEVICEMAP);
        CU(cuMemHostGetDevicePointer, &gate_words_on_device, words, 0);
        gate_words = static_cast<volatile uint32_t *>(words);
    } catch (const Refused &refused) {
        return refused.sentence();
    }
    return "";
}

// Empty, or why no kernel can be launched.
inline std::string load_kernels(const std::string &path)
{
    if (run_state.on_standin && !run_state.rehearsal)
        return "stand-in";
    std::vector<char> image = contents_of(path);
    if (image.empty())
        return "there is no kernel file '" + path + "'";
    CUresult code = cu.cuModuleLoadData(&module, image.data());
    if (code == CUDA_ERROR_UNSUPPORTED_PTX_VERSION || code == CUDA_ERROR_NO_BINARY_FOR_GPU)
        return "the kernels are too new for this driver or card (" + name_of(code) +
               "): build them with an nvcc no newer than the driver, named by NVCC";
    return code == CUDA_SUCCESS ? "" : "loading the kernels answered " + name_of(code);
}

// The body of every program's main. After a part that broke the context (an
// illegal access) the program starts itself again for the parts that follow.
//
//   PROGRAM --limit SECONDS [--kernels FILE] [--cublas FILE] [--part NAME] [--from N]
//           [--shim FILE] [--label TEXT] [--rehearse 1]
//
// --rehearse makes the stand-in stand for a card: every call is made, no kernel
// computes, and no answer means anything (STANDIN_UNKNOWN=count is needed).
inline int answer_parts(const char *question, int argc, char **argv, const std::vector<Part> &parts)
{
    std::string kernels = "kernels.fatbin", only;
    double limit = 60;
    size_t first = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string option = argv[i];
        if (option == "--limit")
            limit = atof(argv[i + 1]);
        else if (option == "--kernels")
            kernels = argv[i + 1];
        else if (option == "--cublas")
            cublas_path = argv[i + 1];
        else if (option == "--shim")
            run_state.shim = argv[i + 1];
        else if (option == "--part")
            only = argv[i + 1];
        else if (option == "--from")
            first = size_t(atoi(argv[i + 1]));
        else if (option == "--label")
            run_state.label = argv[i + 1];
        else if (option == "--rehearse")
            run_state.rehearsal = atoi(argv[i + 1]) != 0;
    }
    run_state.question = question;
    run_state.deadline_ns = now_ns() + uint64_t(limit * 1e9);
    alarm(unsigned(limit) + 10); // ends a program that hangs in the driver

    std::string no_device = open_device();
    std::string no_kernels = no_device.empty() ? load_kernels(kernels) : no_device;
    for (size_t i = first; i < parts.size(); i++) {
        const Part &part = parts[i];
        if (!only.empty() && only != part.name)
            continue;
        if (!no_device.empty()) {
            not_measured(part.name, no_device);
            continue;
        }
        if (part.needs == Needs::Card && !no_kernels.empty()) {
            not_measured(part.name, no_kernels);
            continue;
        }
        if (seconds_left() < 1) {
            not_measured(part.name, "no time left");
            continue;
        }
        try {
            part.body();
        } catch (const Refused &refused) {
            not_measured(part.name, refused.sentence());
        }
        if (cu.cuCtxSynchronize() != CUDA_SUCCESS && only.empty() && i + 1 < parts.size()) {
            std::string left = std::to_string(std::max(0.0, seconds_left())), next = std::to_string(i + 1);
            execl("/proc/self/exe", argv[0], "--limit", left.c_str(), "--kernels", kernels.c_str(),
                  "--shim", run_state.shim.c_str(), "--cublas", cublas_path.c_str(), "--from", next.c_str(),
                  "--label", run_state.label.c_str(), "--rehearse", run_state.rehearsal ? "1" : "0", nullptr);
        }
    }
    if (no_device.empty())
        TRY(cuDevicePrimaryCtxRelease, device);
    return 0;
}
