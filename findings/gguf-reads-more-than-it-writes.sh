#!/usr/bin/env bash
# The Python package for GGUF files can read the K-quants (Q4_K, Q6_K, ...), but
# cannot make them: `quantize` knows Q4_0 and Q8_0, and raises NotImplementedError,
# without a word, for the kinds that most published files have.
#
# Expected: what can be dequantised can be quantised, as the two functions stand
# side by side and take the same list of kinds.
# Seen (gguf 0.19.0). So small test files of the usual kinds cannot be made with it
# from numbers; their bytes have to be put together by hand, or by llama.cpp.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps gguf==0.19.0 numpy==2.4.6 pyyaml==6.0.3 tqdm==4.67.1
venv/bin/python - <<'PYTHON'
import importlib.metadata

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

print("gguf", importlib.metadata.version("gguf"))
row = numpy.ones((1, 256), numpy.float32)
writes, only_reads = [], []
for name in ("Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"):
    kind = GGMLQuantizationType[name]
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    stored = numpy.zeros((1, 256 // per_block * block_bytes), numpy.uint8)
    assert dequantize(stored, kind).shape == row.shape
    try:
        assert quantize(row, kind).shape == stored.shape
        writes.append(name)
    except NotImplementedError as error:
        assert str(error) == ""
        only_reads.append(name)
print("reads and writes:", *writes)
print("only reads:      ", *only_reads)
assert writes == ["Q4_0", "Q8_0"] and len(only_reads) == 6
PYTHON
