// What the files that translate between Python and the core share.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

/// Raises an exception of `bgert.errors`.
[[noreturn]] void raise_error(const char* name, const std::string& message);

void bind_wordpiece(nanobind::module_& module);
void bind_unigram(nanobind::module_& module);
void bind_batch_encoder(nanobind::module_& module);
