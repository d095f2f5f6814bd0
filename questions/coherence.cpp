// Question 1, second half: a copy through alias A, an event, a kernel on
// another stream that reads alias B. Up to a million rounds of changing data
// for every way of reading; every wrong word is counted, the first is printed.
//
// Not here: what mappings cost (aliasing.cpp).
#include "blas.h"
#include "pattern.h"

namespace {

constexpr uint32_t ROUNDS = 1000000;
constexpr double SECONDS_PER_READER = 9;
// Slots are reused every 8 rounds, contents every 31: each reuse changes every word.
constexpr uint32_t SLOTS = 8, CONTENTS = 31;

// Two addresses of one frame, and what goes through them.
struct Aliases {
    Handles handles{1};
    Range range{2 * FRAME};
    CUdeviceptr a = 0, b = 0;
    HostMemory contents{CONTENTS * BLOCK_BYTES};
    DeviceMemory wrong{sizeof(Wrong)};

    explicit Aliases(bool floats = false)
    {
        range.map(0, handles[0]);
        range.map(FRAME, handles[0]);
        range.allow(0, 2 * FRAME);
        a = range.at;
        b = range.at + FRAME;
        for (uint32_t seed = 0; seed < CONTENTS; seed++)
            for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
                uint32_t at = seed * BLOCK_WORDS + i;
                if (floats)
                    contents.as<float>()[at] = pattern_float(seed, i);
                else
                    contents.as<uint32_t>()[at] = pattern(seed, i);
            }
        CU(cuMemsetD8, wrong.at, 0, sizeof(Wrong));
        CU(cuStreamSynchronize, nullptr); // the rounds' streams do not wait for the default one
    }
    CUdeviceptr slot(uint32_t number) const { return b + number * BLOCK_BYTES; }
};

// Waits for the reader's stream alone: another stream may hold a kernel that has no end.
Wrong found_so_far(const Aliases &aliases, const Stream &reader)
{
    reader.wait();
    Wrong wrong;
    CU(cuMemcpyDtoH, &wrong, aliases.wrong.at, sizeof wrong);
    return wrong;
}

// A reader that finds nothing wrong proves something only if it would: here the
// block carries seed 0 and the reader is told to expect seed 1.
template <class Read> bool notices(Aliases &aliases, const Stream &reader, Read &&read)
{
    CU(cuMemcpyHtoD, aliases.a, aliases.contents.as<char>(), BLOCK_BYTES);
    CU(cuStreamSynchronize, nullptr);
    read(0, 0, 1);
    bool noticed = found_so_far(aliases, reader).words >= BLOCK_WORDS;
    CU(cuMemsetD8, aliases.wrong.at, 0, sizeof(Wrong));
    CU(cuStreamSynchronize, nullptr);
    return noticed || run_state.rehearsal;
}

// Runs the rounds: `read(round, slot, seed)` launches the reader on `reader`.
template <class Read>
void rounds(const std::string &item, Aliases &aliases, Stream &reader, Read &&read,
            bool may_be_wrong = false)
{
    if (!notices(aliases, reader, read)) {
        not_measured(item, "the reader does not notice a wrong word");
        return;
    }
    Stream copier;
    std::vector<Event> copied, checked;
    for (uint32_t i = 0; i < SLOTS; i++) {
        copied.emplace_back();
        checked.emplace_back();
    }
    uint64_t until = at_most(SECONDS_PER_READER);
    uint32_t round = 0;
    for (; round < ROUNDS; round++) {
        if (round % 1024 == 0) {
            reader.wait(); // bounds what is queued when time runs out
            if (now_ns() > until)
                break;
        }
        uint32_t slot = round % SLOTS, seed = round % CONTENTS;
        if (round >= SLOTS)
            CU(cuStreamWaitEvent, copier, checked[slot], 0);
        CU(cuMemcpyHtoDAsync, aliases.a + slot * BLOCK_BYTES,
           aliases.contents.as<char>() + seed * BLOCK_BYTES, BLOCK_BYTES, copier);
        copied[slot].record(copier);
        CU(cuStreamWaitEvent, reader, copied[slot], 0);
        read(round, slot, seed);
        checked[slot].record(reader);
    }
    reader.wait();
    copier.wait();
    Wrong wrong = found_so_far(aliases, reader);
    std::string text = "every word right";
    if (wrong.words) {
        char first[128];
        snprintf(first, sizeof first, "WRONG WORDS: the first in round %u, word %u: %08x, not %08x",
                 wrong.round, wrong.position, wrong.found, wrong.wanted);
        text = first;
    }
    answer(item, text + (may_be_wrong ? " (this form makes no promise)" : ""), double(wrong.words),
           "wrong words");
    answer(item + ", rounds", round < ROUNDS ? "as many as the time allowed" : "", round, "rounds");
}

unsigned all_multiprocessors() { return unsigned(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)); }

void with_kernel(const std::string &item, const char *name)
{
    Aliases aliases;
    Stream reader;
    CUfunction check = kernel(name);
    unsigned blocks = all_multiprocessors();
    rounds(item, aliases, reader, [&](uint32_t round, uint32_t slot, uint32_t seed) {
        launch(check, blocks, 256, reader, aliases.slot(slot), seed, round, aliases.wrong.at);
    });
}

void plain() { with_kernel("coherence, plain loads", "check_plain"); }
void cached() { with_kernel("coherence, loads cached in L1", "check_cached"); }
void read_only() { with_kernel("coherence, read-only loads", "check_read_only"); }
void vector_nc() { with_kernel("coherence, vector ld.global.nc", "check_vector"); }

void tensor_copies()
{
    if (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 9) {
        not_measured("coherence, TMA loads", "this card has no bulk tensor copies");
        return;
    }
    Aliases aliases;
    Stream reader;
    CUfunction check = kernel("check_tma");
    alignas(64) CUtensorMap maps[SLOTS];
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        cuuint64_t sizes[2] = {64, BLOCK_ROWS}, strides[1] = {256};
        cuuint32_t box[2] = {64, BLOCK_ROWS}, steps[2] = {1, 1};
        CU(cuTensorMapEncodeTiled, &maps[slot], CU_TENSOR_MAP_DATA_TYPE_UINT32, 2,
           reinterpret_cast<void *>(aliases.slot(slot)), sizes, strides, box, steps,
           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
           CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    }
    unsigned blocks = all_multiprocessors();
    rounds("coherence, TMA loads", aliases, reader, [&](uint32_t round, uint32_t slot, uint32_t seed) {
        void *parameters[] = {&maps[slot], &seed, &round, &aliases.wrong.at};
        CU(cuLaunchKernel, check, blocks, 1, 1, 128, 1, 1, 0, reader, parameters, nullptr);
    });
}

// The operand is read through alias B and multiplied by the identity.
void cublas_operands()
{
    const char *item = "coherence, cuBLAS operands";
    Blas blas;
    if (!blas.usable()) {
        not_measured(item, "cuBLAS cannot be opened (" + Blas::name() + ")");
        return;
    }
    Aliases aliases(true);
    DeviceMemory identity(BLOCK_BYTES), product(BLOCK_BYTES);
    std::vector<float> unit(BLOCK_WORDS);
    for (uint32_t i = 0; i < BLOCK_ROWS; i++)
        unit[i * BLOCK_ROWS + i] = 1;
    CU(cuMemcpyHtoD, identity.at, unit.data(), BLOCK_BYTES);
    CU(cuStreamSynchronize, nullptr);
    Stream reader;
    blas.use(reader);
    CUfunction check = kernel("check_float");
    int status = 0;
    rounds(item, aliases, reader, [&](uint32_t round, uint32_t slot, uint32_t seed) {
        status |= blas.multiply(64, aliases.slot(slot), identity.at, product.at);
        launch(check, 1, 256, reader, product.at, seed, round, aliases.wrong.at);
    });
    if (status)
        not_measured(item, "cublasSgemm answered " + std::to_string(status) + "; the counts above do not hold");
}

// The reader may start before the kernel ahead of it in its stream has ended.
// The copy's event lies between them, or before both.
void dependent_launch()
{
    if (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 9) {
        not_measured("coherence, programmatic dependent launch", "this card has none");
        return;
    }
    struct Form {
        const char *item, *kernel;
        bool wait_between, promised;
    };
    const Form forms[] = {
        {"coherence, dependent launch, event before both", "check_plain", false, true},
        {"coherence, dependent launch, event between", "check_plain", true, false},
        {"coherence, dependent launch, event between, griddepcontrol.wait", "check_after_primary", true, false},
    };
    for (const Form &form : forms) {
        Aliases aliases;
        Stream reader, ahead;
        CUfunction primary = kernel("early_primary"), check = kernel(form.kernel);
        unsigned blocks = all_multiprocessors();
        rounds(form.item, aliases, reader, [&](uint32_t round, uint32_t slot, uint32_t seed) {
            // `rounds` has just made the reader's stream wait for the copy. To have the
            // wait between the two kernels, the primary goes first, for the next round.
            if (!form.wait_between)
                launch(primary, 1, 32, reader, uint64_t(1000));
            launch_dependent(check, blocks, 256, reader, aliases.slot(slot), seed, round, aliases.wrong.at);
            if (form.wait_between)
                launch(primary, 1, 32, reader, uint64_t(1000));
        }, !form.promised);
    }
}

// A long kernel on a third stream, reading the same blocks since before the first write.
void long_kernel()
{
    Aliases aliases;
    Stream reader, third;
    HostMemory stop(64);
    *stop.as<volatile uint32_t>() = 0;
    DeviceMemory seen(64);
    unsigned blocks = all_multiprocessors();
    launch(kernel("resident_reader"), blocks, 64, third, aliases.b, uint32_t(SLOTS), stop.on_device(),
           uint64_t((SECONDS_PER_READER + 2) * 1e9), seen.at);
    CUfunction check = kernel("check_cached");
    rounds("coherence, cached loads, a long kernel present", aliases, reader,
           [&](uint32_t round, uint32_t slot, uint32_t seed) {
               launch(check, blocks, 256, reader, aliases.slot(slot), seed, round, aliases.wrong.at);
           });
    bool lasted = cu.cuStreamQuery(third) == CUDA_ERROR_NOT_READY;
    *stop.as<volatile uint32_t>() = 1;
    third.wait();
    answer("was the long kernel present to the end", lasted ? "yes" : "no");
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("1 Coherence", argc, argv,
                        {{"coherence, plain loads", Needs::Card, plain},
                         {"coherence, loads cached in L1", Needs::Card, cached},
                         {"coherence, read-only loads", Needs::Card, read_only},
                         {"coherence, vector ld.global.nc", Needs::Card, vector_nc},
                         {"coherence, TMA loads", Needs::Card, tensor_copies},
                         {"coherence, cuBLAS operands", Needs::Card, cublas_operands},
                         {"coherence, programmatic dependent launch", Needs::Card, dependent_launch},
                         {"coherence, a long kernel present", Needs::Card, long_kernel}});
}
