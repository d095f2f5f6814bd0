/* A preloaded library that notes who asks for which function of the driver, by
 * which route, and counts the calls: for questions 8 and 9.
 *
 * Each answer is replaced by a few instructions that count and jump to the
 * real function, one for each pair of library and function, so that nothing
 * needs to be known of arguments. The product's own hooks are not involved.
 *
 * Not here: what is run and how the counts are read (programs.py).
 * Linux, x86-64. Names that are neither `cu` and a capital nor found in
 * libcuda are answered by the real dlsym, jumped to, so that it sees its caller.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST = 16384, NAME_BYTES = 64 };

struct entry {
    char caller[NAME_BYTES];
    char name[NAME_BYTES];
    const char *route;
    void *real;
    uint64_t asked;
};

/* One mapping, so that the code reaches its data with 32-bit offsets. */
struct steps {
    struct {
        unsigned char bytes[16];
    } code[MOST];
    struct {
        uint64_t calls;
        void *target;
    } slots[MOST];
};

static struct entry entries[MOST];
static size_t entry_count;
static struct steps *steps; /* NULL until needed, or where the machine allows no such memory */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void *real_dlsym; /* used by the assembly below */

__attribute__((constructor)) static void find_the_real_dlsym(void)
{
    if (real_dlsym)
        return;
    real_dlsym = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real_dlsym)
        real_dlsym = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
}

static void file_name_of(const void *address, char *name)
{
    Dl_info info;
    const char *file = "unknown";
    if (dladdr(address, &info) && info.dli_fname) {
        const char *slash = strrchr(info.dli_fname, '/');
        file = slash ? slash + 1 : info.dli_fname;
    }
    snprintf(name, NAME_BYTES, "%s", file);
}

static int in_the_driver(const void *address)
{
    char name[NAME_BYTES];
    file_name_of(address, name);
    return !strncmp(name, "libcuda.so", 10);
}

/* Step `i`: `lock incq counter(%rip); jmp *target(%rip)`. Changes nothing but the
 * flags, which no function expects at its entry. */
static void write_step(size_t i, void *real)
{
    unsigned char *code = (unsigned char *)&steps->code[i];
    int32_t to_counter = (int32_t)((unsigned char *)&steps->slots[i].calls - (code + 8));
    int32_t to_target = (int32_t)((unsigned char *)&steps->slots[i].target - (code + 14));
    steps->slots[i].target = real;
    memcpy(code, "\xf0\x48\xff\x05", 4);
    memcpy(code + 4, &to_counter, 4);
    memcpy(code + 8, "\xff\x25", 2);
    memcpy(code + 10, &to_target, 4);
}

/* What the caller is given in place of `real`: its own counting step. */
static void *recorded(const void *caller, const char *name, const char *route, void *real)
{
    char file[NAME_BYTES];
    file_name_of(caller, file);
    pthread_mutex_lock(&lock);
    if (!steps) {
        steps = mmap(NULL, sizeof *steps, PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (steps == MAP_FAILED)
            steps = NULL;
    }
    size_t i = 0;
    while (i < entry_count && (entries[i].real != real || strcmp(entries[i].caller, file) ||
                               strncmp(entries[i].name, name, NAME_BYTES - 1) || entries[i].route != route))
        i++;
    if (i == MOST || !steps) {
        pthread_mutex_unlock(&lock);
        return real;
    }
    if (i == entry_count) {
        snprintf(entries[i].caller, NAME_BYTES, "%s", file);
        snprintf(entries[i].name, NAME_BYTES, "%s", name);
        entries[i].route = route;
        entries[i].real = real;
        write_step(i, real);
        entry_count++;
    }
    entries[i].asked++;
    void *step = &steps->code[i];
    pthread_mutex_unlock(&lock);
    return step;
}

/* --- route 1: exported names, for libraries linked to libcuda -------------- */

static void *driver_function(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return library ? ((void *(*)(void *, const char *))real_dlsym)(library, name) : NULL;
}

/* Looked up at every call: it is counted that matters here, not its cost. */
#define EXPORTED(name, parameters, arguments)                                              \
    int name parameters                                                                    \
    {                                                                                      \
        void *real = driver_function(#name);                                               \
        if (!real)                                                                         \
            return 3; /* CUDA_ERROR_NOT_INITIALIZED */                                     \
        return ((int (*) parameters)recorded(__builtin_return_address(0), #name, "linked", real)) arguments; \
    }

EXPORTED(cuLaunchKernel,
         (void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
          void *stream, void **params, void **extra),
         (f, gx, gy, gz, bx, by, bz, shared, stream, params, extra))
EXPORTED(cuLaunchCooperativeKernel,
         (void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
          void *stream, void **params),
         (f, gx, gy, gz, bx, by, bz, shared, stream, params))
EXPORTED(cuLaunchKernelEx, (const void *config, void *f, void **params, void **extra), (config, f, params, extra))
EXPORTED(cuGraphLaunch, (void *graph, void *stream), (graph, stream))

/* --- route 3: cuGetProcAddress ---------------------------------------------- */

typedef int (*get_v1)(const char *, void **, int, uint64_t);
typedef int (*get_v2)(const char *, void **, int, uint64_t, int *);
static get_v1 real_get_v1;
static get_v2 real_get_v2;

static int get_proc_address_v1(const char *name, void **function, int version, uint64_t flags);
static int get_proc_address_v2(const char *name, void **function, int version, uint64_t flags, int *status);

static void *substitute(const void *caller, const char *name, const char *route, void *real)
{
    if (real == (void *)real_get_v1 && real)
        return (void *)get_proc_address_v1;
    if (real == (void *)real_get_v2 && real)
        return (void *)get_proc_address_v2;
    return in_the_driver(real) ? recorded(caller, name, route, real) : real;
}

static int get_proc_address_v1(const char *name, void **function, int version, uint64_t flags)
{
    int code = real_get_v1(name, function, version, flags);
    if (code == 0 && name && function && *function)
        *function = substitute(__builtin_return_address(0), name, "cuGetProcAddress", *function);
    return code;
}

static int get_proc_address_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    int code = real_get_v2(name, function, version, flags, status);
    if (code == 0 && name && function && *function)
        *function = substitute(__builtin_return_address(0), name, "cuGetProcAddress", *function);
    return code;
}

/* --- route 2: dlsym ---------------------------------------------------------- */

/* What dlsym answers `caller`, or NULL: ask the real one. */
__attribute__((used, visibility("hidden"))) void *recorder_dlsym(void *handle, const char *name, const void *caller)
{
    find_the_real_dlsym();
    if (!name || handle == RTLD_NEXT || handle == RTLD_DEFAULT || name[0] != 'c' || name[1] != 'u' ||
        name[2] < 'A' || name[2] > 'Z')
        return NULL;
    void *real = ((void *(*)(void *, const char *))real_dlsym)(handle, name);
    if (!real || !in_the_driver(real))
        return NULL;
    if (!strcmp(name, "cuGetProcAddress"))
        real_get_v1 = (get_v1)real;
    else if (!strcmp(name, "cuGetProcAddress_v2"))
        real_get_v2 = (get_v2)real;
    return substitute(caller, name, "dlsym", real);
}

__asm__(".text\n"
        ".globl dlsym\n"
        ".type dlsym, @function\n"
        "dlsym:\n"
        "    pushq %rdi\n"
        "    pushq %rsi\n"
        "    movq 16(%rsp), %rdx\n" /* the caller */
        "    subq $8, %rsp\n"
        "    call recorder_dlsym\n"
        "    addq $8, %rsp\n"
        "    popq %rsi\n"
        "    popq %rdi\n"
        "    testq %rax, %rax\n"
        "    jne 1f\n"
        "    movq real_dlsym@GOTPCREL(%rip), %rax\n"
        "    jmp *(%rax)\n"
        "1:  ret\n"
        ".size dlsym, .-dlsym\n");

/* --- what is read ------------------------------------------------------------ */

/* All entries as a JSON array; answers the bytes needed, NUL included. */
size_t recorder_json(char *out, size_t bytes)
{
    size_t used = 0;
#define PUT(...)                                                                              \
    do {                                                                                      \
        int n = snprintf(used < bytes ? out + used : NULL, used < bytes ? bytes - used : 0, __VA_ARGS__); \
        used += n > 0 ? (size_t)n : 0;                                                        \
    } while (0)
    pthread_mutex_lock(&lock);
    PUT("[");
    for (size_t i = 0; i < entry_count; i++)
        PUT("%s{\"caller\": \"%s\", \"name\": \"%s\", \"route\": \"%s\", \"asked\": %lu, \"calls\": %lu}",
            i ? ", " : "", entries[i].caller, entries[i].name, entries[i].route, (unsigned long)entries[i].asked,
            (unsigned long)__atomic_load_n(&steps->slots[i].calls, __ATOMIC_RELAXED));
    PUT("]");
    pthread_mutex_unlock(&lock);
#undef PUT
    return used + 1;
}
