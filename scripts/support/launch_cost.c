/* One kind of driver call, again and again, inside `counted` (bench_launch.py).
 *
 *     launch_cost KIND CALLS CHUNKS WARM
 *
 * CHUNKS allocations of 4 MiB; WARM rounds before those that count. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t ptr;
typedef struct { int type, handles; struct { int type, id; } location; void *security; struct { unsigned char c, d; unsigned short u; unsigned char r[4]; } flags; } prop;
typedef struct { struct { int type, id; } location; int flags; } access_desc;

int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuCtxSynchronize(void);
int cuModuleLoadData(void **, const void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuStreamCreate(void **, unsigned);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemAlloc_v2(ptr *, size_t);
int cuMemAddressReserve(ptr *, size_t, size_t, ptr, unsigned long long);
int cuMemCreate(unsigned long long *, size_t, const prop *, unsigned long long);
int cuMemMap(ptr, size_t, size_t, unsigned long long, unsigned long long);
int cuMemSetAccess(ptr, size_t, const access_desc *, size_t);
int cuMemsetD8Async(ptr, unsigned char, size_t, void *);
int cuMemcpyHtoDAsync_v2(ptr, const void *, size_t, void *);
int cuMemGetInfo_v2(size_t *, size_t *);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void *, void **, void **);

enum { CHUNK = 4 << 20, CHUNKS_MAX = 64, STRUCT_WORDS = 512 };

#define OK(call)                                                           \
    do {                                                                   \
        int code_ = (call);                                                \
        if (code_) {                                                       \
            fprintf(stderr, "%s answers %d\n", #call, code_);              \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static void *none, *one, *eight, *big, *stream, *host;
static ptr chunk[CHUNKS_MAX];
static int chunks;

static void launch(void *kernel, void **params)
{
    OK(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, params, 0));
}

static void work(const char *kind, int calls)
{
    static ptr block[STRUCT_WORDS];
    int number = 5;
    ptr first = chunk[0], each[8];
    void *of_none[] = {&number}, *of_one[] = {&first}, *of_eight[8], *of_big[] = {block};
    for (int i = 0; i < 8; i++) {
        each[i] = chunk[i % chunks];
        of_eight[i] = &each[i];
    }
    block[37] = chunk[0];
    block[400] = chunk[chunks > 1];
    if (!strcmp(kind, "none"))
        for (int i = 0; i < calls; i++) launch(none, of_none);
    else if (!strcmp(kind, "one"))
        for (int i = 0; i < calls; i++) launch(one, of_one);
    else if (!strcmp(kind, "eight"))
        for (int i = 0; i < calls; i++) launch(eight, of_eight);
    else if (!strcmp(kind, "struct"))
        for (int i = 0; i < calls; i++) launch(big, of_big);
    else if (!strcmp(kind, "cycle"))
        for (int i = 0; i < calls; i++) {
            first = chunk[i % chunks];
            launch(one, of_one);
        }
    else if (!strcmp(kind, "copy"))
        for (int i = 0; i < calls; i++) OK(cuMemcpyHtoDAsync_v2(first, host, 64, stream));
    else if (!strcmp(kind, "info")) {
        size_t free, total;
        for (int i = 0; i < calls; i++) OK(cuMemGetInfo_v2(&free, &total));
    } else {
        fprintf(stderr, "no such kind: %s\n", kind);
        exit(2);
    }
}

__attribute__((noinline)) void counted(const char *kind, int calls)
{
    work(kind, calls);
}

/* For a driver without the managed memory that some libraries allocate instead. */
static ptr mapped_by_hand(void)
{
    prop what = {.type = 1, .location = {1, 0}};
    access_desc access = {{1, 0}, 3};
    unsigned long long handle;
    ptr address;
    OK(cuMemAddressReserve(&address, CHUNK, 0, 0, 0));
    OK(cuMemCreate(&handle, CHUNK, &what, 0));
    OK(cuMemMap(address, CHUNK, 0, handle, 0));
    OK(cuMemSetAccess(address, CHUNK, &access, 1));
    return address;
}

int main(int argc, char **argv)
{
    static const char image[] = "standin-module v1\nkernel none 4\nkernel one 8\n"
                                "kernel eight 8,8,8,8,8,8,8,8\nkernel big 4096\n";
    if (argc != 5)
        return 2;
    int calls = atoi(argv[2]), warm = atoi(argv[4]);
    chunks = atoi(argv[3]);
    void *context, *module;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&module, image));
    OK(cuModuleGetFunction(&none, module, "none"));
    OK(cuModuleGetFunction(&one, module, "one"));
    OK(cuModuleGetFunction(&eight, module, "eight"));
    OK(cuModuleGetFunction(&big, module, "big"));
    OK(cuStreamCreate(&stream, 1));
    OK(cuMemHostAlloc(&host, 4096, 0));
    memset(host, 0, 4096);
    for (int i = 0; i < chunks; i++) {
        if (cuMemAlloc_v2(&chunk[i], CHUNK))
            chunk[i] = mapped_by_hand();
        OK(cuMemsetD8Async(chunk[i], i, CHUNK, stream));
    }
    OK(cuCtxSynchronize());
    for (int i = 0; i < warm; i++)
        work(argv[1], chunks > calls ? chunks : calls);
    OK(cuCtxSynchronize());
    counted(argv[1], calls);
    OK(cuCtxSynchronize());
    return 0;
}
