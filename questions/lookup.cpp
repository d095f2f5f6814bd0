// Question 8, first half: is every answer of cuGetProcAddress an exported
// symbol of the driver, and the one its name says? All exported names, at every
// version and flag, are asked for.
//
// Not here: what the libraries ask for (recorder.c and programs.py).
#include "driver.h"
#include <link.h>
#include <map>

namespace {

struct Export {
    std::string name;
    uintptr_t address;
};

// The functions whose names begin with cu, from the loaded library's own symbol table.
std::vector<Export> exports_of(void *library)
{
    link_map *map = nullptr;
    std::vector<Export> found;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
        return found;
    const ElfW(Sym) *symbols = nullptr;
    const char *names = nullptr;
    const uint32_t *gnu_hash = nullptr, *sysv_hash = nullptr;
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB)
            symbols = reinterpret_cast<const ElfW(Sym) *>(entry->d_un.d_ptr);
        else if (entry->d_tag == DT_STRTAB)
            names = reinterpret_cast<const char *>(entry->d_un.d_ptr);
        else if (entry->d_tag == DT_GNU_HASH)
            gnu_hash = reinterpret_cast<const uint32_t *>(entry->d_un.d_ptr);
        else if (entry->d_tag == DT_HASH)
            sysv_hash = reinterpret_cast<const uint32_t *>(entry->d_un.d_ptr);
    }
    size_t count = sysv_hash ? sysv_hash[1] : 0;
    if (!count && gnu_hash) {
        // The number of symbols follows from the end of the longest chain.
        uint32_t buckets = gnu_hash[0], first = gnu_hash[1], words = gnu_hash[2];
        const uint32_t *bucket = gnu_hash + 4 + words * (sizeof(ElfW(Addr)) / 4);
        const uint32_t *chain = bucket + buckets;
        uint32_t last = 0;
        for (uint32_t i = 0; i < buckets; i++)
            last = std::max(last, bucket[i]);
        if (last >= first)
            while (!(chain[last - first] & 1))
                last++;
        count = last + 1;
    }
    if (!symbols || !names)
        return found;
    for (size_t i = 0; i < count; i++) {
        const char *name = names + symbols[i].st_name;
        if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_shndx != SHN_UNDEF && !strncmp(name, "cu", 2))
            found.push_back({name, map->l_addr + symbols[i].st_value});
    }
    return found;
}

// cuMemcpyAsync_v2_ptsz -> cuMemcpyAsync
std::string without_suffixes(std::string name)
{
    for (bool again = true; again;) {
        again = false;
        for (const char *suffix : {"_ptsz", "_ptds", "_v2", "_v3", "_v4", "_v5"})
            if (name.size() > strlen(suffix) && name.compare(name.size() - strlen(suffix), std::string::npos, suffix) == 0) {
                name.resize(name.size() - strlen(suffix));
                again = true;
            }
    }
    return name;
}

void conformance()
{
    std::vector<Export> exports = exports_of(cu.library);
    std::multimap<uintptr_t, std::string> by_address;
    std::map<std::string, int> bases;
    for (const Export &e : exports) {
        by_address.insert({e.address, e.name});
        bases[without_suffixes(e.name)]++;
    }
    size_t shared = 0;
    std::string shared_names;
    for (auto it = by_address.begin(); it != by_address.end();) {
        auto next = by_address.upper_bound(it->first);
        if (std::distance(it, next) > 1) {
            shared++;
            if (shared_names.size() < 200)
                for (auto one = it; one != next; ++one)
                    shared_names += one->second + " ";
        }
        it = next;
    }
    int version = 0;
    CU(cuDriverGetVersion, &version);
    answer("driver's CUDA version", "", version, "");
    answer("exported functions cu*", std::to_string(bases.size()) + " names without suffixes", double(exports.size()), "symbols");
    answer("addresses with several names", shared ? shared_names : "none", double(shared), "addresses");

    size_t asked = 0, answered = 0, foreign = 0, misnamed = 0, failed = 0;
    std::string first_foreign, first_misnamed;
    std::vector<int> versions;
    for (int major = 2; major * 1000 <= version; major++)
        for (int minor = 0; minor < 10 && major * 1000 + minor * 10 <= version; minor++)
            versions.push_back(major * 1000 + minor * 10);
    for (const auto &[base, count] : bases)
        for (int v : versions)
            for (cuuint64_t flags : {0, 1, 2}) {
                void *function = nullptr;
                CUdriverProcAddressQueryResult status = {};
                asked++;
                if (cu.cuGetProcAddress(base.c_str(), &function, v, flags, &status) != CUDA_SUCCESS) {
                    failed++;
                    continue;
                }
                if (!function)
                    continue;
                answered++;
                auto range = by_address.equal_range(reinterpret_cast<uintptr_t>(function));
                if (range.first == range.second) {
                    foreign++;
                    if (first_foreign.empty())
                        first_foreign = base + " at version " + std::to_string(v) + ", flags " + std::to_string(flags);
                    continue;
                }
                bool named = false;
                for (auto it = range.first; it != range.second; ++it)
                    named |= without_suffixes(it->second) == base;
                if (!named) {
                    misnamed++;
                    if (first_misnamed.empty())
                        first_misnamed = base + " answered by " + range.first->second;
                }
            }
    answer("is every answer of cuGetProcAddress an exported symbol",
           answered == 0 ? "no answer at all" : foreign ? "NO: first " + first_foreign : "yes", double(foreign), "other addresses");
    answer("is it the symbol of that name", misnamed ? "NO: first " + first_misnamed : "yes", double(misnamed), "other names");
    answer("look-ups made", std::to_string(answered) + " answered, " + std::to_string(failed) + " calls failed", double(asked), "calls");
}

// How failures are told: unknown name, a version too old, a name with its suffix.
void failures()
{
    struct Case {
        const char *item, *name;
        int version;
    };
    for (const Case &c : {Case{"unknown name", "cuNoSuchFunction", 12000}, Case{"version too old", "cuMemCreate", 5000},
                          Case{"name with its suffix", "cuMemAlloc_v2", 12000}, Case{"empty name", "", 12000}}) {
        void *function = reinterpret_cast<void *>(1);
        CUdriverProcAddressQueryResult status = {};
        CUresult code = cu.cuGetProcAddress(c.name, &function, c.version, 0, &status);
        answer(std::string("look-up, ") + c.item,
               name_of(code) + ", pointer " + (!function ? "NULL" : function == reinterpret_cast<void *>(1) ? "untouched" : "set") +
                   ", status " + std::to_string(int(status)));
    }
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("8 Lookup", argc, argv,
                        {{"conformance", Needs::Driver, conformance}, {"failures", Needs::Driver, failures}});
}
