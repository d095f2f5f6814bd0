/* Every form of copy, memset, query and launch, on more memory than a small
 * device has. Prints what the program can see, addresses as distances only:
 * the same text must come out on a large device without the library and on a
 * small one with it. */
#include "check.h"
#include <stdint.h>

typedef uint64_t ptr;
typedef struct { size_t sx, sy; unsigned st; const void *sh; ptr sd; void *sa; size_t sp;
                 size_t dx, dy; unsigned dt; void *dh; ptr dd; void *da; size_t dp;
                 size_t width, height; } copy_2d;
typedef struct { size_t sx, sy, sz, sl; unsigned st; const void *sh; ptr sd; void *sa, *sr; size_t sp, shh;
                 size_t dx, dy, dz, dl; unsigned dt; void *dh; ptr dd; void *da, *dr; size_t dp, dhh;
                 size_t width, height, depth; } copy_3d;
/* standin_abi::Gemm */
typedef struct { ptr a, b, c, d, bias, aux; double alpha, beta; int64_t m, n, k, lda, ldb, ldc, ldd,
                 stride_a, stride_b, stride_c, stride_d; int batch, ta, tb, ab_type, d_type, epilogue; } gemm;

enum { BUFFERS = 10, MIB = 1 << 20, BYTES = 8 * MIB };

static void *driver;
static ptr buffer[BUFFERS];
static unsigned char *host, *back;

#define CALL(name, ...)                                                                    \
    ({                                                                                     \
        int (*call)() = (int (*)())dlsym(driver, #name);                                   \
        CHECK(call, "no " #name);                                                          \
        call(__VA_ARGS__);                                                                 \
    })
#define OK(name, ...)                                      \
    do {                                                   \
        int code_ = CALL(name, __VA_ARGS__);                \
        CHECK(code_ == 0, #name " answers %d", code_);       \
    } while (0)
#define TELL(name, ...) printf(#name ": %d\n", CALL(name, __VA_ARGS__))

/* FNV-1a over words, then over what is left. */
static uint64_t hash(const unsigned char *bytes, size_t count)
{
    uint64_t value = 1469598103934665603u, word;
    for (; count >= sizeof word; bytes += sizeof word, count -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        value = (value ^ word) * 1099511628211u;
    }
    while (count--)
        value = (value ^ *bytes++) * 1099511628211u;
    return value;
}

/* The contents of every buffer, which drives each of them in and out. */
static void tell_contents(const char *after)
{
    printf("%s:", after);
    for (int i = 0; i < BUFFERS; i++) {
        OK(cuMemcpyDtoH_v2, back, buffer[i], (size_t)BYTES);
        printf(" %016lx", (unsigned long)hash(back, BYTES));
    }
    printf("\n");
}

static void queries(void)
{
    for (int i = 0; i < BUFFERS; i += 3) {
        ptr base = 0;
        size_t bytes = 0;
        OK(cuMemGetAddressRange_v2, &base, &bytes, buffer[i] + 4097);
        printf("range %d: %d %zu\n", i, base == buffer[i], bytes);
        OK(cuMemGetAddressRange_v2, NULL, &bytes, buffer[i]);
        int attributes[] = { 2, 3, 8, 9, 11, 12 };
        unsigned type = 0, managed = 7, ordinal = 7;
        ptr device = 0, start = 0;
        size_t size = 0;
        void *data[] = { &type, &device, &managed, &ordinal, &start, &size };
        OK(cuPointerGetAttributes, 6u, attributes, data, buffer[i] + 12);
        printf("attributes: %u %d %u %u %d %zu\n", type, device == buffer[i] + 12, managed & 1, ordinal,
               start == buffer[i], size);
        type = 0;
        OK(cuPointerGetAttribute, &type, 2, buffer[i] + BYTES - 1);
        printf("type: %u\n", type);
    }
    TELL(cuMemFree_v2, buffer[0] + 512);
}

static void linear(void *stream)
{
    OK(cuMemcpyDtoD_v2, buffer[1], buffer[0], (size_t)BYTES);
    OK(cuMemcpyDtoDAsync_v2, buffer[2] + 100, buffer[1] + 7, (size_t)MIB, stream);
    OK(cuMemcpyDtoD_v2, buffer[2], buffer[2] + 4 * MIB, (size_t)MIB);
    OK(cuMemcpy, buffer[3] + MIB, buffer[4], (size_t)MIB);
    OK(cuMemcpy, buffer[3], (ptr)host, (size_t)MIB);
    OK(cuMemcpyAsync, buffer[4], buffer[5] + 1, (size_t)MIB, stream);
    /* The thread's own stream and another are unordered. */
    OK(cuStreamSynchronize, stream);
    OK(cuMemcpyAsync_ptsz, buffer[5], buffer[6] + 1, (size_t)MIB, NULL);
    OK(cuCtxSynchronize);
    OK(cuMemcpyHtoDAsync_v2, buffer[6] + 3, host + 5, (size_t)MIB, stream);
    OK(cuMemcpyHtoD_v2_ptds, buffer[7], host + 9, (size_t)MIB);
    OK(cuMemcpyHtoDAsync_v2_ptsz, buffer[8], host + 11, (size_t)MIB, NULL);
    OK(cuMemcpyDtoHAsync_v2, back, buffer[6], (size_t)MIB, stream);
    OK(cuStreamSynchronize, stream);
    printf("async: %016lx\n", (unsigned long)hash(back, MIB));
    OK(cuMemcpyDtoH_v2_ptds, back, buffer[8], (size_t)MIB);
    OK(cuCtxSynchronize);
    printf("per thread: %016lx\n", (unsigned long)hash(back, MIB));
    OK(cuMemcpyDtoH_v2, back, buffer[8], (size_t)0);
    tell_contents("linear");
}

static void fills(void *stream)
{
    OK(cuMemsetD8_v2, buffer[0] + 1, (unsigned char)3, (size_t)MIB);
    OK(cuMemsetD16_v2, buffer[1] + 2, (unsigned short)777, (size_t)MIB);
    OK(cuMemsetD32_v2, buffer[2] + 4, 77777u, (size_t)MIB);
    OK(cuMemsetD8Async, buffer[3], (unsigned char)5, (size_t)BYTES, stream);
    OK(cuMemsetD32Async, buffer[4] + 8, 99u, (size_t)MIB, stream);
    OK(cuMemsetD2D8_v2, buffer[5] + 3, (size_t)1000, (unsigned char)9, (size_t)500, (size_t)1000);
    OK(cuMemsetD2D32Async, buffer[6], (size_t)4096, 5u, (size_t)10, (size_t)100, stream);
    OK(cuMemsetD8Async_ptsz, buffer[7], (unsigned char)6, (size_t)MIB, NULL);
    OK(cuCtxSynchronize);
    tell_contents("fills");
}

/* Arguments that the driver refuses, and values of the size it writes. */
static void answers(void)
{
    ptr address = 0, other = 0;
    size_t pitch = 0, bytes = 0;
    for (unsigned element = 0; element < 18; element += 3)
        TELL(cuMemAllocPitch_v2, &address, &pitch, (size_t)1000, (size_t)2000, element);
    OK(cuMemAlloc_v2, &address, (size_t)5 * MIB + 1);
    TELL(cuMemGetAddressRange_v2, &other, &bytes, address + 5 * MIB);
    TELL(cuMemGetAddressRange_v2, &other, &bytes, address + 5 * MIB + 1);
    int numbers[] = { 2, 6, 8, 14, 17 };
    for (int i = 0; i < 5; i++) {
        unsigned char value[16];
        memset(value, 0xaa, sizeof value);
        TELL(cuPointerGetAttribute, value, numbers[i], address + 5 * MIB);
        printf("attribute %d:", numbers[i]);
        for (unsigned at = 0; at < sizeof value; at += 4)
            printf(" %02x", value[at]);
        printf("\n");
        TELL(cuPointerGetAttribute, value, numbers[i], address + 5 * MIB + 1);
    }
    unsigned type = 0, unknown = 0;
    int attributes[] = { 2, 9999 };
    void *data[] = { &type, &unknown };
    TELL(cuPointerGetAttributes, 2u, attributes, data, address);
    TELL(cuMemAllocAsync, &other, (size_t)4 * MIB, (void *)0x1234);
    TELL(cuMemFreeAsync, address, (void *)0x1234);
    TELL(cuMemAllocFromPoolAsync, &other, (size_t)4 * MIB, (void *)0x1234, NULL);
    OK(cuMemAllocAsync, &other, (size_t)4 * MIB, NULL);
    void *pool = NULL, *usual = NULL;
    OK(cuPointerGetAttribute, &pool, 17, other);
    OK(cuDeviceGetDefaultMemPool, &usual, 0);
    printf("of the usual pool: %d\n", pool && pool == usual);
    OK(cuMemFreeAsync, other, NULL);
    void *context = NULL;
    OK(cuCtxPopCurrent_v2, &context);
    TELL(cuMemFree_v2, address);
    OK(cuCtxPushCurrent_v2, context);
    TELL(cuMemFree_v2, address);
    TELL(cuMemFree_v2, address);
}

static void pitched(void *stream)
{
    enum { HOST = 1, DEVICE = 2, UNIFIED = 4 };
    copy_2d up = { .sx = 3, .sy = 2, .st = HOST, .sh = host, .sp = 3000, .dx = 5, .dy = 7, .dt = DEVICE,
                   .dd = buffer[1], .dp = 4096, .width = 2000, .height = 1500 };
    OK(cuMemcpy2D_v2, &up);
    copy_2d across = { .st = DEVICE, .sd = buffer[1], .sp = 4096, .dt = UNIFIED, .dd = buffer[2], .dp = 3000,
                       .width = 2000, .height = 1500 };
    OK(cuMemcpy2DAsync_v2, &across, stream);
    OK(cuStreamSynchronize, stream);
    copy_2d down = { .st = DEVICE, .sd = buffer[2], .sp = 3000, .dt = HOST, .dh = back, .dp = 2000,
                     .width = 2000, .height = 1500 };
    OK(cuMemcpy2DUnaligned_v2, &down);
    printf("2d: %016lx\n", (unsigned long)hash(back, 2000 * 1500));
    copy_3d deep = { .sy = 1, .sz = 1, .st = DEVICE, .sd = buffer[3], .sp = 1024, .shh = 64, .dx = 8, .dt = DEVICE,
                     .dd = buffer[4], .dp = 2048, .dhh = 32, .width = 1000, .height = 30, .depth = 40 };
    OK(cuMemcpy3D_v2, &deep);
    ptr address;
    size_t pitch;
    OK(cuMemAllocPitch_v2, &address, &pitch, (size_t)1000, (size_t)3000, 4u);
    printf("pitch: %zu\n", pitch);
    OK(cuMemsetD2D8_v2, address, pitch, (unsigned char)1, (size_t)1000, (size_t)3000);
    OK(cuMemcpyDtoH_v2, back, address + 2999 * pitch, (size_t)1000);
    printf("last row: %016lx\n", (unsigned long)hash(back, 1000));
    OK(cuMemFree_v2, address);
    tell_contents("pitched");
}

static void launches(void *stream)
{
    static const char image[] = "standin-module v1\nkernel standin_gemm 176\n";
    CHECK(sizeof(gemm) == 176, "standin_abi::Gemm has 176 bytes, not %zu", sizeof(gemm));
    void *module, *function, *library, *kernel;
    OK(cuModuleLoadData, &module, image);
    OK(cuModuleGetFunction, &function, module, "standin_gemm");
    OK(cuLibraryLoadData, &library, image, NULL, NULL, 0u, NULL, NULL, 0u);
    OK(cuLibraryGetKernel, &kernel, library, "standin_gemm");
    float *ones = (float *)host;
    for (int i = 0; i < 256 * 256; i++)
        ones[i] = (float)(i % 13) - 6;
    for (int i = 0; i < BUFFERS; i++)
        OK(cuMemcpyHtoD_v2, buffer[i], ones, (size_t)256 * 256 * 4);
    for (int round = 0; round < 6; round++)
        for (int i = 0; i < BUFFERS; i++) {
            gemm g = { .a = buffer[i], .b = buffer[(i + 3) % BUFFERS], .d = buffer[(i + 1) % BUFFERS] + MIB,
                       .c = buffer[(i + 1) % BUFFERS] + MIB, .alpha = 1.0 / (1 + round), .m = 256, .n = 256,
                       .k = 256, .lda = 256, .ldb = 256, .ldc = 256, .ldd = 256, .batch = 1, .epilogue = 1 };
            size_t bytes = sizeof g;
            void *params[] = { &g };
            void *extra[] = { (void *)1, &g, (void *)2, &bytes, NULL };
            void *which = i & 1 ? kernel : function;
            if (i % 3 == 0)
                OK(cuLaunchKernel, which, 1u, 1u, 1u, 1u, 1u, 1u, 0u, stream, NULL, extra);
            else if (i % 3 == 1) {
                OK(cuCtxSynchronize);
                OK(cuLaunchKernel_ptsz, which, 1u, 1u, 1u, 1u, 1u, 1u, 0u, NULL, params, NULL);
                OK(cuCtxSynchronize);
            } else {
                struct { unsigned dims[6], shared; void *stream, *attributes; unsigned count; } config = {
                    { 1, 1, 1, 1, 1, 1 }, 0, stream, NULL, 0 };
                OK(cuLaunchKernelEx, &config, which, params, NULL);
            }
        }
    OK(cuStreamSynchronize, stream);
    OK(cuModuleUnload, module);
    OK(cuLibraryUnload, library);
    tell_contents("launches");
}

static void stream_ordered(void *stream)
{
    ptr block[4];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            OK(cuMemAllocAsync, &block[i], (size_t)(5 * MIB), stream);
            OK(cuMemsetD8Async, block[i], (unsigned char)(i + round), (size_t)(5 * MIB), stream);
        }
        for (int i = 0; i < 4; i++) {
            OK(cuMemcpyDtoHAsync_v2, back + i * MIB, block[i] + 2 * MIB, (size_t)MIB, stream);
            OK(cuMemFreeAsync, block[i], stream);
        }
        OK(cuStreamSynchronize, stream);
        printf("stream-ordered: %016lx\n", (unsigned long)hash(back, 4 * MIB));
    }
}

int main(void)
{
    driver = driver_library();
    void *context, *stream;
    OK(cuInit, 0u);
    OK(cuDevicePrimaryCtxRetain, &context, 0);
    OK(cuCtxSetCurrent, context);
    OK(cuStreamCreate, &stream, 0u);
    host = malloc(BYTES + 64);
    back = malloc(BYTES);
    for (size_t i = 0; i < BYTES + 64; i++)
        host[i] = (unsigned char)(i * 2654435761u >> 13);
    for (int i = 0; i < BUFFERS; i++) {
        OK(cuMemAlloc_v2, &buffer[i], (size_t)BYTES);
        OK(cuMemcpyHtoD_v2, buffer[i], host + i, (size_t)BYTES);
    }
    tell_contents("filled");
    queries();
    linear(stream);
    fills(stream);
    answers();
    pitched(stream);
    launches(stream);
    stream_ordered(stream);
    tell_contents("end");
    for (int i = 0; i < BUFFERS; i++)
        OK(cuMemFree_v2, buffer[i]);
    TELL(cuMemFree_v2, buffer[0]);
    TELL(cuMemcpyDtoH_v2, back, buffer[0], (size_t)16);
    return 0;
}
