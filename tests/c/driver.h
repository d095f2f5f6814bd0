/* The driver API as the regression programs call it: by name, so that every
 * call goes the way a program's does, and an error names itself. */
#ifndef DRIVER_H
#define DRIVER_H
#include "check.h"
#include <stdint.h>
#include <unistd.h>

typedef uint64_t ptr;
typedef void *handle;

enum { MIB = 1 << 20, NON_BLOCKING = 1 };

static void *driver;

#define CALL(name, ...)                                       \
    ({                                                        \
        int (*call_)() = (int (*)())dlsym(driver, #name);     \
        CHECK(call_, "no " #name);                            \
        call_(__VA_ARGS__);                                   \
    })
#define OK(name, ...)                                    \
    do {                                                 \
        int code_ = CALL(name, __VA_ARGS__);             \
        CHECK(code_ == 0, #name " answers %d", code_);   \
    } while (0)

/* The primary context, current. */
static inline handle start(void)
{
    handle ctx;
    driver = driver_library();
    OK(cuInit, 0);
    OK(cuDevicePrimaryCtxRetain, &ctx, 0);
    OK(cuCtxSetCurrent, ctx);
    return ctx;
}

static inline handle new_stream(void)
{
    handle stream;
    OK(cuStreamCreate, &stream, NON_BLOCKING);
    return stream;
}

static inline ptr new_memory(size_t bytes)
{
    ptr address;
    OK(cuMemAlloc_v2, &address, bytes);
    return address;
}

static inline void fill(ptr address, uint32_t value, size_t bytes, handle stream)
{
    OK(cuMemsetD32Async, address, value, bytes / 4, stream);
}

/* Every word of the memory is `value`. */
static inline void expect(const char *what, ptr address, uint32_t value, size_t bytes)
{
    uint32_t *words = malloc(bytes);
    OK(cuMemcpyDtoH_v2, words, address, bytes);
    for (size_t i = 0; i < bytes / 4; i++)
        CHECK(words[i] == value, "%s: word %zu is %x, not %x", what, i, words[i], value);
    free(words);
}

#endif
