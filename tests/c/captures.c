/* Threads that each use their own stream, and capture on it again and again, in
 * the mode of the argument (0: global, 1: of the thread, 2: relaxed), while
 * memory moves. No capture is spoilt, and no call refused. */
#include "driver.h"
#include <pthread.h>

enum { THREADS = 3, BUFFERS = 4, BYTES = 4 * MIB };

static int mode;
static uint32_t rounds;
static handle ctx;
static pthread_barrier_t together;

static void *capture(void *argument)
{
    uint32_t which = (uint32_t)(uintptr_t)argument;
    ptr buffer[BUFFERS], small;
    OK(cuCtxSetCurrent, ctx);
    handle stream = new_stream(), graph;
    fill(small = new_memory(2 * MIB), 0, 2 * MIB, stream);
    for (int i = 0; i < BUFFERS; i++)
        fill(buffer[i] = new_memory(BYTES), i, BYTES, stream);
    OK(cuStreamSynchronize, stream);
    /* Who allocates while another captures in global mode is refused alone, too. */
    pthread_barrier_wait(&together);
    for (uint32_t round = 0; round < rounds; round++) {
        fill(buffer[round % BUFFERS], which << 16 | round, BYTES, stream);
        OK(cuStreamBeginCapture_v2, stream, mode);
        fill(small, round, 2 * MIB, stream);
        OK(cuStreamEndCapture, stream, &graph);
        OK(cuGraphDestroy, graph);
    }
    pthread_barrier_wait(&together);
    OK(cuStreamSynchronize, stream);
    for (uint32_t i = 0; i < BUFFERS; i++) {
        uint32_t round = rounds - 1 - (rounds - 1 - i) % BUFFERS;
        expect("the last round", buffer[i], which << 16 | round, BYTES);
    }
    expect("what was only captured", small, 0, 2 * MIB);
    return NULL;
}

int main(int count, char **arguments)
{
    pthread_t threads[THREADS];
    CHECK(count == 2, "one argument");
    mode = atoi(arguments[1]);
    rounds = mode ? 80 : 250;
    ctx = start();
    pthread_barrier_init(&together, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, capture, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    puts("right");
    return 0;
}
