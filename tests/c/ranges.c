/* The C calls of include/autooffload.h by address range, as a tool in the
 * process would make them: what is kept stays on the card while everything
 * else takes turns, and no level changes by keeping and releasing.
 *
 * For a card that has 38 MiB for 64 MiB of memory. `ranges off`: under
 * AUTOOFFLOAD=0. */
#include "driver.h"
#include "../../include/autooffload.h"
#include <malloc.h>

enum { CHUNKS = 16, BYTES = 4 * MIB };

static int (*keep)(const autooffload_range *, size_t);
static int (*release)(const autooffload_range *, size_t);
static size_t (*tell)(const autooffload_range *, size_t, char *, size_t);
static size_t (*account)(char *, size_t);
static ptr memory[CHUNKS];

/* A few bytes inside a chunk stand for all of it. */
static autooffload_range part_of(int chunk)
{
    return (autooffload_range){memory[chunk] + MIB, 100};
}

static long number(const char *json, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(json, key);
    CHECK(found, "no %s in %s", name, json);
    return strtol(found + strlen(key), NULL, 10);
}

static long of(const autooffload_range *ranges, size_t count, const char *name)
{
    char text[256];
    size_t needed = tell(ranges, count, text, sizeof text);
    CHECK(needed > 2 && needed <= sizeof text, "%zu bytes", needed);
    return number(text, name);
}

static long level(const char *name)
{
    static char text[1 << 20];
    CHECK(account(text, sizeof text) <= sizeof text, "a long account");
    return number(text, name);
}

static void use_all(int rounds)
{
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < CHUNKS; i++)
            expect("after its turn", memory[i], i + 1, BYTES);
}

int main(int count, char **arguments)
{
    int (*version)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "autooffload_api_version");
    CHECK(version && version() == AUTOOFFLOAD_API_VERSION, "another version");
    keep = (int (*)(const autooffload_range *, size_t))dlsym(RTLD_DEFAULT, "autooffload_keep");
    release = (int (*)(const autooffload_range *, size_t))dlsym(RTLD_DEFAULT, "autooffload_release");
    tell = (size_t (*)(const autooffload_range *, size_t, char *, size_t))
        dlsym(RTLD_DEFAULT, "autooffload_ranges_json");
    account = (size_t (*)(char *, size_t))dlsym(RTLD_DEFAULT, "autooffload_stats_json");
    CHECK(keep && release && tell && account, "a function is missing");

    autooffload_range some = {4096, 4096};
    CHECK(keep(&some, 1) == AUTOOFFLOAD_NOT_ACTIVE, "before cuInit");
    start();
    if (count > 1 && !strcmp(arguments[1], "off")) {
        CHECK(keep(&some, 1) == AUTOOFFLOAD_NOT_ACTIVE, "switched off");
        CHECK(release(&some, 1) == AUTOOFFLOAD_NOT_ACTIVE, "switched off");
        CHECK(tell(&some, 1, NULL, 0) == 0, "switched off");
        puts("right");
        return 0;
    }
    CHECK(keep(NULL, 1) == AUTOOFFLOAD_NOT_UNDERSTOOD, "no ranges");
    CHECK(keep(NULL, 0) == AUTOOFFLOAD_OK, "none asked for");
    CHECK(keep(&some, 1) == AUTOOFFLOAD_OK, "what is not managed is ignored");

    handle stream = new_stream();
    for (int i = 0; i < CHUNKS; i++)
        fill(memory[i] = new_memory(BYTES), i + 1, BYTES, stream);
    OK(cuCtxSynchronize);
    use_all(3);

    /* Three stay while all others take turns. */
    autooffload_range three[] = {part_of(2), part_of(5), part_of(9)};
    CHECK(keep(three, 3) == AUTOOFFLOAD_OK, "there is room");
    for (int round = 0; round < 4; round++) {
        CHECK(of(three, 3, "resident_bytes") == 3 * BYTES, "round %d", round);
        use_all(1);
    }
    CHECK(of(three, 3, "allocations") == 3 && of(three, 3, "kept") == 3, "as asked");

    /* Two sets share one. */
    autooffload_range shared[] = {part_of(5), part_of(5)};
    CHECK(keep(shared, 2) == AUTOOFFLOAD_OK, "it is there");
    CHECK(release(three, 3) == AUTOOFFLOAD_OK, "given up");
    CHECK(of(three, 3, "kept") == 1, "one is still kept");
    CHECK(release(shared, 2) == AUTOOFFLOAD_OK && of(three, 3, "kept") == 0, "none is");
    CHECK(release(three, 3) == AUTOOFFLOAD_OK, "once too often");

    /* They make room for others that are kept. */
    autooffload_range eight[8], all[CHUNKS];
    for (int i = 0, next = 0; i < CHUNKS; i++) {
        all[i] = (autooffload_range){memory[i], BYTES};
        if (next < 8 && i != 2 && i != 5 && i != 9)
            eight[next++] = all[i];
    }
    CHECK(keep(eight, 8) == AUTOOFFLOAD_OK, "32 MiB of 38");
    use_all(2);
    CHECK(of(eight, 8, "resident_bytes") == 8 * BYTES, "kept");
    CHECK(of(three, 3, "resident_bytes") < 3 * BYTES, "no room was left for them");
    CHECK(keep(all, CHUNKS) == AUTOOFFLOAD_NO_ROOM, "64 MiB of 38");
    CHECK(of(all, CHUNKS, "kept") == 8, "nothing more is kept");
    use_all(1);
    CHECK(release(eight, 8) == AUTOOFFLOAD_OK, "given up");
    CHECK(of(all, CHUNKS, "kept") == 0, "none");

    /* Freed memory is kept no longer: its address comes again, free to move. */
    CHECK(keep(three, 1) == AUTOOFFLOAD_OK, "one");
    OK(cuMemFree_v2, memory[2]);
    memory[2] = new_memory(BYTES);
    CHECK(of(&all[2], 1, "kept") == 0, "it is another");
    fill(memory[2], 3, BYTES, stream);
    OK(cuCtxSynchronize);
    CHECK(release(three, 1) == AUTOOFFLOAD_OK, "nobody's");
    use_all(2);

    /* A thousand times. */
    long frames = 0, host = 0, heap = 0;
    for (int turn = 0; turn < 1000; turn++) {
        CHECK(keep(three, 3) == AUTOOFFLOAD_OK, "turn %d", turn);
        if (turn % 100 == 0)
            use_all(1);
        CHECK(release(three, 3) == AUTOOFFLOAD_OK, "turn %d", turn);
        if (turn == 100) {
            frames = level("frames_bytes");
            host = level("peak_bytes");
            heap = mallinfo2().uordblks;
        }
    }
    use_all(2);
    CHECK(level("frames_bytes") <= frames, "%ld frames", level("frames_bytes"));
    CHECK(level("peak_bytes") <= host, "%ld bytes of host memory", level("peak_bytes"));
    CHECK((long)mallinfo2().uordblks - heap < MIB, "%ld bytes more",
          (long)mallinfo2().uordblks - heap);
    puts("right");
    return 0;
}
