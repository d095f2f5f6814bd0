/* nonsense FAST|MOVING: a driver that answers nonsense once makes the library fail
 * inside a call. That call fails; from then on so does every one that names managed
 * memory, whose bytes nobody can vouch for, and nothing is done to them; what names
 * none of it goes on. */
#include "driver.h"
#include <sys/mman.h>

enum { BYTES = 4 * MIB, SMALL = 4096, MEMORIES = 12, UNKNOWN = 999 };

/* *device = 99; return 0. */
static const unsigned char nonsense[] = {0xc7, 0x07, 99, 0, 0, 0, 0x31, 0xc0, 0xc3};

static void answers(const void *code, void *function)
{
    uintptr_t page = (uintptr_t)function & ~4095ul;
    CHECK(!mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC), "mprotect");
    memcpy(function, code, sizeof nonsense);
    CHECK(!mprotect((void *)page, 8192, PROT_READ | PROT_EXEC), "mprotect");
}

static void fails(const char *what, int code)
{
    CHECK(code == UNKNOWN, "%s answers %d", what, code);
}

int main(int argc, char **argv)
{
    unsigned char sense[sizeof nonsense];
    ptr memory[MEMORIES], small, other;
    size_t free, total;
    int count = argc > 1 && !strcmp(argv[1], "moving") ? MEMORIES : 2;
    start();
    handle stream = new_stream();
    for (int i = 0; i < count; i++)
        fill(memory[i] = new_memory(BYTES), 0x10 + i, BYTES, stream);
    small = new_memory(SMALL);
    OK(cuStreamSynchronize, stream);

    void *which_device = dlsym(driver, "cuCtxGetDevice");
    CHECK(which_device && is_driver(which_device), "it has a hook");
    memcpy(sense, which_device, sizeof sense);
    answers(nonsense, which_device);
    for (int twice = 0; twice < 2; twice++)
        fails("cuMemGetInfo", CALL(cuMemGetInfo_v2, &free, &total));
    answers(sense, which_device);

    uint32_t *words = malloc(BYTES);
    memset(words, 0xee, BYTES);
    for (int i = 0; i < count; i++) {
        fails("a memset", CALL(cuMemsetD32Async, memory[i], 7, (size_t)BYTES / 4, stream));
        fails("a copy", CALL(cuMemcpyDtoHAsync_v2, words, memory[i], (size_t)BYTES, stream));
    }
    fails("an allocation", CALL(cuMemAlloc_v2, &other, (size_t)BYTES));
    OK(cuStreamSynchronize, stream);
    CHECK(words[0] == 0xeeeeeeee, "something was copied");

    fill(small, 0x77, SMALL, stream);
    OK(cuStreamSynchronize, stream);
    expect("small memory", small, 0x77, SMALL);
    OK(cuStreamDestroy_v2, stream);
    puts("right");
    return 0;
}
