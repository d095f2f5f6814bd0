/* A thread is long in a call, until another, which names memory as well, lets it
 * go on. Argument: `copy` (it blocks in a copy that was under way when memory
 * began to move) or `wait` (it waits for the memory that it asks for). */
#include "driver.h"
#include <pthread.h>

enum { BYTES = 4 * MIB, MOST = 20, USED = 10 };

static handle ctx;
static ptr copied, asked;
static uint32_t words[BYTES / 4];
static volatile int began;

static void *copy(void *unused)
{
    (void)unused;
    OK(cuCtxSetCurrent, ctx);
    began = 1;
    OK(cuMemcpyDtoH_v2, words, copied, (size_t)BYTES);
    return NULL;
}

static void *ask(void *unused)
{
    (void)unused;
    OK(cuCtxSetCurrent, ctx);
    began = 1;
    asked = new_memory(BYTES);
    return NULL;
}

static void begin(pthread_t *thread, void *(*body)(void *))
{
    CHECK(!pthread_create(thread, NULL, body, NULL), "a thread");
    while (!began)
        usleep(1000);
    usleep(200 * 1000); /* it is in its call, very likely */
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "one argument");
    pthread_t thread;
    ptr buffer[MOST], word;
    uint32_t *host_word;
    ctx = start();
    handle held, other = new_stream();
    OK(cuStreamCreate, &held, 0); /* the default stream waits for it */
    OK(cuMemHostAlloc, (void **)&host_word, (size_t)4096, 0);
    *host_word = 0;
    OK(cuMemHostGetDevicePointer_v2, &word, host_word, 0);
    if (!strcmp(arguments[1], "copy")) {
        fill(copied = new_memory(BYTES), 0x70, BYTES, other);
        for (int i = 0; i < 2; i++)
            fill(buffer[i] = new_memory(BYTES), i, BYTES, other);
        OK(cuStreamSynchronize, other);
        OK(cuStreamWaitValue32_v2, held, word, 1, 1);
        begin(&thread, copy);
        for (int i = 2; i < MOST; i++)
            fill(buffer[i] = new_memory(BYTES), i, BYTES, other);
        OK(cuStreamSynchronize, other);
        *(volatile uint32_t *)host_word = 1;
        pthread_join(thread, NULL);
        for (int i = 0; i < BYTES / 4; i++)
            CHECK(words[i] == 0x70, "word %d is %x", i, words[i]);
        for (int i = 0; i < MOST; i++)
            expect("what moved meanwhile", buffer[i], i, BYTES);
    } else {
        /* What stream memory operations name cannot move. */
        ptr fixed = new_memory(BYTES);
        OK(cuStreamWriteValue32_v2, other, fixed, 1, 0);
        for (int i = 0; i < MOST; i++)
            fill(buffer[i] = new_memory(BYTES), i, BYTES, other);
        OK(cuCtxSynchronize);
        OK(cuStreamWaitValue32_v2, held, word, 1, 1);
        for (int i = 0; i < USED; i++)
            fill(buffer[i], 0x50 + i, BYTES, held);
        begin(&thread, ask);
        fill(fixed, 0x71, BYTES, other);
        OK(cuStreamSynchronize, other);
        *(volatile uint32_t *)host_word = 1;
        pthread_join(thread, NULL);
        fill(asked, 0x72, BYTES, other);
        OK(cuCtxSynchronize);
        for (int i = 0; i < MOST; i++)
            expect("what was there", buffer[i], i < USED ? 0x50u + i : (unsigned)i, BYTES);
        expect("what cannot move", fixed, 0x71, BYTES);
        expect("what was asked for", asked, 0x72, BYTES);
    }
    puts("right");
    return 0;
}
