#!/usr/bin/env bash
# Builds one program with the CUDA backend on a machine that cannot download burn's LLVM bundle. For measurements only: kernels go
# through CUDA C++ and NVRTC, so that no LLVM symbol is ever called. They stay unresolved at link time, and a library of stubs
# satisfies them at start.
#
#   examples/device_check/cuda_build.sh target/gpu --example device_check
#
# Then, on the machine with the GPU (CUDA 12 or newer with NVRTC):
#
#   LD_PRELOAD=target/gpu/libstub.so target/gpu/device_check --device cuda --sizes 135M,1B,7B --dtypes f32,bf16
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$1
shift
mkdir -p "$out"
# documentation builds leave the download out
export DOCS_RS=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target-cuda} CARGO_PROFILE_RELEASE_STRIP=none
export RUSTFLAGS="-C link-arg=-Wl,--unresolved-symbols=ignore-all"
built=$(cargo build --release --no-default-features --features "${FEATURES:-cuda-nvrtc,flex}" --message-format=json "$@" |
    python3 -c 'import json, sys
for line in sys.stdin:
    executable = json.loads(line).get("executable")
    if executable: print(executable)' | tail -n 1)
program=$out/$(basename "$built")
strip -o "$program" "$built"
nm -D --undefined-only "$built" |
    awk '$1 == "U" && $2 !~ /@/ && ($2 ~ /^LLVM/ || $2 ~ /^cubecl_/) { print "void " $2 "(void) { __builtin_trap(); }" }' >"$out/stub.c"
cc -shared -fPIC -w -o "$out/libstub.so" "$out/stub.c"
echo "$program: $(du -h "$program" | cut -f1), $(wc -l <"$out/stub.c") stubs in $out/libstub.so"
