/* Stream-ordered memory that was freed, and taken again: what is written to it
 * then is kept when it has to make room. */
#include "driver.h"

enum { BYTES = 4 * MIB, TAKEN = 3, OTHERS = 12 };

int main(void)
{
    ptr taken[TAKEN], other[OTHERS];
    start();
    handle stream = new_stream();
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < TAKEN; i++) {
            OK(cuMemAllocAsync, &taken[i], (size_t)BYTES, stream);
            fill(taken[i], (twice ? 0x50 : 0x10) + i, BYTES, stream);
        }
        for (int i = 0; i < TAKEN && !twice; i++)
            OK(cuMemFreeAsync, taken[i], stream);
    }
    for (int i = 0; i < OTHERS; i++)
        fill(other[i] = new_memory(BYTES), 0x70 + i, BYTES, stream);
    OK(cuStreamSynchronize, stream);
    for (int i = 0; i < TAKEN; i++)
        expect("what was taken again", taken[i], 0x50 + i, BYTES);
    for (int i = 0; i < OTHERS; i++)
        expect("what made it go", other[i], 0x70 + i, BYTES);
    puts("right");
    return 0;
}
