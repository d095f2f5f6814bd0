/* Memory is short for the first time while the work of somebody cannot be marked:
 * of a stream that captures, or of the default stream of another thread. */
#include "driver.h"
#include <pthread.h>

enum { BYTES = 4 * MIB, EARLY = 5, LATE = 4 };

static ptr buffer[EARLY + LATE];
static pthread_barrier_t barrier;
static handle ours;

static void *other_thread(void *unused)
{
    (void)unused;
    OK(cuCtxSetCurrent, ours);
    for (int i = 0; i < EARLY; i++)
        OK(cuMemsetD32Async_ptsz, buffer[i], i, (size_t)BYTES / 4, (handle)0);
    OK(cuStreamSynchronize_ptsz, (handle)0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "one argument");
    int captures = !strcmp(arguments[1], "capture");
    ours = start();
    handle stream = new_stream(), graph, exec;
    pthread_t thread;
    for (int i = 0; i < EARLY; i++)
        buffer[i] = new_memory(BYTES);
    if (captures) {
        for (int i = 0; i < EARLY; i++)
            fill(buffer[i], i, BYTES, stream);
        OK(cuStreamBeginCapture_v2, stream, 2);
    } else {
        pthread_barrier_init(&barrier, NULL, 2);
        pthread_create(&thread, NULL, other_thread, NULL);
        pthread_barrier_wait(&barrier);
    }
    for (int i = EARLY; i < EARLY + LATE; i++)
        fill(buffer[i] = new_memory(BYTES), i, BYTES, stream);
    if (captures) {
        OK(cuStreamEndCapture, stream, &graph);
        OK(cuGraphInstantiateWithFlags, &exec, graph, 0ull);
        OK(cuGraphLaunch, exec, stream);
    }
    OK(cuStreamSynchronize, stream);
    for (int i = 0; i < EARLY + LATE; i++)
        expect("filled", buffer[i], i, BYTES);
    if (!captures) {
        pthread_barrier_wait(&barrier);
        pthread_join(thread, NULL);
    }
    puts("right");
    return 0;
}
