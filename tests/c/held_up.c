/* A stream waits for what the host, or another stream, does only later; what
 * does not depend on it goes on. Arguments: what it waits for (`word`, `host`,
 * `stream`, or `event`: of a stream that does) and what the host does meanwhile
 * (`launch`, `allocate`, `ordered`, `free`, `destroy`; or `present`: launches on
 * what was just used together, and so has its place). */
#include "driver.h"

enum { BYTES = 4 * MIB, MOST = 20 };

static volatile int go;

static void until_told(void *unused)
{
    (void)unused;
    while (!go)
        usleep(1000);
}

int main(int count, char **arguments)
{
    CHECK(count == 3, "two arguments");
    const char *wait = arguments[1], *doing = arguments[2];
    ptr buffer[MOST], word;
    int buffers = strcmp(doing, "allocate") && strcmp(doing, "ordered") ? MOST : MOST / 2;
    start();
    handle held = new_stream(), other = new_stream(), last = new_stream();
    uint32_t *host_word;
    OK(cuMemHostAlloc, (void **)&host_word, (size_t)4096, 0);
    *host_word = 0;
    OK(cuMemHostGetDevicePointer_v2, &word, host_word, 0);
    for (int i = 0; i < buffers; i++)
        fill(buffer[i] = new_memory(BYTES), i, BYTES, held);
    OK(cuCtxSynchronize);
    for (int i = 0; i < buffers; i++)
        fill(buffer[i], 0x30 + i, BYTES, i % 2 ? other : last);
    OK(cuCtxSynchronize);
    int present = !strcmp(doing, "present");
    if (present) {
        OK(cuMemcpyDtoDAsync_v2, buffer[1], buffer[0], (size_t)BYTES, last);
        OK(cuCtxSynchronize);
    }
    handle first = strcmp(wait, "event") ? held : new_stream(), event;
    if (!strcmp(wait, "host"))
        OK(cuLaunchHostFunc, held, (void *)until_told, NULL);
    else
        OK(cuStreamWaitValue32_v2, first, word, 1, 1);
    if (first != held) {
        OK(cuEventCreate, &event, 2);
        OK(cuEventRecord, event, first);
        OK(cuStreamWaitEvent, held, event, 0);
    }
    int waiting = present ? 1 : 2;
    for (int i = 0; i < waiting; i++)
        fill(buffer[i], 0x50 + i, BYTES, held);

    if (present) {
        for (int i = 0; i < 12; i++)
            fill(buffer[1], 0x60 + i, BYTES, other);
    } else if (!strcmp(doing, "launch")) {
        for (int i = 2; i < buffers; i++)
            fill(buffer[i], 0x60 + i, BYTES, other);
    } else if (!strcmp(doing, "free")) {
        ptr taken;
        for (int i = 2; i < buffers / 2; i++) {
            OK(cuMemAllocAsync, &taken, (size_t)BYTES, other);
            fill(taken, i, BYTES, other);
            OK(cuMemFreeAsync, taken, other);
        }
    } else if (!strcmp(doing, "destroy")) {
        OK(cuStreamDestroy_v2, last);
        for (int i = 2; i < buffers; i++)
            fill(buffer[i], 0x60 + i, BYTES, other);
    } else {
        for (int i = buffers; i < buffers + 5; i++) {
            if (!strcmp(doing, "ordered"))
                OK(cuMemAllocAsync, &buffer[i], (size_t)BYTES, other);
            else
                buffer[i] = new_memory(BYTES);
            fill(buffer[i], 0x60 + i, BYTES, other);
        }
    }
    OK(cuStreamSynchronize, other);
    if (!strcmp(wait, "stream"))
        OK(cuStreamWriteValue32_v2, other, word, 1, 0);
    else
        *(volatile uint32_t *)host_word = 1;
    __sync_synchronize();
    go = 1;
    OK(cuCtxSynchronize);
    for (int i = 0; i < waiting; i++)
        expect("what waited", buffer[i], 0x50 + i, BYTES);
    if (present)
        expect("what was launched", buffer[1], 0x60 + 11, BYTES);
    expect("what did not", buffer[buffers / 2 + 1], strcmp(doing, "launch") && strcmp(doing, "destroy")
           ? 0x30u + buffers / 2 + 1 : 0x60u + buffers / 2 + 1, BYTES);
    puts("right");
    return 0;
}
