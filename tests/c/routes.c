/* Every hooked name by each route: the exported symbol, dlsym on libcuda, and
 * cuGetProcAddress; names outside the list go to the driver.
 *
 * argv: "on" or "off", then the hooked names. "off": AUTOOFFLOAD=0, when
 * lookups must give the driver's own functions. */
#include "check.h"

static void strip_suffixes(char *name)
{
    static const char *const suffixes[] = { "_ptsz", "_ptds", "_v2", "_v3" };
    for (size_t i = 0; i < 4; i++) {
        size_t length = strlen(name), suffix = strlen(suffixes[i]);
        if (length > suffix && !strcmp(name + length - suffix, suffixes[i]))
            name[length - suffix] = 0;
    }
}

int main(int argc, char **argv)
{
    int on = !strcmp(argv[1], "on");
    void *driver = driver_library();
    get_proc_address_fn get = (get_proc_address_fn)dlsym(driver, "cuGetProcAddress_v2");
    void *(*resolve)(const char *, unsigned long) = dlsym(driver, "fake_resolve");
    CHECK(get && resolve, "lookup failed");
    CHECK(is_hook((void *)get) == on, "cuGetProcAddress_v2 is in %s", library_of((void *)get));

    for (int i = 2; i < argc; i++) {
        void *exported = dlsym(RTLD_DEFAULT, argv[i]);
        CHECK(is_hook(exported), "%s is in %s", argv[i], library_of(exported));
        void *looked_up = dlsym(driver, argv[i]);
        CHECK(on ? looked_up == exported : is_driver(looked_up), "%s is in %s", argv[i],
              library_of(looked_up));

        char base[128];
        snprintf(base, sizeof base, "%s", argv[i]);
        strip_suffixes(base);
        for (unsigned long flags = 0; flags <= 2; flags++) {
            void *function = NULL;
            int status = -1;
            CHECK(!get(base, &function, 13000, flags, &status) && !status, "%s", base);
            void *original = resolve(base, flags);
            CHECK(original, "%s", base);
            Dl_info info;
            CHECK(dladdr(original, &info) && info.dli_sname, "%s", base);
            void *hook = dlsym(RTLD_DEFAULT, info.dli_sname);
            CHECK(function == (on ? hook : original), "%s with flags %lu: %s in %s", base, flags,
                  info.dli_sname, library_of(function));
            void *again = NULL;
            CHECK(!get(base, &again, 13000, flags, NULL) && again == function, "%s", base);
        }
    }

    /* Not in the list: the driver's own, by every route. */
    static const char *const strangers[] = { "cuDriverGetVersion", "cuMemMap", "cuMemAlloc",
                                             "cuMemcpyHtoD" };
    for (size_t i = 0; i < 4; i++) {
        CHECK(is_driver(dlsym(driver, strangers[i])), "%s", strangers[i]);
        CHECK(!is_hook(dlsym(RTLD_DEFAULT, strangers[i])), "%s", strangers[i]);
    }

    /* Codes, nulls and statuses are the driver's. */
    void *function = (void *)1;
    int status = -1;
    CHECK(get("cuNoSuchThing", &function, 13000, 0, &status) == 0 && !function && status == 1,
          "status %d", status);
    CHECK(get("", &function, 13000, 0, &status) == 34, "the stub probe");
    int (*get_v1)(const char *, void **, int, unsigned long) = dlsym(driver, "cuGetProcAddress");
    function = (void *)1;
    CHECK(get_v1("cuNoSuchThing", &function, 11030, 0) == 500 && function == (void *)1, "untouched");
    CHECK(get_v1("cuMemGetInfo", &function, 11030, 0) == 0 && is_hook(function) == on, "v1");
    return 0;
}
