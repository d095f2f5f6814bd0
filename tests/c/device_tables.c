/* Launches that read through a table in device memory name the table alone.
 *
 *   device_tables PLACE WRITER
 *   PLACE   where the table lies: small (an allocation that stays the driver's),
 *           frame (one that does not), pool (of stream-ordered memory),
 *           large (too large to be searched)
 *   WRITER  how it came there: kernel, copy (on the device), early (before
 *           memory was short), tables (it names a table), grouped (a product),
 *           chance (nobody: numbers that look like addresses, of a kernel that
 *           reads none)
 *
 * Between the writing and the reading everything else is used, and there is not
 * room for all. */
#include "driver.h"

enum { COUNT = 12, BYTES = 2 * MIB, WORDS = 256, ROUNDS = 9, TARGETS = 3, SMALL = 4096 };

static const char image[] =
    "standin-module v1\nkernel standin_add_u32 8,8,8\nkernel standin_table_u64 8,8,8,8\n"
    "kernel standin_add_through_u32 8,8,8,8\nkernel standin_add_far_u32 8,8,8\n"
    "kernel standin_fill_u32 8,8,4\nkernel standin_group_tables 8,8,8,8,8,8,8,4\nkernel standin_grouped_product 8,8,8,4\n";

static handle module, stream;
static ptr weights[COUNT], table, spare, sum;

static void launch(const char *name, void **arguments)
{
    handle function;
    OK(cuModuleGetFunction, &function, module, name);
    OK(cuLaunchKernel, function, 1u, 1u, 1u, 1u, 1u, 1u, 0u, stream, arguments, NULL);
}

static void add(ptr to, ptr from, uint64_t count)
{
    launch("standin_add_u32", (void *[]){&to, &from, &count});
}

static void write_table(ptr at, ptr what)
{
    uint64_t step = 0, count = 1;
    launch("standin_table_u64", (void *[]){&at, &what, &step, &count});
}

/* Names everything but `but`, which then is not there any more. */
static void use_others(int but)
{
    for (int i = 0; i < COUNT; i++)
        if (i != but)
            add(weights[i] + BYTES / 2, weights[i] + BYTES / 4, 4);
}

static ptr memory_at(const char *place)
{
    ptr address;
    if (!strcmp(place, "small"))
        return new_memory(SMALL);
    if (!strcmp(place, "frame"))
        return new_memory(2 * MIB);
    if (!strcmp(place, "large"))
        return new_memory(4 * MIB);
    OK(cuMemAllocAsync, &address, (size_t)SMALL, stream);
    return address;
}

/* One group: a row of ones times one column of the weight. */
static float product(ptr weight, ptr row, ptr out)
{
    int64_t n = 1, k = WORDS;
    int32_t groups = 1, ends = 1;
    float result;
    ptr where = spare;
    OK(cuMemcpyHtoDAsync_v2, where, &ends, (size_t)4, stream);
    launch("standin_group_tables", (void *[]){&row, &weight, &out, &table, &where, &n, &k, &groups});
    use_others(-1);
    launch("standin_grouped_product", (void *[]){&table, &n, &k, &groups});
    OK(cuCtxSynchronize);
    OK(cuMemcpyDtoH_v2, &result, out, (size_t)4);
    return result;
}

static void grouped(const char *place)
{
    static float ones[WORDS];
    for (int i = 0; i < WORDS; i++)
        ones[i] = 1;
    ptr row = memory_at(place), out = memory_at(place);
    OK(cuCtxSynchronize);
    OK(cuMemcpyHtoD_v2, row, ones, sizeof ones);
    for (int i = 0; i < TARGETS; i++) {
        float value = i + 2;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        fill(weights[i], bits, BYTES / 4, stream);
    }
    OK(cuCtxSynchronize);
    for (int round = 0; round < ROUNDS; round++) {
        float wanted = WORDS * (float)(round % TARGETS + 2);
        float got = product(weights[round % TARGETS], row, out);
        CHECK(got == wanted, "round %d: %f, not %f", round, got, wanted);
    }
}

/* Far behind what is filled lies a number: in `table` one that is the address of
 * something, in `sum` of nothing that was ever there. */
static void numbers(void)
{
    enum { FAR = 2048 };
    ptr nothing = weights[0] + (1ull << 36);
    OK(cuMemcpyHtoD_v2, table + FAR, &weights[0], sizeof nothing);
    OK(cuMemcpyHtoD_v2, sum + FAR, &nothing, sizeof nothing);
    use_others(-1);
    for (int i = 0; i < 40 * ROUNDS; i++) {
        ptr to = i % 4 ? sum : table;
        uint64_t words = 4;
        uint32_t value = i;
        launch("standin_fill_u32", (void *[]){&to, &words, &value});
    }
    use_others(-1);
    OK(cuCtxSynchronize);
}

int main(int count, char **arguments)
{
    CHECK(count == 3, "device_tables PLACE WRITER");
    const char *place = arguments[1], *writer = arguments[2];
    int far = !strcmp(writer, "tables"), early = !strcmp(writer, "early");
    start();
    OK(cuModuleLoadData, &module, image);
    stream = new_stream();
    table = memory_at(place), spare = memory_at(place), sum = memory_at(place);
    fill(sum, 0, WORDS * 4, stream);
    fill(table, 0, SMALL, stream);
    fill(spare, 0, SMALL, stream);
    for (int i = 0; i < COUNT; i++) {
        fill(weights[i] = new_memory(BYTES), 1000 + i, BYTES, stream);
        if (early && i == 0)
            write_table(table, weights[0]);
    }
    if (!strcmp(writer, "grouped") || !strcmp(writer, "chance")) {
        writer[0] == 'g' ? grouped(place) : numbers();
        puts("right");
        return 0;
    }
    uint32_t wanted = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int target = early ? 0 : round % TARGETS;
        uint64_t index = 0, words = WORDS;
        if (!early)
            write_table(far || !strcmp(writer, "copy") ? spare : table, weights[target]);
        if (!strcmp(writer, "copy"))
            OK(cuMemcpyDtoDAsync_v2, table, spare, (size_t)8, stream);
        if (far)
            write_table(table, spare);
        use_others(target);
        if (far)
            launch("standin_add_far_u32", (void *[]){&sum, &table, &words});
        else
            launch("standin_add_through_u32", (void *[]){&sum, &table, &index, &words});
        wanted += 1000 + target;
    }
    OK(cuCtxSynchronize);
    expect("the sum", sum, wanted, WORDS * 4);
    puts("right");
    return 0;
}
