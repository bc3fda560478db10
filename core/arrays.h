// numpy arrays in and out, and whole numbers of any size: the only kinds of conversion that bindings do.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "checked.h"
#include "wide_sum.h"

namespace memscope {

namespace nb = nanobind;

// What a program still holds when Python ends, such as an allocator in a global of it, is no defect to be told of on the
// program's standard error.
inline void end_quietly() { nb::set_leak_warnings(false); }

// Arguments. An array of another dtype or order is converted on the way in; one that is written to must be the caller's
// own: declare it with `nb::arg().noconvert()`.
template <typename T>
using Array = nb::ndarray<const T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using MutableArray = nb::ndarray<T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename T>
Checked<const T> view(const Array<T>& array) {
  return {array.data(), array.size()};
}

template <typename T>
Checked<T> view(const MutableArray<T>& array) {
  return {array.data(), array.size()};
}

// Results: the vector becomes the memory of the numpy array, nothing is copied. Needs the GIL.
template <typename T>
using NewArray = nb::ndarray<T, nb::numpy, nb::ndim<1>, nb::c_contig>;

template <typename T>
NewArray<T> to_numpy(std::vector<T> values) {
  auto* owned = new std::vector<T>(std::move(values));
  nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<std::vector<T>*>(pointer); });
  return NewArray<T>(owned->data(), {owned->size()}, owner);
}

inline nb::int_ to_int(const WideSum& sum) {
  return nb::int_((nb::int_(sum.high()) << nb::int_(64)) | nb::int_(sum.low()));
}

// What is done without the GIL: `auto result = without_gil([&] { return work(...); });`
template <typename Work>
auto without_gil(Work&& work) {
  nb::gil_scoped_release released;
  return std::forward<Work>(work)();
}

}  // namespace memscope
