/* From cuInit to exit. One scenario a run, named by argv[1]; each ends with
 * status 0 if what the program itself can see is right. The test looks at the
 * account and at standard error. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void *driver;

/* Two hooked calls, through libcuda's handle. */
static void work(void)
{
    size_t free_bytes, total;
    int (*get_info)(size_t *, size_t *) = dlsym(driver, "cuMemGetInfo_v2");
    int (*stream_destroy)(void *) = dlsym(driver, "cuStreamDestroy_v2");
    CHECK(!get_info(&free_bytes, &total), "cuMemGetInfo");
    CHECK(!stream_destroy((void *)64), "cuStreamDestroy");
}

static void initialise(void)
{
    CHECK(!((init_fn)dlsym(driver, "cuInit"))(0), "cuInit");
}

static void *work_for_ever(void *unused)
{
    for (;;)
        work();
    return unused;
}

/* Runs `child` in a fork that ends by exit(). */
static void in_fork(void (*child)(void))
{
    pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (!pid) {
        child();
        exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "the child ended with %d", status);
}

static void initialise_and_work(void)
{
    initialise();
    work();
}

static void *initialise_in_thread(void *unused)
{
    initialise_and_work();
    return unused;
}

int main(int argc, char **argv)
{
    const char *scenario = argc > 1 ? argv[1] : "";
    if (!strcmp(scenario, "no-driver")) {
        init_fn init = (init_fn)dlsym(RTLD_DEFAULT, "cuInit");
        CHECK(init && init(0) == 100, "cuInit without a driver");
        int (*get_info)(size_t *, size_t *) = dlsym(RTLD_DEFAULT, "cuMemGetInfo_v2");
        CHECK(get_info(NULL, NULL) == 3, "a call without a driver");
        return 0;
    }
    if (!strcmp(scenario, "constructor")) {
        CHECK(dlopen(argv[2], RTLD_NOW), "%s", dlerror());
        driver = driver_library();
        initialise_and_work();
        return 0;
    }
    driver = driver_library();
    if (!strcmp(scenario, "plain")) {
        initialise_and_work();
        initialise();
    } else if (!strcmp(scenario, "failed-init")) {
        init_fn init = (init_fn)dlsym(driver, "cuInit");
        CHECK(init(0) == 999 && init(0) == 999, "the failure is the driver's");
        work();
        initialise_and_work();
    } else if (!strcmp(scenario, "fork-after")) {
        initialise_and_work();
        in_fork(work);
        work();
    } else if (!strcmp(scenario, "fork-before")) {
        in_fork(initialise_and_work);
    } else if (!strcmp(scenario, "live-threads")) {
        initialise();
        for (int i = 0; i < 4; i++) {
            pthread_t thread;
            CHECK(!pthread_create(&thread, NULL, work_for_ever, NULL), "pthread_create");
        }
        usleep(50000);
    } else if (!strcmp(scenario, "concurrent-init")) {
        pthread_t threads[8];
        for (int i = 0; i < 8; i++)
            pthread_create(&threads[i], NULL, initialise_in_thread, NULL);
        for (int i = 0; i < 8; i++)
            pthread_join(threads[i], NULL);
    } else if (!strcmp(scenario, "tools")) {
        int (*version)(void) = dlsym(RTLD_DEFAULT, "autooffload_api_version");
        size_t (*stats)(char *, size_t) = dlsym(RTLD_DEFAULT, "autooffload_stats_json");
        int (*set)(const char *, const char *) = dlsym(RTLD_DEFAULT, "autooffload_set");
        size_t (*settings)(char *, size_t) = dlsym(RTLD_DEFAULT, "autooffload_settings_markdown");
        CHECK(version && stats && set && settings, "an export is missing");
        CHECK(version() == 1, "version %d", version());
        CHECK(stats(NULL, 0) == 0 && set("window", "4") == 2, "answers before cuInit");
        initialise_and_work();
        char text[65536], little[8];
        size_t needed = stats(text, sizeof text);
        CHECK(needed > 2 && needed <= sizeof text && strlen(text) + 1 == needed, "%zu", needed);
        CHECK(strstr(text, "\"cuMemGetInfo_v2\""), "%s", text);
        CHECK(stats(little, sizeof little) >= sizeof little && strlen(little) == 7, "cut");
        CHECK(set("window", "4") == 0 && set("AUTOOFFLOAD_WINDOW", "8M") == 0, "set");
        CHECK(set("pin", "0") == 1 && set("vram", "lots") == 1 && set(NULL, "1") == 1, "refused");
        CHECK(settings(text, sizeof text) > 100 && strstr(text, "AUTOOFFLOAD_VRAM"), "table");
    } else {
        CHECK(0, "no scenario is called '%s'", scenario);
    }
    return 0;
}
