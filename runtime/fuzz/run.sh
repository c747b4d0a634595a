#!/bin/sh
# Builds the core with sanitizers and fuzzes it: run.sh [SEED [SECONDS]]
set -eu
cd "$(dirname "$0")/.."
seed=${1:-$(date +%s)}
seconds=${2:-15}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
flags="-std=c++20 -O1 -g -Wall -Wextra -Werror -pthread -Isrc"
cores=$(ls src/*.cpp | grep -v -e /module.cpp -e /bind_)
for sanitizer in address,undefined thread; do
  for file in $cores fuzz/fuzz_wordpiece.cpp fuzz/fuzz_unigram.cpp; do
    echo "$file"
  done | xargs -P "$(nproc)" -I{} sh -c \
    "${CXX:-g++} $flags -fsanitize=$sanitizer -fno-sanitize-recover=all -c {} -o $build/\$(basename {}).o"
  for fuzzer in fuzz_wordpiece fuzz_unigram; do
    mv "$build/$fuzzer.cpp.o" "$build/$fuzzer.main"
  done
  for fuzzer in fuzz_wordpiece fuzz_unigram; do
    "${CXX:-g++}" -pthread -fsanitize=$sanitizer "$build"/*.o -x none "$build/$fuzzer.main" -o "$build/$fuzzer"
    echo "$fuzzer with -fsanitize=$sanitizer, seed $seed, $seconds s"
    "$build/$fuzzer" "$seed" "$seconds"
  done
  rm "$build"/*
  seconds=$(( (seconds + 3) / 4 ))
done
