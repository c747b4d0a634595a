#!/bin/sh
# Builds the core and the kernels with sanitizers and fuzzes them: run.sh [SEED [SECONDS]]
set -eu
cd "$(dirname "$0")/.."
seed=${1:-$(date +%s)}
seconds=${2:-15}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
flags="-std=c++20 -O1 -g -Wall -Wextra -Werror -pthread -Isrc"
cores=$(ls src/tokenizer/*.cpp)
for sanitizer in address,undefined thread; do
  for file in $cores fuzz/fuzz_wordpiece.cpp fuzz/fuzz_unigram.cpp fuzz/fuzz_bpe.cpp; do
    echo "$file"
  done | xargs -P "$(nproc)" -I{} sh -c \
    "${CXX:-g++} $flags -fsanitize=$sanitizer -fno-sanitize-recover=all -c {} -o $build/\$(basename {}).o"
  for fuzzer in fuzz_wordpiece fuzz_unigram fuzz_bpe; do
    mv "$build/$fuzzer.cpp.o" "$build/$fuzzer.main"
  done
  for fuzzer in fuzz_wordpiece fuzz_unigram fuzz_bpe; do
    "${CXX:-g++}" -pthread -fsanitize=$sanitizer "$build"/*.o -x none "$build/$fuzzer.main" -o "$build/$fuzzer"
    echo "$fuzzer with -fsanitize=$sanitizer, seed $seed, $seconds s"
    "$build/$fuzzer" "$seed" "$seconds"
  done
  rm "$build"/*
  seconds=$(( (${2:-15} + 3) / 4 ))
done

flags="$flags -O2 -ffp-contract=fast -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-psabi"
case $(uname -m) in
  x86_64)
    flags="$flags -DBGERT_X86"
    avx2="-mavx2 -mfma"
    avx512="$avx2 -mavx512f -mavx512bw -mavx512vl -mavx512dq"
    for set in "avx2 $avx2" "avx2vnni $avx2 -mavxvnni" "avx512 $avx512" "avx512vnni $avx512 -mavx512vnni" \
      "avx512bf16 $avx512 -mavx512vnni -mavx512bf16" \
      "avx512amx $avx512 -mavx512vnni -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8"; do
      name=${set%% *}
      "${CXX:-g++}" $flags ${set#* } -c "src/cpu_ops/isa_$name.cpp" -o "$build/$name.o"
    done
    ;;
  aarch64)
    flags="$flags -DBGERT_ARM64"
    for set in "dot " "i8mm +i8mm" "bf16 +i8mm+bf16"; do
      name=neon${set%% *}
      "${CXX:-g++}" $flags "-march=armv8.2-a+dotprod${set#* }" -c "src/cpu_ops/isa_$name.cpp" -o "$build/$name.o"
    done
    ;;
esac
for name in isa_baseline choose operators linear_operators rotary_operator custom_ops; do
  "${CXX:-g++}" $flags -c "src/cpu_ops/$name.cpp" -o "$build/$name.o"
done
for fuzzer in fuzz_kernels fuzz_operators; do
  "${CXX:-g++}" $flags "fuzz/$fuzzer.cpp" "$build"/*.o -o "$build/$fuzzer"
  echo "$fuzzer with -fsanitize=address,undefined, seed $seed, $seconds s"
  "$build/$fuzzer" "$seed" "$seconds"
done
