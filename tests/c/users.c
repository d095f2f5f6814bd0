/* Who used it: memory that a stream has yet to use, whichever stream of whichever
 * context that is, keeps its bytes when it must go, and gives neither frame nor
 * address away before. Arguments: `fast` or `streaming` (nothing moved yet, or
 * it does), and what takes the memory: `evict`, `free`, `ordered` (freed and
 * allocated in the order of streams) or `capture`. */
#include "driver.h"

enum { BYTES = 4 * MIB, FILLS = 12, OTHERS = 9, BEFORE = 99 };

static const char *user_names[] = {"default", "per thread", "named", "destroyed", "hundredth"};
static const char *context_names[] = {"ours", "another", "one that ends"};
enum { DEFAULT, PER_THREAD, NAMED, DESTROYED, HUNDREDTH, USERS };
enum { OURS, ANOTHER, ENDING, CONTEXTS };

static handle ours;
static ptr ballast[OTHERS];

static void fill_as(int user, ptr address, uint32_t value, size_t bytes, handle stream)
{
    if (user == PER_THREAD)
        OK(cuMemsetD32Async_ptsz, address, value, bytes / 4, (handle)0);
    else
        fill(address, value, bytes, stream);
}

static void evict(void)
{
    handle stream = new_stream();
    ptr others[OTHERS];
    for (int i = 0; i < OTHERS; i++)
        fill(others[i] = new_memory(BYTES), 0x20 + i, BYTES, stream);
    OK(cuStreamSynchronize, stream);
    for (int i = 0; i < OTHERS; i++) {
        expect("what took its place", others[i], 0x20 + i, BYTES);
        OK(cuMemFree_v2, others[i]);
    }
    OK(cuStreamDestroy_v2, stream);
}

/* Captured memsets of memory that is absent: room is made meanwhile, by others
 * of the same user. */
static void capture(ptr *others)
{
    handle stream = new_stream(), graph, exec;
    OK(cuStreamBeginCapture_v2, stream, 1);
    for (int i = 0; i < OTHERS / 2; i++)
        fill(others[i], 0x40 + i, BYTES, stream);
    OK(cuStreamEndCapture, stream, &graph);
    OK(cuGraphInstantiateWithFlags, &exec, graph, 0ull);
    OK(cuGraphLaunch, exec, stream);
    OK(cuStreamSynchronize, stream);
    for (int i = 0; i < OTHERS / 2; i++)
        expect("captured", others[i], 0x40 + i, BYTES);
    OK(cuGraphExecDestroy, exec);
    OK(cuGraphDestroy, graph);
    for (int i = 0; i < OTHERS; i++)
        OK(cuMemFree_v2, others[i]);
    OK(cuStreamDestroy_v2, stream);
}

static void one(int user, int context, const char *path, const char *taker)
{
    char what[200];
    handle theirs = ours, stream = NULL;
    handle before[BEFORE];
    ptr others[OTHERS];
    snprintf(what, sizeof what, "%s stream of %s context, %s, %s", user_names[user],
             context_names[context], path, taker);
    fprintf(stderr, "%s\n", what);
    int ordered = !strcmp(taker, "ordered"), freed = !strcmp(taker, "free");
    ptr used = 0;
    if (!ordered)
        fill(used = new_memory(BYTES), 1, BYTES, NULL);
    for (int i = 0; !strcmp(taker, "capture") && i < OTHERS; i++)
        others[i] = new_memory(BYTES);
    OK(cuCtxSynchronize);
    if (context != OURS)
        OK(cuCtxCreate_v2, &theirs, 0, 0); /* current from here on */
    if (user == HUNDREDTH)
        for (int i = 0; i < BEFORE; i++) {
            before[i] = new_stream();
            if (!ordered)
                fill(used, 2, 4, before[i]);
        }
    if (user >= NAMED)
        stream = new_stream();
    if (ordered) {
        if (user == PER_THREAD)
            OK(cuMemAllocAsync_ptsz, &used, (size_t)BYTES, (handle)0);
        else
            OK(cuMemAllocAsync, &used, (size_t)BYTES, stream);
    }
    for (int i = 0; !strcmp(taker, "capture") && i < OTHERS; i++)
        fill_as(user, others[i], i, BYTES, stream);
    OK(cuCtxSynchronize);
    for (int i = 0; i <= FILLS; i++)
        fill_as(user, used, 0x100 + i, BYTES, stream);
    if (ordered) {
        if (user == PER_THREAD)
            OK(cuMemFreeAsync_ptsz, used, (handle)0);
        else
            OK(cuMemFreeAsync, used, stream);
    }
    if (user == DESTROYED)
        OK(cuStreamDestroy_v2, stream);
    for (int i = 0; user == HUNDREDTH && i < BEFORE; i++)
        OK(cuStreamDestroy_v2, before[i]);
    if (context == ENDING)
        OK(cuCtxDestroy_v2, theirs);
    OK(cuCtxSetCurrent, ours);

    if (ordered || freed) {
        handle next = new_stream();
        ptr taken;
        if (freed) {
            OK(cuMemFree_v2, used);
            taken = new_memory(BYTES);
        } else {
            OK(cuMemAllocAsync, &taken, (size_t)BYTES, next);
        }
        fill(taken, 0x77, BYTES, next);
        OK(cuStreamSynchronize, next);
        if (context == ANOTHER) {
            OK(cuCtxSetCurrent, theirs);
            OK(cuCtxSynchronize);
            OK(cuCtxSetCurrent, ours);
        }
        OK(cuCtxSynchronize);
        expect(what, taken, 0x77, BYTES);
        if (freed)
            OK(cuMemFree_v2, taken);
        else
            OK(cuMemFreeAsync, taken, next);
        OK(cuStreamDestroy_v2, next);
    } else {
        if (!strcmp(taker, "evict"))
            evict();
        else
            capture(others);
        if (context == ANOTHER) {
            OK(cuCtxSetCurrent, theirs);
            OK(cuCtxSynchronize);
            OK(cuCtxSetCurrent, ours);
        }
        OK(cuCtxSynchronize);
        expect(what, used, 0x100 + FILLS, BYTES);
        OK(cuMemFree_v2, used);
    }
    if (user == NAMED || user == HUNDREDTH)
        if (context != ENDING)
            OK(cuStreamDestroy_v2, stream);
    if (context == ANOTHER)
        OK(cuCtxDestroy_v2, theirs);
    OK(cuCtxSetCurrent, ours);
}

int main(int count, char **arguments)
{
    CHECK(count == 3, "two arguments");
    ours = start();
    int streaming = !strcmp(arguments[1], "streaming");
    for (int i = 0; streaming && i < OTHERS; i++)
        fill(ballast[i] = new_memory(BYTES), i, BYTES, NULL);
    OK(cuCtxSynchronize);
    for (int user = 0; user < USERS; user++)
        for (int context = 0; context < CONTEXTS; context++)
            /* No program may free what another context has yet to use. */
            if (context == OURS || strcmp(arguments[2], "free"))
                one(user, context, arguments[1], arguments[2]);
    for (int i = 0; streaming && i < OTHERS; i++)
        expect("what was there all the time", ballast[i], i, BYTES);
    puts("right");
    return 0;
}
