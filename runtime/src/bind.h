// What the files that translate between Python and the core share.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <string_view>

/// Raises an exception of `bgert.errors`.
[[noreturn]] void raise_error(const char* name, const std::string& message);

/// A Python string as UTF-8, valid while the string lives. InvalidTextError names `place` if it is none or has a lone
/// surrogate.
std::string_view text_view(nanobind::handle item, const std::string& place);

void bind_text_model(nanobind::module_& module);
void bind_wordpiece(nanobind::module_& module);
void bind_unigram(nanobind::module_& module);
void bind_bpe(nanobind::module_& module);
void bind_batch_encoder(nanobind::module_& module);
void bind_serve(nanobind::module_& module);
