"""numpy arrays as the parts that travel: dtype, shape, order and memory. numpy only when used."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

from .errors import EncodeError

if TYPE_CHECKING:
    import numpy

    from .framing import Frame

__all__ = ["array_from_parts", "array_to_parts", "is_array", "is_number"]

_MEMORY = "biufc"  # kinds whose memory the buffer protocol can tell
_known: dict[str, Any] = {}  # dtypes by their names, once checked
_SCALAR = re.compile(r"[<>|=]?[biufcSUVmM]\d{1,9}(\[\d*[A-Za-z]{1,2}\])?")


def is_array(value: object) -> bool:
    """Whether `value` is an array whose memory says everything; a masked array's does not."""
    numpy = sys.modules.get("numpy")  # an import statement takes several times as long
    kind = type(value)
    # Neither is there before numpy is, nor while another thread imports it.
    return kind is getattr(numpy, "ndarray", None) or kind is getattr(numpy, "memmap", None)


def is_number(value: object) -> bool:
    """Whether `value` is a numpy scalar with an equal Python number, bool or text."""
    import numpy

    return isinstance(value, (numpy.number, numpy.bool_, numpy.str_, numpy.bytes_)) and not (
        isinstance(value, (numpy.longdouble, numpy.clongdouble, numpy.complexfloating))
    )


def array_to_parts(array: numpy.ndarray[Any, Any]) -> tuple[Any, list[int], str, memoryview]:
    """`array` as (dtype, shape, order, bytes); copied only if its memory has gaps.

    Raises `EncodeError` for a dtype that holds Python objects.
    """
    dtype = array.dtype
    if dtype.hasobject:
        raise EncodeError(
            f"cannot encode a numpy array of dtype {dtype}: it holds Python objects; "
            f"convert it to a fixed-size dtype"
        )
    if dtype.kind in _MEMORY and dtype.isnative and array.size and array.flags.c_contiguous:
        return dtype.str, list(array.shape), "C", array.data.cast("B")
    import numpy

    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = numpy.ascontiguousarray(array.T if order == "F" else array)
    # Through uint8: the buffer protocol knows no datetime64.
    view = flat.reshape(-1).view("u1").data if flat.nbytes else memoryview(b"")
    return numpy.lib.format.dtype_to_descr(dtype), list(array.shape), order, view


def array_from_parts(dtype: Any, shape: Any, order: Any, data: Frame) -> Any:
    """The array in `data`, without a copy. Raises `ValueError` for parts that do not fit."""
    import numpy

    described = (_known.get(dtype) if isinstance(dtype, str) else None) or _dtype(dtype)
    shape = _checked_shape(shape)
    if order not in ("C", "F"):
        raise ValueError(f"{order!r} is not an array's order")
    size = math.prod(shape) * described.itemsize
    if size != len(data):
        raise ValueError(f"an array of {size} bytes came with {len(data)} bytes of data")
    if not size:
        return numpy.empty(shape, described)
    return numpy.ndarray(shape, described, data, 0, None, order)


def _dtype(dtype: Any) -> Any:
    import numpy

    known = numpy.lib.format.descr_to_dtype(_checked_dtype(dtype))
    if isinstance(dtype, str) and len(_known) < 256:  # a peer chooses the names
        _known[dtype] = known
    return known


def _checked_dtype(dtype: Any, depth: int = 0) -> Any:
    """`dtype` if `dtype_to_descr` can have given it: numpy parses no text of a peer's making."""
    if isinstance(dtype, str) and _SCALAR.fullmatch(dtype):
        return dtype
    if not isinstance(dtype, list) or depth > 8:
        raise ValueError(f"{str(dtype)[:60]!r} is not a dtype")
    fields: list[tuple[Any, ...]] = []
    for field in dtype:
        if not isinstance(field, list) or len(field) not in (2, 3) or not _is_name(field[0]):
            raise ValueError(f"{str(field)[:60]!r} is not a field of a dtype")
        name = field[0] if isinstance(field[0], str) else tuple(field[0])
        shape = field[2:] and [_checked_shape(field[2])]
        fields.append((name, _checked_dtype(field[1], depth + 1), *shape))
    return fields


def _is_name(name: Any) -> bool:
    """A field's name, or its title and name."""
    if isinstance(name, list):
        return len(name) == 2 and all(isinstance(part, str) for part in name)
    return isinstance(name, str)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list):
        for length in shape:
            if type(length) is not int or length < 0:
                break
        else:
            return tuple(shape)
    raise ValueError(f"{str(shape)[:60]!r} is not a shape")
