/* dlsym keeps its manners: dlerror, RTLD_NEXT from a middle library, other
 * libraries' names, many threads at once. */
#include "check.h"
#include <math.h>
#include <pthread.h>

/* From libmiddle.so, which the program is linked to before libbottom.so. */
extern int tick(void);
extern void *next_malloc(void);

static void *many(void *driver)
{
    static const char *const names[] = { "cuLaunchKernel", "cuMemAlloc_v2", "cuMemcpyHtoDAsync_v2",
                                         "cuDriverGetVersion" };
    for (int i = 0; i < 40000; i++) {
        void *found = dlsym(driver, names[i & 3]);
        if (!found || is_driver(found) != ((i & 3) == 3))
            return (void *)1;
    }
    return NULL;
}

int main(void)
{
    void *driver = driver_library();

    dlerror();
    CHECK(!dlsym(driver, "cuNoSuchThing"), "found");
    CHECK(dlerror(), "a failed lookup leaves no error");
    CHECK(!dlerror(), "the error is told twice");
    CHECK(is_hook(dlsym(driver, "cuLaunchKernelEx")), "not hooked");
    CHECK(!dlerror(), "a successful lookup leaves an error");
    void *math = dlopen("libm.so.6", RTLD_NOW);
    CHECK(math && !dlsym(math, "cuLaunchKernelEx"), "found in libm");
    CHECK(dlerror(), "a failed lookup of a hooked name leaves no error");
    CHECK(dlsym(math, "cos"), "cos");
    CHECK(!dlerror(), "a successful lookup leaves an error");

    /* The next `tick` after libmiddle.so is libbottom.so's, each time. */
    CHECK(tick() == 2 && tick() == 2, "RTLD_NEXT found %d", tick());
    CHECK(next_malloc() && next_malloc() == next_malloc(), "RTLD_NEXT malloc");

    /* The whole program's scope begins with our exports. */
    void *self = dlopen(NULL, RTLD_NOW);
    CHECK(is_hook(dlsym(self, "cuInit")), "%s", library_of(dlsym(self, "cuInit")));

    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        CHECK(!pthread_create(&threads[i], NULL, many, driver), "pthread_create");
    for (int i = 0; i < 8; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        CHECK(!failed, "thread %d", i);
    }
    return 0;
}
