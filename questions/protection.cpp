// Question 6: are device handles mapped read-only, and what does a write to
// them do? Each write is tried in a context of its own: a refused one may end it.
//
// Not here: what set access costs (aliasing.cpp).
#include "driver.h"

namespace {

// One frame, filled with zeros while it was writable.
struct ReadOnly {
    Handles handles{1};
    Range writable{FRAME}, range{FRAME};
    ReadOnly(CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_READ)
    {
        writable.map(0, handles[0]);
        writable.allow(0, FRAME);
        CU(cuMemsetD8, writable.at, 0, FRAME);
        CU(cuCtxSynchronize);
        range.map(0, handles[0]);
        range.allow(0, FRAME, flags);
    }
};

uint32_t first_word(CUdeviceptr at)
{
    uint32_t word = 0xffffffff;
    CU(cuMemcpyDtoH, &word, at, 4);
    return word;
}

// What was queued, what it led to, and whether the context lives on.
void report(const std::string &item, const ReadOnly &memory, CUresult call)
{
    CUresult end = cu.cuCtxSynchronize();
    std::string text = "the call answered " + name_of(call) + ", synchronising " + name_of(end);
    uint32_t word = 0;
    CUresult after = cu.cuMemcpyDtoH(&word, memory.writable.at, 4);
    if (after == CUDA_SUCCESS)
        text += word ? "; it WAS written" : "; nothing was written; the context lives";
    else
        text += "; the context is lost";
    answer(item, text);
}

void accepted()
{
    CUmemAccessDesc access = access_of(CU_MEM_ACCESS_FLAGS_PROT_READ);
    Handles handles(1);
    Range range(FRAME);
    range.map(0, handles[0]);
    CUresult code = cu.cuMemSetAccess(range.at, FRAME, &access, 1);
    answer("read-only access to a device handle", code == CUDA_SUCCESS ? "accepted" : "refused: " + name_of(code));
}

void read_copy()
{
    ReadOnly memory;
    answer("a copy from read-only memory", first_word(memory.range.at) == 0 ? "works" : "WRONG BYTES");
}

void copy_into()
{
    ReadOnly memory;
    uint32_t word = 1;
    HostMemory host(64);
    *host.as<uint32_t>() = word;
    report("a copy into read-only memory", memory, cu.cuMemcpyHtoDAsync(memory.range.at, host.as<void>(), 4, nullptr));
}

void memset_of()
{
    ReadOnly memory;
    report("a memset of read-only memory", memory, cu.cuMemsetD32Async(memory.range.at, 1, 1, nullptr));
}

void kernel_write()
{
    ReadOnly memory;
    CUfunction store = kernel("store_word");
    uint32_t value = 1;
    void *parameters[] = {&memory.range.at, &value};
    report("a kernel's store to read-only memory", memory,
           cu.cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
}

void write_beside()
{
    ReadOnly memory;
    CUfunction store = kernel("store_word");
    uint32_t value = 1;
    void *parameters[] = {&memory.writable.at, &value};
    report("a kernel's store through a writable alias of the same frame", memory,
           cu.cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
}

void no_access()
{
    ReadOnly memory(CU_MEM_ACCESS_FLAGS_PROT_NONE);
    answer("no access, a copy from there", [&] {
        uint32_t word = 0;
        return name_of(cu.cuMemcpyDtoH(&word, memory.range.at, 4));
    }());
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("6 Protection", argc, argv,
                        {{"read-only access", Needs::Driver, accepted},
                         {"a copy from read-only memory", Needs::Driver, read_copy},
                         {"a store through a writable alias", Needs::Card, write_beside},
                         {"a copy into read-only memory", Needs::Driver, copy_into},
                         {"a memset of read-only memory", Needs::Driver, memset_of},
                         {"a kernel's store to read-only memory", Needs::Card, kernel_write},
                         {"no access", Needs::Driver, no_access}});
}
