/* Stream-ordered memory given back by cuMemFree, which waits for its uses, while
 * another stream captures: the capture is not spoilt, and who takes the memory next
 * keeps what they write. */
#include "driver.h"

enum { SMALL = 1 * MIB, LARGE = 4 * MIB, OTHERS = 10, RELAXED = 2 };

int main(void)
{
    static const size_t bytes[] = {SMALL, LARGE};
    ptr former[2], taken[2], captured, other[OTHERS];
    handle graph, exec;
    start();
    handle first = new_stream(), capturing = new_stream(), next = new_stream();
    for (int i = 0; i < OTHERS; i++)
        fill(other[i] = new_memory(LARGE), 0x70 + i, LARGE, first);
    captured = new_memory(LARGE);
    for (int i = 0; i < 2; i++)
        OK(cuMemAllocAsync, &former[i], bytes[i], first);
    for (int i = 0; i < 2; i++)
        fill(former[i], 0x10 + i, bytes[i], first);

    OK(cuStreamBeginCapture_v2, capturing, RELAXED);
    fill(captured, 0x60, LARGE, capturing);
    for (int i = 0; i < 2; i++)
        OK(cuMemFree_v2, former[i]);
    for (int i = 0; i < 2; i++) {
        OK(cuMemAllocAsync, &taken[i], bytes[i], next);
        fill(taken[i], 0x90 + i, bytes[i], next);
    }
    OK(cuStreamEndCapture, capturing, &graph);
    OK(cuGraphInstantiateWithFlags, &exec, graph, 0ull);
    OK(cuGraphLaunch, exec, capturing);

    for (int i = 0; i < OTHERS; i++)
        expect("what was there", other[i], 0x70 + i, LARGE);
    OK(cuCtxSynchronize);
    expect("what was captured", captured, 0x60, LARGE);
    for (int i = 0; i < 2; i++)
        expect("what was taken", taken[i], 0x90 + i, bytes[i]);
    puts("right");
    return 0;
}
