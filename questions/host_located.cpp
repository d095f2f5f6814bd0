// Question 4: physical memory that lies in the host behind a device address:
// whether it can be had, how fast kernels read it, what switching costs.
//
// Not here: copies from pinned memory (bandwidth.cpp).
#include "copies.h"

namespace {

CUmemAllocationProp in_the_host(CUmemLocationType type, int node)
{
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = type;
    prop.location.id = node;
    return prop;
}

struct Place {
    const char *name;
    CUmemLocationType type;
    int node;
};

std::vector<Place> places()
{
    int nearest = 0;
    if (cu.cuDeviceGetAttribute(&nearest, CUdevice_attribute(134), device) != CUDA_SUCCESS || nearest < 0)
        nearest = 0;
    // Numbers, because headers before 12.2 lack the names.
    return {{"HOST_NUMA", CUmemLocationType(3), nearest},
            {"HOST_NUMA_CURRENT", CUmemLocationType(4), 0},
            {"HOST", CUmemLocationType(2), 0}};
}

// The first place a mapped and accessible frame can be had from.
bool first_usable(Place &usable)
{
    for (const Place &place : places())
        try {
            Handles handles;
            handles.add(FRAME, in_the_host(place.type, place.node));
            Range range(FRAME);
            range.map(0, handles[0]);
            range.allow(0, FRAME);
            usable = place;
            return true;
        } catch (const Refused &) {
            continue;
        }
    return false;
}

void possible()
{
    struct Attribute {
        int number;
        const char *what;
    };
    for (const Attribute &a : {Attribute{134, "nearest host NUMA node (attribute 134)"},
                               Attribute{141, "host NUMA handles (attribute 141)"},
                               Attribute{142, "host NUMA pools (attribute 142)"},
                               Attribute{145, "host handles (attribute 145)"}}) {
        int value = 0;
        CUresult code = cu.cuDeviceGetAttribute(&value, CUdevice_attribute(a.number), device);
        if (code == CUDA_SUCCESS)
            answer(a.what, a.number == 134 ? "" : value ? "yes" : "no", value, "");
        else
            answer(a.what, name_of(code));
    }
    for (const Place &place : places()) {
        std::string item = std::string("a 2 MiB handle in ") + place.name;
        try {
            CUmemAllocationProp prop = in_the_host(place.type, place.node);
            size_t granularity = 0;
            CU(cuMemGetAllocationGranularity, &granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
            answer(item + ", granularity", "", double(granularity), "bytes");
            Samples create, map, allow, unmap;
            Handles handles;
            Range range(64 * FRAME);
            for (size_t i = 0; i < 64; i++) {
                time_us(create, [&] { handles.add(FRAME, prop); });
                time_us(map, [&] { range.map(i * FRAME, handles[i]); });
                time_us(allow, [&] { range.allow(i * FRAME, FRAME); });
            }
            for (size_t i = 0; i < 64; i++)
                time_us(unmap, [&] { range.unmap(i * FRAME, FRAME); });
            answer(item, "created, mapped, accessible");
            answer(item + ", create", "", create, "us");
            answer(item + ", map", "", map, "us");
            answer(item + ", set access", "", allow, "us");
            answer(item + ", unmap", "", unmap, "us");
        } catch (const Refused &refused) {
            answer(item, "refused: " + refused.sentence());
        }
    }
}

void read_rates()
{
    size_t bytes = copy_bytes() / 2;
    Stream stream;
    DeviceMemory sink(64);
    CUfunction dense = kernel("read_all"), sparse = kernel("read_sparse");
    unsigned blocks = unsigned(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)) * 4;
    auto measure = [&](const std::string &where, CUdeviceptr at) {
        answer("kernel reads all of " + where, "", rate_gbps(stream, bytes, 7, 0.6, [&] {
                   launch(dense, blocks, 512, stream, at, uint64_t(bytes / 16), uint32_t(1), sink.at);
               }), "GB/s");
        for (uint32_t one_in : {16u, 64u}) {
            // Bytes that are asked for, not bytes of the range.
            answer("kernel reads one line in " + std::to_string(one_in) + " of " + where, "128-byte lines asked for",
                   rate_gbps(stream, bytes / one_in, 7, 0.3, [&] {
                       launch(sparse, blocks, 512, stream, at, uint64_t(bytes / 128), one_in, sink.at);
                   }), "GB/s");
        }
    };
    {
        Frames here(bytes / FRAME);
        measure("device handles", here.range.at);
    }
    {
        HostMemory mapped(bytes);
        measure("mapped pinned memory", mapped.on_device());
    }
    Place place;
    if (!first_usable(place)) {
        not_measured("kernel reads host-located handles", "none can be had here");
        return;
    }
    Handles handles;
    Range range(bytes);
    for (size_t i = 0; i < bytes / FRAME; i++) {
        handles.add(FRAME, in_the_host(place.type, place.node));
        range.map(i * FRAME, handles[i]);
    }
    range.allow(0, bytes);
    measure(std::string("host-located handles (") + place.name + ")", range.at);
}

// Device frames, then host-located ones, behind one address: copies in and out
// cross from one kind to the other in one call.
void both_kinds()
{
    constexpr size_t COUNT = 8, BYTES = COUNT * FRAME;
    Place place;
    if (!first_usable(place)) {
        not_measured("one range over both kinds", "no host-located handle can be had here");
        return;
    }
    Handles handles(COUNT / 2);
    for (size_t i = COUNT / 2; i < COUNT; i++)
        handles.add(FRAME, in_the_host(place.type, place.node));
    Range range(BYTES);
    for (size_t i = 0; i < COUNT; i++)
        range.map(i * FRAME, handles[i]);
    range.allow(0, BYTES);
    std::vector<uint32_t> in(BYTES / 4), out(BYTES / 4, 0);
    for (size_t i = 0; i < in.size(); i++)
        in[i] = uint32_t(i) * 2654435761u + 1;
    try {
        CU(cuMemcpyHtoD, range.at, in.data(), BYTES);
        CU(cuMemcpyDtoH, out.data(), range.at, BYTES);
        answer("one range over both kinds, copied in and out", in == out ? "the same bytes" : "OTHER BYTES");
        std::fill(out.begin(), out.end(), 0);
        DeviceMemory there(BYTES);
        CU(cuMemcpyDtoDAsync, there.at, range.at, BYTES, nullptr);
        CU(cuMemcpyDtoH, out.data(), there.at, BYTES);
        answer("one range over both kinds, copied to the device", in == out ? "the same bytes" : "OTHER BYTES");
    } catch (const Refused &refused) {
        answer("one range over both kinds, a copy", "refused: " + refused.sentence());
    }
}

// A range of 64 frames changes its side: unmap, map, set access.
void switching()
{
    constexpr size_t COUNT = 64;
    Place place;
    if (!first_usable(place)) {
        not_measured("switching a range of 64 frames", "no host-located handle can be had here");
        return;
    }
    Handles there, here(COUNT);
    for (size_t i = 0; i < COUNT; i++)
        there.add(FRAME, in_the_host(place.type, place.node));
    Range range(COUNT * FRAME);
    Samples to_device, to_host;
    auto show = [&](const Handles &handles) {
        for (size_t i = 0; i < COUNT; i++)
            range.map(i * FRAME, handles[i]);
        range.allow(0, COUNT * FRAME);
    };
    show(there);
    uint64_t until = at_most(2);
    for (int i = 0; i < 20 && (i == 0 || now_ns() < until); i++) {
        time_us(to_device, [&] {
            range.unmap(0, COUNT * FRAME);
            show(here);
        });
        time_us(to_host, [&] {
            range.unmap(0, COUNT * FRAME);
            show(there);
        });
    }
    answer("switching a range of 64 frames to device handles", "without the copy", to_device, "us");
    answer("switching a range of 64 frames to host-located handles", "without the copy", to_host, "us");
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("4 Host-located handles", argc, argv,
                        {{"possible", Needs::Driver, possible},
                         {"both kinds", Needs::Driver, both_kinds},
                         {"read rates", Needs::Card, read_rates},
                         {"switching", Needs::Driver, switching}});
}
