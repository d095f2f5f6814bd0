/* What the test programs share: a check that names itself, and the library
 * that an address lies in. */
#ifndef CHECK_H
#define CHECK_H
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition, ...)                                         \
    do {                                                              \
        if (!(condition)) {                                           \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                             \
            fputc('\n', stderr);                                      \
            exit(1);                                                  \
        }                                                             \
    } while (0)

/* The file name of the library that `address` lies in. */
static inline const char *library_of(void *address)
{
    Dl_info info;
    if (!address || !dladdr(address, &info) || !info.dli_fname)
        return "nowhere";
    const char *slash = strrchr(info.dli_fname, '/');
    return slash ? slash + 1 : info.dli_fname;
}

static inline int is_hook(void *address)
{
    return !strcmp(library_of(address), "libautooffload.so");
}

static inline int is_driver(void *address)
{
    return !strcmp(library_of(address), "libcuda.so.1");
}

static inline void *driver_library(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(handle, "%s", dlerror());
    return handle;
}

typedef int (*init_fn)(unsigned);
typedef int (*get_proc_address_fn)(const char *, void **, int, unsigned long, int *);
typedef unsigned long (*calls_fn)(const char *);

#endif
