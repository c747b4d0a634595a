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
  for file in $cores fuzz/fuzz_tokenizer.cpp; do
    echo "$file"
  done | xargs -P "$(nproc)" -I{} sh -c \
    "${CXX:-g++} $flags -fsanitize=$sanitizer -fno-sanitize-recover=all -c {} -o $build/\$(basename {}).o"
  "${CXX:-g++}" -pthread -fsanitize=$sanitizer "$build"/*.o -o "$build/fuzz_tokenizer"
  echo "fuzzing with -fsanitize=$sanitizer, seed $seed, $seconds s"
  "$build/fuzz_tokenizer" "$seed" "$seconds"
  rm "$build"/*
  seconds=$(( (seconds + 3) / 4 ))
done
