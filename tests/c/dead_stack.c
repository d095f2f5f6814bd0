/* What a launch leaves on the stack below its caller: no address of memory. A
 * program's structs may have parts that it does not set, where they would look
 * like parameters of the next launch. */
#include "driver.h"

enum { COUNT = 12, BYTES = 2 * MIB, ROUNDS = 6, DEPTH = 6 << 10 };

static const char image[] = "standin-module v1\nkernel standin_add_u32 8,8,8\n";

static ptr weights[COUNT];

/* How many addresses of the weights lie below the caller. */
__attribute__((noinline)) static int left_behind(void)
{
    uint64_t room[DEPTH / 8], *word = room;
    int count = 0;
    __asm__ volatile("" : "+r"(word) : : "memory"); /* Its words are as they were. */
    for (int i = 0; i < DEPTH / 8; i++)
        for (int j = 0; j < COUNT; j++)
            count += word[i] - weights[j] < BYTES;
    return count;
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
    for (int i = 0; i < ROUNDS * COUNT; i++) {
        ptr to = weights[i % COUNT];
        uint64_t count = 4;
        OK(cuLaunchKernel, function, 1u, 1u, 1u, 1u, 1u, 1u, 0u, stream,
           ((void *[]){&to, &to, &count}), NULL);
        int left = left_behind();
        CHECK(left == 0, "launch %d leaves %d addresses on the stack", i, left);
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
