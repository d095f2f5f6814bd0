/* What a call leaves on the stack below its caller: no address of memory that
 * neither it nor a call shortly before it names. A program's structs may have
 * parts that it does not set, where they would look like parameters of the next
 * launch. */
#include "driver.h"

enum { COUNT = 12, BYTES = 2 * MIB, ROUNDS = 6, DEPTH = 6 << 10 };

static const char image[] = "standin-module v1\nkernel standin_add_u32 8,8,8\n";

static ptr weights[COUNT];

/* How many addresses of weights but these two lie below the caller. */
__attribute__((noinline)) static int left_behind(ptr one, ptr other)
{
    uint64_t room[DEPTH / 8], *word = room;
    int count = 0;
    __asm__ volatile("" : "+r"(word) : : "memory"); /* Its words are as they were. */
    for (int i = 0; i < DEPTH / 8; i++)
        for (int j = 0; j < COUNT; j++)
            count += word[i] - weights[j] < BYTES && weights[j] != one && weights[j] != other;
    return count;
}

static void check(const char *call, int round, ptr one, ptr other)
{
    int left = left_behind(one, other);
    CHECK(left == 0, "%s %d leaves %d addresses on the stack", call, round, left);
}

int main(void)
{
    handle module, function;
    start();
    handle stream = new_stream();
    OK(cuModuleLoadData, &module, image);
    OK(cuModuleGetFunction, &function, module, "standin_add_u32");
    for (int i = 0; i < COUNT; i++) {
        weights[i] = new_memory(BYTES);
        fill(weights[i], i, BYTES, stream);
    }
    OK(cuCtxSynchronize);
    ptr last = 0, last_from = 0;
    for (int i = 0; i < ROUNDS * COUNT; i++) {
        ptr to = weights[i % COUNT];
        uint64_t count = 4;
        OK(cuLaunchKernel, function, 1u, 1u, 1u, 1u, 1u, 1u, 0u, stream,
           ((void *[]){&to, &to, &count}), NULL);
        check("launch", i, last, last_from);
        ptr from = weights[(i + 5) % COUNT];
        OK(cuMemcpyDtoDAsync_v2, to + BYTES / 2, from + BYTES / 2, (size_t)4096, stream);
        check("copy", i, to, from);
        OK(cuMemsetD32Async, to + BYTES / 2, 7, (size_t)1024, stream);
        check("memset", i, to, from);
        uint32_t word;
        OK(cuMemcpyDtoH_v2, &word, from + BYTES / 2, sizeof word);
        check("copy to the host", i, to, from);
        ptr more = new_memory(BYTES);
        check("allocation", i, to, from);
        OK(cuMemFree_v2, more);
        check("free", i, to, from);
        last = to, last_from = from;
    }
    OK(cuCtxSynchronize);
    /* Doubled in each round. */
    for (int i = 0; i < COUNT; i++) {
        uint32_t value;
        OK(cuMemcpyDtoH_v2, &value, weights[i], sizeof value);
        CHECK(value == (uint32_t)i << ROUNDS, "weight %d holds %u", i, value);
    }
    puts("right");
    return 0;
}
