/* The primary context ends while another context has memory: `reset` or
 * `release`. What the other has lives, and its addresses go to nobody. */
#include "driver.h"

enum { BYTES = 4 * MIB, THEIRS = 4, LATER = 12 };

static void check(const ptr *theirs)
{
    for (int i = 0; i < THEIRS; i++)
        expect("what the other context has", theirs[i], 0x10 + i, BYTES);
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "one argument");
    handle other;
    ptr theirs[THEIRS], later[LATER];
    start();
    fill(new_memory(BYTES), 1, BYTES, NULL);
    OK(cuCtxCreate_v2, &other, 0, 0);
    for (int i = 0; i < THEIRS; i++)
        fill(theirs[i] = new_memory(BYTES), 0x10 + i, BYTES, NULL);
    OK(cuCtxSynchronize);
    if (!strcmp(arguments[1], "reset"))
        OK(cuDevicePrimaryCtxReset_v2, 0);
    else
        OK(cuDevicePrimaryCtxRelease_v2, 0);
    OK(cuCtxSetCurrent, other);
    check(theirs);
    for (int i = 0; i < LATER; i++)
        fill(later[i] = new_memory(BYTES), 0x20 + i, BYTES, NULL);
    OK(cuCtxSynchronize);
    check(theirs);
    for (int i = 0; i < LATER; i++)
        expect("what came later", later[i], 0x20 + i, BYTES);
    for (int i = 0; i < THEIRS; i++)
        OK(cuMemFree_v2, theirs[i]);
    puts("right");
    return 0;
}
