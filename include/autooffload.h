/* autooffload.h: what a program that was started by autooffload-launch may ask
 * of the library inside it.
 *
 * Nothing has to be linked: the functions are there when the library was
 * preloaded. Look them up, and go on without them if they are missing:
 *
 *     int (*keep)(const autooffload_range *, size_t) = dlsym(RTLD_DEFAULT, "autooffload_keep");
 *
 * All of them may be called from any thread. None is needed for offloading.
 */
#ifndef AUTOOFFLOAD_H
#define AUTOOFFLOAD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What autooffload_api_version() answers for this header. It is raised when a
 * function changes incompatibly; functions may be added without that. */
#define AUTOOFFLOAD_API_VERSION 1

enum {
    AUTOOFFLOAD_OK = 0,
    AUTOOFFLOAD_NOT_UNDERSTOOD = 1, /* an argument is wrong */
    AUTOOFFLOAD_NOT_ACTIVE = 2,     /* CUDA is not initialised, or AUTOOFFLOAD=0 */
    AUTOOFFLOAD_NO_ROOM = 3         /* the card cannot hold it all; nothing was kept */
};

int autooffload_api_version(void);

/* The account of the process as JSON, NUL-terminated, as far as `size` bytes
 * hold it. Answers the bytes that are needed; 0: nothing to tell. */
size_t autooffload_stats_json(char *buffer, size_t size);

/* Changes a setting while the program runs: "vram", "window" or "headroom". */
int autooffload_set(const char *key, const char *value);

/* Device addresses, such as those of a tensor's storage. */
typedef struct {
    uint64_t address;
    uint64_t bytes;
} autooffload_range;

/* Keeps all that the ranges name on the card, until autooffload_release is
 * called with the same ranges. What is not there is brought. Memory moves by
 * allocations: a range keeps the whole allocations that it touches. Calls are
 * counted, so two sets may name the same memory. Addresses that are not
 * managed are ignored. Freed memory is kept no longer. */
int autooffload_keep(const autooffload_range *ranges, size_t count);
int autooffload_release(const autooffload_range *ranges, size_t count);

/* Where the memory of the ranges is, as JSON, answered like
 * autooffload_stats_json:
 *   { "allocations": 3, "bytes": 12582912, "resident_bytes": 4194304, "kept": 0 }
 * `resident_bytes` have a place of their own on the card; the rest is streamed. */
size_t autooffload_ranges_json(const autooffload_range *ranges, size_t count,
                               char *buffer, size_t size);

#ifdef __cplusplus
}
#endif
#endif
