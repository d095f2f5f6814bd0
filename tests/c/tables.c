/* A table of addresses reaches the device by any copy: what it names stays. */
#include "driver.h"

typedef struct { size_t sx, sy; unsigned st; const void *sh; ptr sd; void *sa; size_t sp;
                 size_t dx, dy; unsigned dt; void *dh; ptr dd; void *da; size_t dp;
                 size_t width, height; } copy_2d;
typedef struct { size_t sx, sy, sz, sl; unsigned st; const void *sh; ptr sd; void *sa, *sr; size_t sp, shh;
                 size_t dx, dy, dz, dl; unsigned dt; void *dh; ptr dd; void *da, *dr; size_t dp, dhh;
                 size_t width, height, depth; } copy_3d;
typedef struct { int order; struct { int type, id; } src, dst; unsigned flags; } batch_attributes;

enum { BYTES = 2 * MIB, TABLE = 64, FORMS = 9, OTHERS = 20 };

static ptr named[FORMS], table;
static ptr *words;
static int form;

static void next(void)
{
    OK(cuCtxSynchronize);
    words[3] = named[form++];
}

int main(void)
{
    start();
    handle stream = new_stream();
    ptr others[OTHERS];
    for (int i = 0; i < FORMS; i++)
        fill(named[i] = new_memory(BYTES), i, BYTES, stream);
    table = new_memory(BYTES);
    OK(cuMemHostAlloc, (void **)&words, (size_t)4096, 0);
    memset(words, 0, 4096);
    next();
    OK(cuMemcpyHtoD_v2, table, words, (size_t)TABLE);
    next();
    OK(cuMemcpyHtoDAsync_v2, table, words, (size_t)TABLE, stream);
    next();
    OK(cuMemcpy, table, (ptr)words, (size_t)TABLE);
    next();
    OK(cuMemcpyAsync, table, (ptr)words, (size_t)TABLE, stream);
    next();
    copy_2d two = {.st = 1, .sh = words, .sp = TABLE, .dt = 2, .dd = table, .dp = TABLE,
                   .width = TABLE, .height = 1};
    OK(cuMemcpy2D_v2, &two);
    next();
    OK(cuMemcpy2DAsync_v2, &two, stream);
    next();
    copy_3d three = {.st = 1, .sh = words, .sp = TABLE, .shh = 1, .dt = 2, .dd = table, .dp = TABLE,
                     .dhh = 1, .width = TABLE, .height = 1, .depth = 1};
    OK(cuMemcpy3D_v2, &three);
    next();
    OK(cuMemcpy3DAsync_v2, &three, stream);
    next();
    batch_attributes attributes = {.order = 1};
    ptr to = table, from = (ptr)words;
    size_t size = TABLE, index = 0;
    OK(cuMemcpyBatchAsync_v2, &to, &from, &size, (size_t)1, &attributes, &index, (size_t)1, stream);
    OK(cuCtxSynchronize);
    for (int i = 0; i < OTHERS; i++)
        fill(others[i] = new_memory(BYTES), i, BYTES, stream);
    OK(cuCtxSynchronize);
    puts("right");
    return 0;
}
