"""What operations make of tensors like those that they were given before, without tracing them again.

A shape rule is a function of what its arguments look like: an operation that was traced once is known. Tracing takes
torch ten to twenty times as long as making the tensor that comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memscope.capture.dry_run.values import known as known_values

MISSING = object()
"""No operation has this result: it has to be traced."""

_Maker = Callable[[Sequence[Any]], Any]
_PLAIN = (int, float, bool, str, type(None))


class ResultCache:
    """Results of operations on device tensors, by what their arguments look like.

    Only operations are kept whose results can be told from that: each is one of the tensors given, a view of one, or
    new memory. What writes its arguments' shapes, and what depends on values, is traced every time.

    Parameters
    ----------
    is_device_tensor
        Whether something is a tensor on the simulated device.
    """

    def __init__(self, is_device_tensor: Callable[[object], bool]) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self._is_device_tensor = is_device_tensor
        self._fake_type = FakeTensor
        self._tensor_type = torch.Tensor
        self._makers: dict[Any, _Maker | None] = {}
        self._is_excluded: dict[Any, bool] = {}
        self._hashable = (torch.dtype, torch.device, torch.layout, torch.memory_format)
        self._default_dtype = torch.get_default_dtype
        self._is_inference = torch.is_inference_mode_enabled

    def key(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the result depends on, None where it is not only on what the arguments look like."""
        excluded = self._is_excluded.get(func)
        if excluded is None:
            excluded = self._is_excluded[func] = _depends_on_more(func)
        if excluded:
            return None
        parts: list[Any] = [func, self._default_dtype(), self._is_inference()]
        if not self._describe(args, parts):
            return None
        for name, value in kwargs.items():
            parts.append(name)
            if not self._describe((value,), parts):
                return None
        return tuple(parts)

    def _describe(self, values: Sequence[Any], parts: list[Any]) -> bool:
        """Add what values look like; false where one cannot be told."""
        fake_type = self._fake_type
        for value in values:
            kind = type(value)
            if kind in _PLAIN:
                parts.append(kind)
                parts.append(value)
            elif isinstance(value, fake_type):
                if value.fake_device.type != "cuda" or not _is_plain(value):
                    return False
                parts += (value.fake_device, value.dtype, value.shape, value.stride(), value.storage_offset())
            elif isinstance(value, tuple | list):
                parts.append(len(value))
                if not self._describe(value, parts):
                    return False
            elif isinstance(value, self._hashable):
                parts.append(value)
            else:
                return False
        return True

    def result(self, key: Any, args: tuple[Any, ...]) -> Any:
        """The result of a known operation, :data:`MISSING` where it has to be traced."""
        maker = self._makers.get(key)
        return MISSING if maker is None else maker(args)

    def learn(self, key: Any, args: tuple[Any, ...], result: Any) -> None:
        """Keep how the result of an operation is made, if that can be told; it was just traced."""
        if key not in self._makers:
            self._makers[key] = self._maker(args, result)

    def _maker(self, args: tuple[Any, ...], result: Any) -> _Maker | None:
        if result is None:
            return lambda _: None
        if not isinstance(result, tuple | list):
            return self._maker_of_one(args, result)
        made = [self._maker_of_one(args, one) for one in result]
        makers = [maker for maker in made if maker is not None]
        own = [_storage_of(one) for one, maker in zip(result, made, strict=True) if isinstance(maker, _New)]
        if len(makers) < len(made) or len(set(own)) < len(own):
            return None
        kind = type(result)
        return lambda given: kind([maker(given) for maker in makers])

    def _maker_of_one(self, args: tuple[Any, ...], result: Any) -> _Maker | None:
        if type(result) is not self._fake_type or not self._is_device_tensor(result) or not _is_plain(result):
            return None
        storage = _storage_of(result)
        for position, value in enumerate(args):
            if value is result:
                return lambda given: given[position]
            if isinstance(value, self._fake_type) and _storage_of(value) == storage:
                return _view(position, result)
            if isinstance(value, tuple | list) and storage in map(_storage_of, self._tensors(value)):
                return None
        n_bytes = _span(result.shape, result.stride()) * result.element_size()
        if result.storage_offset() or result.untyped_storage().nbytes() != n_bytes:
            return None
        return _New(result)

    def _tensors(self, values: Sequence[Any]) -> list[Any]:
        return [value for value in values if isinstance(value, self._tensor_type)]


def _storage_of(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def _depends_on_more(func: Any) -> bool:
    """Whether an operation's result depends on more than what its arguments look like, or changes how they look."""
    import torch

    tags = set(func.tags)
    if tags & {torch.Tag.inplace_view, torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}:
        return True
    name = func._schema.name
    return not name.startswith("aten::") or name in ("aten::resize_", "aten::set_", "aten::resize_as_")


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor is described by its type, shape, strides and offset."""
    import torch

    return tensor.layout is torch.strided and not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)


def _span(shape: Sequence[int], stride: Sequence[int]) -> int:
    """How many elements lie between the first and the last, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


class _New:
    """Makes new memory that looks as one result did."""

    def __init__(self, like: Any) -> None:
        import torch

        self._empty, self._without_dispatch, self._wrapped = (
            torch.empty_strided,
            torch._C._DisableTorchDispatch,
            _wrapper(like),
        )
        self._shape, self._stride, self._dtype = tuple(like.shape), like.stride(), like.dtype

    def __call__(self, _: Sequence[Any]) -> Any:
        with self._without_dispatch():
            return self._wrapped(self._empty(self._shape, self._stride, dtype=self._dtype, device="meta"))


def _view(position: int, like: Any) -> _Maker:
    import torch

    empty, without_dispatch, wrapped = torch.empty, torch._C._DisableTorchDispatch, _wrapper(like)
    shape, stride, offset, dtype = tuple(like.shape), like.stride(), like.storage_offset(), like.dtype

    def make(given: Sequence[Any]) -> Any:
        storage = given[position].untyped_storage()
        with without_dispatch():
            return wrapped(empty(0, dtype=dtype, device="meta").set_(storage, offset, shape, stride))

    def make_of_its_kind(given: Sequence[Any]) -> Any:
        """In inference mode, too, views of other tensors than that mode's are no tensors of that mode."""
        with torch.inference_mode(given[position].is_inference()):
            return make(given)

    return make_of_its_kind if torch.is_inference_mode_enabled() else make


def _wrapper(like: Any) -> Callable[[Any], Any]:
    """Makes fake tensors that say of themselves what one says that was just made; to be called without dispatch."""
    import torch

    kind, device = type(like), like.fake_device
    state = {name: value for name, value in vars(like).items() if name != known_values.ATTRIBUTE}
    subclass, refuse = torch.Tensor._make_subclass, torch._C._set_throw_on_mutable_data_ptr

    def wrapped(plain: Any) -> Any:
        made = subclass(kind, plain, False, dispatch_device=True, device_for_backend_keys=device)
        refuse(made)
        vars(made).update(state)
        return made

    return wrapped
