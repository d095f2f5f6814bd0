// Question 11: where a tensor map keeps the address it was made for: found by
// making maps that differ in nothing else.
//
// Not here: whether kernels read through them what they should (coherence.cpp).
#include "driver.h"

namespace {

CUtensorMap map_of(uint64_t address)
{
    alignas(64) CUtensorMap map = {};
    cuuint64_t sizes[2] = {64, 64}, strides[1] = {256};
    cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
    CU(cuTensorMapEncodeTiled, &map, CU_TENSOR_MAP_DATA_TYPE_UINT32, 2, reinterpret_cast<void *>(address), sizes,
       strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
       CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

// The bit of the map that follows each bit of the address; -1 if none or several do.
void bits()
{
    constexpr uint64_t BASE = 0x7f0000000000;
    answer("compute capability", std::to_string(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)) + "." +
                                     std::to_string(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)));
    CUtensorMap base = map_of(BASE);
    int first = -1, last = -1, lowest = -1, highest = -1;
    bool straight = true;
    std::string refused_from;
    for (int bit = 4; bit < 57; bit++) {
        CUtensorMap other;
        try {
            other = map_of(BASE ^ uint64_t(1) << bit);
        } catch (const Refused &refused) {
            if (refused.code == CUDA_ERROR_INVALID_VALUE && bit > 4) {
                refused_from = "; addresses from bit " + std::to_string(bit) + " on are refused";
                break;
            }
            throw;
        }
        int changed = 0, where = -1;
        for (int word = 0; word < 16; word++)
            for (uint64_t difference = base.opaque[word] ^ other.opaque[word]; difference; difference &= difference - 1) {
                changed++;
                where = word * 64 + __builtin_ctzll(difference);
            }
        if (changed != 1 || (first >= 0 && where != last + 1))
            straight = false;
        if (first < 0)
            first = where, lowest = bit;
        last = where, highest = bit;
    }
    char text[200];
    snprintf(text, sizeof text, "%s: address bits %d to %d at bits %d to %d of the descriptor",
             straight && first == lowest ? "unshifted, in the first 8 bytes"
             : straight                  ? "in one run, but shifted"
                                         : "NOT in one run",
             lowest, highest, first, last);
    answer("where the address sits", text + refused_from);
    uint64_t neighbours = base.opaque[0] >> 57;
    answer("the 7 bits above it", neighbours ? "used for something else: mask before looking up" : "zero in this map",
           double(neighbours), "");
}

} // namespace

int main(int argc, char **argv)
{
    return answer_parts("11 Tensor maps", argc, argv, {{"where the address sits", Needs::Driver, bits}});
}
